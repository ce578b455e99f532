//go:build !windows

package transport

import "syscall"

// The system's error numbers by what they say of a destination.

func refused() []syscall.Errno { return []syscall.Errno{syscall.ECONNREFUSED} }

func networkUnreachable() []syscall.Errno {
	return []syscall.Errno{syscall.ENETUNREACH, syscall.ENETDOWN}
}

func resets() []syscall.Errno { return []syscall.Errno{syscall.ECONNRESET, syscall.EPIPE} }

func hostUnreachable() []syscall.Errno {
	return []syscall.Errno{syscall.EHOSTUNREACH, syscall.EHOSTDOWN}
}
