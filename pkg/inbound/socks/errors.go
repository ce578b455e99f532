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
	// ErrBadHandshake: the client spoke none of the proxy protocols.
	ErrBadHandshake = errors.New("not a SOCKS or HTTP proxy handshake")
	// ErrHandshakeTimeout: the request was not complete in time.
	ErrHandshakeTimeout = errors.New("the handshake took too long")
	// ErrTLS: the client takes the port for one that speaks TLS.
	ErrTLS = errors.New("TLS was sent to the proxy port, which speaks SOCKS and plain HTTP")
	// ErrBadAuth: the client's user name or password is wrong, or it speaks a
	// protocol that has none where one is required.
	ErrBadAuth = errors.New("wrong username or password")
	// ErrNeedsNoAuth: a SOCKS5 client offers only a user name and password,
	// which are not configured here.
	ErrNeedsNoAuth = errors.New("the SOCKS5 client insists on a username and password, but the proxy has none")
	// ErrBadRequest: the client spoke a proxy protocol, and its request is
	// malformed or has an impossible destination. It is a *RequestError.
	ErrBadRequest = errors.New("the request cannot be carried out")
	// ErrCommand: the client asked for another SOCKS command than CONNECT and
	// UDP ASSOCIATE.
	ErrCommand = errors.New("the SOCKS command is not supported")
	// ErrNoUDP: the client asked for UDP ASSOCIATE where that is not served.
	ErrNoUDP = errors.New("UDP is not served")
	// ErrLoop: the client asked for a connection to this very proxy. Its code
	// is transport.CodeNotAllowed.
	ErrLoop = fmt.Errorf("the destination is this proxy itself: %w", transport.ErrNotAllowed)
	// ErrBadAnswer: what an origin answered a plain HTTP request with is not
	// valid HTTP. The client got an explanation.
	ErrBadAnswer = errors.New("an origin's answer is not valid HTTP")
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

// A RequestError is an [ErrBadRequest] with what is wrong.
type RequestError struct {
	Protocol    string // "SOCKS5", "SOCKS4" or "HTTP"
	Destination bool   // the destination is not valid; otherwise the request is malformed
	Err         error  // does not hold the destination
}

// Error implements error.
func (e *RequestError) Error() string {
	what := "malformed request"
	if e.Destination {
		what = "invalid destination"
	}
	return e.Protocol + ": " + what + ": " + e.Err.Error()
}

// Unwrap returns what is wrong.
func (e *RequestError) Unwrap() error { return e.Err }

// Is reports whether target is ErrBadRequest.
func (e *RequestError) Is(target error) bool { return target == ErrBadRequest }

// malformed makes the RequestError of a message that breaks its protocol.
func malformed(protocol, format string, args ...any) error {
	return &RequestError{Protocol: protocol, Err: fmt.Errorf(format, args...)}
}

// badDestination makes the RequestError of an unusable destination.
func badDestination(protocol string, err error) error {
	return &RequestError{Protocol: protocol, Destination: true, Err: err}
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

// readFailure names what a failed read or write within a part of a protocol's
// handshake means.
func readFailure(err error, protocol, part string) error {
	switch {
	case isTimeout(err):
		return fmt.Errorf("%w: waited for the %s %s", ErrHandshakeTimeout, protocol, part)
	case isClosed(err):
		return errQuiet
	default:
		return malformed(protocol, "the connection ended within the %s", part)
	}
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// isClosed reports whether we closed the connection ourselves.
func isClosed(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}
