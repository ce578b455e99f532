package udp

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

const (
	minPause = 250 * time.Millisecond // after a tunnel that came to nothing
	maxPause = 8 * time.Second        // and what it doubles up to

	idleTicks = 4 // looks at a tunnel while it may be idle
)

var errIdle = errors.New("no datagram for long")

// A distributor is a PacketConn that hands on what comes by itself, from many
// goroutines. With one, a lane saves a change of goroutine for each datagram.
type distributor interface {
	transport.PacketConn
	// distribute makes deliver get what comes from now on; ReadPacket only
	// waits for the end. It is called before anything is written.
	distribute(deliver func(b *transport.Buffer, p []byte, from netaddr.Addr))
}

// A sender carries the packets of a queue, in order, over a PacketConn that it
// dials for the first of them and closes when it was idle. One that breaks is
// dialled again for the next packet, after a pause if it came to nothing.
type sender struct {
	dialer  transport.PacketDialer
	idle    time.Duration
	within  time.Duration // for a dial
	queue   *queue
	tunnels *atomic.Int64 // counts those that are open

	// sent counts a payload of n bytes.
	sent func(n int)
	// dropped counts n datagrams.
	dropped func(reason Drop, n int, cause error)
	// deliver gets an answer; p is in b, which it releases. It may be called by
	// many goroutines.
	deliver func(b *transport.Buffer, p []byte, from netaddr.Addr)
	// broken, if set, is called with why a dial failed or a tunnel ended.
	broken func(err error)
	// quiet, if set, is called while there is neither tunnel nor packet.
	quiet func()

	sending  sync.Mutex           // orders run and offer
	fastPath atomic.Pointer[flow] // the tunnel if it is a transport.PacketTrier

	// What follows belongs to the goroutine in run.
	tunnel   *flow
	failures int
	next     time.Time // the earliest dial
}

// run carries packets until ctx is done. Afterwards the queue takes none, and
// the tunnel is closed.
func (l *sender) run(ctx context.Context) {
	defer l.stop()
	for ctx.Err() == nil {
		switch {
		case !l.sendNext(ctx):
			l.wait(ctx)
		case l.tunnel == nil:
			l.rest(ctx)
		}
	}
}

// sendNext sends the oldest packet, if there is one.
func (l *sender) sendNext(ctx context.Context) bool {
	l.sending.Lock()
	defer l.sending.Unlock()
	p, ok := l.queue.pop()
	if ok {
		l.send(ctx, &p)
		p.release()
	}
	return ok
}

// offer takes a datagram, which it does not keep: it writes it at once where
// that takes no waiting and nothing is before it, which saves a change of
// goroutine, and queues it elsewhere. It is false when the queue is full. It is
// called by one goroutine at a time.
func (l *sender) offer(data []byte, to netaddr.Addr) bool {
	if l.writeAtOnce(data, to) {
		return true
	}
	p := newPacket(data, to)
	if !l.queue.push(p) {
		p.release()
		return false
	}
	return true
}

func (l *sender) writeAtOnce(data []byte, to netaddr.Addr) bool {
	t := l.fastPath.Load()
	if t == nil || !l.sending.TryLock() {
		return false
	}
	defer l.sending.Unlock()
	if !l.queue.empty() || t.over() {
		return false
	}
	ok, err := t.conn.(transport.PacketTrier).TryWritePacket(data, to)
	return ok && l.written(t, len(data), err) == nil
}

func (l *sender) stop() {
	l.queue.close()
	if l.tunnel != nil {
		l.tunnel.end(net.ErrClosed)
		<-l.tunnel.done
	}
}

func (l *sender) wait(ctx context.Context) {
	var over <-chan struct{}
	if l.tunnel != nil {
		over = l.tunnel.done
	}
	select {
	case <-ctx.Done():
	case <-l.queue.ready:
	case <-over:
		l.settle()
		l.rest(ctx)
	}
}

// rest follows the end of a tunnel or an attempt.
func (l *sender) rest(ctx context.Context) {
	l.pause(ctx)
	if l.queue.trim() && l.quiet != nil {
		l.quiet()
	}
}

// pause waits for the time of the next dial.
func (l *sender) pause(ctx context.Context) {
	d := time.Until(l.next)
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (l *sender) backOff() {
	l.next = time.Now().Add(min(minPause<<min(l.failures, 16), maxPause))
	l.failures++
}

// send writes p, on a second tunnel if the first turns out to be broken.
func (l *sender) send(ctx context.Context, p *packet) {
	var err error
	for range 2 {
		t := l.connect(ctx, p.to)
		if t == nil {
			return
		}
		if err = l.write(t, p.data, p.to); err == nil {
			return
		}
		t.end(err)
	}
	if ctx.Err() == nil {
		l.dropped(DropNoTunnel, 1, err)
	}
}

// write writes a datagram to t. One that is refused is dropped: an error
// concerns the tunnel.
func (l *sender) write(t *flow, data []byte, to netaddr.Addr) error {
	return l.written(t, len(data), t.conn.WritePacket(data, to))
}

// written counts a datagram of n bytes by the end of its write.
func (l *sender) written(t *flow, n int, err error) error {
	switch {
	case err == nil:
		t.moved.Store(true)
		t.sent.Add(1)
		l.sent(n)
	case transport.PacketLost(err):
		l.dropped(refusal(err), 1, err)
	default:
		return err
	}
	return nil
}

// refusal is the reason behind an error that is transport.PacketLost.
func refusal(err error) Drop {
	switch {
	case errors.Is(err, transport.ErrPacketTooLarge):
		return DropTooLarge
	case errors.Is(err, ErrQueueFull):
		return DropQueueFull
	case errors.Is(err, ErrTooMany):
		return DropTooMany
	default:
		return DropRefused
	}
}

// connect returns the tunnel, a new one if need be. Without one it is nil, and
// the packet to to and all that waited behind it are counted as dropped.
func (l *sender) connect(ctx context.Context, to netaddr.Addr) *flow {
	if l.tunnel != nil {
		if !l.tunnel.over() {
			return l.tunnel
		}
		l.settle()
	}
	l.pause(ctx)
	dialCtx, cancel := context.WithTimeout(ctx, l.within)
	defer cancel()
	conn, err := l.dialer.DialPacket(dialCtx, to)
	if err != nil {
		l.backOff()
		l.tellBroken(err)
		if n := 1 + l.queue.clear(); ctx.Err() == nil {
			l.dropped(DropNoTunnel, n, err)
		}
		return nil
	}
	t := newTunnel(ctx, conn, l.idle)
	l.tunnel = t
	l.tunnels.Add(1)
	if d, ok := conn.(distributor); ok {
		d.distribute(func(b *transport.Buffer, p []byte, from netaddr.Addr) { l.arrived(t, b, p, from) })
	}
	if _, ok := conn.(transport.PacketTrier); ok {
		l.fastPath.Store(t)
	}
	go l.receive(t)
	return t
}

// settle takes leave of a tunnel that is over.
func (l *sender) settle() {
	t := l.tunnel
	l.tunnel = nil
	l.fastPath.Store(nil)
	<-t.done
	if errors.Is(t.cause, errIdle) {
		l.failures = 0
		return
	}
	l.tellBroken(t.cause)
	switch {
	case time.Since(t.since) >= maxPause:
		l.failures = 0
		return
	case t.heard.Load():
		l.failures = 0
	case t.sent.Load() > 0: // nothing of it was seen to arrive
		l.dropped(DropNoTunnel, int(t.sent.Load()), t.cause)
	}
	l.backOff()
}

func (l *sender) tellBroken(err error) {
	if l.broken != nil {
		l.broken(err)
	}
}

// receive hands on what comes through t until it is over.
func (l *sender) receive(t *flow) {
	defer close(t.done)
	defer l.tunnels.Add(-1)
	for {
		b, p, from, err := transport.ReadPacketPooled(t.conn)
		if err != nil {
			t.end(err)
			return
		}
		l.arrived(t, b, p, from)
	}
}

// arrived hands on what came through t.
func (l *sender) arrived(t *flow, b *transport.Buffer, p []byte, from netaddr.Addr) {
	t.moved.Store(true)
	t.heard.Store(true)
	l.deliver(b, p, from)
}

// A flow is one PacketConn in use.
type flow struct {
	conn  transport.PacketConn
	since time.Time
	sent  atomic.Int64 // packets
	moved atomic.Bool
	heard atomic.Bool   // something came back
	done  chan struct{} // closed when its reader has ended

	mu     sync.Mutex
	cause  error       // set once it is over
	idle   *time.Timer // nil once it is over
	ticks  int         // without a datagram
	forget func() bool // the end of the lane's ctx
}

// newTunnel closes conn when no datagram moved for idle (or a quarter more),
// and when ctx is done.
func newTunnel(ctx context.Context, conn transport.PacketConn, idle time.Duration) *flow {
	t := &flow{conn: conn, since: time.Now(), done: make(chan struct{})}
	tick := idle / idleTicks
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget = context.AfterFunc(ctx, func() { t.end(context.Cause(ctx)) })
	t.idle = time.AfterFunc(tick, func() {
		if t.stale(tick) {
			t.end(errIdle)
		}
	})
	return t
}

// stale looks whether the tunnel has been idle for long, and looks again after
// tick if not.
func (t *flow) stale(tick time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ticks++
	if t.moved.Swap(false) {
		t.ticks = 0
	}
	if t.idle != nil && t.ticks < idleTicks {
		t.idle.Reset(tick)
	}
	return t.ticks >= idleTicks
}

func (t *flow) over() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cause != nil
}

// end closes the connection because of cause, unless that was done before.
func (t *flow) end(cause error) {
	t.mu.Lock()
	if t.cause != nil {
		t.mu.Unlock()
		return
	}
	t.cause = cause
	t.idle.Stop()
	t.idle = nil
	t.forget()
	t.mu.Unlock()
	_ = t.conn.Close()
}
