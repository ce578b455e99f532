package main

import (
	"os"
	"os/exec"
	"testing"
)

// need returns the path of somebody else's program. Where it is not installed
// the test is left out, or fails with CI=true.
func need(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") == "true":
		t.Fatalf("not tested, but CI=true asks for all tests: %s is not installed", name)
	}
	t.Skipf("not tested: %s is not installed", name)
	return ""
}

// output runs a program that must do well, and returns all that it said.
func output(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}
