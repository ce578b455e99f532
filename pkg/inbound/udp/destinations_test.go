package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

// A farSide is the far end of tunnels that are bound to one destination each:
// it names on reading what each is bound to, whatever was written.
type farSide struct {
	mu    sync.Mutex
	conns map[netaddr.Addr]*transporttest.PacketEnd
	dials []netaddr.Addr
	in    chan farPacket
	over  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup
}

type farPacket struct {
	p    []byte
	from netaddr.Addr
}

func newFarSide() *farSide {
	return &farSide{conns: make(map[netaddr.Addr]*transporttest.PacketEnd), in: make(chan farPacket, 64), over: make(chan struct{})}
}

// DialPacket implements transport.PacketDialer for the near side.
func (f *farSide) DialPacket(_ context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	near, far := transporttest.PacketPipe(64)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns[dst] = far
	f.dials = append(f.dials, dst)
	f.wg.Go(func() {
		b := make([]byte, transport.BufferSize)
		for {
			n, _, err := far.ReadPacket(b)
			if err != nil {
				return
			}
			select {
			case f.in <- farPacket{append([]byte(nil), b[:n]...), dst}:
			case <-f.over:
				return
			}
		}
	})
	return near, nil
}

func (f *farSide) dialled() []netaddr.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]netaddr.Addr(nil), f.dials...)
}

func (f *farSide) ReadPacket(p []byte) (int, netaddr.Addr, error) {
	select {
	case d := <-f.in:
		return copy(p, d.p), d.from, nil
	case <-f.over:
		return 0, netaddr.Addr{}, net.ErrClosed
	}
}

func (f *farSide) WritePacket(p []byte, to netaddr.Addr) error {
	f.mu.Lock()
	far := f.conns[to]
	f.mu.Unlock()
	if far == nil {
		return net.ErrClosed
	}
	return far.WritePacket(p, addr("198.51.100.1:1")) // the source is not believed
}

func (f *farSide) Close() error {
	f.once.Do(func() { close(f.over) })
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		_ = c.Close()
	}
	f.wg.Wait()
	return nil
}

func (p *PerDestination) conn(t *testing.T) transport.PacketConn {
	t.Helper()
	c, err := p.DialPacket(context.Background(), addr("192.0.2.1:53"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var remotes = []netaddr.Addr{addr("192.0.2.1:53"), addr("[2001:db8::1]:443"), addr("example.com:53"), addr("192.0.2.1:54")}

func TestPerDestinationKeepsTheContract(t *testing.T) {
	transporttest.TestPackets(t, func(t *testing.T) transporttest.Association {
		far := newFarSide()
		return transporttest.Association{
			Near: (&PerDestination{Dialer: far}).conn(t), Far: far,
			Remotes: remotes, Refused: netaddr.Addr{},
		}
	})
}

func TestPipeKeepsTheContract(t *testing.T) {
	transporttest.TestPackets(t, func(*testing.T) transporttest.Association {
		a, b := transporttest.PacketPipe(64)
		return transporttest.Association{Near: a, Far: b, Remotes: remotes}
	})
}

func TestPerDestinationRefuses(t *testing.T) {
	c := (&PerDestination{Dialer: newFarSide()}).conn(t)
	defer c.Close()
	if err := c.WritePacket(nil, remotes[0]); !transport.PacketLost(err) {
		t.Errorf("an empty one: %v", err)
	}
	if err := c.WritePacket([]byte("x"), netaddr.Addr{}); !errors.Is(err, transport.ErrPacketAddress) {
		t.Errorf("to nowhere: %v", err)
	}
}

func remote(i int) netaddr.Addr { return addr(fmt.Sprintf("192.0.2.1:%d", 1000+i)) }

// The destination that was silent the longest makes room.
func TestPerDestinationIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := newFarSide()
		p := &PerDestination{Dialer: far, MaxDestinations: 4}
		c := p.conn(t)
		write := func(i int) {
			t.Helper()
			if err := c.WritePacket([]byte("x"), remote(i)); err != nil {
				t.Fatal(err)
			}
			wantRead(t, far, remote(i).String(), "x")
			synctest.Wait()
		}
		for i := range 4 {
			write(i)
		}
		write(0)                                         // recent by a write
		_ = far.WritePacket([]byte("answer"), remote(1)) // and by an answer
		wantRead(t, c, remote(1).String(), "answer")     //
		write(4)                                         // in place of 2
		write(5)                                         // and 3
		write(0)
		write(1)
		if n := len(far.dialled()); n != 6 || p.Tunnels() != 4 {
			t.Errorf("dialled %d times, %d are open", n, p.Tunnels())
		}
		write(2)
		if n := len(far.dialled()); n != 7 || p.Tunnels() != 4 {
			t.Errorf("dialled %d times, %d are open", n, p.Tunnels())
		}
		_ = c.Close()
		_ = far.Close()
		if p.Tunnels() != 0 || p.lanes.Load() != 0 {
			t.Errorf("%d tunnels and %d destinations are left", p.Tunnels(), p.lanes.Load())
		}
	})
}

func TestPerDestinationBoundsAllTables(t *testing.T) {
	t.Run("by its own bound", func(t *testing.T) {
		testBoundOfAll(t, func(far transport.PacketDialer) *PerDestination { return &PerDestination{Dialer: far, MaxTunnels: 2} })
	})
	t.Run("by room", func(t *testing.T) {
		room := make(seats, 2)
		testBoundOfAll(t, func(far transport.PacketDialer) *PerDestination { return &PerDestination{Dialer: far, Room: room} })
		if len(room) != 0 {
			t.Errorf("%d seats are taken in the end", len(room))
		}
	})
}

// seats is a Room.
type seats chan struct{}

func (s seats) Acquire() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s seats) Release() { <-s }

func testBoundOfAll(t *testing.T, made func(far transport.PacketDialer) *PerDestination) {
	synctest.Test(t, func(t *testing.T) {
		far := newFarSide()
		p := made(far)
		a, b := p.conn(t), p.conn(t)
		for i := range 2 {
			if err := a.WritePacket([]byte("x"), remote(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.WritePacket([]byte("x"), remote(2)); !errors.Is(err, ErrTooMany) || !transport.PacketLost(err) {
			t.Errorf("over the bound of all: %v", err)
		}
		if err := a.WritePacket([]byte("x"), remote(3)); err != nil {
			t.Errorf("in place of its own: %v", err)
		}
		_ = a.Close()
		if err := b.WritePacket([]byte("x"), remote(2)); err != nil {
			t.Errorf("after the other has left: %v", err)
		}
		synctest.Wait()
		_ = b.Close()
		_ = far.Close()
	})
}

// A destination that cannot be dialled holds up no other.
func TestPerDestinationDialsAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far, lost := newFarSide(), 0
		p := &PerDestination{
			Dialer: dialerFunc(func(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
				if dst == remote(0) {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return far.DialPacket(ctx, dst)
			}),
			Dropped: func(reason Drop, n int, cause error) {
				if reason == DropNoTunnel && errors.Is(cause, context.DeadlineExceeded) {
					lost += n
				}
			},
		}
		c := p.conn(t)
		full := 0
		for range destinationPackets + 5 {
			switch err := c.WritePacket([]byte("x"), remote(0)); {
			case errors.Is(err, ErrQueueFull) && transport.PacketLost(err):
				full++
			case err != nil:
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if full != 4 { // one is with the dial
			t.Errorf("%d find the queue full", full)
		}
		if err := c.WritePacket([]byte("x"), remote(1)); err != nil {
			t.Fatal(err)
		}
		wantRead(t, far, remote(1).String(), "x")
		time.Sleep(DefaultDialTimeout + time.Second)
		synctest.Wait()
		if lost != destinationPackets+1 {
			t.Errorf("%d are counted as lost", lost)
		}
		_ = c.Close()
		_ = far.Close()
	})
}

func TestPerDestinationGoesIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := newFarSide()
		p := &PerDestination{Dialer: far, Idle: time.Minute}
		c := p.conn(t)
		for i := range 3 {
			if err := c.WritePacket([]byte("x"), remote(i)); err != nil {
				t.Fatal(err)
			}
			wantRead(t, far, remote(i).String(), "x")
			time.Sleep(30 * time.Second)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := p.lanes.Load(); n != 1 {
			t.Errorf("%d destinations are left of those that went idle one by one", n)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := p.lanes.Load(); n != 0 || p.Tunnels() != 0 {
			t.Errorf("%d destinations are left", n)
		}
		if err := c.WritePacket([]byte("x"), remote(0)); err != nil {
			t.Fatal(err)
		}
		wantRead(t, far, remote(0).String(), "x")
		_ = c.Close()
		_ = far.Close()
	})
}

// The answers come from the name that was written to, through a whole
// association.
func TestPlainAssociation(t *testing.T) {
	s := new(Server)
	s.Dialer = &PerDestination{Dialer: dialerFunc(dialEcho), Dropped: s.Drop}
	u := join(t, s, "127.0.0.1")
	for _, to := range []string{"example.com:53", "192.0.2.1:53", "example.com:54"} {
		u.send(t, to, "x")
		u.want(t, to, "x")
	}
}
