// Package atomicfile replaces a file's content so that whoever reads it finds
// the old text or the new one, whole, whatever happens meanwhile. What a file is
// to its system stays: the place that a symbolic link leads to, owner, group and
// mode.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// newMode is that of files that were not there.
const newMode = 0o600

// maxLinks bounds the symbolic links to a file that is not there yet.
const maxLinks = 40

// An Error is why a file was left as it was: a sentence, and what to do.
type Error struct {
	Path   string
	Reason string
	Fix    string
	Err    error // what the system says; may be nil
}

// Error implements error: the sentence, and the fix on a line of its own.
func (e *Error) Error() string {
	return fmt.Sprintf("%s was not written: %s\nfix: %s", e.Path, e.Reason, e.Fix)
}

// Unwrap returns what the system says.
func (e *Error) Unwrap() error { return e.Err }

// Write puts data into the file at path. One that is not there is made, for its
// owner only. On an error, which is an *Error, the file is as it was.
func Write(path string, data []byte) error {
	err := write(path, data)
	if err == nil {
		return nil
	}
	e := &Error{Path: path, Err: err}
	if !errors.As(err, &e) {
		e.Reason, e.Fix = explain(err)
	}
	e.Path = path
	return e
}

func write(path string, data []byte) error {
	path, err := follow(path)
	if err != nil {
		return err
	}
	old, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		old = nil
	case err != nil:
		return err
	case !old.Mode().IsRegular():
		return &Error{Reason: "it is not a regular file", Fix: "name a file"}
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".new-*-"+filepath.Base(path)) // 0600
	if err != nil {
		return &directoryError{dir, err}
	}
	err = fill(f, data, old)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	syncDir(dir)
	return nil
}

// follow returns where the symbolic links at path lead, which may not be there.
func follow(path string) (string, error) {
	for range maxLinks {
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil // no link: what else it is shows later
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return "", &Error{Reason: "its symbolic links lead in a circle", Fix: "name the file itself"}
}

// fill makes f a file like old, which is nil for a new one, with data in it.
func fill(f *os.File, data []byte, old fs.FileInfo) error {
	mode := fs.FileMode(newMode)
	if old != nil {
		mode = old.Mode().Perm()
		if err := own(f, old); err != nil {
			return &Error{
				Reason: "its owner and group could not be kept",
				Fix:    "run this as the owner of the file", Err: err,
			}
		}
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Sync()
}

// A directoryError is a directory in which no file can be made.
type directoryError struct {
	dir string
	err error
}

func (e *directoryError) Error() string { return e.err.Error() }
func (e *directoryError) Unwrap() error { return e.err }

// explain puts an error of the system into words.
func explain(err error) (reason, fix string) {
	var (
		dir  *directoryError
		path *fs.PathError
		link *os.LinkError
	)
	switch {
	case isBusy(err):
		return "it is a mount point, like a file that is bind-mounted into a container, and cannot be replaced",
			"mount its directory instead, or edit the file by hand"
	case errors.As(err, &dir) && errors.Is(err, fs.ErrNotExist):
		return "there is no directory " + dir.dir, "make the directory, or name another file"
	case errors.As(err, &dir) && (errors.Is(err, fs.ErrPermission) || isReadOnly(err)):
		return "the directory " + dir.dir + " cannot be written, so the file cannot be replaced",
			"run this as a user who can write there, or name another file"
	case errors.As(err, &path):
		err = path.Err
	case errors.As(err, &link):
		err = link.Err
	}
	return err.Error(), "name another file"
}
