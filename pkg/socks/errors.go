package socks

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"vmess-local/pkg/transport"
)

// What goes wrong on the local side. [Server.Report] gets them wrapped with
// what was seen; none holds a password or a destination.
var (
	// ErrBadHandshake: the client spoke none of the proxy protocols, or one of
	// them wrongly.
	ErrBadHandshake = errors.New("not a SOCKS or HTTP proxy handshake")
	// ErrHandshakeTimeout: the request was not complete in time.
	ErrHandshakeTimeout = errors.New("the handshake took too long")
	// ErrTLS: the client takes the port for one that speaks TLS.
	ErrTLS = errors.New("TLS was spoken to the proxy port, which speaks SOCKS and plain HTTP")
	// ErrBadAuth: the client's user name or password is wrong, or it speaks a
	// protocol that has none where one is required.
	ErrBadAuth = errors.New("wrong user name or password")
	// ErrCommand: the client asked for another SOCKS command than CONNECT and
	// UDP ASSOCIATE.
	ErrCommand = errors.New("the SOCKS command is not supported")
	// ErrNoUDP: the client asked for UDP ASSOCIATE where that is not served.
	ErrNoUDP = errors.New("UDP is not served")
	// ErrLoop: the client asked for a connection to this very proxy. Its code
	// is transport.CodeNotAllowed.
	ErrLoop = fmt.Errorf("the destination is this proxy itself: %w", transport.ErrNotAllowed)
	// ErrTooMany: a connection was refused for want of Room.
	ErrTooMany = errors.New("too many connections")
	// ErrServerClosed is returned by Serve after Drain.
	ErrServerClosed = errors.New("the proxy is shut down")
	// ErrAnswered is returned by the methods of a transport.Pending after the
	// first call.
	ErrAnswered = errors.New("the request was answered before")
)

// A PublicError is an error of a dialer that has words for everybody, the
// scripts of web pages included: Public names nothing of what is configured. Of
// other errors a page learns the status only.
type PublicError interface {
	error
	Public() string
}

var (
	// errQuiet ends a connection that did nothing worth a report: it was closed
	// by its client before a request, or by us.
	errQuiet = errors.New("nothing to report")

	errUnanswered = errors.New("the request was dropped without an answer")
)

// A refusal is a failed handshake that is owed an answer.
type refusal struct {
	reply []byte
	err   error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// readFailure names what a failed read or write within a part of the
// handshake means.
func readFailure(err error, part string) error {
	switch {
	case isTimeout(err):
		return fmt.Errorf("%w: waited for %s", ErrHandshakeTimeout, part)
	case isClosed(err):
		return errQuiet
	default:
		return fmt.Errorf("%w: the connection ended within %s", ErrBadHandshake, part)
	}
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// isClosed reports whether we closed the connection ourselves.
func isClosed(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}
