//go:build !windows

package errno

import "syscall"

// ResetKeepsData reports whether data that arrived before a reset can still be
// read.
const ResetKeepsData = true

func addrInUse() []syscall.Errno        { return []syscall.Errno{syscall.EADDRINUSE} }
func addrNotAvailable() []syscall.Errno { return []syscall.Errno{syscall.EADDRNOTAVAIL} }
func permission() []syscall.Errno       { return []syscall.Errno{syscall.EACCES, syscall.EPERM} }
func connRefused() []syscall.Errno      { return []syscall.Errno{syscall.ECONNREFUSED} }
func connReset() []syscall.Errno        { return []syscall.Errno{syscall.ECONNRESET} }
func brokenPipe() []syscall.Errno       { return []syscall.Errno{syscall.EPIPE} }
func netUnreachable() []syscall.Errno   { return []syscall.Errno{syscall.ENETUNREACH, syscall.ENETDOWN} }

func hostUnreachable() []syscall.Errno {
	return []syscall.Errno{syscall.EHOSTUNREACH, syscall.EHOSTDOWN}
}
func timedOut() []syscall.Errno     { return []syscall.Errno{syscall.ETIMEDOUT} }
func tooManyFiles() []syscall.Errno { return []syscall.Errno{syscall.EMFILE, syscall.ENFILE} }
func messageSize() []syscall.Errno  { return []syscall.Errno{syscall.EMSGSIZE} }

func transientAccept() []syscall.Errno {
	return []syscall.Errno{syscall.ECONNABORTED, syscall.ENOBUFS, syscall.ENOMEM}
}

func transientDatagram() []syscall.Errno {
	return []syscall.Errno{
		syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN,
		syscall.EPROTO, syscall.EMSGSIZE, syscall.EACCES, syscall.EPERM, syscall.ENOBUFS, syscall.EINTR,
	}
}
