package main

import (
	"os"
	"os/exec"
	"testing"
)

// need returns the path of somebody else's program.
func need(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		lacking(t, name+" is not installed")
	}
	return path
}

// lacking leaves out a test that cannot be done here, or fails it with CI=true.
func lacking(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("not tested, but CI=true asks for all tests: %s", what)
	}
	t.Skipf("not tested: %s", what)
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
