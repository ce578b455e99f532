//go:build unix

package udp

import "syscall"

// waitRead waits without a buffer until there is a datagram. Its error, if it
// had one, is that of the read that follows.
func (a *association) waitRead() { _ = a.raw.Read(readable) }

// readable peeks at the socket: only an empty one makes the poller wait.
func readable(fd uintptr) bool {
	var one [1]byte
	for {
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK)
		if err != syscall.EINTR {
			return err != syscall.EAGAIN
		}
	}
}
