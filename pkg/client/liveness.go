package client

import (
	"context"
	"sync"
	"time"

	"vmess-local/pkg/carrier/wsconn"
	"vmess-local/pkg/diagnose"
)

const (
	// requestWait is how long a request may be without an answer until its
	// tunnel is pinged, mostPongWait how long the pong may take at most. Two of
	// these and the former are limits.dial and 3 s.
	requestWait  = 3 * time.Second
	mostPongWait = 5 * time.Second
	// downPause is how often a server that stays silent is reported as down.
	downPause = 10 * time.Second
	// learnPause is the time between attempts to find out whether pings are
	// answered.
	learnPause = time.Second
)

// pongWait returns how long a pong may take where limits.dial is so long.
func pongWait(limit time.Duration) time.Duration { return min(mostPongWait, limit/2) }

// tunnelGroup is what a liveness knows of a server's open tunnels. It is a
// [wsconn.Group].
type tunnelGroup interface {
	AnswersPings() bool
	HeardWithin(last time.Duration) bool
	Ping()
}

// A liveness decides, while requests wait, whether a server is silent or a
// tunnel to it is dead: by pings where the server is known to answer them, and
// otherwise by connecting again. It implements wsconn.Monitor.
type liveness struct {
	ctx     context.Context
	tunnels tunnelGroup
	pings   bool // ws.ping is on
	pong    time.Duration
	connect func(ctx context.Context) error // makes a tunnel, finds out whether pings are answered, and closes it
	retire  func()                          // no tunnel that there is takes new work
	down    func()                          // the server is silent: others take its work

	trying sharedCall[bool]

	mu       sync.Mutex
	tried    time.Time // when the last attempt to connect began that is over
	reached  bool      // and whether it succeeded
	reported time.Time // when down was called last
}

var _ wsconn.Monitor = (*liveness)(nil)

// Waiting implements wsconn.Monitor. The ping under way gets some time to be
// answered, so that a healthy server sees no connection more.
func (l *liveness) Waiting() {
	l.trying.start(func() (reached bool) {
		if l.pings {
			l.pause(l.pong / 5)
		}
		return l.tunnels.HeardWithin(l.pong/5) || l.tryNow()
	})
}

// pause waits, for as long as the server is in use.
func (l *liveness) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-l.ctx.Done():
	}
}

// Doubt implements wsconn.Monitor: what answers now proves that the server is
// there.
func (l *liveness) Doubt() { l.tunnels.Ping() }

// Silent implements wsconn.Monitor: the tunnel takes no new work. When nothing
// else was heard of the server either, it is down. Many servers read nothing
// while they dial a destination, so that a tunnel that was never answered says
// something only together with the rest.
func (l *liveness) Silent(used bool) {
	if l.judge() || used && l.pongsCount() {
		l.retire()
	}
	l.try()
}

// Gone implements wsconn.Monitor.
func (l *liveness) Gone(used bool) bool { return l.judge() || used && l.pongsCount() }

// pongsCount reports whether the lack of a pong means anything.
func (l *liveness) pongsCount() bool { return l.pings && l.tunnels.AnswersPings() }

// judge reports whether the server is silent: then it is down. It takes an
// attempt to connect that failed.
func (l *liveness) judge() (silent bool) {
	silent = !l.tunnels.HeardWithin(l.pong) && l.unreachable()
	if silent && l.report() {
		l.down()
	}
	return silent
}

// report reports whether the server is to be reported as down now.
func (l *liveness) report() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.reported.IsZero() && time.Since(l.reported) < downPause {
		return false
	}
	l.reported = time.Now()
	return true
}

// try connects to the server, for all that wait together.
func (l *liveness) try() {
	l.trying.start(l.tryNow)
}

func (l *liveness) tryNow() bool {
	began := time.Now()
	// It must be over when it is asked about next.
	ctx, cancel := context.WithTimeout(l.ctx, l.pong*7/10)
	defer cancel()
	err := l.connect(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() == nil {
		l.tried, l.reached = began, err == nil
	}
	return err == nil
}

// unreachable reports whether an attempt to connect failed just now.
func (l *liveness) unreachable() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.tried) <= 2*l.pong && !l.reached
}

// moved lets what was found out so far say nothing any more. Where open tunnels
// are being checked by pings for so long it finds out whether these are answered.
// The network may still be coming up.
func (l *liveness) moved(checked time.Duration) {
	l.trying.forget()
	l.mu.Lock()
	l.tried, l.reported = time.Time{}, time.Time{}
	l.mu.Unlock()
	if checked == 0 || !l.pings || l.pongsCount() {
		return
	}
	until := time.Now().Add(checked)
	l.trying.start(func() (reached bool) {
		for !l.pongsCount() && time.Now().Before(until) && l.ctx.Err() == nil {
			if reached = l.tryNow(); reached {
				break
			}
			l.pause(learnPause)
		}
		return reached
	})
}

// close waits for what is under way, which the context must have ended.
func (l *liveness) close() { l.trying.close() }

// newLiveness returns the liveness of a guard's server.
func (g *guard) newLiveness(pings bool, limit time.Duration) *liveness {
	l := &liveness{
		ctx: g.ctx, tunnels: g.path.tunnels, pings: pings, pong: pongWait(limit),
		connect: func(ctx context.Context) error {
			conn, err := g.link.ConnectStream(ctx, nil)
			if err != nil {
				return err
			}
			if c, ok := conn.(*wsconn.Conn); ok && pings && !g.path.tunnels.AnswersPings() {
				ctx, cancel := context.WithTimeout(ctx, pongWait(limit)/5)
				defer cancel()
				c.PingOnce(ctx)
			}
			return conn.Close()
		},
		retire: g.retire,
		down:   g.silentServer,
	}
	group := g.path.tunnels
	group.Monitor, group.RequestWait, group.PongWait = l, requestWait, l.pong
	group.Shared = g.sessions != nil
	return l
}

// retire lets no tunnel that there is carry a new request.
func (g *guard) retire() {
	g.pool.Drop()
	if g.sessions != nil {
		g.sessions.Retire()
	}
}

// silentServer reports that the server does not answer though requests wait.
func (g *guard) silentServer() {
	g.noteFailure()
	v := diagnose.Silent(g.setting)
	g.failures.Report(v)
	g.down(v)
}
