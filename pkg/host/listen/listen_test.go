package listen

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFamilies(t *testing.T) {
	for _, c := range []struct {
		addr     string
		ip4, ip6 bool
	}{
		{"0.0.0.0:0", true, false},
		{"[::ffff:0.0.0.0]:0", true, false},
		{"[::]:0", true, true},
		{":0", true, true},
		{"127.0.0.1:0", true, false},
		{"[::1]:0", false, true},
	} {
		t.Run(c.addr, func(t *testing.T) {
			ln, err := TCP(c.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			_, port, _ := net.SplitHostPort(ln.Addr().String())
			for host, want := range map[string]bool{"127.0.0.1": c.ip4, "::1": c.ip6} {
				conn, err := net.Dial("tcp", net.JoinHostPort(host, port))
				if err == nil {
					_ = conn.Close()
				}
				if got := err == nil; got != want {
					t.Errorf("%s accepted: %v, want %v", host, got, want)
				}
			}
			// A wildcard's address, listened on again, is the same one.
			_ = ln.Close()
			again, err := TCP(ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_ = again.Close()
			if again.Addr().String() != ln.Addr().String() {
				t.Errorf("%s became %s", ln.Addr(), again.Addr())
			}
		})
	}
}

func TestHere(t *testing.T) {
	for addr, want := range map[string]string{
		"0.0.0.0:1080": "127.0.0.1:1080", "[::]:1080": "127.0.0.1:1080", ":1080": "127.0.0.1:1080",
		"127.0.0.1:1": "127.0.0.1:1", "[::1]:1": "[::1]:1", "192.168.1.5:1": "192.168.1.5:1", "localhost:1": "localhost:1", "pipe": "pipe",
	} {
		if got := Here(addr); got != want {
			t.Errorf("Here(%q) = %q, want %q", addr, got, want)
		}
	}
}

func TestElsewhere(t *testing.T) {
	var ips []netip.Addr
	for _, ip := range []string{"fd00::5", "100.64.0.9", "2001:db8::5", "192.168.1.5", "10.0.0.5"} {
		ips = append(ips, netip.MustParseAddr(ip))
	}
	for addr, want := range map[string][]string{
		"0.0.0.0:1080":     {"192.168.1.5:1080", "10.0.0.5:1080", "100.64.0.9:1080"},
		"[::]:1080":        {"192.168.1.5:1080", "10.0.0.5:1080", "100.64.0.9:1080", "[fd00::5]:1080"},
		":1":               {"192.168.1.5:1", "10.0.0.5:1", "100.64.0.9:1", "[fd00::5]:1"},
		"192.168.1.5:1080": {"192.168.1.5:1080"},
		"127.0.0.1:1080":   nil,
		"[::1]:1080":       nil,
		"localhost:1080":   nil,
		"pipe":             nil,
	} {
		if got := elsewhere(addr, ips); !slices.Equal(got, want) {
			t.Errorf("elsewhere(%q) = %q, want %q", addr, got, want)
		}
	}
	for _, addr := range Elsewhere(":1080") {
		if ip := netip.MustParseAddrPort(addr).Addr(); ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() {
			t.Errorf("%s is not an address for other devices", addr)
		}
	}
}
