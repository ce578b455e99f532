package logline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
)

const (
	// MaxFileSize is how large a log file grows before it is moved aside, in
	// bytes.
	MaxFileSize = 8 << 20
	// OldFiles is how many files are kept that were moved aside: FILE.1 is
	// the last.
	OldFiles = 2
)

// A File is a log file that is moved aside when it is full. Writes may come
// from several goroutines; each is kept whole in one file.
type File struct {
	path string
	most int64

	mu   sync.Mutex
	file *os.File
	size int64
}

// OpenFile opens a log file, or makes it, readable by its owner only. The
// caller may close it; nothing is lost otherwise.
func OpenFile(path string) (*File, error) { return openFile(path, MaxFileSize) }

func openFile(path string, most int64) (*File, error) {
	f := &File{path: path, most: most}
	if err := f.open(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *File) open() error {
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("log file: %w", err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() && info.Mode()&fs.ModeDevice == 0 {
		err = fmt.Errorf("%s is no file", f.path)
	}
	if err != nil {
		_ = file.Close()
		return fmt.Errorf("log file: %w", err)
	}
	f.file, f.size = file, info.Size()
	return nil
}

// Write implements io.Writer.
func (f *File) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return 0, fs.ErrClosed
	}
	if f.size > 0 && f.size+int64(len(p)) > f.most {
		f.moveAside()
	}
	n, err := f.file.Write(p)
	f.size += int64(n)
	return n, err
}

// moveAside begins a new file. Where that cannot be done, the old one grows
// on: a log too long is better than none.
func (f *File) moveAside() {
	for i := OldFiles - 1; i >= 1; i-- {
		err := os.Rename(fmt.Sprintf("%s.%d", f.path, i), fmt.Sprintf("%s.%d", f.path, i+1))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.size = 0
			return
		}
	}
	old := f.file
	_ = old.Close() // first, for systems that do not move open files
	_ = os.Rename(f.path, f.path+".1")
	if f.open() != nil {
		f.file = nil
	}
}

// Close closes the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}

// ToFile returns a handler that writes to a log file, with the time before
// each line for people. The records of the message ready go to w as well:
// whoever started the program waits for them.
func ToFile(f *File, w io.Writer, level slog.Leveler, json bool) slog.Handler {
	if json {
		return &readyToo{New(f, level, true), New(w, level, true)}
	}
	return &readyToo{&handler{w: f, level: level, mu: new(sync.Mutex), timed: true}, New(w, level, false)}
}

// Ready is the message of the record that says that a program serves.
const Ready = "ready"

// readyToo writes all to one handler, and to another that the program is
// ready.
type readyToo struct{ all, start slog.Handler }

func (h *readyToo) Enabled(ctx context.Context, l slog.Level) bool { return h.all.Enabled(ctx, l) }

func (h *readyToo) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == Ready && h.start.Enabled(ctx, r.Level) {
		_ = h.start.Handle(ctx, r)
	}
	return h.all.Handle(ctx, r)
}

func (h *readyToo) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &readyToo{h.all.WithAttrs(attrs), h.start.WithAttrs(attrs)}
}

func (h *readyToo) WithGroup(name string) slog.Handler {
	return &readyToo{h.all.WithGroup(name), h.start.WithGroup(name)}
}
