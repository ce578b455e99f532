package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestReadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	data, warnings, err := ReadFile(path)
	if string(data) != "{}" || len(warnings) != 0 || err != nil {
		t.Errorf("got %q, %q, %v", data, warnings, err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o644} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, warnings, err := ReadFile(path)
		if want := path + " is readable by other users; run: chmod 600 " + path; len(warnings) != 1 || warnings[0] != want || err != nil {
			t.Errorf("mode %o: got %q, %v; want %q", mode, warnings, err, want)
		}
	}
}

func TestExposed(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("its modes do not tell")
	}
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[fs.FileMode]string{0o600: "", 0o640: "", 0o644: path + " is readable by everyone; run: chmod o-r " + path} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if got := Exposed(path); got != want {
			t.Errorf("mode %o: %q, want %q", mode, got, want)
		}
	}
	if got := Exposed(path + ".absent"); got != "" {
		t.Errorf("a file that is not there: %q", got)
	}
}

func TestReadFileFailures(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "folder") // the test's own name is a number that may stand in another
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(dir, "huge.json")
	if err := os.WriteFile(large, make([]byte, MaxSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, want string
		is         error
	}{
		{filepath.Join(dir, "absent"), "absent: the file cannot be read: ", fs.ErrNotExist},
		{dir, ": the file cannot be read: it is a directory", errIsDirectory},
		{large, ": the file cannot be read: it is larger than 1 MiB", errTooLarge},
	} {
		_, _, err := ReadFile(c.path)
		var problems *Problems
		if !errors.As(err, &problems) || problems.All[0].Cause != CauseUnreadable || !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.path, err)
		}
		if strings.Count(err.Error(), filepath.Base(c.path)) != 1 {
			t.Errorf("the path stands more than once in %v", err)
		}
	}
}
