package wsconn

import (
	"sync"
	"time"
)

// A Group is the open connections of the dialers that share it. Its zero value
// is empty and ready for use; it may be used concurrently.
type Group struct {
	mu    sync.Mutex
	conns map[*Conn]struct{}
}

// Check pings every connection that is silent now, and ends those, with
// [ErrPingTimeout], of which nothing is heard within a time although somebody
// reads: the way they take may be gone, as after a sleep or a change of
// networks. Those whose far end is held up by what was written are left. It
// does not wait, and returns how many it looks at.
func (g *Group) Check(within time.Duration) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		c.ping.check(within)
	}
	return len(g.conns)
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
