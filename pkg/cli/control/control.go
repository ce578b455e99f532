// Package control lets one command of this user talk to a program that this
// user runs: over a Unix-domain socket in a directory that only the user may
// enter. A question and its answer are each one line; who may open the socket
// may ask.
package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// maxLine bounds a question and an answer.
	maxLine = 64 << 10
	// patience bounds one conversation.
	patience = 10 * time.Second
	// maxAskers bounds conversations at one time.
	maxAskers = 8
	suffix    = ".sock"
)

// Errors of Ask.
var (
	ErrNotRunning = errors.New("no running program answers")
	ErrSilent     = errors.New("the program does not answer")
)

// Dir returns the directory of the sockets of a program called name:
// $XDG_RUNTIME_DIR/name, or the user's cache directory where there is none.
func Dir(name string, lookup func(string) (string, bool)) (string, error) {
	if dir, ok := lookup("XDG_RUNTIME_DIR"); ok && filepath.IsAbs(dir) {
		return filepath.Join(dir, name), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("where sockets go: %w", err)
	}
	return filepath.Join(dir, name), nil
}

// An Handler answers a question. It is called concurrently; ctx ends with
// the conversation.
type Handler func(ctx context.Context, question string) (answer string)

// A Server answers on a socket.
type Server struct {
	listener net.Listener
	answer   Handler
	cancel   context.CancelFunc
	all      sync.WaitGroup
}

// Serve answers questions on a socket called name in dir, which it makes. The
// caller must close the Server.
func Serve(dir, name string, answer Handler) (*Server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	path := filepath.Join(dir, name+suffix)
	_ = os.Remove(path) // of a program that died
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{listener: ln, answer: answer, cancel: cancel}
	s.all.Go(func() { s.serve(ctx) })
	return s, nil
}

// Close ends the answering and removes the socket.
func (s *Server) Close() error {
	s.cancel()
	err := s.listener.Close()
	s.all.Wait()
	return err
}

func (s *Server) serve(ctx context.Context) {
	places := make(chan struct{}, maxAskers)
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			_ = conn.Close()
			return
		}
		s.all.Go(func() {
			defer func() { <-places }()
			s.talk(ctx, conn)
		})
	}
}

func (s *Server) talk(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	question, err := readLine(conn)
	if err != nil {
		return
	}
	_, _ = io.WriteString(conn, oneLine(s.answer(ctx, question))+"\n")
}

// oneLine keeps an answer's line breaks from ending it.
func oneLine(s string) string {
	s = strings.ReplaceAll(s, "\\", `\\`)
	return strings.ReplaceAll(s, "\n", `\n`)
}

func manyLines(s string) string {
	return strings.NewReplacer(`\\`, "\\", `\n`, "\n").Replace(s)
}

func readLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxLine)).ReadString('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(line, "\n"), nil
}

// Names returns the names of the sockets in dir. Their programs may have died.
func Names(dir string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		return nil, fmt.Errorf("look for sockets: %w", err)
	}
	for i, path := range paths {
		paths[i] = strings.TrimSuffix(filepath.Base(path), suffix)
	}
	return paths, nil
}

// Request asks the program whose socket is called name in dir. It returns ErrNobody
// when the program has died, whose socket is then removed, and ErrSilent when
// there is no answer before ctx is done.
func Request(ctx context.Context, dir, name, question string) (answer string, err error) {
	path := filepath.Join(dir, name+suffix)
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		if ctx.Err() != nil {
			return "", ErrSilent
		}
		_ = os.Remove(path)
		return "", ErrNotRunning
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err = io.WriteString(conn, oneLine(question)+"\n"); err == nil {
		answer, err = readLine(conn)
	}
	switch {
	case err == nil:
		return manyLines(answer), nil
	case ctx.Err() != nil:
		return "", ErrSilent
	}
	return "", ErrNotRunning // it ended
}
