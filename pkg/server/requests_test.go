package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"vmess-local/pkg/outbound/direct"
	"vmess-local/pkg/protocol/mux"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// host is a UDP socket somewhere on this machine.
type host struct {
	*net.UDPConn
	addr netaddr.Addr
}

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
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return host{c, netaddr.FromAddrPort(c.LocalAddr().(*net.UDPAddr).AddrPort())}
}

func (h host) mustHear(t *testing.T, want string) netip.AddrPort {
	t.Helper()
	p := make([]byte, 1<<16)
	n, from, err := h.ReadFromUDPAddrPort(p)
	if err != nil || string(p[:n]) != want {
		t.Fatalf("%s heard %d bytes, %v; want %d", h.addr, n, err, len(want))
	}
	return from
}

func (h host) mustSay(t *testing.T, what string, to netip.AddrPort) {
	t.Helper()
	if _, err := h.WriteToUDPAddrPort([]byte(what), to); err != nil {
		t.Fatal(err)
	}
}

// echoUDP sends back what it gets.
func echoUDP(t *testing.T) netaddr.Addr {
	t.Helper()
	h := hostAt(t, "127.0.0.1")
	_ = h.SetDeadline(time.Time{})
	var done sync.WaitGroup
	t.Cleanup(func() { _ = h.Close(); done.Wait() })
	done.Go(func() {
		p := make([]byte, 1<<16)
		for {
			n, from, err := h.ReadFromUDPAddrPort(p)
			if err != nil {
				return
			}
			_, _ = h.WriteToUDPAddrPort(p[:n], from)
		}
	})
	return h.addr
}

// cones are the ways of an association that goes anywhere.
func cones(t *testing.T, s *Server) map[string]func(ctx context.Context) (transport.PacketConn, error) {
	t.Helper()
	d := dialer(t, s)
	x := &mux.XUDP{MaxPayload: func() int { return 65497 }, Dial: func(ctx context.Context, first []byte) (transport.StreamConn, error) {
		return d.DialMux(ctx, first)
	}}
	return map[string]func(ctx context.Context) (transport.PacketConn, error){
		"packetaddr": d.DialPacketAddr,
		"xudp": func(ctx context.Context) (transport.PacketConn, error) {
			return x.DialPacket(ctx, netaddr.Addr{})
		},
	}
}

func open(t *testing.T, dial func(ctx context.Context) (transport.PacketConn, error)) transport.PacketConn {
	t.Helper()
	c, err := dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(20*time.Second, func() { _ = c.Close() }) // a read that hangs fails
	t.Cleanup(func() { stop.Stop(); _ = c.Close() })
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
		t.Fatalf("read %d bytes from %s, want %d from %s", len(p), got, len(want), from)
	}
}

// What STUN finds out (RFC 5780): two destinations see one source, a third that
// was never written to reaches the client, and the client sees true addresses.
func TestFullCone(t *testing.T) {
	s, _ := serve(t, testConfig(), Options{})
	for name, dial := range cones(t, s) {
		for _, ips := range [][3]string{{"127.0.0.1", "127.0.0.2", "127.0.0.3"}, {"127.0.0.1", "::1", "::1"}} {
			t.Run(name+strings.Join(ips[:], ","), func(t *testing.T) {
				first, second, third := hostAt(t, ips[0]), hostAt(t, ips[1]), hostAt(t, ips[2])
				c := open(t, dial)
				mustSend(t, c, "one", first.addr)
				mustSend(t, c, "two", second.addr)
				seen := first.mustHear(t, "one")
				if other := second.mustHear(t, "two"); seen.Port() != other.Port() {
					t.Errorf("seen as %s and %s", seen, other)
				}
				for _, h := range []host{first, second, third} {
					local := netip.MustParseAddr("127.0.0.1")
					if h.addr.IP().Is6() {
						local = netip.IPv6Loopback()
					}
					h.mustSay(t, "back", netip.AddrPortFrom(local, seen.Port()))
					mustRead(t, c, "back", h.addr)
				}
			})
		}
	}
}

func TestDatagramSizes(t *testing.T) {
	s, _ := serve(t, testConfig(), Options{})
	ways := cones(t, s)
	to := echoUDP(t)
	ways["plain"] = func(ctx context.Context) (transport.PacketConn, error) { return dialer(t, s).DialPacket(ctx, to) }
	for name, dial := range ways {
		t.Run(name, func(t *testing.T) {
			c := open(t, dial)
			for _, n := range []int{64, 1400, 1900, 8 << 10, 65400} {
				mustSend(t, c, strings.Repeat("x", n), to)
				mustRead(t, c, strings.Repeat("x", n), to)
			}
		})
	}
}

// A plain association hears its one destination only.
func TestPlainIsBound(t *testing.T) {
	s, _ := serve(t, testConfig(), Options{})
	d := dialer(t, s)
	m := &mux.Client{Dial: func(ctx context.Context, first []byte) (transport.StreamConn, error) { return d.DialMux(ctx, first) }}
	t.Cleanup(func() { _ = m.Close() })
	for name, way := range map[string]transport.PacketDialer{"plain": d, "mux": m} {
		t.Run(name, func(t *testing.T) {
			dst, other := hostAt(t, "127.0.0.1"), hostAt(t, "127.0.0.2")
			c := open(t, func(ctx context.Context) (transport.PacketConn, error) { return way.DialPacket(ctx, dst.addr) })
			mustSend(t, c, "hello", dst.addr)
			from := dst.mustHear(t, "hello")
			other.mustSay(t, "let me in", from)
			dst.mustSay(t, "back", from)
			mustRead(t, c, "back", dst.addr)
		})
	}
}

func TestCalled(t *testing.T) {
	for user, want := range map[string]string{"first": `user "first"`, "user 2": "user 2"} {
		if got := userLabel(user); got != want {
			t.Errorf("%s is %s, want %s", user, got, want)
		}
	}
}

// Private destinations are refused datagram by datagram, said at once, and
// said once.
func TestPrivateDatagramsRefused(t *testing.T) {
	cfg := testConfig()
	cfg.Egress.AllowPrivate = false
	s, log := serve(t, cfg, Options{})
	h := hostAt(t, "127.0.0.1")
	for name, dial := range cones(t, s) {
		c := open(t, dial)
		for range 3 {
			mustSend(t, c, "x", h.addr)
		}
		waitFor(t, log, "user \"alice\" asked for a private destination")
		_ = h.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if n, _, err := h.ReadFromUDPAddrPort(make([]byte, 10)); err == nil {
			t.Errorf("%s: %d bytes got through", name, n)
		}
	}
	c := open(t, func(ctx context.Context) (transport.PacketConn, error) { return dialer(t, s).DialPacket(ctx, h.addr) })
	mustSend(t, c, "x", h.addr)
	if b, _, _, err := transport.ReadPacketPooled(c); err != io.EOF {
		t.Errorf("plain: %v, %v", b, err)
	}
	if n := strings.Count(log.String(), "user \"alice\" asked for a private destination"); n != 1 {
		t.Errorf("told %d times:\n%s", n, log)
	}
}

// Datagrams do not go round a Dialer that is all the way out there is.
func TestPacketsNeedTheirDialer(t *testing.T) {
	nowhere := transport.DialerFunc(func(context.Context, netaddr.Addr, []byte) (transport.StreamConn, error) {
		return nil, errors.New("not here")
	})
	to := echoUDP(t)
	for _, own := range []transport.PacketDialer{nil, &direct.Dialer{AllowPrivate: true}} {
		s, _ := serve(t, testConfig(), Options{Dialer: nowhere, PacketDialer: own})
		c := open(t, func(ctx context.Context) (transport.PacketConn, error) { return dialer(t, s).DialPacket(ctx, to) })
		mustSend(t, c, "hello", to)
		if own != nil {
			mustRead(t, c, "hello", to)
			continue
		}
		if b, _, _, err := transport.ReadPacketPooled(c); err == nil {
			t.Error("a datagram came back without a way out")
			b.Release()
		}
	}
}

func waitFor(t *testing.T, log *logged, text string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(log.String(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log does not say %q:\n%s", text, log)
		}
	}
}

// One tunnel cannot take more ways out than there are connections.
func TestTooManyWaysOut(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.Connections, cfg.Fallback = 3, t.TempDir()
	if err := os.WriteFile(filepath.Join(cfg.Fallback, "index.html"), []byte("page"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, log := serve(t, cfg, Options{})
	visit := func(want int) {
		t.Helper()
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("a visitor gets %s", resp.Status)
		}
	}
	visit(http.StatusOK)
	d := dialer(t, s)
	m := &mux.Client{Concurrency: 100, Dial: func(ctx context.Context, first []byte) (transport.StreamConn, error) { return d.DialMux(ctx, first) }}
	t.Cleanup(func() { _ = m.Close() })
	to := echoUDP(t)
	for range 3 {
		c := open(t, func(ctx context.Context) (transport.PacketConn, error) { return m.DialPacket(ctx, to) })
		mustSend(t, c, "x", to)
		mustRead(t, c, "x", to)
	}
	c := open(t, func(ctx context.Context) (transport.PacketConn, error) { return m.DialPacket(ctx, to) })
	mustSend(t, c, "x", to)
	if b, _, _, err := transport.ReadPacketPooled(c); err == nil {
		t.Error("one too many is served")
		b.Release()
	}
	stream, err := m.DialStream(t.Context(), echo(t), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if n, err := stream.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a stream too many: %d bytes, %v", n, err)
	}
	visit(http.StatusServiceUnavailable) // a page is a file, too
	if n := strings.Count(log.String(), "too many outbound connections (limit 3); rejecting requests from"); n != 1 {
		t.Errorf("told %d times:\n%s", n, log)
	}
}

// Sessions of one tunnel are streams like any others.
func TestMuxStreams(t *testing.T) {
	s, _ := serve(t, testConfig(), Options{})
	d, to := dialer(t, s), echo(t)
	m := &mux.Client{Dial: func(ctx context.Context, first []byte) (transport.StreamConn, error) { return d.DialMux(ctx, first) }}
	t.Cleanup(func() { _ = m.Close() })
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			c, err := m.DialStream(t.Context(), to, fmt.Appendf(nil, "hello %d;", i))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			want := append(fmt.Appendf(nil, "hello %d;", i), bytes.Repeat([]byte{byte(i)}, 100<<10)...)
			go func() { _, _ = c.Write(want[len(want)-100<<10:]) }()
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("session %d: %v", i, err)
			}
		})
	}
	all.Wait()
}

// Associations that are over leave nothing behind.
func TestAssociationsLeaveNothing(t *testing.T) {
	s, _ := serve(t, testConfig(), Options{})
	to, count := echoUDP(t), 100
	for name, dial := range cones(t, s) {
		t.Run(name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			conns := make([]transport.PacketConn, count)
			for i := range conns {
				conns[i] = open(t, dial)
				for range 5 {
					mustSend(t, conns[i], "x", to)
					mustRead(t, conns[i], "x", to)
				}
			}
			if n := s.outboundSlots.open.Load(); n != int64(count) {
				t.Errorf("%d ways out for %d associations", n, count)
			}
			for _, c := range conns {
				_ = c.Close()
			}
			for deadline := time.Now().Add(10 * time.Second); s.outboundSlots.open.Load() > 0 || runtime.NumGoroutine() > before+10; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%d ways out, %d goroutines, %d before", s.outboundSlots.open.Load(), runtime.NumGoroutine(), before)
				}
			}
		})
	}
}
