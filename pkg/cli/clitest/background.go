package clitest

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"
)

// patience bounds every wait.
const patience = 20 * time.Second

// A Background is a program that runs beside the test.
type Background struct {
	cmd            *exec.Cmd
	stdout, stderr output
	done           chan struct{} // closed when the process has ended
}

// Start starts a program. The caller ends it, at the latest by Kill.
func Start(cmd *exec.Cmd) (*Background, error) {
	b := &Background{cmd: cmd, done: make(chan struct{})}
	b.stdout.changed, b.stderr.changed = make(chan struct{}), make(chan struct{})
	cmd.Stdout, cmd.Stderr = &b.stdout, &b.stderr
	cmd.WaitDelay = patience
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(b.done)
		_ = cmd.Wait() // the state tells
	}()
	return b, nil
}

var readyLine = regexp.MustCompile(`(?m)^ready: .* on (\S+)$|"msg":"ready","listen":"([^"]+)"`)

// Ready waits for the line, or the JSON record, that says where the program
// listens, and returns the address.
func (b *Background) Ready() (listen string, err error) {
	m, err := b.WaitStderr(readyLine)
	if err != nil {
		return "", err
	}
	return m[1] + m[2], nil
}

// WaitStderr waits until the program has said what re matches, and returns the
// submatches.
func (b *Background) WaitStderr(re *regexp.Regexp) ([]string, error) {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		text, changed := b.stderr.get()
		if m := re.FindStringSubmatch(text); m != nil {
			return m, nil
		}
		select {
		case <-changed:
		case <-b.done:
			if text, _ := b.stderr.get(); re.MatchString(text) {
				continue
			}
			return nil, errors.New("it ended")
		case <-timeout.C:
			return nil, errors.New("it does not say " + re.String())
		}
	}
}

// Signal sends a signal.
func (b *Background) Signal(s os.Signal) error { return b.cmd.Process.Signal(s) }

// Wait waits for the program's end and returns its exit code, -1 when a signal
// ended it.
func (b *Background) Wait() (code int, err error) {
	select {
	case <-b.done:
		return b.cmd.ProcessState.ExitCode(), nil
	case <-time.After(patience):
		return 0, errors.New("it does not end")
	}
}

// Kill ends the program at once, if it still runs.
func (b *Background) Kill() {
	select {
	case <-b.done:
	default:
		_ = b.cmd.Process.Kill()
		<-b.done
	}
}

// Stdout returns what the program has written there.
func (b *Background) Stdout() string { text, _ := b.stdout.get(); return text }

// Stderr returns what the program has written there.
func (b *Background) Stderr() string { text, _ := b.stderr.get(); return text }

// output keeps what is written to it.
type output struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{} // closed at the next write
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	close(o.changed)
	o.changed = make(chan struct{})
	return len(p), nil
}

func (o *output) get() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.changed
}
