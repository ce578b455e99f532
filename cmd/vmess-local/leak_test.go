package main

import (
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// A whole demo leaves no goroutine behind.
func TestNothingLeaks(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	if code := run([]string{"demo", "--once", "--listen", "127.0.0.1:0"}, strings.NewReader(""), io.Discard, io.Discard); code != 0 {
		t.Fatalf("exit code %d", code)
	}
}
