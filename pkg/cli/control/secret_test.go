package control

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"
)

// A secret stays the same, until it is spoilt or others could have read it.
func TestSecret(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "here")
	path := filepath.Join(dir, "page.secret")
	get := func() string {
		t.Helper()
		s, err := Secret(dir, "page")
		if err != nil || !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(s) {
			t.Fatalf("the secret is %q, %v", s, err)
		}
		return s
	}
	first := get()
	if get() != first {
		t.Error("it changes by itself")
	}
	if other, err := Secret(dir, "other"); err != nil || other == first {
		t.Errorf("another secret is the same: %v", err)
	}
	for _, bad := range []string{"", first[1:], first[1:] + "x", first + "\n"} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := get(); got == bad || got == first {
			t.Errorf("after %q it is %q", bad, got)
		}
	}
	if runtime.GOOS == "windows" {
		return
	}
	last := get()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if get() == last {
		t.Error("a secret that others could read is used")
	}
	if _, err := Secret(path, "page"); err == nil {
		t.Error("a file serves as directory")
	}
}
