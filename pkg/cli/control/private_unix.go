//go:build unix

package control

import "io/fs"

// private reports whether only its owner may read a file.
func private(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 == 0 }
