package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/transport"
)

const (
	// comebackFor is how long ago a server must have worked for a request to
	// wait for its return, within limits.dial.
	comebackFor = 2 * time.Minute
	// firstPause is the time between two attempts to reach a server that is
	// away, lastPause the most: it is doubled each time, and varied by a
	// quarter.
	firstPause = 250 * time.Millisecond
	lastPause  = time.Second
	// unproven is how many connections are made at once to a server of which
	// nobody knows at that moment whether it is there.
	unproven = 4
	// unheard is how long a server that worked a moment ago may leave a TCP
	// connection without an answer until that is told: so long takes a SYN that
	// was lost twice.
	unheard = 2500 * time.Millisecond
)

// A reconnectGate is what all requests know together of a server that went away a
// moment ago, as for a restart: one of them at a time tries to reach it, after
// a pause, and the others wait for what it finds. Its zero value knows of
// nothing; it may be used concurrently.
type reconnectGate struct {
	mu       sync.Mutex
	changed  chan struct{} // closed at each change; nil while nobody waits
	dialling int
	reached  time.Time // when it was, last
	failed   error     // of the last attempt that did
	away     error     // why the last attempt missed it; nil: it is not known to be away
	pause    time.Duration
	next     time.Time                // when it may be tried again
	now      *networkEpoch            // nil: nobody has tried yet
	left     time.Time                // since when it is away
	back     func(away time.Duration) // told when it is there again; may be nil
}

// An networkEpoch is the time between two changes of networks. It ends the attempts
// that were made in it, whose way may be gone.
type networkEpoch struct {
	ctx context.Context
	end context.CancelCauseFunc
}

// errNetworkChanged ends the attempts of an era.
var errNetworkChanged = errors.New("this computer's network changed")

// over reports whether it has ended.
func (e *networkEpoch) over() bool { return e.ctx.Err() != nil }

// bound returns a context that ends with the era, too.
func (e *networkEpoch) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(e.ctx, func() { cancel(errNetworkChanged) })
	return ctx, func() { stop(); cancel(nil) }
}

// era returns the era of now.
func (c *reconnectGate) era() *networkEpoch {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.present()
}

// present is era with the lock held.
func (c *reconnectGate) present() *networkEpoch {
	if c.now == nil {
		ctx, cancel := context.WithCancelCause(context.Background())
		c.now = &networkEpoch{ctx, cancel}
	}
	return c.now
}

// moved ends the attempts under way and has the next one made at once.
func (c *reconnectGate) moved() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now != nil {
		c.now.end(errNetworkChanged)
		c.now = nil
	}
	c.dialling = 0 // those that end do not count any more
	c.clear()
}

// A wait says why an attempt must wait, and for what.
type wait struct {
	away    error // nil: others find out whether it is there
	changed <-chan struct{}
	pause   time.Duration // 0: only for a change
}

// acquire reports whether an attempt may be made now, bound to an era. It ends by
// leave. proven says that the server is there.
func (c *reconnectGate) acquire(proven bool) (e *networkEpoch, w wait) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.dialling == 0 && now.Sub(c.next) > lastPause {
		c.away = nil // nobody has looked since
	}
	switch {
	case c.away == nil && (proven || c.dialling < unproven),
		c.away != nil && c.dialling == 0 && !now.Before(c.next):
		c.dialling++
		return c.present(), wait{}
	}
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	w = wait{away: c.away, changed: c.changed}
	if c.away != nil && c.dialling == 0 {
		w.pause = c.next.Sub(now)
	}
	return nil, w
}

// An dialOutcome is how an attempt ended.
type dialOutcome uint8

const (
	dialOK          dialOutcome = iota // the server is there, whatever it says
	dialUnreachable                    // it is away
	dialCanceled                       // nobody knows: the time was over, or who made it gave up
)

// release ends an attempt; err is why it failed, if it did. What was found before
// this computer moved counts no more.
func (c *reconnectGate) release(e *networkEpoch, how dialOutcome, err error) {
	if away := c.record(e, how, err); away > 0 && c.back != nil {
		c.back(away)
	}
}

// record does what leave does, and returns for how long the server was away if it
// is there again.
func (c *reconnectGate) record(e *networkEpoch, how dialOutcome, err error) (away time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.over() {
		return 0
	}
	c.dialling--
	if err != nil && !errors.Is(err, context.Canceled) {
		c.failed = err
	}
	switch now := time.Now(); {
	case how == dialOK:
		if c.away != nil {
			away = max(1, now.Sub(c.left))
		}
		c.away, c.pause, c.reached = nil, 0, now
	case how == dialUnreachable && (c.away == nil || !now.Before(c.next)):
		c.miss(now, err)
	}
	c.broadcast()
	return away
}

// miss takes note, with the lock held, that the server is away.
func (c *reconnectGate) miss(now time.Time, err error) {
	if c.away == nil {
		c.left = now
	}
	c.pause = min(max(2*c.pause, firstPause), lastPause)
	c.away, c.next = err, now.Add(c.pause*3/4+rand.N(c.pause/2))
}

// silent takes note that an attempt hears nothing, and goes on.
func (c *reconnectGate) silent(e *networkEpoch, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !e.over() && c.away == nil {
		c.miss(time.Now(), err)
		c.broadcast()
	}
}

// forget has the next attempt made at once.
func (c *reconnectGate) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clear()
}

// clear is forget with the lock held.
func (c *reconnectGate) clear() {
	c.away, c.pause, c.reached = nil, 0, time.Time{}
	c.broadcast()
}

func (c *reconnectGate) broadcast() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// why returns the failure of the last attempt that did fail.
func (c *reconnectGate) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// since reports whether the server was reached after t, by the wall clock.
func (c *reconnectGate) since(t time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reached.Round(0).After(t)
}

// until waits for a change, the end of the pause or that of ctx.
func (w wait) until(ctx context.Context) {
	var over <-chan time.Time
	if w.pause > 0 {
		t := time.NewTimer(w.pause)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-w.changed:
	case <-over:
	case <-ctx.Done():
	}
}

// An attempt is one try to reach a server. again says that a request may be
// sent by another attempt when this one failed, or was ended. An attempt to which
// nobody answers may call silent, and go on.
type attempt func(ctx context.Context, silent func(err error)) (how dialOutcome, again bool, err error)

// A failureReport is what one request tells of a server that is away.
type failureReport struct {
	news func(err, told error) error
	mu   sync.Mutex
	told error // what news returned last
}

// add tells why the server was missed, and returns when that is told.
func (s *failureReport) add(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = s.news(err, s.told)
}

// end returns what was told last.
func (s *failureReport) end() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told
}

// await makes attempts until one ends otherwise than by missing a server that
// is away, for up to limit. news is told at once why one missed it, or hears
// nothing, or why those of others did, and what it returned before; the last
// that it returned is the error in the end.
func (c *reconnectGate) await(outer context.Context, limit time.Duration, proven func() bool, try attempt, news func(err, told error) error) error {
	ctx, cancel := context.WithTimeout(outer, limit)
	defer cancel()
	s := &failureReport{news: news}
	for ctx.Err() == nil {
		e, w := c.acquire(proven())
		if e == nil {
			if w.away == nil {
				w.until(outer) // the attempts of others end in time
				continue
			}
			s.add(w.away)
			w.until(ctx)
			continue
		}
		bound, done := e.bound(ctx)
		how, again, err := try(bound, func(err error) {
			c.silent(e, err)
			go s.add(err) // which may take a look
		})
		done()
		c.release(e, how, err)
		if err != nil && again && e.over() && ctx.Err() == nil {
			continue // on the new network
		}
		if err == nil || how != dialUnreachable || !again {
			if err != nil && ctx.Err() != nil && s.end() != nil {
				break // it was cut short
			}
			return err
		}
		s.add(err)
	}
	told := s.end()
	switch why := c.why(); {
	case told != nil:
		return told
	case outer.Err() != nil || why == nil:
		return context.Cause(ctx)
	default:
		return why // what those found that it waited for
	}
}

// recentlyUp reports whether the server worked a moment ago. A sleep in between does
// not count: what was left open is there in the morning, and its server, too.
func (g *guard) recentlyUp() bool {
	at := g.account.LastAnswer()
	if worked := g.lastUsed.Load(); worked != nil && worked.After(at) {
		at = *worked
	}
	return g.now().Sub(at) < comebackFor
}

// waitForReady reports whether a request waits here for the server's return: where
// there is no other server and this one worked a moment ago.
func (g *guard) waitForReady() bool { return g.alone && g.recentlyUp() }

// knownUp reports whether the server is known to be there.
func (g *guard) knownUp() bool {
	doubted := time.Unix(0, g.lastFailure.Load())
	if lately := g.now().Add(-healthyFor); lately.After(doubted) {
		doubted = lately
	}
	return g.healthy() || g.comeback.since(doubted)
}

// reach makes a tunnel. Where the server went away a moment ago that is told
// at once, and then it waits for its return within limits.dial.
func (g *guard) reach(ctx context.Context, first []byte) (conn transport.StreamConn, err error) {
	limited, cancel := context.WithTimeout(ctx, g.dialTime)
	defer cancel()
	start := g.now()
	for !g.waitForReady() {
		e := g.comeback.era()
		conn, err = g.connect(limited, e, first)
		if err != nil && e.over() && limited.Err() == nil && unsent(err, first) {
			continue // on the new network
		}
		if err == nil {
			g.comeback.forget()
		}
		return conn, err
	}
	err = g.comeback.await(ctx, g.dialTime-g.now().Sub(start), g.knownUp, func(ctx context.Context, silent func(error)) (how dialOutcome, again bool, err error) {
		ctx = netdial.WithSlowNotice(ctx, unheard, func(err *netdial.Error) { silent(err) })
		conn, err = g.link.ConnectStream(ctx, first)
		switch {
		case err != nil && ctx.Err() != nil:
			return dialCanceled, unsent(err, first), err
		case err != nil && g.restarting(err, nil):
			return dialUnreachable, g.restarting(err, first), err
		}
		return dialOK, false, err
	}, func(err, told error) error { return g.news(ctx, err, told) })
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// connect makes one attempt to reach the server, within an era.
func (g *guard) connect(ctx context.Context, e *networkEpoch, first []byte) (transport.StreamConn, error) {
	ctx, done := e.bound(ctx)
	defer done()
	return g.link.ConnectStream(ctx, first)
}

// unsent reports whether a request whose way was given up with err cannot have
// been carried out: it travels behind TCP and TLS.
func unsent(err error, first []byte) bool {
	var below *netdial.Error
	return len(first) == 0 || errors.As(err, &below)
}

// news tells a failure of the way, unless it has the cause that the request told
// before, and returns what was told last.
func (g *guard) news(ctx context.Context, err, told error) error {
	var before *VerdictError
	if errors.As(told, &before) {
		if v, _ := diagnose.Connect(err, g.setting, diagnose.ConnectFacts{}); v.Cause == before.Verdict.Cause {
			return told
		}
	}
	return g.wayFailed(ctx, err)
}

// ahead makes a tunnel for which nobody waits: at once or not at all.
func (g *guard) ahead(ctx context.Context, first []byte) (transport.StreamConn, error) {
	if !g.waitForReady() {
		return g.connect(ctx, g.comeback.era(), first)
	}
	e, _ := g.comeback.acquire(g.knownUp())
	if e == nil {
		return nil, errNotNow
	}
	conn, err := g.connect(ctx, e, first)
	if err != nil {
		g.noteFailure()
		g.comeback.release(e, dialCanceled, nil) // requests find out, and tell
		return nil, err
	}
	g.comeback.release(e, dialOK, nil)
	return conn, nil
}

var errNotNow = errors.New("nobody knows whether the server is there")

// restarting reports whether err is what a server gives that restarts, or what
// stands before it, to a request that cannot have been carried out.
func (g *guard) restarting(err error, first []byte) bool {
	if len(first) > 0 && errors.Is(err, transport.ErrPartSent) {
		return false
	}
	v, _ := diagnose.Connect(err, g.setting, diagnose.ConnectFacts{})
	switch v.Cause {
	case diagnose.TCPRefused, diagnose.TCPReset, diagnose.TCPUnreachable, diagnose.TCPTimeout:
		return true
	case diagnose.WSBadGateway, diagnose.WSReset:
		return len(first) == 0 || !g.path.early.Load()
	}
	return false
}
