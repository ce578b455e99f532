package dispatch

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/relay"
)

// HandlePackets serves one datagram association by the Dispatcher's Packets
// until it is over, and closes near. It is bound to r.Destination, or goes
// anywhere when that is the zero Addr. Two goroutines carry the datagrams, and
// hold buffers only while they have one in hand. Datagrams that cannot go on
// are dropped and counted. Cancelling ctx ends it.
func (d *Dispatcher) HandlePackets(ctx context.Context, r *transport.Request, near transport.PacketConn) {
	d.count(1)
	defer d.count(-1)
	a := &association{inbound: near, refused: sync.OnceFunc(func() { d.refused(r) }), start: time.Now(), up: new(atomic.Int64), down: new(atomic.Int64)}
	end := func(bool) {}
	if d.Watcher != nil {
		var cut func()
		ctx, cut = context.WithCancel(ctx)
		defer cut()
		a.up, a.down, end = d.Watcher.Begin(r, cut)
	}
	far, err := d.Packets.DialPacket(ctx, r.Destination)
	if err == nil {
		a.outbound = far
		err = a.run(ctx, d.PacketIdle)
	} else {
		_ = near.Close()
		err = &DialError{err}
	}
	end(err != nil)
	d.report(Report{
		Request: r, Err: err, Up: a.up.Load(), Down: a.down.Load(), Dropped: a.recordDropped(),
		Duration: time.Since(a.start), IdleFor: time.Since(a.last()),
	})
}

func (d *Dispatcher) refused(r *transport.Request) {
	if d.PacketRefused != nil {
		d.PacketRefused(r)
	}
}

// An association is a pair of joined PacketConns.
type association struct {
	inbound, outbound transport.PacketConn
	start             time.Time
	moved             atomic.Int64  // when a datagram came last, nanoseconds after start
	up, down          *atomic.Int64 // bytes
	dropped           atomic.Int64
	refused           func() // is told of datagrams that the rules forbid

	once sync.Once
	err  error // why it ended: the first cause
}

// run carries datagrams until either side or ctx ends or idle has passed.
func (a *association) run(ctx context.Context, idle time.Duration) error {
	stop := context.AfterFunc(ctx, func() { a.end(context.Cause(ctx)) })
	defer stop()
	if idle > 0 {
		watch := a.watch(idle)
		defer watch()
	}
	var back sync.WaitGroup
	back.Go(func() {
		a.copyPackets(a.outbound, a.inbound, relay.Remote, relay.Local, a.down)
	})
	a.copyPackets(a.inbound, a.outbound, relay.Local, relay.Remote, a.up)
	back.Wait()
	return a.err
}

// end closes both sides; err, the first one, is why.
func (a *association) end(err error) {
	a.once.Do(func() {
		a.err = err
		_ = a.inbound.Close()
		_ = a.outbound.Close()
	})
}

// copyPackets moves datagrams one way until a side ends.
func (a *association) copyPackets(from, to transport.PacketConn, source, sink relay.Side, moved *atomic.Int64) {
	for {
		b, p, addr, err := transport.ReadPacketPooled(from)
		if err != nil {
			if errors.Is(err, io.EOF) {
				a.end(nil)
			} else {
				a.end(&relay.Error{Side: source, Op: "read", Err: err})
			}
			return
		}
		err = a.forward(p, addr, to, moved)
		b.Release()
		if err != nil {
			a.end(&relay.Error{Side: sink, Op: "write", Err: err})
			return
		}
	}
}

// forward sends one datagram on; an error is the association's end.
func (a *association) forward(p []byte, addr netaddr.Addr, to transport.PacketConn, moved *atomic.Int64) error {
	a.moved.Store(int64(time.Since(a.start)))
	err := to.WritePacket(p, addr)
	switch {
	case err == nil:
		moved.Add(int64(len(p)))
		return nil
	case !transport.PacketLost(err):
		return err
	}
	a.dropped.Add(1)
	if errors.Is(err, transport.ErrNotAllowed) {
		a.refused()
	}
	return nil
}

// recordDropped is how many datagrams were dropped, those among them that the far side
// dropped after it took them.
func (a *association) recordDropped() int64 {
	n := a.dropped.Load()
	if l, ok := a.outbound.(interface{ Lost() int64 }); ok {
		n += l.Lost()
	}
	return n
}

// last returns when a datagram came last.
func (a *association) last() time.Time { return a.start.Add(time.Duration(a.moved.Load())) }

// watch ends the association once it was idle for so long; the timer is set
// anew only when it fires. The returned function stops it.
func (a *association) watch(idle time.Duration) (stop func()) {
	var mu sync.Mutex
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(idle, func() {
		mu.Lock()
		defer mu.Unlock()
		if left := idle - time.Since(a.last()); left > 0 {
			timer.Reset(left)
			return
		}
		a.end(nil)
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		timer.Stop()
	}
}
