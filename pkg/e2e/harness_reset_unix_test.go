//go:build unix

package e2e

import (
	"net"
	"syscall"
)

// wasReset reports whether a connection at whose end a reader has arrived was
// reset by its peer: when a writer was told first, the reader is told of an
// end in order, and only the lack of a peer tells.
func wasReset(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	reset := false
	err = raw.Control(func(fd uintptr) {
		_, err := syscall.Getpeername(int(fd))
		reset = err != nil
	})
	return err == nil && reset
}
