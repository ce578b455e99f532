package logging

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

const (
	// MaxFileSize is how large a log file grows before it is moved aside, in
	// bytes.
	MaxFileSize = 8 << 20
	// OldFiles is how many files are kept that were moved aside: FILE.1 is
	// the last.
	OldFiles = 2
)

// retryPause is the least time between two attempts to begin a new file, or to
// open one that could not be opened.
const retryPause = time.Second

// A File is a log file that is moved aside when it is full. Only a regular file
// is: a device, like /dev/null or a terminal, stays where it is. Writes may come
// from several goroutines; each is kept whole in one file.
type File struct {
	path  string
	most  int64
	pause time.Duration

	mu      sync.Mutex
	closed  bool
	file    *os.File // nil where it could not be opened again
	regular bool
	size    int64
	next    time.Time // the earliest of the next attempt
}

// OpenFile opens a log file, or makes it, readable by its owner only. The
// caller may close it; nothing is lost otherwise.
func OpenFile(path string) (*File, error) { return openFile(path, MaxFileSize) }

func openFile(path string, most int64) (*File, error) {
	f := &File{path: path, most: most, pause: retryPause}
	if err := f.open(); err != nil {
		return nil, err
	}
	return f, nil
}

// open opens the path. A file that was open is closed once there is another.
func (f *File) open() error {
	if info, err := os.Stat(f.path); err == nil && info.Mode()&fs.ModeNamedPipe != 0 {
		return fmt.Errorf("log file: %s is a named pipe", f.path) // opening it waits for a reader
	}
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("log file: %w", err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() && info.Mode()&fs.ModeDevice == 0 {
		err = fmt.Errorf("%s is not a file", f.path)
	}
	if err != nil {
		_ = file.Close()
		return fmt.Errorf("log file: %w", err)
	}
	if f.file != nil {
		_ = f.file.Close()
	}
	f.file, f.size, f.regular = file, info.Size(), info.Mode().IsRegular() && !isSystemPath(f.path)
	return nil
}

// isSystemPath reports whether a path names a device or an open file of a
// process, as /dev/stderr does even where that leads to a regular file, which is
// somebody else's then.
func isSystemPath(path string) bool {
	path = filepath.Clean(path)
	return strings.HasPrefix(path, "/dev/") || strings.HasPrefix(path, "/proc/")
}

// Write implements io.Writer.
func (f *File) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0, fs.ErrClosed
	}
	full := f.file == nil || f.regular && f.size > 0 && f.size+int64(len(p)) > f.most
	if full && !time.Now().Before(f.next) && !f.rotate() {
		f.next = time.Now().Add(f.pause)
	}
	if f.file == nil {
		return 0, fs.ErrClosed
	}
	n, err := f.file.Write(p)
	f.size += int64(n)
	return n, err
}

// rotate begins a new file. Where that cannot be done, the old one grows on
// and moveAside reports false: a log too long is better than none.
func (f *File) rotate() bool {
	if path := f.where(); path != "" && f.makeRoom(path) {
		if runtime.GOOS == "windows" { // it moves no open files
			_ = f.file.Close()
			f.file = nil
		}
		moved := os.Rename(path, path+".1") == nil
		if f.open() == nil {
			return moved
		}
		if moved {
			_ = os.Rename(path+".1", path)
		}
	}
	return f.open() == nil && f.size == 0
}

// where returns where the open file is, without links; "" if it is no longer
// there.
func (f *File) where() string {
	path, err := filepath.EvalSymlinks(f.path)
	if err != nil || f.file == nil {
		return ""
	}
	there, err := os.Lstat(path)
	open, err2 := f.file.Stat()
	if err != nil || err2 != nil || !os.SameFile(there, open) {
		return ""
	}
	return path
}

// makeRoom moves the older files on, so that the name of the last is free.
func (f *File) makeRoom(path string) bool {
	for i := OldFiles - 1; i >= 1; i-- {
		err := os.Rename(fmt.Sprintf("%s.%d", path, i), fmt.Sprintf("%s.%d", path, i+1))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return true
}

// Close closes the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.file == nil {
		f.closed = true
		return nil
	}
	f.closed = true
	return f.file.Close()
}

// ToFile returns a handler that writes to a log file, with the time before
// each line for people. The records of the messages Ready and Status go to w as
// well: whoever started the program waits for them.
func ToFile(f *File, w io.Writer, level slog.Leveler, json bool) slog.Handler {
	if json {
		return &startToo{New(f, level, true), New(w, level, true)}
	}
	return &startToo{&handler{w: f, level: level, mu: new(sync.Mutex), timed: true}, New(w, level, false)}
}

// The messages of the records about a program's start.
const (
	Ready  = "ready"  // it serves
	Status = "status" // where its status page is
)

// startToo writes all to one handler, and to another what is about the start.
type startToo struct{ all, start slog.Handler }

func (h *startToo) Enabled(ctx context.Context, l slog.Level) bool { return h.all.Enabled(ctx, l) }

func (h *startToo) Handle(ctx context.Context, r slog.Record) error {
	if (r.Message == Ready || r.Message == Status) && h.start.Enabled(ctx, r.Level) {
		_ = h.start.Handle(ctx, r)
	}
	return h.all.Handle(ctx, r)
}

func (h *startToo) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &startToo{h.all.WithAttrs(attrs), h.start.WithAttrs(attrs)}
}

func (h *startToo) WithGroup(name string) slog.Handler {
	return &startToo{h.all.WithGroup(name), h.start.WithGroup(name)}
}
