//go:build unix && !linux

package rawsock

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Read is read(2). Its error is a [syscall.Errno]: EAGAIN when there is
// nothing. A call that a signal interrupts is made again, here and below.
func Read(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// Write is write(2), which may take only the start of p.
func Write(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Write(int(fd), p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// Peek returns EAGAIN when there is nothing to read, and takes nothing.
func Peek(fd uintptr) error {
	var one [1]byte
	for {
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK)
		if err != syscall.EINTR {
			return err
		}
	}
}

// Writable reports whether a stream socket has room for something.
func Writable(fd uintptr) bool {
	asked := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(asked, 0)
	return err == nil && n == 1 && asked[0].Revents&unix.POLLOUT != 0
}
