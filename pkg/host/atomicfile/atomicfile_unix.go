//go:build unix

package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// own gives f to whom old belongs to.
func own(f *os.File, old fs.FileInfo) error {
	was, ok := old.Sys().(*syscall.Stat_t)
	info, err := f.Stat()
	if err != nil || !ok {
		return err
	}
	is, ok := info.Sys().(*syscall.Stat_t)
	if !ok || is.Uid == was.Uid && is.Gid == was.Gid {
		return nil
	}
	return f.Chown(int(was.Uid), int(was.Gid))
}

// isBusy reports whether a mount is in the way.
func isBusy(err error) bool { return errors.Is(err, syscall.EBUSY) }

// isReadOnly reports whether the file system is.
func isReadOnly(err error) bool { return errors.Is(err, syscall.EROFS) }

// syncDir makes a rename outlast a power cut, where the file system can.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}
