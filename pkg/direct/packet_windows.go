package direct

import (
	"errors"
	"syscall"
)

// Errors of Windows' sockets (winerror.h).
const (
	wsaEMsgSize     = syscall.Errno(10040)
	wsaENetDown     = syscall.Errno(10050)
	wsaENetUnreach  = syscall.Errno(10051)
	wsaENetReset    = syscall.Errno(10052)
	wsaEConnReset   = syscall.Errno(10054)
	wsaENoBufs      = syscall.Errno(10055)
	wsaEConnRefused = syscall.Errno(10061)
	wsaEHostUnreach = syscall.Errno(10065)
)

// readable lets the read wait: sockets cannot be peeked at here.
func readable(uintptr) bool { return true }

// transient reports whether an error of a socket is word of an earlier
// datagram's fate.
func transient(err error) bool {
	for _, e := range []syscall.Errno{wsaENetDown, wsaENetUnreach, wsaENetReset, wsaEConnReset, wsaENoBufs, wsaEConnRefused, wsaEHostUnreach} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// cut reports whether an error means a datagram that was read in part.
func cut(err error) bool { return errors.Is(err, wsaEMsgSize) }

// tooLarge reports whether a datagram was not sent because of its size.
func tooLarge(err error) bool { return errors.Is(err, wsaEMsgSize) }
