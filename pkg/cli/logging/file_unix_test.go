//go:build unix

package logging

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A device is not moved aside, nor a link to one.
func TestDeviceStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.Symlink(os.DevNull, path); err != nil {
		t.Fatal(err)
	}
	f, err := openFile(path, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 20 {
		if _, err := f.Write([]byte("a line of some length\n")); err != nil {
			t.Fatal(err)
		}
	}
	if to, err := os.Readlink(path); err != nil || to != os.DevNull {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if _, err := os.Lstat(path + ".1"); err == nil {
		t.Error("the device was moved aside")
	}
}

// A link leads on to the log when that is moved aside.
func TestLinkedFile(t *testing.T) {
	dir := t.TempDir()
	path, target := filepath.Join(dir, "link"), filepath.Join(dir, "log")
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	f, err := openFile(path, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 20 {
		if _, err := f.Write([]byte("a line of some length\n")); err != nil {
			t.Fatal(err)
		}
	}
	if to, err := os.Readlink(path); err != nil || to != target {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if _, err := os.Stat(target + ".1"); err != nil {
		t.Errorf("the file was not moved aside: %v", err)
	}
}

// A file that cannot be reopened, for want of descriptors or of its directory, is
// written again once it can be; without descriptors no line is lost.
func TestFileIsReopened(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	path := filepath.Join(dir, "log")
	mustMake := func() {
		t.Helper()
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	mustMake()
	f, err := openFile(path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.pause = 0
	n := 0
	write := func(lines int) {
		t.Helper()
		for range lines {
			if _, err := fmt.Fprintf(f, "line %03d of those that are written\n", n); err != nil {
				t.Errorf("line %d: %v", n, err)
			}
			n++
		}
	}
	write(20)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 0, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	write(20)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	write(20)
	var all string
	for _, name := range []string{path + ".2", path + ".1", path} {
		data, _ := os.ReadFile(name)
		all += string(data)
	}
	if lines := strings.Count(all, "\n"); lines != n {
		t.Errorf("%d lines are kept of %d", lines, n)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	write(40)
	mustMake()
	write(1)
	if data, _ := os.ReadFile(path); !strings.Contains(string(data), fmt.Sprintf("line %03d", n-1)) {
		t.Errorf("the new file has %q", data)
	}
}

// A named pipe is refused at once: nobody may ever read it.
func TestNamedPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		_, err := OpenFile(path)
		opened <- err
	}()
	select {
	case err := <-opened:
		if err == nil || !strings.Contains(err.Error(), "named pipe") {
			t.Errorf("opened: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it waits for a reader")
		if r, err := os.Open(path); err == nil { // ends the wait
			<-opened
			_ = r.Close()
		}
	}
}
