package atomicfile_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"vmess-local/pkg/host/atomicfile"
)

// TestMain is also the program that TestNotReplaceable runs: it writes to the file
// that it is handed.
func TestMain(m *testing.M) {
	if path := os.Getenv("ATOMICFILE_WRITE"); path != "" {
		if err := atomicfile.Write(path, []byte("new")); err != nil {
			_, _ = os.Stdout.WriteString(err.Error())
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestOwner(t *testing.T) {
	if os.Getuid() != 0 {
		lacking(t, "only root gives files away")
	}
	path := filepath.Join(t.TempDir(), "config.json")
	mustWrite(t, path, "old", 0o640)
	if err := os.Chown(path, 65534, 1234); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	check(t, path, "new", 0o640)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if s := info.Sys().(*syscall.Stat_t); s.Uid != 65534 || s.Gid != 1234 {
		t.Errorf("it belongs to %d:%d now", s.Uid, s.Gid)
	}
}

// Where renaming is impossible the file stays as it was, with an explanation: as
// another user in a directory of root's, and as root in a mount namespace where the
// file is a mount of its own or the file system is read-only.
func TestNotReplaceable(t *testing.T) {
	if os.Getuid() != 0 {
		lacking(t, "only root mounts and becomes another user")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "config.json")
	for up := dir; up != "/"; up = filepath.Dir(up) {
		if info, err := os.Stat(up); err == nil && info.Mode().Perm()&0o5 == 0 {
			if err := os.Chmod(up, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	self := filepath.Join(dir, "self")
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(self, data, 0o755); err != nil {
		t.Fatal(err)
	}
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	for _, c := range []struct {
		name, before string
		as           *syscall.Credential
		open         bool // the directory is for everybody
		reason       string
	}{
		{"directory of another", "", nobody, false, "the directory " + dir + " cannot be written"},
		{"file of another", "", nobody, true, "its owner and group could not be kept"},
		{"bind mount", "mount --bind '" + path + "' '" + path + "' && ", nil, false, "it is a mount point"},
		{"read-only", "mount --bind '" + dir + "' '" + dir + "' && mount -o remount,ro,bind '" + dir + "' && ", nil, false, "cannot be written"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mustWrite(t, path, "old", 0o644)
			mode := os.FileMode(0o755)
			if c.open {
				mode = 0o777
			}
			if err := os.Chmod(dir, mode); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sh", "-c", c.before+"exec '"+self+"'")
			cmd.Env = append(os.Environ(), "ATOMICFILE_WRITE="+path)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.as}
			if c.as == nil {
				cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Unshareflags: syscall.CLONE_NEWNS}
			}
			out, err := cmd.Output()
			if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 3 {
				t.Fatalf("%v, %q", err, out)
			}
			if got := string(out); !strings.Contains(got, c.reason) || !strings.Contains(got, "\nfix: ") {
				t.Errorf("it says %q, want %q", got, c.reason)
			}
			check(t, path, "old", 0o644)
		})
	}
}

// lacking skips a test for want of something, but not where all tests are asked for.
func lacking(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("not tested, but CI=true asks for all tests: %s", what)
	}
	t.Skipf("not tested: %s", what)
}
