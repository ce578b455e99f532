//go:build !unix

package config

import "io/fs"

// readableByOthers knows nothing of access lists: the mode bits of this
// system do not tell.
func readableByOthers(fs.FileMode) bool { return false }

// readableByAll knows as little.
func readableByAll(fs.FileMode) bool { return false }
