package transport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"vmess-local/pkg/transport"
)

type coded transport.Code

func (coded) Error() string          { return "coded" }
func (c coded) Code() transport.Code { return transport.Code(c) }

type timeout struct{}

func (timeout) Error() string   { return "slow" }
func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }

func dialError(errno syscall.Errno) error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)}
}

func TestCodeOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want transport.Code
	}{
		{nil, transport.CodeGeneral},
		{io.EOF, transport.CodeGeneral},
		{context.Canceled, transport.CodeGeneral},
		{syscall.ECONNRESET, transport.CodeGeneral},
		{transport.ErrNotAllowed, transport.CodeNotAllowed},
		{fmt.Errorf("dial a private address: %w", transport.ErrNotAllowed), transport.CodeNotAllowed},
		{coded(transport.CodeNetworkUnreachable), transport.CodeNetworkUnreachable},
		{fmt.Errorf("x: %w", coded(transport.CodeConnectionRefused)), transport.CodeConnectionRefused},
		// What knows its code is asked before what may be guessed from.
		{errors.Join(dialError(syscall.ECONNREFUSED), coded(transport.CodeNotAllowed)), transport.CodeNotAllowed},
		{dialError(syscall.ECONNREFUSED), transport.CodeConnectionRefused},
		{fmt.Errorf("connect to the server: %w", dialError(syscall.ECONNREFUSED)), transport.CodeConnectionRefused},
		{dialError(syscall.ENETUNREACH), transport.CodeNetworkUnreachable},
		{dialError(syscall.ENETDOWN), transport.CodeNetworkUnreachable},
		{dialError(syscall.EHOSTUNREACH), transport.CodeHostUnreachable},
		{dialError(syscall.EHOSTDOWN), transport.CodeHostUnreachable},
		{dialError(syscall.ETIMEDOUT), transport.CodeHostUnreachable},
		{&net.DNSError{Err: "no such host", Name: "h", IsNotFound: true}, transport.CodeHostUnreachable},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "server misbehaving"}}, transport.CodeHostUnreachable},
		{context.DeadlineExceeded, transport.CodeHostUnreachable},
		{fmt.Errorf("x: %w", os.ErrDeadlineExceeded), transport.CodeHostUnreachable},
		{timeout{}, transport.CodeHostUnreachable},
		{&net.OpError{Op: "dial", Err: timeout{}}, transport.CodeHostUnreachable},
	} {
		if got := transport.CodeOf(c.err); got != c.want {
			t.Errorf("CodeOf(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}

// TestCodeOfRealDial holds the table against what this system says.
func TestCodeOfRealDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	d := net.Dialer{Timeout: 5 * time.Second}
	if _, err := d.DialContext(t.Context(), "tcp", addr); transport.CodeOf(err) != transport.CodeConnectionRefused {
		t.Errorf("%v has code %d", err, transport.CodeOf(err))
	}
}
