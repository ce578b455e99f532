//go:build unix

package config

import "io/fs"

// readableByOthers reports whether the file's group or all may read it.
func readableByOthers(mode fs.FileMode) bool { return mode.Perm()&0o044 != 0 }

// readableByAll reports whether everybody may read the file.
func readableByAll(mode fs.FileMode) bool { return mode.Perm()&0o004 != 0 }
