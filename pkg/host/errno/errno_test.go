package errno

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
)

// classes are all predicates, by name.
var classes = map[string]func(error) bool{
	"IsAddrInUse": IsAddrInUse, "IsAddrNotAvailable": IsAddrNotAvailable, "IsPermission": IsPermission,
	"IsConnRefused": IsConnRefused, "IsConnReset": IsConnReset, "IsBrokenPipe": IsBrokenPipe,
	"IsNetUnreachable": IsNetUnreachable, "IsHostUnreachable": IsHostUnreachable, "IsTooManyFiles": IsTooManyFiles,
	"IsMessageSize": IsMessageSize, "IsTimeout": IsTimeout,
}

// TestRealErrors compares the numbers with what this system's calls return.
func TestRealErrors(t *testing.T) {
	for name, fail := range map[string]func(t *testing.T) error{
		"IsAddrInUse": func(t *testing.T) error {
			_, err := net.Listen("tcp", listen(t).Addr().String())
			return err
		},
		"IsAddrNotAvailable": func(*testing.T) error {
			_, err := net.Listen("tcp", "192.0.2.1:0")
			return err
		},
		"IsConnRefused": func(t *testing.T) error {
			ln := listen(t)
			_ = ln.Close()
			_, err := net.DialTimeout("tcp", ln.Addr().String(), 5*time.Second)
			return err
		},
		"IsConnReset": func(t *testing.T) error {
			ln := listen(t)
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			peer, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			_ = peer.(*net.TCPConn).SetLinger(0)
			_ = peer.Close()
			_, err = c.Read(make([]byte, 1))
			return err
		},
		"IsTimeout": func(t *testing.T) error {
			ln := listen(t)
			_ = ln.(*net.TCPListener).SetDeadline(time.Unix(1, 0))
			_, err := ln.Accept()
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := fail(t)
			if !classes[name](err) {
				t.Errorf("%#v (%v) is not recognized", err, err)
			}
			for other, is := range classes {
				if other != name && is(err) {
					t.Errorf("%v is also %s", err, other)
				}
			}
		})
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func system(n syscall.Errno) error {
	return fmt.Errorf("wrapped: %w", &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", n)})
}

// Errors that the program makes itself have POSIX names on every system.
func TestPOSIXNames(t *testing.T) {
	for n, class := range map[syscall.Errno]string{
		syscall.EADDRINUSE: "IsAddrInUse", syscall.EADDRNOTAVAIL: "IsAddrNotAvailable", syscall.EACCES: "IsPermission", syscall.EPERM: "IsPermission",
		syscall.ECONNREFUSED: "IsConnRefused", syscall.ECONNRESET: "IsConnReset", syscall.EPIPE: "IsBrokenPipe",
		syscall.ENETUNREACH: "IsNetUnreachable", syscall.ENETDOWN: "IsNetUnreachable", syscall.EHOSTUNREACH: "IsHostUnreachable",
		syscall.EHOSTDOWN: "IsHostUnreachable", syscall.EMFILE: "IsTooManyFiles", syscall.ENFILE: "IsTooManyFiles",
		syscall.EMSGSIZE: "IsMessageSize", syscall.ETIMEDOUT: "IsTimeout", syscall.EINVAL: "",
	} {
		checkClass(t, n, class)
	}
}

// checkClass checks that n belongs to one class only, or to none ("").
func checkClass(t *testing.T, n syscall.Errno, class string) {
	t.Helper()
	for name, is := range classes {
		if got := is(system(n)); got != (name == class) {
			t.Errorf("%s(%d, %v) = %v", name, n, n, got)
		}
	}
}

func TestIsTimeout(t *testing.T) {
	for _, err := range []error{context.DeadlineExceeded, os.ErrDeadlineExceeded, errors.Join(system(syscall.ENETUNREACH), context.DeadlineExceeded)} {
		if !IsTimeout(err) {
			t.Errorf("%v is not a timeout", err)
		}
	}
	for _, err := range []error{nil, io.EOF, context.Canceled, net.ErrClosed} {
		if IsTimeout(err) {
			t.Errorf("%v is a timeout", err)
		}
	}
}

func TestAcceptError(t *testing.T) {
	for _, n := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		err := AcceptError(system(n))
		temporary, ok := err.(interface { // net/http's question
			net.Error
			Temporary() bool
		})
		if !ok || !temporary.Temporary() || temporary.Timeout() || !errors.Is(err, n) {
			t.Errorf("%v is not temporary for net/http", err)
		}
	}
	for _, err := range []error{net.ErrClosed, io.EOF, system(syscall.EINVAL)} {
		if got := AcceptError(err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
}
