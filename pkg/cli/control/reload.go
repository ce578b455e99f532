package control

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"
)

// What a command asks a running program, and the beginnings of the answers to
// the second question.
const (
	instanceQuestion = "instance"
	reloadQuestion   = "reload"
	reloadDone       = "reloaded "
	reloadKept       = "kept "
)

// instanceTime is how long a program may take to answer which it is: nothing
// but a halt keeps it from that.
const instanceTime = 2 * time.Second

// ErrRejected is wrapped by the errors of reloads when a program went on as it was;
// the error's text is the program's own.
var ErrRejected = errors.New("not reloaded")

type rejectedError struct{ text string }

func (e *rejectedError) Error() string { return e.text }
func (e *rejectedError) Unwrap() error { return ErrRejected }

// An Instance is a running program.
type Instance struct {
	PID    int    `json:"pid"`
	Listen string `json:"listen"` // with the real port; "" is not known
	Config string `json:"config"` // its configuration's file, absolute; "" where there is none
}

// ServeReload has again called when the user asks a running program to read its
// configuration again: by AskReload, or by SIGHUP where there is one. again
// returns why all stays as it was; self says which program this is, but for
// the number of its process. stop ends that.
func ServeReload(program string, log *slog.Logger, self func() Instance, again func() error) (stop func()) {
	answer := func(_ context.Context, question string) string {
		switch question {
		case instanceQuestion:
			i := self()
			i.PID = os.Getpid()
			text, _ := json.Marshal(i) // cannot fail
			return string(text)
		case reloadQuestion:
			if err := again(); err != nil {
				log.Error("reload failed, keeping the current configuration: " + err.Error())
				return reloadKept + err.Error()
			}
			return reloadDone + self().Listen
		}
		return reloadKept + "the running " + program + " does not know the question; is it another version?"
	}
	quiet := onHangup(func() { answer(context.Background(), reloadQuestion) })
	dir, err := Dir(program, os.LookupEnv)
	if err == nil {
		var s *Server
		if s, err = Serve(dir, strconv.Itoa(os.Getpid()), answer); err == nil {
			return func() { quiet(); _ = s.Close() }
		}
	}
	log.Debug(program+" reload will not work", "err", err)
	return quiet
}

// Instances returns the running programs of a name that have their sockets in
// dir. Those that do not answer have no more than a PID.
func Instances(ctx context.Context, dir string) ([]Instance, error) {
	names, err := Names(dir)
	if err != nil {
		return nil, err
	}
	var all []Instance
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		i := Instance{PID: pid}
		if !Stopped(pid) {
			soon, cancel := context.WithTimeout(ctx, instanceTime)
			text, err := Request(soon, dir, name, instanceQuestion)
			cancel()
			if errors.Is(err, ErrNotRunning) {
				continue
			}
			if err == nil {
				_ = json.Unmarshal([]byte(text), &i)
				i.PID = pid
			}
		}
		all = append(all, i)
	}
	return all, ctx.Err()
}

// RequestReload has one running program whose socket is in dir read its
// configuration again, and returns where it listens then. The error wraps
// ErrKept, ErrNobody or ErrSilent.
func RequestReload(ctx context.Context, dir string, pid int) (listen string, err error) {
	if Stopped(pid) {
		return "", ErrSilent
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := Request(ctx, dir, strconv.Itoa(pid), reloadQuestion)
	if err != nil {
		return "", err
	}
	if listen, ok := strings.CutPrefix(answer, reloadDone); ok {
		return listen, nil
	}
	return "", &rejectedError{strings.TrimPrefix(answer, reloadKept)}
}
