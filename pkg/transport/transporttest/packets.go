package transporttest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// PacketPipe returns the two ends of an in-memory association. Each direction
// holds up to size datagrams, then writes wait; the address that is written to
// at one end is read at the other. It works with a fake clock.
func PacketPipe(size int) (a, b *PacketEnd) {
	x, y := make(chan datagram, size), make(chan datagram, size)
	over, once := make(chan struct{}), new(sync.Once)
	return &PacketEnd{x, y, over, once}, &PacketEnd{y, x, over, once}
}

type datagram struct {
	b    *transport.Buffer
	n    int
	addr netaddr.Addr
}

// A PacketEnd is one end of a PacketPipe. Close closes both.
type PacketEnd struct {
	in, out chan datagram
	over    chan struct{}
	once    *sync.Once
}

var _ transport.PooledPacketReader = (*PacketEnd)(nil)

// ReadPacket implements transport.PacketConn.
func (e *PacketEnd) ReadPacket(p []byte) (int, netaddr.Addr, error) {
	b, data, from, err := e.ReadPacketPooled()
	if err != nil {
		return 0, from, err
	}
	defer b.Release()
	return copy(p, data), from, nil
}

// ReadPacketPooled implements transport.LazyPacketReader.
func (e *PacketEnd) ReadPacketPooled() (*transport.Buffer, []byte, netaddr.Addr, error) {
	select {
	case d := <-e.in:
		return d.b, d.b[:d.n], d.addr, nil
	case <-e.over:
		return nil, nil, netaddr.Addr{}, net.ErrClosed
	}
}

// WritePacket implements transport.PacketConn.
func (e *PacketEnd) WritePacket(p []byte, to netaddr.Addr) error {
	select {
	case <-e.over:
		return net.ErrClosed
	default:
	}
	b := transport.GetBuffer()
	select {
	case <-e.over:
		b.Release()
		return net.ErrClosed
	case e.out <- datagram{b, copy(b[:], p), to}:
		return nil
	}
}

// Close implements transport.PacketConn.
func (e *PacketEnd) Close() error { e.once.Do(func() { close(e.over) }); return nil }

// An Association is a PacketConn under test and its far end: what one writes
// to an address, the other reads from that address, for an association names
// the remote in both directions.
type Association struct {
	Near, Far transport.PacketConn
	// Remotes are addresses that it carries: one where it is bound to it.
	Remotes []netaddr.Addr
	// Refused, if valid, is one that it does not carry.
	Refused netaddr.Addr
	// Most is the most bytes that it carries to any of Remotes; more is
	// transport.ErrPacketTooLarge. 0: up to 65,497, and more is not tried.
	Most int
}

// TestPackets checks what the package transport promises of a PacketConn:
// datagrams keep their borders, order and addresses in both directions, what
// is refused costs nothing else, buffers are not kept, and Close frees whoever
// waits. open makes a new association; what it loses it must lose under load
// only.
func TestPackets(t *testing.T, open func(t *testing.T) Association) {
	each := func(name string, f func(t *testing.T, a Association)) {
		t.Run(name, func(t *testing.T) {
			a := open(t)
			t.Cleanup(func() { _ = a.Near.Close(); _ = a.Far.Close() })
			f(t, a)
		})
	}
	each("both ways", testBothWays)
	each("short room", testShortRoom)
	each("refusals", testRefusals)
	each("beside each other", testBesideEachOther)
	each("close frees the reader", testCloseFreesReader)
	each("close is final", testCloseIsFinal)
}

// pass writes p at one end and wants it at the other, from the same address.
func pass(t *testing.T, from, to transport.PacketConn, p []byte, remote netaddr.Addr) {
	t.Helper()
	sent := bytes.Clone(p)
	if err := from.WritePacket(sent, remote); err != nil {
		t.Fatalf("%d bytes: %v", len(p), err)
	}
	clear(sent) // it may not be kept
	want(t, to, p, remote)
}

func want(t *testing.T, c transport.PacketConn, p []byte, remote netaddr.Addr) {
	t.Helper()
	b := transport.GetBuffer()
	defer b.Release()
	n, addr, err := c.ReadPacket(b[:])
	if err != nil || addr != remote || !bytes.Equal(b[:n], p) {
		t.Fatalf("read %d bytes from %s, %v; want %d from %s", n, addr, err, len(p), remote)
	}
}

func payload(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i ^ i>>8 ^ n)
	}
	return p
}

func (a Association) most() int {
	if a.Most > 0 {
		return a.Most
	}
	return 65497
}

func testBothWays(t *testing.T, a Association) {
	for _, remote := range a.Remotes {
		for _, n := range []int{1, 2, 64, 1200, 1472, a.most()} {
			pass(t, a.Near, a.Far, payload(n), remote)
			pass(t, a.Far, a.Near, payload(n), remote)
		}
	}
	// Bursts keep their order, towards each remote for itself.
	for _, remote := range a.Remotes {
		for i := range 16 {
			if err := a.Near.WritePacket(fmt.Append(nil, i), remote); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 16 {
			want(t, a.Far, fmt.Append(nil, i), remote)
		}
	}
}

func testShortRoom(t *testing.T, a Association) {
	pass(t, a.Near, a.Far, []byte("first"), a.Remotes[0])
	for _, p := range []string{"longer than the room", "next"} {
		if err := a.Near.WritePacket([]byte(p), a.Remotes[0]); err != nil {
			t.Fatal(err)
		}
	}
	room := make([]byte, 6)
	if n, _, err := a.Far.ReadPacket(room); err != nil || string(room[:n]) != "longer" {
		t.Fatalf("read %q, %v", room[:n], err)
	}
	if n, _, err := a.Far.ReadPacket(room); err != nil || string(room[:n]) != "next" {
		t.Fatalf("then read %q, %v", room[:n], err)
	}
}

func testRefusals(t *testing.T, a Association) {
	remote := a.Remotes[0]
	pass(t, a.Near, a.Far, []byte("before"), remote)
	if a.Most > 0 {
		if err := a.Near.WritePacket(payload(a.Most+1), remote); !errors.Is(err, transport.ErrPacketTooLarge) || !transport.PacketLost(err) {
			t.Errorf("%d bytes: %v", a.Most+1, err)
		}
	}
	if a.Refused.IsValid() {
		if err := a.Near.WritePacket([]byte("x"), a.Refused); !transport.PacketLost(err) {
			t.Errorf("to %s: %v", a.Refused, err)
		}
	}
	pass(t, a.Near, a.Far, []byte("after"), remote)
	pass(t, a.Far, a.Near, []byte("answer"), remote)
}

// Reading goes on beside writing, in lockstep so that no queue overflows.
func testBesideEachOther(t *testing.T, a Association) {
	const rounds = 200
	remote, echoed := a.Remotes[0], make(chan error, 1)
	go func() {
		b := transport.GetBuffer()
		defer b.Release()
		for range rounds {
			n, from, err := a.Far.ReadPacket(b[:])
			if err == nil {
				err = a.Far.WritePacket(b[:n], from)
			}
			if err != nil {
				echoed <- err
				return
			}
		}
		echoed <- nil
	}()
	for i := range rounds {
		pass(t, a.Near, a.Near, payload(1+i*7%1400), remote)
	}
	if err := <-echoed; err != nil {
		t.Fatal(err)
	}
}

func testCloseFreesReader(t *testing.T, a Association) {
	pass(t, a.Near, a.Far, []byte("first"), a.Remotes[0])
	read := make(chan error, 1)
	go func() {
		_, _, err := a.Near.ReadPacket(make([]byte, 1))
		read <- err
	}()
	if err := a.Near.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err == nil {
		t.Error("a read succeeded on a closed association")
	}
}

func testCloseIsFinal(t *testing.T, a Association) {
	pass(t, a.Near, a.Far, []byte("first"), a.Remotes[0])
	_ = a.Near.Close()
	_ = a.Near.Close()
	if err := a.Near.WritePacket([]byte("x"), a.Remotes[0]); err == nil || transport.PacketLost(err) {
		t.Errorf("a write on a closed association: %v", err)
	}
	if _, _, err := a.Near.ReadPacket(make([]byte, 1)); err == nil {
		t.Error("a read succeeded on a closed association")
	}
}
