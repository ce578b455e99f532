package mux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

// scripted is a far end that says what it says.
type scripted struct{ answer []byte }

func (s *scripted) dial(_ context.Context, first []byte) (transport.StreamConn, error) {
	a, b := transporttest.Pipe(1 << 20)
	_, _ = a.Write(first)
	go func() {
		_, _ = b.Write(s.answer)
		_ = b.CloseWrite()
	}()
	return a, nil
}

func echoPackets(_ context.Context, r *PacketRequest) {
	defer r.Conn.Close()
	p := make([]byte, MaxData)
	for {
		n, to, err := r.Conn.ReadPacket(p)
		if err != nil {
			return
		}
		_ = r.Conn.WritePacket(p[:n], to)
	}
}

func newUDP(t testing.TB, id uint16) Frame {
	f := newTCP(t, id)
	f.Network, f.HasData = NetworkUDP, true
	return f
}

func TestUDPSession(t *testing.T) {
	l := newLab(t)
	l.Server.HandlePackets = func(ctx context.Context, r *PacketRequest) {
		if r.FullCone || r.Destination != addr(t, "dns.example:53") || r.User != "alice" {
			t.Errorf("%+v", r)
		}
		echoPackets(ctx, r)
	}
	c, err := l.Client.DialPacket(t.Context(), addr(t, "dns.example:53"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := make([]byte, 4096)
	for i, n := range []int{1, 1400, 2048} {
		sent := bytes.Repeat([]byte{byte(i)}, n)
		if err := c.WritePacket(sent, netaddr.Addr{}); err != nil {
			t.Fatal(err)
		}
		n, from, err := c.ReadPacket(p)
		if err != nil || !bytes.Equal(p[:n], sent) || from != addr(t, "dns.example:53") {
			t.Fatalf("%d bytes from %v, %v", n, from, err)
		}
	}
	if err := c.WritePacket(make([]byte, 2049), netaddr.Addr{}); !errors.Is(err, transport.ErrPacketTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if err := c.WritePacket(nil, netaddr.Addr{}); !transport.PacketLost(err) {
		t.Errorf("empty: %v", err)
	}
	if err := c.WritePacket([]byte("goes on"), netaddr.Addr{}); err != nil {
		t.Error(err)
	}
	b, got, _, err := transport.ReadPacketPooled(c)
	if err != nil || string(got) != "goes on" {
		t.Fatalf("%q, %v", got, err)
	}
	b.Release()
	if n := l.dialled.Load(); n != 1 {
		t.Errorf("%d tunnels", n)
	}
}

// A plain session is answered without addresses, for V2Ray 4 knows none there;
// one of XUDP, or that uses addresses itself, is answered with them.
func TestUDPFrames(t *testing.T) {
	source := addr(t, "192.0.2.9:99")
	r := newRaw(t, &Server{HandlePackets: func(_ context.Context, r *PacketRequest) {
		p := make([]byte, 100)
		for {
			n, to, err := r.Conn.ReadPacket(p)
			if err != nil {
				return
			}
			_ = r.Conn.WritePacket(fmt.Appendf(nil, "%s to %v, %v", p[:n], to, r.FullCone), source)
		}
	}})
	withSource := func(f Frame) Frame { f.Network, f.Address = NetworkUDP, source; return f }

	r.send(t, newUDP(t, 1), "first")
	r.expect(t, keep(1), "first to example.com:80, false")
	r.send(t, keep(1), "second")
	r.expect(t, keep(1), "second to example.com:80, false")
	other := keep(1)
	other.Network, other.Address = NetworkUDP, addr(t, "[2001:db8::1]:53")
	r.send(t, other, "third")
	r.expect(t, withSource(keep(1)), "third to [2001:db8::1]:53, false")

	xray := newUDP(t, 2)
	xray.HasGlobalID = true
	r.send(t, xray, "x")
	r.expect(t, withSource(keep(2)), "x to example.com:80, true")

	r.send(t, newUDP(t, 0), "y")
	r.expect(t, withSource(keep(0)), "y to example.com:80, true")
	r.send(t, keep(0), "z")
	r.expect(t, withSource(keep(0)), "z to example.com:80, true")
	r.send(t, end(0, false), "")
}

func TestLargestAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		id     uint16
		global bool
		most   int
	}{"plain": {1, false, 2048}, "xray": {1, true, 8192}, "xudp": {0, false, 65497}} {
		errs := make(chan error, 2)
		r := newRaw(t, &Server{HandlePackets: func(_ context.Context, r *PacketRequest) {
			errs <- r.Conn.WritePacket(make([]byte, c.most+1), r.Destination)
			errs <- r.Conn.WritePacket(make([]byte, c.most), r.Destination)
		}})
		f := newUDP(t, c.id)
		f.HasGlobalID = c.global
		r.send(t, f, "x")
		if err := <-errs; !errors.Is(err, transport.ErrPacketTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		if err := <-errs; err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if f, err := r.in.Next(); err != nil || r.in.left != c.most {
			t.Errorf("%s: %+v of %d bytes, %v", name, f, r.in.left, err)
		}
	}
}

// Datagrams that nobody reads are dropped, the newest first, and hold nobody
// up.
func TestDatagramsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dropped atomic.Int64
		conns := make(chan transport.PacketConn, 1)
		r := newRaw(t, &Server{Dropped: &dropped, HandleStream: echo, HandlePackets: func(ctx context.Context, r *PacketRequest) {
			conns <- r.Conn
			<-ctx.Done()
		}})
		r.send(t, newUDP(t, 1), "0")
		for i := range 2 * maxQueued {
			r.send(t, keep(1), fmt.Sprint(i+1))
		}
		r.send(t, withData(newTCP(t, 2)), "through")
		r.expect(t, keep(2), "through")
		if n := dropped.Load(); n != maxQueued+1 {
			t.Errorf("%d dropped", n)
		}
		c, p := <-conns, make([]byte, 100)
		for i := range maxQueued {
			if n, _, err := c.ReadPacket(p); err != nil || string(p[:n]) != fmt.Sprint(i) {
				t.Fatalf("datagram %d: %q, %v", i, p[:n], err)
			}
		}
		dropped.Store(0)
		for range 10 {
			r.send(t, keep(1), string(make([]byte, MaxData)))
		}
		synctest.Wait()
		if n := dropped.Load(); n < 5 || n > 7 {
			t.Errorf("%d of 10 large ones dropped", n)
		}
		_ = r.Close()
		<-r.done
	})
}

// Two destinations see one association, and a third that was never written to
// reaches it.
func TestXUDPFullCone(t *testing.T) {
	l := newLab(t)
	associations := make(chan *PacketRequest, 1)
	l.Server.HandlePackets = func(ctx context.Context, r *PacketRequest) {
		associations <- r
		<-ctx.Done()
	}
	x := &XUDP{Dial: l.dial, MaxPayload: func() int { return 1 << 20 }}
	c, err := x.DialPacket(t.Context(), addr(t, "192.0.2.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n := l.dialled.Load(); n != 1 {
		t.Fatalf("%d tunnels", n)
	}
	var far transport.PacketConn
	p := make([]byte, MaxData)
	for i, to := range []string{"stun.example:3478", "192.0.2.2:2", "[2001:db8::2]:2", "stun.example:3478"} {
		sent := bytes.Repeat([]byte{byte(i)}, 1+i*20000)
		if err := c.WritePacket(sent, addr(t, to)); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			r := <-associations
			if !r.FullCone || r.Destination != addr(t, to) {
				t.Errorf("%+v", r)
			}
			far = r.Conn
		}
		n, got, err := far.ReadPacket(p)
		if err != nil || got != addr(t, to) || !bytes.Equal(p[:n], sent) {
			t.Fatalf("%d bytes to %v, %v", n, got, err)
		}
	}
	for i, from := range []string{"192.0.2.2:2", "198.51.100.3:3", "[2001:db8::7]:7"} {
		sent := bytes.Repeat([]byte{byte(i)}, 65497-i)
		if err := far.WritePacket(sent, addr(t, from)); err != nil {
			t.Fatal(err)
		}
		n, got, err := c.ReadPacket(p)
		if err != nil || got != addr(t, from) || !bytes.Equal(p[:n], sent) {
			t.Fatalf("%d bytes from %v, %v", n, got, err)
		}
	}
	if err := far.WritePacket([]byte("long"), addr(t, "192.0.2.2:2")); err != nil {
		t.Fatal(err)
	}
	if n, _, err := c.ReadPacket(p[:2]); n != 2 || err != nil {
		t.Errorf("a short read: %d, %v", n, err)
	}
	_ = far.WritePacket([]byte("lazy"), addr(t, "192.0.2.2:2"))
	b, got, _, err := transport.ReadPacketPooled(c)
	if err != nil || string(got) != "lazy" {
		t.Fatalf("%q, %v", got, err)
	}
	b.Release()
	_ = far.Close()
	if _, _, err := c.ReadPacket(p); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestXUDPErrors(t *testing.T) {
	l := newLab(t)
	x := &XUDP{Dial: l.dial}
	c, err := x.DialPacket(t.Context(), addr(t, "192.0.2.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WritePacket(make([]byte, 8193), addr(t, "192.0.2.1:1")); !errors.Is(err, transport.ErrPacketTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if err := c.WritePacket([]byte("x"), netaddr.Addr{}); err == nil {
		t.Error("sent nowhere")
	}
	if err := c.WritePacket([]byte("x"), addr(t, "192.0.2.1:1")); err != nil { // HandlePackets is nil
		t.Error(err)
	}
	if _, _, err := c.ReadPacket(make([]byte, 10)); err != ErrFailed {
		t.Errorf("refused: %v", err)
	}
	_ = c.Close()
	if err := c.WritePacket([]byte("x"), addr(t, "192.0.2.1:1")); err == nil {
		t.Error("sent after Close")
	}
	c, _ = x.DialPacket(t.Context(), addr(t, "192.0.2.1:1"))
	_ = l.ends[1].Reset()
	if _, _, err := c.ReadPacket(make([]byte, 10)); !errors.As(err, new(*TunnelError)) {
		t.Errorf("broken: %v", err)
	}
	l.refuse = errors.New("no way")
	if _, err := x.DialPacket(t.Context(), addr(t, "192.0.2.1:1")); !errors.Is(err, l.refuse) {
		t.Errorf("%v", err)
	}
}

// A write that must not wait is made where the tunnel has room, and otherwise
// leaves nothing behind.
func TestXUDPTryWrite(t *testing.T) {
	a, b := transporttest.Pipe(2 * transport.WriteReadyBytes)
	x := &XUDP{Dial: func(context.Context, []byte) (transport.StreamConn, error) { return a, nil }}
	c, _ := x.DialPacket(t.Context(), netaddr.Addr{})
	try, to, payload := c.(transport.PacketTrier), addr(t, "192.0.2.1:53"), make([]byte, 1000)
	sent := 0
	for ok := true; ok; {
		var err error
		if ok, err = try.TryWritePacket(payload, to); err != nil {
			t.Fatal(err)
		}
		if ok {
			sent++
		}
	}
	if sent < 2 || sent > 6 {
		t.Fatalf("%d datagrams of 1,000 bytes were written to a tunnel of %d", sent, 2*transport.WriteReadyBytes)
	}
	r := NewReader(b)
	for range sent {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		if p, _ := io.ReadAll(r); len(p) != len(payload) {
			t.Fatalf("%d bytes came", len(p))
		}
	}
	if ok, err := try.TryWritePacket(make([]byte, transport.WriteReadyBytes), to); ok || err != nil {
		t.Errorf("a large datagram was written: %v, %v", ok, err)
	}
	if ok, err := try.TryWritePacket(payload, to); !ok || err != nil {
		t.Errorf("with room: %v, %v", ok, err)
	}
	if ok, err := try.TryWritePacket(payload, netaddr.Addr{}); !ok || err == nil {
		t.Errorf("sent nowhere: %v, %v", ok, err)
	}
	_ = c.Close()
}

// The vectors of XUDP, as the client writes them.
func TestXUDPWire(t *testing.T) {
	a, b := transporttest.Pipe(1 << 16)
	x := &XUDP{Dial: func(context.Context, []byte) (transport.StreamConn, error) { return a, nil }}
	c, _ := x.DialPacket(t.Context(), netaddr.Addr{})
	to := []netaddr.Addr{addr(t, "192.0.2.1:53"), addr(t, "[2001:db8::1]:53"), addr(t, "example.com:443")}
	r := NewReader(b)
	for i, to := range to {
		sent := make([]byte, 1+rand.IntN(2000))
		if err := c.WritePacket(sent, to); err != nil {
			t.Fatal(err)
		}
		want := Frame{Status: StatusKeep, Network: NetworkUDP, Address: to, HasData: true}
		if i == 0 {
			want.Status = StatusNew
		}
		f, err := r.Next()
		if p, _ := io.ReadAll(r); err != nil || f != want || len(p) != len(sent) {
			t.Errorf("%+v, %v", f, err)
		}
	}
	_ = c.Close()
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func BenchmarkXUDP(b *testing.B) {
	l := newLab(b)
	l.overTCP(b)
	l.Server.HandlePackets = echoPackets
	x := &XUDP{Dial: l.Client.Dial}
	to := addr(b, "192.0.2.1:1")
	c, err := x.DialPacket(b.Context(), to)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	p := make([]byte, 1400)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if err := c.WritePacket(p, to); err != nil {
			b.Fatal(err)
		}
		if _, _, err := c.ReadPacket(p); err != nil {
			b.Fatal(err)
		}
	}
}
