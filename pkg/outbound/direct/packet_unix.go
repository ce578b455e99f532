//go:build unix

package direct

import "golang.org/x/sys/unix"

// readable asks whether a socket has something: only an empty one makes the
// poller wait. What is wrong with it the read that follows tells. Peeking would
// allocate an address.
func readable(fd uintptr) bool {
	socket := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(socket[:], 0)
		if err != unix.EINTR {
			return n != 0 || err != nil
		}
	}
}

// truncated reports whether an error means a datagram that was read in part.
func truncated(error) bool { return false }
