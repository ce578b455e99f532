//go:build unix

package fdlimit

import (
	"math"
	"syscall"
)

// openFiles returns the process's limit on open files. The runtime has raised
// the soft limit to the hard one at start.
func openFiles() (int, bool) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, false
	}
	n := uint64(l.Cur)
	if n > math.MaxInt32 {
		return math.MaxInt32, true
	}
	return int(n), true
}
