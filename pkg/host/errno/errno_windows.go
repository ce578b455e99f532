package errno

import "syscall"

// Windows' own numbers (winerror.h).
const (
	errTooManyOpenFiles   syscall.Errno = 4
	errAccessDenied       syscall.Errno = 5
	errNotEnoughMemory    syscall.Errno = 8
	errNetnameDeleted     syscall.Errno = 64 // an overlapped call met a reset
	errBrokenPipe         syscall.Errno = 109
	errSemTimeout         syscall.Errno = 121 // an overlapped connect timed out
	errNoData             syscall.Errno = 232
	errConnectionRefused  syscall.Errno = 1225
	errNetworkUnreachable syscall.Errno = 1231
	errHostUnreachable    syscall.Errno = 1232
	errConnectionAborted  syscall.Errno = 1236
	errNoSystemResources  syscall.Errno = 1450
	wsaEAcces             syscall.Errno = 10013
	wsaEMFile             syscall.Errno = 10024
	wsaEMsgSize           syscall.Errno = 10040
	wsaEAddrInUse         syscall.Errno = 10048
	wsaEAddrNotAvail      syscall.Errno = 10049
	wsaENetDown           syscall.Errno = 10050
	wsaENetUnreach        syscall.Errno = 10051
	wsaENetReset          syscall.Errno = 10052
	wsaEConnAborted       syscall.Errno = 10053
	wsaEConnReset         syscall.Errno = 10054
	wsaENoBufs            syscall.Errno = 10055
	wsaEShutdown          syscall.Errno = 10058
	wsaETimedOut          syscall.Errno = 10060
	wsaEConnRefused       syscall.Errno = 10061
	wsaEHostDown          syscall.Errno = 10064
	wsaEHostUnreach       syscall.Errno = 10065
)

// ResetKeepsData reports whether data that arrived before a reset can still be
// read.
const ResetKeepsData = false

// The POSIX names stand beside Windows' own numbers for errors that this
// program makes itself.

func addrInUse() []syscall.Errno { return []syscall.Errno{wsaEAddrInUse, syscall.EADDRINUSE} }

func addrNotAvailable() []syscall.Errno {
	return []syscall.Errno{wsaEAddrNotAvail, syscall.EADDRNOTAVAIL}
}

func permission() []syscall.Errno {
	return []syscall.Errno{wsaEAcces, errAccessDenied, syscall.EACCES, syscall.EPERM}
}

func connRefused() []syscall.Errno {
	return []syscall.Errno{wsaEConnRefused, errConnectionRefused, syscall.ECONNREFUSED}
}

func connReset() []syscall.Errno {
	return []syscall.Errno{wsaEConnReset, wsaEConnAborted, errNetnameDeleted, errConnectionAborted, syscall.ECONNRESET, syscall.ECONNABORTED}
}

func brokenPipe() []syscall.Errno {
	return []syscall.Errno{wsaEShutdown, errBrokenPipe, errNoData, syscall.EPIPE}
}

func netUnreachable() []syscall.Errno {
	return []syscall.Errno{wsaENetUnreach, wsaENetDown, errNetworkUnreachable, syscall.ENETUNREACH, syscall.ENETDOWN}
}

func hostUnreachable() []syscall.Errno {
	return []syscall.Errno{wsaEHostUnreach, wsaEHostDown, errHostUnreachable, syscall.EHOSTUNREACH, syscall.EHOSTDOWN}
}

func timedOut() []syscall.Errno {
	return []syscall.Errno{wsaETimedOut, errSemTimeout, syscall.ETIMEDOUT}
}

func tooManyFiles() []syscall.Errno {
	return []syscall.Errno{wsaEMFile, errTooManyOpenFiles, syscall.EMFILE, syscall.ENFILE}
}

func transientAccept() []syscall.Errno {
	return []syscall.Errno{wsaENoBufs, errNotEnoughMemory, errNoSystemResources, syscall.ENOBUFS, syscall.ENOMEM}
}

func messageSize() []syscall.Errno { return []syscall.Errno{wsaEMsgSize, syscall.EMSGSIZE} }

func transientDatagram() []syscall.Errno {
	return []syscall.Errno{
		wsaEMsgSize, wsaENetDown, wsaENetUnreach, wsaENetReset, wsaEConnReset, wsaENoBufs, wsaEConnRefused, wsaEHostUnreach,
	}
}
