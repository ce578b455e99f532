package control

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The words between a reload command and a running program.
const (
	reloadQuestion = "reload"
	reloadDone     = "reloaded "
	reloadKept     = "kept "
)

// ErrKept is wrapped by the errors of AskReload when a program went on as it
// was; the error's text is the program's own.
var ErrKept = errors.New("not reloaded")

type keptError struct{ text string }

func (e *keptError) Error() string { return e.text }
func (e *keptError) Unwrap() error { return ErrKept }

// Reloading has again called when the user asks a running program to read its
// configuration again: by AskReload, or by SIGHUP where there is one. again
// tells what came of it, in words, or why all stays as it was. stop ends that.
func Reloading(program string, log *slog.Logger, again func() (string, error)) (stop func()) {
	answer := func(context.Context, string) string {
		done, err := again()
		if err != nil {
			log.Error("not reloaded, all stays as it was: " + err.Error())
			return reloadKept + err.Error()
		}
		return reloadDone + done
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

// AskReload asks all running programs of a name to read their configurations
// again, and returns what each says. The error is ErrNobody or wraps ErrKept.
func AskReload(ctx context.Context, program string) (done []string, err error) {
	dir, err := Dir(program, os.LookupEnv)
	if err != nil {
		return nil, err
	}
	answers, err := Ask(ctx, dir, reloadQuestion)
	if err != nil {
		return nil, err
	}
	var kept []string
	for _, name := range slices.Sorted(maps.Keys(answers)) {
		if text, ok := strings.CutPrefix(answers[name], reloadDone); ok {
			done = append(done, text)
			continue
		}
		kept = append(kept, strings.TrimPrefix(answers[name], reloadKept))
	}
	if len(kept) > 0 {
		return done, &keptError{strings.Join(kept, "\n")}
	}
	return done, nil
}
