//go:build unix

package control

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// fakeProc makes a /proc with processes, by their files' names and texts.
func fakeProc(t *testing.T, all map[int]map[string]string) string {
	t.Helper()
	proc := t.TempDir()
	for pid, files := range all {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return proc
}

func TestProcesses(t *testing.T) {
	const running = "prog\x00run\x00-c\x00c.json\x00"
	proc := fakeProc(t, map[int]map[string]string{
		11: {"comm": "prog\n", "cmdline": running, "environ": "HOME=/h\x00XDG_RUNTIME_DIR=/run/user/1000\x00", "cgroup": "0::/user.slice/user-1000.slice/user@1000.service/app.slice/prog.service\n"},
		12: {"comm": "prog\n", "cmdline": running, "environ": "HOME=/h\x00", "cgroup": "0::/system.slice/prog@eu.service\n"},
		13: {"comm": "prog\n", "cmdline": running, "cgroup": "0::/system.slice/cron.service\n"},
		14: {"comm": "prog\n", "cmdline": "prog\x00reload\x00"},
		15: {"comm": "other\n", "cmdline": running},
		16: {"comm": "prog\n"}, // has ended
	})
	got := processes(proc, "prog")
	want := []Process{
		{PID: 11, Own: true, Unit: "prog", UserUnit: true, RuntimeDir: "/run/user/1000", Known: true},
		{PID: 12, Own: true, Unit: "prog@eu", Known: true},
		{PID: 13, Own: true},
	}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
	if got := processes(filepath.Join(proc, "none"), "prog"); got != nil {
		t.Errorf("without /proc: %+v", got)
	}
}

func TestStopped(t *testing.T) {
	proc := fakeProc(t, map[int]map[string]string{
		1: {"stat": "1 (prog) T 0 1"}, 2: {"stat": "2 (a) T) S 0 1"}, 3: {"stat": "3 (x"}, 4: {},
	})
	for pid, want := range map[int]bool{1: true, 2: false, 3: false, 4: false, 5: false} {
		if got := stopped(proc, pid); got != want {
			t.Errorf("%d: %v", pid, got)
		}
	}
}
