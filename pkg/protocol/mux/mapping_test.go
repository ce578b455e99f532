package mux

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// A numberedLab serves associations, each of which answers with its number and
// what it was sent; its tunnels may be told to be near their nonces' end.
type numberedLab struct {
	*lab
	opened atomic.Int64
	closed atomic.Int64

	mu      sync.Mutex
	tunnels []*agingConn
}

func newNumberedLab(t *testing.T) *numberedLab {
	l := &numberedLab{lab: newLab(t)}
	l.Server.Mappings, l.Server.Own = new(Mappings), true
	l.Server.HandlePackets = func(ctx context.Context, r *PacketRequest) {
		n := l.opened.Add(1)
		defer l.closed.Add(1)
		defer r.Conn.Close()
		stop := context.AfterFunc(ctx, func() { _ = r.Conn.Close() })
		defer stop()
		p := make([]byte, 1<<16)
		for {
			k, to, err := r.Conn.ReadPacket(p)
			if err != nil {
				return
			}
			_ = r.Conn.WritePacket(fmt.Appendf(nil, "%d: %s", n, p[:k]), to)
		}
	}
	return l
}

func (l *numberedLab) dialAging(ctx context.Context, first []byte) (transport.StreamConn, error) {
	c, err := l.dial(ctx, first)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tunnels = append(l.tunnels, &agingConn{StreamConn: c})
	return l.tunnels[len(l.tunnels)-1], nil
}

// age makes the tunnel that was dialled last near its end, and returns how many
// there are.
func (l *numberedLab) age() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.tunnels); n > 0 {
		l.tunnels[n-1].old.Store(true)
	}
	return len(l.tunnels)
}

// ask sends a datagram and returns the answer.
func ask(t *testing.T, c transport.PacketConn, what string) string {
	t.Helper()
	if err := c.WritePacket([]byte(what), addr(t, "192.0.2.1:53")); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 100)
	n, _, err := c.ReadPacket(p)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return string(p[:n])
}

// An association whose tunnel has used up half of its nonces goes on over
// another, with its socket, as often as need be; no datagram is lost.
func TestAssociationMoves(t *testing.T) {
	for _, moves := range []bool{true, false} {
		t.Run(fmt.Sprint("moves ", moves), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newNumberedLab(t)
				x := &XUDP{Dial: l.dialAging, Moves: func() bool { return moves }}
				c, err := x.DialPacket(t.Context(), netaddr.Addr{})
				if err != nil {
					t.Fatal(err)
				}
				for i := range 20 {
					if i%5 == 4 {
						l.age()
					}
					want := fmt.Sprintf("1: %d", i)
					if got := ask(t, c, fmt.Sprint(i)); got != want {
						t.Errorf("answered %q, want %q", got, want)
					}
					synctest.Wait()
				}
				want := 1
				if moves {
					want = 5 // the last was not needed any more
				}
				if n := l.age(); n != want || l.opened.Load() != 1 {
					t.Errorf("%d tunnels, %d sockets", n, l.opened.Load())
				}
				_ = c.Close()
				synctest.Wait()
				if l.closed.Load() != 1 {
					t.Error("the socket outlives the association")
				}
				l.mu.Lock()
				for i, tunnel := range l.tunnels {
					if _, err := tunnel.Write([]byte("x")); err == nil {
						t.Errorf("tunnel %d is left open", i)
					}
				}
				l.mu.Unlock()
				if _, _, err := c.ReadPacket(nil); err == nil {
					t.Error("read from a closed association")
				}
			})
		})
	}
}

// A tunnel that cannot be had does no harm.
func TestAssociationStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newNumberedLab(t)
		x := &XUDP{Dial: l.dialAging, Moves: func() bool { return true }}
		c, err := x.DialPacket(t.Context(), netaddr.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ask(t, c, "first")
		l.age()
		l.refuse = io.ErrClosedPipe
		for range 10 {
			ask(t, c, "again")
			synctest.Wait()
		}
		if n := l.dialled.Load(); n != 2 {
			t.Errorf("dialled %d times in a row", n-1)
		}
		l.refuse = nil
		time.Sleep(movePause)
		for range 3 {
			if got := ask(t, c, "later"); got != "1: later" {
				t.Errorf("answered %q", got)
			}
			synctest.Wait()
		}
		if n := l.age(); n != 2 {
			t.Errorf("%d tunnels", n)
		}
	})
}

// A client like Xray's names an association again after it lost the tunnel, and
// finds its socket within a minute; another user's id is another's.
func TestMappingOutlivesTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newNumberedLab(t)
		l.Server.Own = false
		name := func(id byte) Frame {
			f := newUDP(t, 0)
			f.GlobalID, f.HasGlobalID = [8]byte{id}, true
			return f
		}
		answer := func(r *raw) string {
			t.Helper()
			f, err := r.in.Next()
			if err != nil {
				t.Fatal(err)
			}
			p := make([]byte, r.in.left)
			_, _ = r.in.readFull(p)
			return fmt.Sprintf("%d %s", f.Status, p)
		}
		open := func(id byte) *raw {
			r := newRaw(t, &l.Server)
			r.send(t, name(id), "hi")
			return r
		}
		first := open(7)
		if got := answer(first); got != "2 1: hi" {
			t.Fatal(got)
		}
		second := open(7) // while the first is there
		if got := answer(second); got != "2 1: hi" {
			t.Errorf("taken over: %s", got)
		}
		if got := answer(first); got != "3 " {
			t.Errorf("the tunnel that lost it: %s", got)
		}
		_ = second.Close()
		time.Sleep(mappingLinger - time.Second)
		third := open(7)
		if got := answer(third); got != "2 1: hi" {
			t.Errorf("after a loss: %s", got)
		}
		other := open(8)
		defer func() { _ = other.Close(); time.Sleep(2 * mappingLinger) }()
		if got := answer(other); got != "2 2: hi" {
			t.Errorf("another id: %s", got)
		}
		_ = third.Close()
		time.Sleep(mappingLinger + time.Second)
		if n := l.closed.Load(); n != 1 {
			t.Errorf("%d sockets were given up", n)
		}
		last := open(7)
		if got := answer(last); got != "2 3: hi" {
			t.Errorf("a minute later: %s", got)
		}
		last.send(t, Frame{Status: StatusEnd}, "")
		synctest.Wait()
		if n := l.closed.Load(); n != 2 {
			t.Errorf("%d sockets were given up, want that of the client who ended it, too", n)
		}
	})
}
