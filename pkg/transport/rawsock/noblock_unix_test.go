//go:build unix

package rawsock

import (
	"net"
	"syscall"
	"testing"
	"time"
)

func raw(t *testing.T, c syscall.Conn) syscall.RawConn {
	t.Helper()
	r, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// pair returns both ends of a TCP connection over loopback.
func pair(t *testing.T) (near, far syscall.RawConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return raw(t, a.(*net.TCPConn)), raw(t, b.(*net.TCPConn))
}

// control runs f with the descriptor.
func control(t *testing.T, c syscall.RawConn, f func(fd uintptr)) {
	t.Helper()
	if err := c.Control(f); err != nil {
		t.Fatal(err)
	}
}

func TestStream(t *testing.T) {
	near, far := pair(t)
	in := make([]byte, 16)
	control(t, near, func(fd uintptr) {
		if n, err := Read(fd, in); n != 0 || err != syscall.EAGAIN {
			t.Errorf("read %d bytes of nothing, %v", n, err)
		}
		if err := Peek(fd); err != syscall.EAGAIN {
			t.Errorf("peeked at nothing: %v", err)
		}
	})
	control(t, far, func(fd uintptr) {
		if n, err := Write(fd, []byte("hello")); n != 5 || err != nil {
			t.Errorf("wrote %d bytes, %v", n, err)
		}
	})
	if err := near.Read(func(fd uintptr) bool { return Peek(fd) != syscall.EAGAIN }); err != nil {
		t.Fatal(err)
	}
	control(t, near, func(fd uintptr) {
		if err := Peek(fd); err != nil {
			t.Errorf("peeked: %v", err)
		}
		if n, err := Read(fd, in); string(in[:n]) != "hello" || err != nil {
			t.Errorf("read %q, %v", in[:n], err)
		}
	})
	control(t, near, func(fd uintptr) {
		if n, err := Read(^uintptr(0)>>1, in); n != 0 || err != syscall.EBADF {
			t.Errorf("read %d bytes of no file, %v", n, err)
		}
	})
}

// A socket whose peer does not read has room until it is full, and has some
// again when the peer reads.
func TestRoomy(t *testing.T) {
	near, far := pair(t)
	part := make([]byte, 3<<10)
	roomy := func() (is bool) {
		control(t, near, func(fd uintptr) { is = Writable(fd) })
		return is
	}
	total := 0
	for deadline := time.Now().Add(10 * time.Second); roomy(); {
		control(t, near, func(fd uintptr) {
			n, err := Write(fd, part)
			if total += n; n != len(part) || err != nil {
				t.Fatalf("a socket with room took %d bytes, %v", n, err)
			}
		})
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes did not fill the socket", total)
		}
	}
	for total > 0 {
		if err := far.Read(func(fd uintptr) bool {
			n, err := Read(fd, part)
			total -= n
			return err != syscall.EAGAIN
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := near.Write(func(fd uintptr) bool { return Writable(fd) }); err != nil || !roomy() {
		t.Errorf("no room although all was read: %v", err)
	}
}
