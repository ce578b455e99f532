package e2e

import (
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// TestFaultUnreachable is about packets that do not get through: Linux shows
// that on loopback.
func TestFaultUnreachable(t *testing.T) {
	t.Parallel()
	for _, f := range []wayFault{
		{
			name: "SYN dropped", remote: remoteAt(t, droppingPort(t)), change: shortly, code: replyHost,
			want: expected{cause: "tcp.timeout", sentence: "firewall, wrong address, or the server is down", fix: `check "address" at config.json:`, confidence: "certain", within: shortDial},
		},
		{
			name: "no way", remote: remoteAt(t, "127.255.255.255:80"), code: replyNetwork, // a broadcast address
			want: expected{cause: "tcp.unreachable", sentence: "there is no route from this computer", fix: "check this computer's network connection", confidence: "certain"},
		},
	} {
		t.Run(f.name, f.run)
	}
}

// droppingPort returns an address whose queue of connections is full, so that
// the system drops every SYN to it.
func droppingPort(t testing.TB) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		err = syscall.Listen(fd, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(name.(*syscall.SockaddrInet4).Port))
	for range 10 {
		c, err := net.DialTimeout("tcp", addr, 300*time.Millisecond)
		if os.IsTimeout(err) {
			return addr
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	leaveOut(t, "this system does not drop SYNs")
	return ""
}
