// Package connpool keeps ready-made streams of an endpoint, so that a new
// connection does not wait for TCP, TLS and an upgrade. How many follows the
// demand; without any there are none, because a server takes each that closes
// unused for a rejected request.
package connpool

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
)

const (
	// demandWindow is how far back demand is looked at.
	demandWindow = 10 * time.Second
	// shortLife is the age below which a far end that closes a ready stream is
	// taken to want none, for restPause.
	shortLife = time.Second
	restPause = time.Minute
	// dialTimeout bounds the making of one stream.
	dialTimeout = 15 * time.Second
)

// Options say how a Pool works.
type Options struct {
	// Max is the most streams kept ready; 0 keeps none.
	Max int
	// Idle is how long a stream is kept unused. A far end that closes them
	// earlier makes it shorter, until it keeps them longer again.
	Idle time.Duration
	// Ahead connects the streams that are made ready, for which nobody waits
	// yet; nil means the Pool's own endpoint.
	Ahead transport.StreamEndpoint
	// Now is the wall clock; nil means time.Now. Timers stand still while the
	// computer sleeps, so streams expire by this clock, too.
	Now func() time.Time
}

// Stats are a Pool's counters since its start.
type Stats struct {
	Ready  int   // now
	Used   int64 // streams that served a connection
	Wasted int64 // streams that were made and never used
}

// A Pool is a [transport.StreamEndpoint] that hands out a ready stream where
// it has one and connects otherwise. It may be used concurrently and must be
// closed.
type Pool struct {
	endpoint transport.StreamEndpoint
	ahead    transport.StreamEndpoint
	max      int
	now      func() time.Time

	ctx    context.Context // ends the making of streams
	cancel context.CancelFunc
	making sync.WaitGroup

	mu     sync.Mutex
	ready  []*stream // oldest first
	dials  int       // streams being made
	age    int       // how often all was dropped
	takes  []time.Time
	idle   time.Duration // Options.Idle
	life   time.Duration // how long an unused stream is kept now
	cut    time.Time     // when the far end last closed one early
	rest   time.Time     // none are made before
	closed bool

	used, wasted atomic.Int64
}

var _ transport.StreamEndpoint = (*Pool)(nil)

// NewPool returns a Pool of endpoint.
func NewPool(endpoint transport.StreamEndpoint, o Options) *Pool {
	p := &Pool{endpoint: endpoint, ahead: o.Ahead, max: o.Max, idle: o.Idle, life: o.Idle, now: o.Now}
	if p.ahead == nil {
		p.ahead = endpoint
	}
	if p.now == nil {
		p.now = time.Now
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// ConnectStream implements transport.StreamEndpoint. A ready stream that turns
// out dead before anything was sent is replaced in silence, and one whose far end
// leaves a ping unanswered is passed over.
func (p *Pool) ConnectStream(ctx context.Context, first []byte) (transport.StreamConn, error) {
	return p.connect(ctx, first, p.take())
}

// ConnectSingle is ConnectStream that counts as no demand.
func (p *Pool) ConnectSingle(ctx context.Context, first []byte) (transport.StreamConn, error) {
	return p.connect(ctx, first, p.next())
}

func (p *Pool) connect(ctx context.Context, first []byte, s *stream) (transport.StreamConn, error) {
	for ; s != nil; s = p.next() {
		if len(first) == 0 {
			return s, nil
		}
		transport.Refresh(ctx)
		_, err := s.Write(first)
		if err == nil {
			return s, nil
		}
		_ = s.Close()
		if errors.Is(err, transport.ErrPartSent) {
			return nil, err
		}
	}
	return p.endpoint.ConnectStream(ctx, first)
}

// Put keeps a stream that was made elsewhere, beyond Max too: somebody is about
// to use it.
func (p *Pool) Put(conn transport.StreamConn) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		_ = conn.Close()
		return
	}
	p.keep(conn)
	p.mu.Unlock()
}

// Prefetch has a stream made ready for a connection that is likely to come: it
// counts as demand.
func (p *Pool) Prefetch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.max > 0 && !p.closed {
		p.demand(time.Now())
	}
}

// Ready reports whether a ready stream is at hand.
func (p *Pool) Ready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.ready, func(s *stream) bool { return !p.old(s) && !s.pingOverdue() })
}

// Stats returns the counters.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{Ready: len(p.ready), Used: p.used.Load(), Wasted: p.wasted.Load()}
}

// Close closes the ready streams and makes no more; streams handed out live
// on.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	ready := p.ready
	p.ready = nil
	p.mu.Unlock()
	p.cancel()
	for _, s := range ready {
		p.discard(s)
	}
	p.making.Wait()
	return nil
}

// Drop closes the ready streams, and those being made once they are: they may
// be dead. What was learnt about how long the far end keeps them stays.
func (p *Pool) Drop() {
	p.mu.Lock()
	p.age++
	ready := p.ready
	p.ready = nil
	p.mu.Unlock()
	for _, s := range ready {
		p.discard(s)
	}
}

// take notes the demand, returns a ready stream or nil, and has others made.
func (p *Pool) take() *stream {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.pop()
	if p.max > 0 && !p.closed {
		p.demand(time.Now())
	}
	return s
}

// demand notes a demand and has streams made for the next.
func (p *Pool) demand(now time.Time) {
	p.takes = append(recent(p.takes, now), now)
	if len(p.takes) > 2*p.max {
		p.takes = p.takes[1:] // more would change nothing
	}
	p.refill(now)
}

// next returns a ready stream or nil.
func (p *Pool) next() *stream {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pop()
}

func (p *Pool) pop() *stream {
	for i := 0; i < len(p.ready); {
		s := p.ready[i]
		old := p.old(s)
		if !old && s.pingOverdue() {
			i++ // the answer may still come
			continue
		}
		p.ready = slices.Delete(p.ready, i, i+1)
		if old {
			p.making.Go(func() { p.discard(s) }) // which may take a while
			continue
		}
		s.expiry.Stop()
		s.expiry = nil // a tunnel in use is light
		p.used.Add(1)
		return s
	}
	return nil
}

// old reports whether a stream is beyond its life though its timer has not
// fired: this computer slept.
func (p *Pool) old(s *stream) bool { return p.now().Round(0).Sub(s.seen) > p.life }

func recent(takes []time.Time, now time.Time) []time.Time {
	for len(takes) > 0 && now.Sub(takes[0]) > demandWindow {
		takes = takes[1:]
	}
	return takes
}

// refill has streams made until there are half as many as were asked for of
// late, at least one.
func (p *Pool) refill(now time.Time) {
	if now.Before(p.rest) {
		return
	}
	want := min(p.max, (len(p.takes)+1)/2)
	for n := want - len(p.ready) - p.dials; n > 0; n-- {
		p.dials++
		p.making.Go(p.make)
	}
}

// make makes one stream and keeps it.
func (p *Pool) make() {
	ctx, cancel := context.WithTimeout(p.ctx, dialTimeout)
	defer cancel()
	p.mu.Lock()
	age := p.age
	p.mu.Unlock()
	conn, err := p.ahead.ConnectStream(ctx, nil)
	p.mu.Lock()
	p.dials--
	if err != nil || p.closed || p.age != age {
		p.mu.Unlock()
		if err == nil {
			_ = conn.Close()
		}
		return
	}
	p.keep(conn)
	p.mu.Unlock()
}

// keep is called with the lock held.
func (p *Pool) keep(conn transport.StreamConn) {
	s := newStream(conn)
	s.seen = p.now().Round(0)
	p.ready = append(p.ready, s)
	s.expiry = time.AfterFunc(p.life, func() { p.drop(s, false) })
	if s.waiter != nil {
		go p.watch(s)
	}
}

// watch returns when the stream has something to read, or its end: while it is
// ready, either is its end.
func (p *Pool) watch(s *stream) {
	_ = s.waiter.WaitRead()
	close(s.watched)
	p.drop(s, true)
}

// drop takes a stream out that has grown too old or, early, was ended by the
// far end.
func (p *Pool) drop(s *stream, early bool) {
	p.mu.Lock()
	at := -1
	for i, r := range p.ready {
		if r == s {
			at = i
		}
	}
	if at < 0 { // handed out, or gone
		p.mu.Unlock()
		return
	}
	p.ready = append(p.ready[:at:at], p.ready[at+1:]...)
	s.expiry.Stop()
	p.learn(time.Since(s.made), early)
	p.mu.Unlock()
	p.discard(s)
}

// learn fits the life of unused streams to what the far end allows, from one that
// it closed early or that lived to its end. It may have closed them for another
// reason, as for a restart, so they get longer lives again: twice as long each
// time, but none is ventured within a minute of an early close. It is called with
// the lock held.
func (p *Pool) learn(age time.Duration, early bool) {
	now := time.Now()
	switch {
	case early:
		if age < shortLife {
			p.rest = now.Add(restPause)
		}
		p.life, p.cut = min(p.life, max(age*4/5, shortLife)), now
	case now.Sub(p.cut) >= restPause:
		p.life = min(2*p.life, p.idle)
	}
}

func (p *Pool) discard(s *stream) {
	s.expiry.Stop()
	p.wasted.Add(1)
	_ = s.StreamConn.Close()
}

// A stream is one that waits for its use, with somebody watching it: what ends
// it is noticed at once, and pings are answered. The watcher is its reader
// until the first byte of an answer.
type stream struct {
	transport.StreamConn
	waiter  transport.ReadWaiter // of StreamConn; nil when it cannot wait
	made    time.Time
	seen    time.Time     // the same by the wall clock alone
	expiry  *time.Timer   // nil once handed out
	watched chan struct{} // closed when the watcher has ended; nil once the reader knows that
}

var (
	_ transport.ReadWaiter = (*stream)(nil)
	_ transport.Resetter   = (*stream)(nil)
	_ transport.PeerWaiter = (*stream)(nil)
)

func newStream(c transport.StreamConn) *stream {
	s := &stream{StreamConn: c, made: time.Now(), watched: make(chan struct{})}
	if s.waiter, _ = c.(transport.ReadWaiter); s.waiter == nil {
		close(s.watched) // nobody can watch it
	}
	return s
}

// join waits for the watcher. It is the reader's to call.
func (s *stream) join() {
	if s.watched != nil {
		<-s.watched
		s.watched = nil
	}
}

// Read implements net.Conn.
func (s *stream) Read(b []byte) (int, error) {
	s.join()
	return s.StreamConn.Read(b)
}

// WaitRead implements transport.ReadWaiter.
func (s *stream) WaitRead() error {
	s.join()
	if s.waiter == nil {
		return nil
	}
	return s.waiter.WaitRead()
}

// pingOverdue reports whether the far end leaves a ping unanswered: a request
// might be lost there.
func (s *stream) pingOverdue() bool {
	c, ok := s.StreamConn.(interface{ PingOverdue() bool })
	return ok && c.PingOverdue()
}

// Reset implements transport.Resetter.
func (s *stream) Reset() error { return transport.Reset(s.StreamConn) }

// NothingFollows passes on that nothing more will be written.
func (s *stream) NothingFollows() {
	if n, ok := s.StreamConn.(interface{ NothingFollows() }); ok {
		n.NothingFollows()
	}
}

// NetConn returns the stream below ([transport.As]).
func (s *stream) NetConn() net.Conn { return s.StreamConn }

// WaitPeerClose implements transport.PeerWaiter.
func (s *stream) WaitPeerClose() (gone bool) {
	s.join()
	if w, ok := s.StreamConn.(transport.PeerWaiter); ok {
		return w.WaitPeerClose()
	}
	var sink [256]byte
	for {
		if _, err := s.StreamConn.Read(sink[:]); err != nil {
			return true
		}
	}
}
