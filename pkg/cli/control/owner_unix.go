//go:build unix

package control

import (
	"os"
	"syscall"
)

// ownFile reports whether a file is the caller's.
func ownFile(path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
