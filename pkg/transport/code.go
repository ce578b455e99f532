package transport

import (
	"errors"
	"net"

	"vmess-local/pkg/host/errno"
)

// A Code says why a destination could not be reached, in the classes that the
// replies of RFC 1928 section 6 and HTTP's 4xx and 5xx can tell apart.
type Code uint8

// The codes. Their order is no contract.
const (
	CodeGeneral            Code = iota // none of the others
	CodeNotAllowed                     // our own rules forbid it
	CodeNetworkUnreachable             // no way to the network
	CodeHostUnreachable                // unreachable, unresolvable or no answer
	CodeConnectionRefused              // answered with a refusal
)

// A Coder is an error that knows its code.
type Coder interface{ Code() Code }

// ErrNotAllowed is wrapped by errors of requests that our own rules forbid.
var ErrNotAllowed error = codeError{"not allowed by the rules", CodeNotAllowed}

type codeError struct {
	text string
	code Code
}

func (e codeError) Error() string { return e.text }
func (e codeError) Code() Code    { return e.code }

// CodeOf classifies err by the first of its causes that tells: a [Coder], a
// system error, a resolver's error, a time-out.
func CodeOf(err error) Code {
	var (
		c   Coder
		dns *net.DNSError
	)
	switch {
	case errors.As(err, &c):
		return c.Code()
	case errno.IsConnRefused(err):
		return CodeConnectionRefused
	case errno.IsNetUnreachable(err):
		return CodeNetworkUnreachable
	case errno.IsHostUnreachable(err), errors.As(err, &dns), errno.IsTimeout(err):
		return CodeHostUnreachable
	}
	return CodeGeneral
}

// IsReset reports whether err is that of a connection which the other end, or
// something on the path, has reset, also when a write found it so.
func IsReset(err error) bool { return errno.IsConnReset(err) || errno.IsBrokenPipe(err) }
