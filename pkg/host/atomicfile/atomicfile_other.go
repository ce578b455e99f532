//go:build !unix

package atomicfile

import (
	"io/fs"
	"os"
)

// own leaves f to the user who writes: what others may do is inherited from the
// directory.
func own(*os.File, fs.FileInfo) error { return nil }

func isBusy(error) bool     { return false }
func isReadOnly(error) bool { return false }
func syncDir(string)        {}
