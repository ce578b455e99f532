package rawsock

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
)

func TestDatagrams(t *testing.T) {
	for _, family := range []struct{ network, ip, to string }{
		{"udp4", "127.0.0.1", "127.0.0.1"},
		{"udp6", "::1", "::1"},
		{"udp", "::", "::ffff:127.0.0.1"}, // both families: IPv4 is mapped
	} {
		t.Run(family.network, func(t *testing.T) {
			a, toA := socket(t, family.network, family.ip, family.to)
			b, toB := socket(t, family.network, family.ip, family.to)
			in := make([]byte, 100)
			control(t, b, func(fd uintptr) {
				if n, _, err := ReceiveFrom(fd, in); n != 0 || err != syscall.EAGAIN {
					t.Errorf("received %d bytes of nothing, %v", n, err)
				}
			})
			control(t, a, func(fd uintptr) {
				if err := SendTo(fd, []byte("hello"), toB); err != nil {
					t.Error(err)
				}
				if err := SendTo(fd, make([]byte, 1<<16), toB); err != syscall.EMSGSIZE {
					t.Errorf("too large: %v", err)
				}
			})
			var n int
			var from netip.AddrPort
			var fault error
			err := b.Read(func(fd uintptr) bool {
				n, from, fault = ReceiveFrom(fd, in)
				return fault != syscall.EAGAIN
			})
			if err != nil || fault != nil || string(in[:n]) != "hello" || from != toA {
				t.Errorf("received %q from %v, want it from %v: %v, %v", in[:n], from, toA, err, fault)
			}
		})
	}
}

// socket opens one, and returns where it is reached.
func socket(t *testing.T, network, ip, to string) (syscall.RawConn, netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP(network, &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		t.Skipf("the system has no %s: %v", network, err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return raw(t, c), netip.AddrPortFrom(netip.MustParseAddr(to), c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
}

// No call allocates.
func TestAllocations(t *testing.T) {
	c, self := socket(t, "udp4", "127.0.0.1", "127.0.0.1")
	in := make([]byte, 100)
	control(t, c, func(fd uintptr) {
		if n := testing.AllocsPerRun(100, func() {
			_ = SendTo(fd, in[:5], self)
			_, _, _ = ReceiveFrom(fd, in)
			_ = Writable(fd)
			_ = Peek(fd)
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}
