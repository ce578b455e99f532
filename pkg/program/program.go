// Package program has what the commands of both programs share: signals, exit
// codes, the version, the log.
package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
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

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error {
	return &UsageError{fmt.Errorf(format, args...)}
}

// Main runs a program's command under a context that the first Ctrl-C or
// SIGTERM cancels, and returns its exit code; a second signal ends the program
// at once. An error is written to stderr, each of its lines marked.
func Main(stderr io.Writer, command func(ctx context.Context) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)() // the second signal has its usual effect
	log.SetOutput(io.Discard)            // net/http talks there of what its peers sent
	err := command(ctx)
	if err == nil {
		return ExitOK
	}
	fmt.Fprintf(stderr, "error: %v\n", err)
	var usage *UsageError
	if errors.As(err, &usage) {
		return ExitUsage
	}
	return ExitFailed
}

// Version describes the build: module version or commit, Go version, system.
func Version(name string) string {
	version, modified := "unknown", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; v != "" && v != "(devel)" {
			version = v
		}
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision" && version == "unknown":
				version = s.Value[:min(12, len(s.Value))]
			case s.Key == "vcs.modified" && s.Value == "true":
				modified = " (modified)"
			}
		}
	}
	return fmt.Sprintf("%s %s%s %s %s/%s", name, version, modified, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
