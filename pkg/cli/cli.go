// Package cli has what the commands of both programs share: signals, exit
// codes, help, the version, the log, and how errors are told to people.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes of both programs.
const (
	ExitOK     = 0
	ExitFailed = 1 // it failed while running, or a check failed
	ExitUsage  = 2 // usage or configuration error
)

// A UsageError is a mistake of the caller or of the configuration: exit code
// 2.
type UsageError struct{ Err error }

// Error implements error.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the mistake.
func (e *UsageError) Unwrap() error { return e.Err }

// Usagef makes a UsageError. A line that begins with "fix: " says what to do.
func Usagef(format string, args ...any) error {
	return &UsageError{fmt.Errorf(format, args...)}
}

// ErrReported ends a command whose result on stdout has told what is wrong: nothing
// more is said. The exit code is that of any other error.
var ErrReported = errors.New("the result tells what is wrong")

// Main runs a program's command line under a context that the first Ctrl-C or
// SIGTERM cancels, and returns its exit code; a second signal ends the program
// at once, with ExitFailed. What went wrong is told on stderr. On terminals
// there are colours.
func Main(root *cobra.Command, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := untilSignal(context.Background())
	defer stop()
	log.SetOutput(io.Discard) // net/http talks there of what its peers sent
	return Execute(ctx, root, args, stdin, onTerminal(stdout, os.LookupEnv), onTerminal(stderr, os.LookupEnv))
}

// untilSignal is signal.NotifyContext, but for the second signal: however
// quickly that follows, it is not lost.
func untilSignal(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	signals, stopped := make(chan os.Signal, 2), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for {
			select {
			case <-signals:
				if ctx.Err() != nil {
					os.Exit(ExitFailed)
				}
				cancel()
			case <-stopped:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(stopped)
		cancel()
	}
}

// Execute runs a command line that ctx ends, as [Main] does.
func Execute(ctx context.Context, root *cobra.Command, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if args == nil {
		args = []string{} // nil would make cobra take the process's own
	}
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	if !errors.Is(err, ErrReported) {
		report(stderr, err, logsJSON(cmd))
	}
	var usage *UsageError
	if errors.As(err, &usage) {
		return ExitUsage
	}
	return ExitFailed
}
