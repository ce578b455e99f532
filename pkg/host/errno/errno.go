// Package errno classifies the operating system's socket errors. It is the only
// place that knows their numbers, which differ between systems: on Windows the
// POSIX names of package syscall stand for numbers that Go made up and that no
// system call returns.
package errno

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"syscall"
)

// IsAddrInUse reports whether another socket already has the local address.
func IsAddrInUse(err error) bool { return isAny(err, addrInUse()) }

// IsAddrNotAvailable reports whether this computer does not have the local
// address.
func IsAddrNotAvailable(err error) bool { return isAny(err, addrNotAvailable()) }

// IsPermission reports whether the system does not permit the call.
func IsPermission(err error) bool { return isAny(err, permission()) }

// IsConnRefused reports whether the peer refused the connection.
func IsConnRefused(err error) bool { return isAny(err, connRefused()) }

// IsConnReset reports whether the connection was reset. The error of a write
// after the peer has closed is not a reset, see [IsBrokenPipe].
func IsConnReset(err error) bool { return isAny(err, connReset()) }

// IsBrokenPipe reports whether a write found the connection already ended.
func IsBrokenPipe(err error) bool { return isAny(err, brokenPipe()) }

// IsNetUnreachable reports whether there is no route to the network.
func IsNetUnreachable(err error) bool { return isAny(err, netUnreachable()) }

// IsHostUnreachable reports whether the host cannot be reached.
func IsHostUnreachable(err error) bool { return isAny(err, hostUnreachable()) }

// IsTooManyFiles reports whether the system allows no more open files.
func IsTooManyFiles(err error) bool { return isAny(err, tooManyFiles()) }

// IsMessageSize reports whether a datagram does not fit.
func IsMessageSize(err error) bool { return isAny(err, messageSize()) }

// IsTimeout reports whether err is a timeout of the system, a deadline or a
// context. Of joined errors one is enough.
func IsTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &timeout) && timeout.Timeout() || isAny(err, timedOut())
}

// IsTransientAccept reports whether an error of accept concerns one connection
// or a shortage that may pass, so that accepting goes on.
func IsTransientAccept(err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	var temporary interface{ Temporary() bool }
	return errors.As(err, &temporary) && temporary.Temporary() ||
		IsTooManyFiles(err) || IsConnReset(err) || isAny(err, transientAccept())
}

// AcceptError returns err, an error of accept, so that net/http tries again
// where [IsTransientAccept] holds: it asks for a method Temporary, which
// knows only some of these errors.
func AcceptError(err error) error {
	if IsTransientAccept(err) {
		return temporaryError{err}
	}
	return err
}

type temporaryError struct{ error }

func (temporaryError) Temporary() bool { return true }
func (temporaryError) Timeout() bool   { return false }
func (e temporaryError) Unwrap() error { return e.error }

// IsTransientDatagram reports whether an error of a UDP socket reports the fate
// of one datagram, possibly an earlier one, so that the socket stays usable.
func IsTransientDatagram(err error) bool { return isAny(err, transientDatagram()) }

func isAny(err error, numbers []syscall.Errno) bool {
	return slices.ContainsFunc(numbers, func(n syscall.Errno) bool { return errors.Is(err, n) })
}
