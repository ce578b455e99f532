package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

func TestRoundTrip(t *testing.T) {
	s := &Server{Dialer: dialerFunc(dialEcho)}
	for _, ip := range []string{"127.0.0.1", "::1"} {
		t.Run(ip, func(t *testing.T) {
			u := join(t, s, ip)
			if u.bound.Addr() != netip.MustParseAddr(ip) || u.bound.Port() == 0 {
				t.Errorf("bound to %s", u.bound)
			}
			for _, to := range []string{"192.0.2.1:53", "[2001:db8::1]:443", "example.com:53"} {
				for _, n := range []int{1, 64, 1472, 1900, 8192, 65485 - len("example.com")} {
					payload := strings.Repeat("x", n)
					u.send(t, to, payload)
					u.want(t, to, payload)
				}
			}
		})
	}
	if up, down := s.Stats.Up.Packets.Load(), s.Stats.Down.Packets.Load(); up != 36 || down != 36 {
		t.Errorf("counted %d up, %d down", up, down)
	}
	if open, opened := s.Stats.Open.Load(), s.Stats.Opened.Load(); open != 0 || opened != 2 {
		t.Errorf("%d open of %d", open, opened)
	}
}

func TestLargest(t *testing.T) {
	tunnel := newPipes(16)
	log := new(record)
	s := &Server{Dialer: tunnel, Report: log.report}
	u := join(t, s, "127.0.0.1")
	payload := strings.Repeat("x", 65497)
	u.send(t, "192.0.2.1:53", payload)
	far := <-tunnel.far
	wantRead(t, far, "192.0.2.1:53", payload)
	// Answers that UDP cannot carry are dropped, the first that fits is not.
	for range 3 {
		_ = far.WritePacket([]byte(payload), addr("[2001:db8::1]:53"))
		_ = far.WritePacket(make([]byte, 65508), addr("192.0.2.1:53"))
	}
	_ = far.WritePacket(nil, addr("192.0.2.1:53"))
	_ = far.WritePacket([]byte("x"), netaddr.Addr{})
	_ = far.WritePacket([]byte(payload), addr("192.0.2.1:53"))
	u.want(t, "192.0.2.1:53", payload)
	if n := s.Stats.Dropped[DropTooLarge].Load(); n != 6 || log.count(ErrTooLarge) != 1 {
		t.Errorf("%d dropped, said %d times", n, log.count(ErrTooLarge))
	}
	if n := s.Stats.Dropped[DropNothing].Load(); n != 2 {
		t.Errorf("%d without payload or source", n)
	}
}

// Nobody but the client can use or read an association.
func TestForeigners(t *testing.T) {
	tunnel := newPipes(64)
	log := new(record)
	s := &Server{Dialer: tunnel, Report: log.report}
	u := join(t, s, "127.0.0.1")
	elsewhere, neighbour := dialFrom(t, "127.0.0.2", u.bound), dialFrom(t, "127.0.0.1", u.bound)
	foreign := func(c *net.UDPConn) {
		t.Helper()
		before := s.Stats.Dropped[DropForeign].Load()
		if _, err := c.Write(pack(addr("192.0.2.66:53"), []byte("stolen"))); err != nil {
			t.Fatal(err)
		}
		until(t, "the foreign datagram is dropped", func() bool { return s.Stats.Dropped[DropForeign].Load() == before+1 })
	}
	foreign(elsewhere) // before the client's first, too
	if _, err := neighbour.Write([]byte("\x00\x00\x00junk")); err != nil {
		t.Fatal(err)
	}
	until(t, "what is malformed binds no port", func() bool { return s.Stats.Dropped[DropMalformed].Load() == 1 })
	u.send(t, "192.0.2.1:53", "one")
	far := <-tunnel.far
	wantRead(t, far, "192.0.2.1:53", "one")
	foreign(elsewhere)
	foreign(neighbour)
	u.send(t, "192.0.2.1:53", "two")
	wantRead(t, far, "192.0.2.1:53", "two")

	// Answers reach the client, the others read nothing.
	_ = far.WritePacket([]byte("answer"), addr("192.0.2.9:9"))
	u.want(t, "192.0.2.9:9", "answer")
	for _, c := range []*net.UDPConn{elsewhere, neighbour} {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if n, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s read %d bytes", c.LocalAddr(), n)
		}
	}
	if log.count(ErrForeign) != 1 || log.count(ErrLocalSender) != 1 {
		t.Errorf("said %d times", log.count(ErrForeign))
	}
}

func TestNamedSender(t *testing.T) {
	for _, c := range []struct {
		source, named string
		want          uint16
	}{
		{"127.0.0.1:5", "0.0.0.0:0", 0},
		{"127.0.0.1:5", "0.0.0.0:77", 77},
		{"127.0.0.1:5", "[::]:77", 77},
		{"127.0.0.1:5", "127.0.0.1:77", 77},
		{"127.0.0.1:5", "192.168.1.2:77", 0},
		{"[fe80::1%lo]:5", "[fe80::1]:77", 77},
		{"[::ffff:127.0.0.1]:5", "127.0.0.1:77", 77},
	} {
		source := netip.MustParseAddrPort(c.source)
		got := expected(&transport.Request{Source: source, Destination: addr(c.named)})
		if got.Addr() != source.Addr().Unmap() || got.Port() != c.want {
			t.Errorf("from %s naming %s: expects %s", c.source, c.named, got)
		}
	}

	// The neighbour comes first and still cannot take the association.
	tunnel := newPipes(16)
	s := &Server{Dialer: tunnel}
	own, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback(0)))
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	u, pending := ask(s, loopback(5), loopback(1080), netaddr.FromAddrPort(own.LocalAddr().(*net.UDPAddr).AddrPort()))
	bound := <-pending.bound
	u.UDPConn = dialFrom(t, "127.0.0.1", bound)
	defer u.leave(t)
	u.send(t, "192.0.2.66:53", "stolen")
	if _, err := own.WriteToUDPAddrPort(pack(addr("192.0.2.1:53"), []byte("own")), bound); err != nil {
		t.Fatal(err)
	}
	wantRead(t, <-tunnel.far, "192.0.2.1:53", "own")
}

func TestDropReasons(t *testing.T) {
	tunnel := newPipes(16)
	log := new(record)
	s := &Server{Dialer: tunnel, Report: log.report}
	u := join(t, s, "127.0.0.1")
	for range 3 {
		for _, p := range []string{"x", "\x00\x00\x01\x01\xc0\x00\x02\x01\x00\x35hi", "\x00\x00\x00\x01\xc0\x00\x02\x01\x00\x35", ""} {
			if _, err := u.Write([]byte(p)); err != nil {
				t.Fatal(err)
			}
		}
	}
	u.send(t, "example.com:1", "good")
	wantRead(t, <-tunnel.far, "example.com:1", "good")
	s.Stats.Dropped.Each(func(reason Drop, n int64) {
		want := map[Drop]int64{DropMalformed: 6, DropFragment: 3, DropNothing: 3}[reason]
		if n != want || log.count(reason.cause()) != min(int(want), 1) {
			t.Errorf("%s: %d, said %d times", reason, n, log.count(reason.cause()))
		}
	})
}

// refusing is a tunnel that refuses some datagrams.
type refusing struct{ *transporttest.PacketEnd }

func (r refusing) WritePacket(p []byte, to netaddr.Addr) error {
	switch {
	case len(p) > 1900:
		return transport.ErrPacketTooLarge
	case to.IsName():
		return fmt.Errorf("to a name: %w", transport.ErrPacketAddress)
	}
	return r.PacketEnd.WritePacket(p, to)
}

func TestRefusalsOfTheTunnel(t *testing.T) {
	near, far := transporttest.PacketPipe(16)
	dials := 0
	log := new(record)
	s := &Server{Report: log.report, Dialer: dialerFunc(func(context.Context, netaddr.Addr) (transport.PacketConn, error) {
		dials++
		return refusing{near}, nil
	})}
	u := join(t, s, "127.0.0.1")
	for range 2 {
		u.send(t, "192.0.2.1:53", strings.Repeat("x", 1901))
		u.send(t, "example.com:53", "x")
		u.send(t, "192.0.2.1:53", strings.Repeat("x", 1900))
		wantRead(t, far, "192.0.2.1:53", strings.Repeat("x", 1900))
	}
	if dials != 1 {
		t.Errorf("dialled %d times", dials)
	}
	for _, reason := range []Drop{DropTooLarge, DropRefused} {
		if n := s.Stats.Dropped[reason].Load(); n != 2 || log.count(reason.cause()) != 1 {
			t.Errorf("%s: %d, said %d times", reason, n, log.count(reason.cause()))
		}
	}
}

// A tunnel that takes nothing holds up neither the socket nor memory: what is
// beyond the bound is dropped, the newest first.
func TestBoundedQueue(t *testing.T) {
	const bound = 8
	tunnel := newPipes(0)
	s := &Server{Dialer: tunnel, QueuePackets: bound}
	u := join(t, s, "127.0.0.1")
	u.send(t, "192.0.2.1:53", "0")
	far := <-tunnel.far // the first is with the writer, which waits
	for i := 1; i <= 3*bound; i++ {
		u.send(t, "192.0.2.1:53", fmt.Sprint(i))
	}
	until(t, "the rest is dropped", func() bool { return s.Stats.Dropped[DropQueueFull].Load() == 2*bound })
	if held := s.budget.used.Load(); held != bound*smallSize {
		t.Errorf("%d bytes are held", held)
	}
	for i := range bound + 1 {
		wantRead(t, far, "192.0.2.1:53", fmt.Sprint(i))
	}
	u.send(t, "192.0.2.1:53", "again")
	wantRead(t, far, "192.0.2.1:53", "again")
	u.leave(t)
	if held := s.budget.used.Load(); held != 0 {
		t.Errorf("%d bytes are held at the end", held)
	}
}

func TestEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(u *user, s *Server)
	}{
		{"close", func(u *user, _ *Server) { _ = u.control.Close() }},
		{"half close", func(u *user, _ *Server) { _ = u.control.CloseWrite() }},
		{"reset", func(u *user, _ *Server) { _ = u.control.Reset() }},
		{"cut", func(u *user, _ *Server) { u.cut() }},
	} {
		for _, stuck := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/stuck=%v", c.name, stuck), func(t *testing.T) {
				tunnel := newPipes(0)
				s := &Server{Dialer: tunnel}
				u := join(t, s, "127.0.0.1")
				if _, err := u.control.Write([]byte("chatter that means nothing")); err != nil {
					t.Fatal(err)
				}
				u.send(t, "192.0.2.1:53", "one")
				far := <-tunnel.far
				if !stuck {
					wantRead(t, far, "192.0.2.1:53", "one")
				}
				c.end(u, s)
				select {
				case <-u.over:
				case <-time.After(patience):
					t.Fatal("the association goes on")
				}
				if _, _, err := far.ReadPacket(make([]byte, 9)); err == nil {
					t.Error("the tunnel goes on")
				}
				again, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(u.bound))
				if err != nil {
					t.Fatalf("the socket is still there: %v", err)
				}
				_ = again.Close()
				if open, tunnels := s.Stats.Open.Load(), s.Stats.Tunnels.Load(); open != 0 || tunnels != 0 {
					t.Errorf("%d associations, %d tunnels", open, tunnels)
				}
			})
		}
	}
}

func TestEndsWhileDialling(t *testing.T) {
	dialling := make(chan struct{})
	s := &Server{Dialer: dialerFunc(func(ctx context.Context, _ netaddr.Addr) (transport.PacketConn, error) {
		close(dialling)
		<-ctx.Done()
		return nil, ctx.Err()
	})}
	u := join(t, s, "127.0.0.1")
	u.send(t, "192.0.2.1:53", "one")
	<-dialling
	u.leave(t)
	if n := s.Stats.Dropped[DropNoTunnel].Load(); n != 0 {
		t.Errorf("%d are counted as lost for want of a tunnel", n)
	}
}

// A socket that fails ends its association, and with it the control connection.
func TestSocketFails(t *testing.T) {
	s := &Server{Dialer: newPipes(1)}
	socket, err := listen(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	near, far := transporttest.Pipe(16)
	_ = socket.Close()
	s.associate(t.Context(), socket, near, &transport.Request{Source: loopback(1), Local: loopback(2), Destination: anywhere})
	if _, err := far.Read(make([]byte, 1)); err == nil {
		t.Error("the control connection goes on")
	}
}

func TestTooManyAssociations(t *testing.T) {
	for name, s := range map[string]*Server{"by number": {MaxAssociations: 2}, "by room": {Room: make(seats, 2)}} {
		t.Run(name, func(t *testing.T) { testTooManyAssociations(t, s) })
	}
}

func testTooManyAssociations(t *testing.T, s *Server) {
	log := new(record)
	s.Dialer, s.Report = newPipes(1), log.report
	users := []*user{join(t, s, "127.0.0.1"), join(t, s, "127.0.0.1")}
	for range 3 {
		u, pending := ask(s, loopback(1), loopback(2), anywhere)
		if err := <-pending.aborted; !errors.Is(err, ErrTooMany) || transport.CodeOf(err) != transport.CodeGeneral {
			t.Errorf("refused with %v", err)
		}
		<-u.over
		u.cut()
	}
	if s.Stats.Refused.Load() != 3 || log.count(ErrTooMany) != 1 || s.Stats.Open.Load() != 2 {
		t.Errorf("%d refused, said %d times, %d open", s.Stats.Refused.Load(), log.count(ErrTooMany), s.Stats.Open.Load())
	}
	users[0].leave(t)
	join(t, s, "127.0.0.1")
}

func TestNoAddress(t *testing.T) {
	u, pending := ask(new(Server), loopback(1), netip.AddrPort{}, anywhere)
	if err := <-pending.aborted; !errors.Is(err, ErrNoAddress) {
		t.Errorf("refused with %v", err)
	}
	<-u.over
	u.cut()
}

// A quiet association gives its buffer back and goes on with the next datagram.
func TestLinger(t *testing.T) {
	s := &Server{Dialer: dialerFunc(dialEcho)}
	u := join(t, s, "127.0.0.1")
	for range 2 {
		u.send(t, "192.0.2.1:53", "x")
		u.want(t, "192.0.2.1:53", "x")
		time.Sleep(linger + 100*time.Millisecond) // the socket's own time, which no fake clock moves
	}
}

// watched is a Watcher that keeps what it is told.
type watched struct {
	moved chan *Moved
	cut   chan func()
	ended chan struct{}
}

// Begin implements Watcher.
func (w watched) Begin(_ *transport.Request, moved *Moved, cut func()) (end func()) {
	w.moved <- moved
	w.cut <- cut
	return func() { close(w.ended) }
}

// An association is watched from its beginning to its end, and can be cut.
func TestWatcher(t *testing.T) {
	w := watched{make(chan *Moved, 1), make(chan func(), 1), make(chan struct{})}
	s := &Server{Dialer: dialerFunc(dialEcho), Watcher: w}
	u := join(t, s, "127.0.0.1")
	in := make([]byte, 1<<16)
	for _, to := range []string{"192.0.2.1:53", "192.0.2.2:53", "192.0.2.1:53", "example.com:53", "192.0.2.2:53"} {
		_, _ = u.Write(pack(addr(to), []byte("12345")))
		_, _ = u.Read(in)
	}
	m := <-w.moved
	until(t, "the last answer is counted", func() bool { return m.Down.Packets.Load() == 5 })
	if m.Up.Packets.Load() != 5 || m.Up.Bytes.Load() != 25 || m.Down.Bytes.Load() != 25 || m.Destinations.Load() != 3 {
		t.Errorf("%d datagrams of %d bytes up, %d bytes down, %d destinations", m.Up.Packets.Load(), m.Up.Bytes.Load(), m.Down.Bytes.Load(), m.Destinations.Load())
	}
	for i := range 2 * MaxCountedDestinations {
		_, _ = u.Write(pack(addr(fmt.Sprintf("192.0.2.3:%d", 1+i)), []byte("1")))
		_, _ = u.Read(in)
	}
	if n := m.Destinations.Load(); n != MaxCountedDestinations {
		t.Errorf("%d destinations are counted, want %d at most", n, MaxCountedDestinations)
	}
	(<-w.cut)()
	<-w.ended
	until(t, "it is over", func() bool { return s.Stats.Open.Load() == 0 })
}
