package logging

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// All lines are in the files that are kept, whole and in order, and no file is
// larger than allowed.
func TestFileIsMovedAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := openFile(path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range 100 {
		if _, err := fmt.Fprintf(f, "line %03d of those that are written\n", i); err != nil {
			t.Fatal(err)
		}
	}
	var all string
	for _, name := range []string{path + ".2", path + ".1", path} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > 1000 {
			t.Errorf("%s has %d bytes", filepath.Base(name), len(data))
		}
		all += string(data)
	}
	lines := strings.Split(strings.TrimSuffix(all, "\n"), "\n")
	for i, line := range lines {
		if want := fmt.Sprintf("line %03d of those that are written", 100-len(lines)+i); line != want {
			t.Fatalf("line %d is %q, want %q", i, line, want)
		}
	}
	if len(lines) < 60 {
		t.Errorf("only %d lines are kept", len(lines))
	}
	if _, err := os.Stat(path + ".3"); err == nil {
		t.Error("a third old file is kept")
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestFileGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, line := range []string{"one\n", "two\n"} {
		f, err := OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(line)); err == nil {
			t.Error("a closed file was written")
		}
	}
	if data, _ := os.ReadFile(path); string(data) != "one\ntwo\n" {
		t.Errorf("%q", data)
	}
	if _, err := OpenFile(t.TempDir()); err == nil {
		t.Error("a directory was opened")
	}
}

func TestFileWritesFromMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := openFile(path, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				_, _ = f.Write([]byte("a whole line\n"))
			}
		})
	}
	all.Wait()
	if data, _ := os.ReadFile(path); string(data) != strings.Repeat("a whole line\n", 800) {
		t.Errorf("%d bytes", len(data))
	}
}

// Lines in a file have their time; that the program is ready is told to the
// one who started it, too.
func TestToFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var stderr strings.Builder
	log := slog.New(ToFile(f, &stderr, slog.LevelInfo, false)).With("a", 1)
	log.Info(Ready, Text("ready: here"))
	log.Error("broken", Text("broken: x\nfix: y"))
	log.Debug("not told")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	stamp := `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d) `
	want := regexp.MustCompile(`\A` + stamp + "ready: here\n" + stamp + "error: broken: x\nfix: y\n\\z")
	if !want.Match(data) {
		t.Errorf("in the file:\n%s", data)
	}
	if stderr.String() != "ready: here\n" {
		t.Errorf("told: %q", stderr.String())
	}
}
