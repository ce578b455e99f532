package dispatch

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/relay"
)

// A datagram is one that a fake association carries.
type datagram struct {
	data string
	addr netaddr.Addr
}

// fakePackets is an association in memory.
type fakePackets struct {
	in     chan datagram
	out    chan datagram
	refuse func(datagram) error // nil: nothing
	closed chan struct{}
	once   sync.Once
}

func newFakePackets() *fakePackets {
	return &fakePackets{in: make(chan datagram, 8), out: make(chan datagram, 8), closed: make(chan struct{})}
}

func (f *fakePackets) ReadPacket(p []byte) (int, netaddr.Addr, error) {
	select {
	case d, ok := <-f.in:
		if !ok {
			return 0, netaddr.Addr{}, io.EOF
		}
		return copy(p, d.data), d.addr, nil
	case <-f.closed:
		return 0, netaddr.Addr{}, net.ErrClosed
	}
}

func (f *fakePackets) WritePacket(p []byte, to netaddr.Addr) error {
	d := datagram{string(p), to}
	if f.refuse != nil {
		if err := f.refuse(d); err != nil {
			return err
		}
	}
	select {
	case f.out <- d:
		return nil
	case <-f.closed:
		return net.ErrClosed
	}
}

func (f *fakePackets) Close() error { f.once.Do(func() { close(f.closed) }); return nil }

func (f *fakePackets) isClosed() bool {
	select {
	case <-f.closed:
		return true
	default:
		return false
	}
}

// packetDialerFunc makes a transport.PacketDialer of a function.
type packetDialerFunc func(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error)

func (f packetDialerFunc) DialPacket(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	return f(ctx, dst)
}

// join runs an association between two fakes.
func join(ctx context.Context, idle time.Duration) (near, far *fakePackets, ended <-chan Report) {
	near, far = newFakePackets(), newFakePackets()
	r := make(reports, 1)
	d := &Dispatcher{PacketIdle: idle, Reporter: r, Packets: packetDialerFunc(func(context.Context, netaddr.Addr) (transport.PacketConn, error) {
		return far, nil
	})}
	go d.HandlePackets(ctx, &transport.Request{User: "alice"}, near)
	return near, far, r
}

var (
	one = netaddr.FromIP(netip.MustParseAddr("192.0.2.1"), 1)
	two = netaddr.FromIP(netip.MustParseAddr("192.0.2.2"), 2)
)

func TestPacketsBothWays(t *testing.T) {
	near, far, ended := join(t.Context(), 0)
	near.in <- datagram{"up", one}
	near.in <- datagram{"further", two}
	far.in <- datagram{"down", two}
	for _, want := range []datagram{{"up", one}, {"further", two}} {
		if got := <-far.out; got != want {
			t.Errorf("%v came, want %v", got, want)
		}
	}
	if got := <-near.out; got != (datagram{"down", two}) {
		t.Errorf("%v came back", got)
	}
	close(near.in)
	r := <-ended
	if r.Err != nil || r.Up != 9 || r.Down != 4 || r.Dropped != 0 || r.Request.User != "alice" {
		t.Errorf("reported %+v", r)
	}
	if !near.isClosed() || !far.isClosed() {
		t.Error("a side is open")
	}
}

// What concerns one datagram does not end the association, and is reported.
func TestPacketsDropped(t *testing.T) {
	near, far := newFakePackets(), newFakePackets()
	ended, refusals := make(reports, 1), 0
	d := &Dispatcher{
		Reporter:      ended,
		PacketRefused: func(*transport.Request) { refusals++ },
		Packets: packetDialerFunc(func(context.Context, netaddr.Addr) (transport.PacketConn, error) {
			return far, nil
		}),
	}
	go d.HandlePackets(t.Context(), &transport.Request{}, near)
	far.refuse = func(d datagram) error {
		switch d.data {
		case "private":
			return errors.Join(transport.ErrNotAllowed)
		case "large":
			return transport.ErrPacketTooLarge
		}
		return nil
	}
	for _, s := range []string{"private", "large", "private", "fine"} {
		near.in <- datagram{s, one}
	}
	if got := <-far.out; got.data != "fine" {
		t.Errorf("%v came", got)
	}
	close(near.in)
	if r := <-ended; r.Err != nil || r.Dropped != 3 || r.Up != 4 || refusals != 1 {
		t.Errorf("reported %+v, %d refusals", r, refusals)
	}
}

func TestPacketsSideFails(t *testing.T) {
	near, far, ended := join(t.Context(), 0)
	broken := errors.New("broken")
	near.refuse = func(datagram) error { return broken }
	far.in <- datagram{"down", one}
	r := <-ended
	var side *relay.Error
	if !errors.As(r.Err, &side) || side.Side != relay.Local || side.Op != "write" || !errors.Is(r.Err, broken) {
		t.Errorf("reported %+v", r)
	}
	if !near.isClosed() || !far.isClosed() {
		t.Error("a side is open")
	}
}

func TestPacketsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far, ended := join(t.Context(), time.Minute)
		start := time.Now()
		for range 3 {
			time.Sleep(50 * time.Second)
			far.in <- datagram{"x", one}
			<-near.out
		}
		r := <-ended
		if took := time.Since(start); r.Err != nil || took != 210*time.Second || r.IdleFor != time.Minute {
			t.Errorf("ended after %v: %+v", took, r)
		}
		if !near.isClosed() || !far.isClosed() {
			t.Error("a side is open")
		}
	})
}

func TestPacketsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, _, ended := join(ctx, time.Hour)
	cancel()
	if r := <-ended; !errors.Is(r.Err, context.Canceled) {
		t.Errorf("reported %+v", r)
	}
}

func TestPacketsNotDialled(t *testing.T) {
	near, refused := newFakePackets(), errors.New("no socket")
	r := make(reports, 1)
	d := &Dispatcher{Reporter: r, Packets: packetDialerFunc(func(_ context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
		if dst != one {
			t.Errorf("dialled %s", dst)
		}
		return nil, refused
	})}
	d.HandlePackets(t.Context(), &transport.Request{Destination: one}, near)
	var dial *DialError
	if p := <-r; !errors.As(p.Err, &dial) || !errors.Is(p.Err, refused) || !near.isClosed() {
		t.Errorf("reported %+v", p)
	}
}

// A datagram costs no allocation of its own.
func TestPacketsAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	near, far, ended := join(t.Context(), time.Hour)
	near.in <- datagram{"warm", one}
	<-far.out
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const rounds = 2000
	for range rounds {
		near.in <- datagram{"", one}
		<-far.out
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > rounds/10 {
		t.Errorf("%d allocations for %d datagrams", n, rounds)
	}
	close(near.in)
	<-ended
}
