package main

import (
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// Writing a configuration leaves no goroutine behind.
func TestNothingLeaks(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	if code := run([]string{"init", "--out", t.TempDir()}, strings.NewReader(""), io.Discard, io.Discard); code != 0 {
		t.Fatalf("exit code %d", code)
	}
}
