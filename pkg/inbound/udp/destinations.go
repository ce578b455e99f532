package udp

import (
	"container/list"
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// The defaults of a PerDestination.
const (
	DefaultMaxDestinations = 128
	DefaultMaxTunnels      = 1024

	destinationPackets = 64        // queued for one destination
	destinationBytes   = 256 << 10 // of memory
	maxDials           = 16        // at one time
)

var (
	// errEmpty refuses what VMess cannot carry.
	errEmpty = fmt.Errorf("%w: it is empty", transport.ErrPacketDropped)
	// errQueueFull is ErrQueueFull as an error of WritePacket.
	errQueueFull = fmt.Errorf("%w: %w", ErrQueueFull, transport.ErrPacketDropped)
	// errTooMany is ErrTooMany likewise.
	errTooMany = fmt.Errorf("%w: %w", ErrTooMany, transport.ErrPacketDropped)
)

// PerDestination makes a dialer whose associations are bound to one
// destination (plain VMess UDP, docs/protocol.md 9) into one whose PacketConns
// reach any: each destination gets a PacketConn of its own, on demand.
//
// The NAT it makes is no full cone: the server sends to each destination from
// another source port, and only the destination itself, in the very form it
// was written to, can answer (mapping and filtering by address and port, RFC
// 4787 sections 4.1 and 5). Calls and games that connect peers need packetaddr
// or XUDP.
//
// Its fields may not be changed once it is in use; it may not be copied.
type PerDestination struct {
	// Dialer opens an association bound to one destination. It is required.
	Dialer transport.PacketDialer
	// Idle closes the PacketConn of a destination without a datagram either
	// way for so long, or up to a quarter more. 0: DefaultIdle.
	Idle time.Duration
	// DialTimeout bounds a dial. 0: DefaultDialTimeout.
	DialTimeout time.Duration
	// MaxDestinations bounds the destinations of one PacketConn, MaxTunnels
	// those of all. One more takes the place of the one that was silent the
	// longest. 0: the defaults.
	MaxDestinations, MaxTunnels int
	// Room bounds the destinations of all together with what else it is used
	// for; nil: it does not.
	Room Semaphore
	// Dropped, if set, is told of datagrams that are dropped after WritePacket
	// took them: [Server.Drop].
	Dropped func(reason Drop, n int, cause error)
	// GiveUp, if set, is told why a PacketConn could not be dialled or ended,
	// and whether that is the end of all those of its association: so that it
	// may be dialled elsewhere. It is called from many goroutines.
	GiveUp func(err error) bool

	start   sync.Once
	dials   chan struct{}
	budget  budget
	lanes   atomic.Int64 // destinations of all
	tunnels atomic.Int64 // those connected
}

var _ transport.PacketDialer = (*PerDestination)(nil)

// DialPacket implements transport.PacketDialer. It connects to nothing yet.
func (p *PerDestination) DialPacket(context.Context, netaddr.Addr) (transport.PacketConn, error) {
	p.start.Do(func() {
		p.dials = make(chan struct{}, maxDials)
		p.budget.most = DefaultTotalBytes
	})
	t := &natTable{
		owner:   p,
		answers: make(chan answer),
		entries: make(map[netaddr.Addr]*list.Element),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t, nil
}

// Tunnels returns how many destinations are connected.
func (p *PerDestination) Tunnels() int { return int(p.tunnels.Load()) }

func (p *PerDestination) drop(reason Drop, n int, cause error) {
	if n > 0 && p.Dropped != nil {
		p.Dropped(reason, n, cause)
	}
}

// boundDialer dials for a table, a few at one time.
type boundDialer struct{ *PerDestination }

func (d boundDialer) DialPacket(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	select {
	case d.dials <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-d.dials }()
	return d.Dialer.DialPacket(ctx, dst)
}

// A natTable is the PacketConn of a PerDestination.
type natTable struct {
	owner   *PerDestination
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup
	answers chan answer
	// sink, if set, gets answers in place of the reader; set before use.
	sink func(b *transport.Buffer, p []byte, from netaddr.Addr)

	mu      sync.Mutex
	entries map[netaddr.Addr]*list.Element
	recent  list.List // of *destination, the latest first
	closed  bool
}

var (
	_ transport.PacketConn         = (*natTable)(nil)
	_ transport.PooledPacketReader = (*natTable)(nil)
	_ transport.PacketTrier        = (*natTable)(nil)
	_ distributor                  = (*natTable)(nil)
)

// An answer is a datagram on its way to the reader.
type answer struct {
	b    *transport.Buffer
	data []byte
	from netaddr.Addr
}

// A destination is one that datagrams were written to lately.
type destination struct {
	addr   netaddr.Addr
	lane   sender
	ctx    context.Context
	cancel context.CancelFunc
}

// ReadPacket implements transport.PacketConn.
func (t *natTable) ReadPacket(p []byte) (int, netaddr.Addr, error) {
	b, data, from, err := t.ReadPacketPooled()
	if err != nil {
		return 0, from, err
	}
	defer b.Release()
	return copy(p, data), from, nil
}

// ReadPacketPooled implements transport.LazyPacketReader.
func (t *natTable) ReadPacketPooled() (*transport.Buffer, []byte, netaddr.Addr, error) {
	select {
	case a := <-t.answers:
		return a.b, a.data, a.from, nil
	case <-t.ctx.Done():
		return nil, nil, netaddr.Addr{}, net.ErrClosed
	}
}

// distribute implements distributor: each destination's tunnel calls deliver.
func (t *natTable) distribute(deliver func(b *transport.Buffer, p []byte, from netaddr.Addr)) {
	t.sink = deliver
}

// WritePacket implements transport.PacketConn. It queues what cannot be written
// at once and never waits: a full queue is ErrQueueFull.
func (t *natTable) WritePacket(p []byte, to netaddr.Addr) error {
	if len(p) == 0 {
		return errEmpty
	}
	if !to.IsValid() {
		return transport.ErrPacketAddress
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return net.ErrClosed
	}
	d := t.reach(to)
	if d == nil {
		return errTooMany
	}
	if !d.lane.offer(p, to) {
		return errQueueFull
	}
	return nil
}

// TryWritePacket implements transport.PacketTrier: WritePacket never waits.
func (t *natTable) TryWritePacket(p []byte, to netaddr.Addr) (ok bool, err error) {
	return true, t.WritePacket(p, to)
}

// reach returns the destination at to, a new one if need be; nil when there
// are too many of other tables. The caller holds t.mu.
func (t *natTable) reach(to netaddr.Addr) *destination {
	if e, ok := t.entries[to]; ok {
		t.recent.MoveToFront(e)
		return e.Value.(*destination)
	}
	p := t.owner
	most := orDefault(p.MaxDestinations, DefaultMaxDestinations)
	all := int64(orDefault(p.MaxTunnels, DefaultMaxTunnels))
	for len(t.entries) >= most || len(t.entries) > 0 && p.lanes.Load() >= all {
		t.removeOldest()
	}
	for !p.enter(all) {
		if len(t.entries) == 0 {
			return nil
		}
		t.removeOldest()
	}
	return t.add(to)
}

// enter counts a destination in.
func (p *PerDestination) enter(all int64) bool {
	if p.lanes.Add(1) <= all && (p.Room == nil || p.Room.Acquire()) {
		return true
	}
	p.lanes.Add(-1)
	return false
}

// leave counts one out.
func (p *PerDestination) leave() {
	p.lanes.Add(-1)
	if p.Room != nil {
		p.Room.Release()
	}
}

// removeOldest removes the destination that was silent the longest.
func (t *natTable) removeOldest() {
	oldest := t.recent.Back()
	t.owner.drop(DropQueueFull, oldest.Value.(*destination).lane.queue.close(), nil)
	t.remove(oldest)
}

func (t *natTable) add(to netaddr.Addr) *destination {
	p := t.owner
	d := &destination{addr: to}
	d.ctx, d.cancel = context.WithCancel(t.ctx)
	e := t.recent.PushFront(d)
	t.entries[to] = e
	d.lane = sender{
		dialer:  boundDialer{p},
		idle:    orDefault(p.Idle, DefaultIdle),
		within:  orDefault(p.DialTimeout, DefaultDialTimeout),
		queue:   newQueue(destinationPackets, destinationBytes, &p.budget),
		tunnels: &p.tunnels,
		sent:    func(int) {},
		dropped: p.drop,
		deliver: func(b *transport.Buffer, data []byte, _ netaddr.Addr) { t.deliver(e, answer{b, data, to}) },
		quiet:   func() { t.retire(e) },
		broken:  t.broken,
	}
	t.running.Go(func() { d.lane.run(d.ctx) })
	return d
}

// broken ends the table where it is given up.
func (t *natTable) broken(err error) {
	if g := t.owner.GiveUp; g != nil && g(err) {
		t.cancel()
	}
}

// deliver hands a to the sink, or else to the reader, for whom the
// destination's tunnel waits.
func (t *natTable) deliver(e *list.Element, a answer) {
	t.mu.Lock()
	t.recent.MoveToFront(e) // nothing when it was removed
	t.mu.Unlock()
	if t.sink != nil {
		t.sink(a.b, a.data, a.from)
		return
	}
	select {
	case t.answers <- a:
	case <-e.Value.(*destination).ctx.Done():
		a.b.Release()
	}
}

// retire removes a destination that has no tunnel, unless a datagram came
// meanwhile.
func (t *natTable) retire(e *list.Element) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := e.Value.(*destination); t.entries[d.addr] == e && d.lane.queue.trim() {
		t.remove(e)
	}
}

// remove ends a destination. The caller holds t.mu.
func (t *natTable) remove(e *list.Element) {
	d := t.recent.Remove(e).(*destination)
	delete(t.entries, d.addr)
	t.owner.leave()
	d.cancel()
}

// Close implements transport.PacketConn: it closes all PacketConns.
func (t *natTable) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	for t.recent.Len() > 0 {
		t.remove(t.recent.Front())
	}
	t.mu.Unlock()
	t.cancel()
	t.running.Wait()
	return nil
}
