//go:build unix

package direct

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

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

// transient reports whether an error of a socket is word of an earlier
// datagram's fate.
func transient(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN,
		syscall.EPROTO, syscall.EMSGSIZE, syscall.EACCES, syscall.EPERM, syscall.ENOBUFS, syscall.EINTR,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// cut reports whether an error means a datagram that was read in part.
func cut(error) bool { return false }

// tooLarge reports whether a datagram was not sent because of its size.
func tooLarge(err error) bool { return errors.Is(err, syscall.EMSGSIZE) }
