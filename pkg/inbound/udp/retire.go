package udp

import (
	"sync"
	"time"
)

// retiring holds the associations of a server until it is retired, and
// afterwards ends those that are idle.
type retiring struct {
	mu      sync.Mutex
	open    map[*association]func()
	retired bool
}

// Retire ends the associations that move no datagram for Idle, or up to a
// quarter more, from now on: the server is followed by another one, which their
// programs should come to use.
func (s *Server) Retire() {
	r := &s.retiring
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retired = true
	for a, end := range r.open {
		a.endWhenIdle(end)
	}
}

// enter takes an association in, which end ends.
func (r *retiring) enter(a *association, end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		r.open = map[*association]func(){}
	}
	r.open[a] = end
	if r.retired {
		a.endWhenIdle(end)
	}
}

// leave takes out one that has ended.
func (r *retiring) leave(a *association) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, a)
	if a.idle != nil {
		a.idle.Stop()
	}
}

// endWhenIdle is called with the lock held, which guards a.idle.
func (a *association) endWhenIdle(end func()) {
	if a.idle != nil {
		return
	}
	tick := a.lane.idle / idleTicks
	r := &a.server.retiring
	seen, ticks := a.datagrams(), 0
	a.idle = time.AfterFunc(tick, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.open[a] == nil {
			return
		}
		if n := a.datagrams(); n != seen {
			seen, ticks = n, 0
		} else {
			ticks++
		}
		if ticks >= idleTicks {
			end()
			return
		}
		a.idle.Reset(tick)
	})
}

// datagrams counts those that the association has moved.
func (a *association) datagrams() int64 {
	return a.moved.Up.Packets.Load() + a.moved.Down.Packets.Load()
}
