//go:build unix

package config

import "io/fs"

// readableByOthers reports whether the file's group or all may read it.
func readableByOthers(mode fs.FileMode) bool { return mode.Perm()&0o044 != 0 }
