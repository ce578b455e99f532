package atomicfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"vmess-local/pkg/host/atomicfile"
)

func mustWrite(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// check wants a file's text and mode, and nothing else in its directory.
func check(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || string(data) != text {
		t.Errorf("%s has %q, %v; want %q", path, data, err, text)
	}
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != mode {
		t.Errorf("%s is %v, %v; want %v", path, info.Mode(), err, mode)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".new-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	if err := atomicfile.Write(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	check(t, path, "new", 0o600)
	for _, mode := range []fs.FileMode{0o600, 0o640, 0o644, 0o400} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := atomicfile.Write(path, []byte("changed")); err != nil {
			t.Fatal(err)
		}
		check(t, path, "changed", mode)
	}
}

// Who has the old file open reads the old text to its end.
func TestReaderKeepsOld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	mustWrite(t, path, "old", 0o600)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := atomicfile.Write(path, []byte("the new text")); err != nil {
		if runtime.GOOS == "windows" {
			t.Skip("Windows replaces no open file")
		}
		t.Fatal(err)
	}
	got := make([]byte, 20)
	if n, _ := f.Read(got); string(got[:n]) != "old" {
		t.Errorf("read %q", got[:n])
	}
}

func TestLinks(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	target, link, chain := filepath.Join(dir, "real", "config.json"), filepath.Join(dir, "link.json"), filepath.Join(dir, "chain.json")
	for name, to := range map[string]string{link: filepath.Join("real", "config.json"), chain: link, filepath.Join(dir, "circle"): "circle"} {
		if err := os.Symlink(to, name); err != nil {
			t.Skipf("no symbolic links: %v", err)
		}
	}
	if err := atomicfile.Write(link, []byte("made")); err != nil { // it leads nowhere yet
		t.Fatal(err)
	}
	check(t, target, "made", 0o600)
	if err := os.Chmod(target, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(chain, []byte("changed")); err != nil {
		t.Fatal(err)
	}
	check(t, target, "changed", 0o640)
	for name, to := range map[string]string{link: filepath.Join("real", "config.json"), chain: link} {
		if got, err := os.Readlink(name); err != nil || got != to {
			t.Errorf("%s leads to %q, %v", name, got, err)
		}
	}
	refused(t, filepath.Join(dir, "circle"), "in a circle")
}

// refused wants an error with the reason and a fix.
func refused(t *testing.T, path, reason string) {
	t.Helper()
	err := atomicfile.Write(path, []byte("new"))
	var e *atomicfile.Error
	if !errors.As(err, &e) {
		t.Errorf("%s: %v", path, err)
		return
	}
	if text := err.Error(); !strings.HasPrefix(text, path+" was not written: ") || !strings.Contains(text, reason) || !strings.Contains(text, "\nfix: ") {
		t.Errorf("%s: %q, want %q", path, text, reason)
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	refused(t, dir, "not a regular file")
	refused(t, filepath.Join(dir, "nowhere", "config.json"), "there is no directory "+filepath.Join(dir, "nowhere"))
	if runtime.GOOS != "windows" {
		refused(t, os.DevNull, "not a regular file")
	}
}
