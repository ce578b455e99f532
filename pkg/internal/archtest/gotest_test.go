//go:build unix

package archtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRaceRuntimeCrash holds that .ci/gotest runs a package again, once, when
// the race detector's runtime crashed in it, and for no other reason.
func TestRaceRuntimeCrash(t *testing.T) {
	const (
		crash   = "ThreadSanitizer: CHECK failed: tsan_rtl.cpp:327 \"((0)) == ((1))\"\nexit status 66\n"
		good    = "ok  \tm/good\t0.1s\n"
		crashed = crash + "FAIL\tm/crashed\t0.07s\n"
		failed  = "--- FAIL: TestX (0.00s)\n    x_test.go:1: no\nFAIL\nFAIL\tm/failed\t0.1s\n"
		race    = "WARNING: DATA RACE\n" + crash + "FAIL\tm/race\t0.1s\n"
		built   = "FAIL\tm/built [build failed]\n"
	)
	for name, c := range map[string]struct {
		first, second string // output; it fails when FAIL is in it
		want          int
		calls         string
	}{
		"all pass":           {good, "", 0, "test -race ./..."},
		"a crash":            {good + crashed + good + "FAIL\n", good, 0, "test -race ./...|test -race m/crashed"},
		"two crashes":        {crashed + good + crashed + "FAIL\n", good, 0, "test -race ./...|test -race m/crashed m/crashed"},
		"it crashes again":   {crashed, crashed, 1, "test -race ./...|test -race m/crashed"},
		"a failure":          {failed, good, 1, "test -race ./..."},
		"a crash, a failure": {crashed + failed, good, 1, "test -race ./..."},
		"a failure, a crash": {failed + crashed, good, 1, "test -race ./..."},
		"a race":             {race, good, 1, "test -race ./..."},
		"it does not build":  {crashed + built, good, 1, "test -race ./..."},
		"the text in a test": {"--- FAIL: TestX (0.00s)\n    " + crashed, good, 1, "test -race ./..."},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for i, text := range []string{c.first, c.second} {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i+1)), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			fake := `#!/bin/sh
cd "${0%/*}"
echo "$*" >>calls
n=$(wc -l <calls)
cat $((n))
! grep -q FAIL $((n))
`
			if err := os.WriteFile(filepath.Join(dir, "go"), []byte(fake), 0o700); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(filepath.Join("..", "..", "..", ".ci", "gotest"), "-race", "--", "./...")
			cmd.Env = append(os.Environ(), "GO="+filepath.Join(dir, "go"))
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil {
				t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); code != c.want {
				t.Errorf("exit code %d, want %d:\n%s", code, c.want, out)
			}
			calls, _ := os.ReadFile(filepath.Join(dir, "calls"))
			if got := strings.ReplaceAll(strings.TrimSpace(string(calls)), "\n", "|"); got != c.calls {
				t.Errorf("go was called with %q, want %q", got, c.calls)
			}
			if again := strings.Contains(string(out), "running again: "); again != strings.Contains(c.calls, "|") {
				t.Errorf("printed:\n%s", out)
			}
		})
	}
}
