package direct

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// host is a UDP socket of a test.
type host struct {
	*net.UDPConn
	addr netaddr.Addr
}

// hostAt opens a socket at an address of this machine, or skips the test where
// there is none.
func hostAt(t *testing.T, ip string) host {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no address %s here: %v", ip, err)
		}
		t.Skipf("no address %s here: %v", ip, err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return host{c, netaddr.FromAddrPort(c.LocalAddr().(*net.UDPAddr).AddrPort())}
}

// mustHear reads one datagram and returns where it came from.
func (h host) mustHear(t *testing.T, want string) netip.AddrPort {
	t.Helper()
	p := make([]byte, 1<<16)
	n, from, err := h.ReadFromUDPAddrPort(p)
	if err != nil || string(p[:n]) != want {
		t.Fatalf("%s heard %d bytes, %v; want %q", h.addr, n, err, want)
	}
	return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

func (h host) mustSay(t *testing.T, what string, to netip.AddrPort) {
	t.Helper()
	if _, err := h.WriteToUDPAddrPort([]byte(what), to); err != nil {
		t.Fatal(err)
	}
}

func dialPackets(t *testing.T, d *Dialer, dst netaddr.Addr) transport.PacketConn {
	t.Helper()
	c, err := d.DialPacket(t.Context(), dst)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func mustSend(t *testing.T, c transport.PacketConn, what string, to netaddr.Addr) {
	t.Helper()
	if err := c.WritePacket([]byte(what), to); err != nil {
		t.Fatalf("to %s: %v", to, err)
	}
}

func mustRead(t *testing.T, c transport.PacketConn, want string, from netaddr.Addr) {
	t.Helper()
	b, p, got, err := transport.ReadPacketPooled(c)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if string(p) != want || got != from {
		t.Fatalf("read %q from %s, want %q from %s", p, got, want, from)
	}
}

// RFC 4787: one source port for all destinations, and a third that was never
// written to gets through.
func TestConeIsEndpointIndependent(t *testing.T) {
	for _, ips := range [][3]string{{"127.0.0.1", "127.0.0.2", "127.0.0.3"}, {"127.0.0.1", "::1", "::1"}, {"::1", "127.0.0.2", "127.0.0.2"}} {
		t.Run(strings.Join(ips[:], ","), func(t *testing.T) {
			first, second, third := hostAt(t, ips[0]), hostAt(t, ips[1]), hostAt(t, ips[2])
			c := dialPackets(t, &Dialer{AllowPrivate: true}, netaddr.Addr{})
			mustSend(t, c, "one", first.addr)
			mustSend(t, c, "two", second.addr)
			seenByFirst, seenBySecond := first.mustHear(t, "one"), second.mustHear(t, "two")
			if seenByFirst.Port() != seenBySecond.Port() {
				t.Errorf("seen as %s and %s", seenByFirst, seenBySecond)
			}
			for _, h := range []host{first, second, third} {
				to := netip.AddrPortFrom(loopbackLike(h.addr.IP()), seenByFirst.Port())
				h.mustSay(t, "from "+h.addr.String(), to)
				mustRead(t, c, "from "+h.addr.String(), h.addr)
			}
		})
	}
}

func loopbackLike(ip netip.Addr) netip.Addr {
	if ip.Is4() {
		return netip.MustParseAddr("127.0.0.1")
	}
	return netip.IPv6Loopback()
}

func TestConeRefusesPrivate(t *testing.T) {
	h := hostAt(t, "127.0.0.1")
	c := dialPackets(t, &Dialer{}, netaddr.Addr{})
	for _, to := range []string{h.addr.String(), "10.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "[fe80::1]:1", "255.255.255.255:1", "224.0.0.1:1", "0.0.0.0:1", "[::]:1"} {
		a, err := netaddr.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.WritePacket([]byte("x"), a); !errors.Is(err, transport.ErrNotAllowed) || !transport.PacketLost(err) {
			t.Errorf("to %s: %v", to, err)
		}
	}
	for _, a := range []netaddr.Addr{{}, h.addr.WithPort(0)} {
		if err := c.WritePacket([]byte("x"), a); !transport.PacketLost(err) {
			t.Errorf("to %q: %v", a, err)
		}
	}
}

// What a destination's host says of a datagram (ICMP) ends nothing.
func TestRefusedPortsEndNothing(t *testing.T) {
	gone, h := hostAt(t, "127.0.0.1"), hostAt(t, "127.0.0.1")
	_ = gone.Close()
	bound := dialPackets(t, &Dialer{AllowPrivate: true}, gone.addr)
	for range 5 {
		mustSend(t, bound, "x", netaddr.Addr{})
	}
	cone := dialPackets(t, &Dialer{AllowPrivate: true}, netaddr.Addr{})
	for range 5 {
		mustSend(t, cone, "x", gone.addr)
	}
	mustSend(t, cone, "still", h.addr)
	h.mustHear(t, "still")
}

func TestBound(t *testing.T) {
	dst, other := hostAt(t, "127.0.0.1"), hostAt(t, "127.0.0.2")
	c := dialPackets(t, &Dialer{AllowPrivate: true}, dst.addr)
	mustSend(t, c, "hello", other.addr) // goes to the one destination all the same
	from := dst.mustHear(t, "hello")
	other.mustSay(t, "let me in", from)
	dst.mustSay(t, "back", from)
	mustRead(t, c, "back", dst.addr)
}

func TestBoundRefusesPrivate(t *testing.T) {
	name, _ := netaddr.FromHost("smuggler.test", 53)
	for _, dst := range []netaddr.Addr{hostAt(t, "127.0.0.1").addr, name} {
		c, err := (&Dialer{Resolver: loopbackResolver(t)}).DialPacket(t.Context(), dst)
		if !errors.Is(err, transport.ErrNotAllowed) {
			t.Errorf("%s: %v, %v", dst, c, err)
		}
	}
}

func TestNoSuchNameAsksNobody(t *testing.T) {
	d := &Dialer{Resolver: &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		t.Error("a resolver was asked")
		return nil, net.ErrClosed
	}}}
	for _, host := range []string{"probe.invalid", "INVALID", "a.b.invalid."} {
		name, _ := netaddr.FromHost(host, 80)
		var dns *net.DNSError
		if _, err := d.DialStream(t.Context(), name, nil); !errors.As(err, &dns) || !dns.IsNotFound {
			t.Errorf("%s: %v", host, err)
		}
		if _, err := d.DialPacket(t.Context(), name); !errors.As(err, &dns) {
			t.Errorf("%s: %v", host, err)
		}
	}
	if noSuchName("invalid.example") != nil || noSuchName("notinvalid") != nil || noSuchName("") != nil {
		t.Error("an ordinary name is taken for one that cannot be")
	}
}

func TestPacketSizes(t *testing.T) {
	h := hostAt(t, "127.0.0.1")
	for _, dst := range []netaddr.Addr{{}, h.addr} {
		c := dialPackets(t, &Dialer{AllowPrivate: true}, dst)
		for _, n := range []int{0, 1, 1400, 65497} {
			mustSend(t, c, strings.Repeat("x", n), h.addr)
			from := h.mustHear(t, strings.Repeat("x", n))
			h.mustSay(t, strings.Repeat("y", n), from)
			mustRead(t, c, strings.Repeat("y", n), h.addr)
		}
		if err := c.WritePacket(make([]byte, 65508), h.addr); !errors.Is(err, transport.ErrPacketTooLarge) {
			t.Errorf("65,508 bytes: %v", err)
		}
	}
}

func TestCloseFreesTheReader(t *testing.T) {
	h := hostAt(t, "127.0.0.1")
	for _, dst := range []netaddr.Addr{{}, h.addr} {
		c := dialPackets(t, &Dialer{AllowPrivate: true}, dst)
		done := make(chan error, 1)
		go func() {
			_, _, _, err := transport.ReadPacketPooled(c)
			done <- err
		}()
		_ = c.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("read %v", err)
		}
		if err := c.WritePacket([]byte("x"), h.addr); !errors.Is(err, net.ErrClosed) || transport.PacketLost(err) {
			t.Errorf("wrote: %v", err)
		}
	}
}

// gatedResolver answers every name with 127.0.0.1 once gate is closed, and
// counts the names asked for.
func gatedResolver(t *testing.T, gate <-chan struct{}, asked chan<- string) *net.Resolver {
	t.Helper()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		client, server := net.Pipe()
		go func() {
			if asked != nil {
				asked <- ""
			}
			answer(server)
		}()
		return client, nil
	}}
}

// A name that is being looked up holds up its own datagrams only, and they
// keep their order.
func TestNamesHoldUpNobody(t *testing.T) {
	slow, quick := hostAt(t, "127.0.0.1"), hostAt(t, "127.0.0.1")
	gate := make(chan struct{})
	c := dialPackets(t, &Dialer{AllowPrivate: true, Resolver: gatedResolver(t, gate, nil)}, netaddr.Addr{})
	name, _ := netaddr.FromHost("slow.test", slow.addr.Port())
	words := []string{"a", "b", "c", "d"}
	for _, w := range words {
		mustSend(t, c, w, name)
	}
	mustSend(t, c, "quick", quick.addr)
	quick.mustHear(t, "quick")
	close(gate)
	for _, w := range words {
		slow.mustHear(t, w)
	}
	// Known now: sent at once, and answered from the true address.
	mustSend(t, c, "e", name)
	from := slow.mustHear(t, "e")
	slow.mustSay(t, "back", from)
	mustRead(t, c, "back", slow.addr)
}

func TestNamesAreBounded(t *testing.T) {
	h := hostAt(t, "127.0.0.1")
	c := dialPackets(t, &Dialer{AllowPrivate: true, Resolver: gatedResolver(t, make(chan struct{}), nil)}, netaddr.Addr{})
	name := func(i int) netaddr.Addr {
		a, err := netaddr.FromHost(string(rune('a'+i))+".test", h.addr.Port())
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for i := range maxLookups {
		mustSend(t, c, "x", name(i))
	}
	if err := c.WritePacket([]byte("x"), name(maxLookups)); !errors.Is(err, errManyNames) || !transport.PacketLost(err) {
		t.Errorf("one name more: %v", err)
	}
	for range maxWaiting - 1 {
		mustSend(t, c, "x", name(0))
	}
	if err := c.WritePacket([]byte("x"), name(0)); !errors.Is(err, errManyWaiting) {
		t.Errorf("one datagram more: %v", err)
	}
	if err := c.WritePacket(make([]byte, 65000), name(1)); err != nil {
		t.Errorf("a large one: %v", err)
	}
	if err := c.WritePacket(make([]byte, 1000), name(2)); !errors.Is(err, errManyWaiting) {
		t.Errorf("more bytes than are held: %v", err)
	}
}

func TestNamesForget(t *testing.T) {
	var n pendingLookups
	n.init(&fullConeConn{dialer: &Dialer{}})
	n.known = map[string]*name{"pending": {pending: true}}
	for i := range maxNames - 1 {
		n.known[string(rune('A'+i))] = &name{until: time.Now().Add(time.Duration(i) * time.Second)}
	}
	n.forget()
	if len(n.known) != maxNames-1 || n.known["A"] != nil || n.known["pending"] == nil {
		t.Errorf("%d names are known", len(n.known))
	}
	n.stop()
}

// A private address behind a name is refused, from the second datagram on in
// as many words; the first is counted.
func TestNamesCannotSmuggle(t *testing.T) {
	c := dialPackets(t, &Dialer{Resolver: loopbackResolver(t)}, netaddr.Addr{}).(*fullConeConn)
	name, _ := netaddr.FromHost("smuggler.test", 53)
	mustSend(t, c, "x", name)
	until(t, func() bool { return c.Lost() == 1 })
	until(t, func() bool { return errors.Is(c.WritePacket([]byte("x"), name), transport.ErrNotAllowed) })
}

// until waits for what other goroutines bring about.
func until(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come about")
		}
	}
}

// A name without addresses is not asked for again at once.
func TestNamesRememberFailure(t *testing.T) {
	asked := make(chan string, 100)
	d := &Dialer{AllowPrivate: true, Resolver: &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		asked <- ""
		go refuse(server)
		return client, nil
	}}}
	c := dialPackets(t, d, netaddr.Addr{}).(*fullConeConn)
	name, _ := netaddr.FromHost("nowhere.test", 53)
	mustSend(t, c, "x", name)
	until(t, func() bool { return c.Lost() == 1 })
	until(t, func() bool { return c.WritePacket([]byte("x"), name) != nil })
	n := len(asked)
	for range 10 {
		if err := c.WritePacket([]byte("x"), name); !transport.PacketLost(err) {
			t.Errorf("wrote: %v", err)
		}
	}
	if len(asked) != n {
		t.Errorf("asked %d times more", len(asked)-n)
	}
}

// refuse serves one query with "no such name".
func refuse(c net.Conn) {
	defer c.Close()
	p := make([]byte, 2+512)
	if _, err := io.ReadFull(c, p[:2]); err != nil {
		return
	}
	n := int(p[0])<<8 | int(p[1])
	if _, err := io.ReadFull(c, p[2:2+n]); err != nil {
		return
	}
	var q dnsmessage.Message
	if q.Unpack(p[2:2+n]) != nil {
		return
	}
	q.Response, q.RCode, q.Additionals = true, dnsmessage.RCodeNameError, nil
	out, err := q.Pack()
	if err != nil {
		return
	}
	_, _ = c.Write(slices.Concat([]byte{byte(len(out) >> 8), byte(len(out))}, out))
}

func TestPacketAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, ip := range []string{"127.0.0.1", "::1"} {
		h := hostAt(t, ip)
		for _, dst := range []netaddr.Addr{{}, h.addr} {
			c, p, q := dialPackets(t, &Dialer{AllowPrivate: true}, dst), make([]byte, 1400), make([]byte, 2000)
			mustSend(t, c, "first", h.addr)
			from := h.mustHear(t, "first")
			if n := testing.AllocsPerRun(100, func() {
				if c.WritePacket(p, h.addr) != nil {
					t.Fatal("not sent")
				}
				if n, _, err := h.ReadFromUDPAddrPort(q); n != len(p) || err != nil {
					t.Fatal(n, err)
				}
				if _, err := h.WriteToUDPAddrPort(p, from); err != nil {
					t.Fatal(err)
				}
				b, got, _, err := transport.ReadPacketPooled(c)
				if err != nil || len(got) != len(p) {
					t.Fatal(err)
				}
				b.Release()
			}); n != 0 {
				t.Errorf("%s, bound %v: %v allocations a datagram", ip, dst.IsValid(), n)
			}
		}
	}
}
