package wsconn

import (
	"sync"
	"sync/atomic"
	"time"
)

// A Group is the open connections of the dialers that share it. Its zero value
// is empty and ready for use; it may be used concurrently, but its fields must
// not change then.
type Group struct {
	// Monitor, if set, judges the connections on which a request waits.
	Monitor Monitor
	// RequestWait is how long after a request nothing may be received until
	// the connection is pinged, PongWait how long the answer may take.
	RequestWait, PongWait time.Duration
	// Shared says that many requests share a connection, so that what is
	// received may be the answer to another.
	Shared bool

	ponged  atomic.Bool // a ping was answered
	offline atomic.Bool

	mu    sync.Mutex
	conns map[*Conn]struct{}
}

// PingAll pings every connection that is silent now, and ends those, with
// [ErrPingTimeout], of which nothing is heard within a time although somebody
// reads: the way they take may be gone, as after a sleep or a change of
// networks. What they were sent before says nothing any more. Those whose far
// end is held up by what was written are left, and all of a server that has
// never answered a ping, or is sent none, unless its system does not answer,
// either. It does not wait, and returns how many it looks at.
func (g *Group) PingAll(within time.Duration) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		c.ping.restart()
		c.ping.check(within)
	}
	return len(g.conns)
}

// Ping pings every connection that somebody reads, where pings are on. Those on
// which a request waits are judged from now on as if it had waited for
// RequestWait. It does not wait.
func (g *Group) Ping() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		c.ping.ping()
	}
}

// SetOffline says whether this computer has no network: then no connection is
// judged by its silence.
func (g *Group) SetOffline(offline bool) { g.offline.Store(offline) }

// AnswersPings reports whether a ping was ever answered on a connection of the
// Group: only then the lack of an answer means anything.
func (g *Group) AnswersPings() bool { return g.ponged.Load() }

// HeardWithin reports whether anything was received by a connection in the last
// time.
func (g *Group) HeardWithin(last time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		if p := c.ping; p.heard.Load() > 0 && p.now()-p.heard.Load() < int64(last) {
			return true
		}
	}
	return false
}

func (g *Group) add(c *Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conns == nil {
		g.conns = make(map[*Conn]struct{})
	}
	g.conns[c] = struct{}{}
}

// remove forgets a connection; g may be nil.
func (g *Group) remove(c *Conn) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
}
