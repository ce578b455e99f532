// Package netmon notices that this computer slept, that its clock was set, and
// that its network addresses changed: moments after which connections may be
// dead though nobody has said so. A [Watcher] runs on one ticker and, on
// Linux, on the kernel's notices (rtnetlink(7), and timerfd_create(2), which
// tells of a resume and of a clock that is set); elsewhere it looks at clocks
// and addresses with each tick.
package netmon

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"time"
)

const (
	// tick is how often the clocks are compared.
	tick = 5 * time.Second
	// slack is how far the clocks may drift apart between two ticks, and how
	// late one may come, before that is taken for more than a busy computer.
	slack = 10 * time.Second
	// settling is how long changes of addresses are gathered: an interface that
	// comes up gets several, one after another.
	settling = time.Second
)

// An Event is what was noticed, one thing at least.
type Event struct {
	// Slept is for how long this computer did nothing; 0: it did not sleep.
	// Where the system's monotonic clock goes on during sleep it is known from
	// a late tick.
	Slept time.Duration
	// ClockSet: this computer's clock was put back, or forward, which nobody
	// can tell from a sleep.
	ClockSet bool
	// AddrsChanged: the addresses of this computer, or the one by which it reaches the
	// world, changed.
	AddrsChanged bool
	// Offline: this computer had a way to the world and has none now. When it has
	// one again, be it the same, it has Moved.
	Offline bool
	// OfflineFor is for how long there was none until now, but for the time that
	// this computer slept; 0: there was one, or there is still none.
	OfflineFor time.Duration
}

// A Monitor watches until its context ends. Its zero value watches this
// computer; its fields must not change while it runs.
type Monitor struct {
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	// Addresses returns the addresses that count; nil means those of this
	// computer.
	Addresses func() Addresses
	// Notices, when it is set, is received from when the addresses may have
	// changed, or this computer slept, or its clock was set; nil means the
	// kernel's, where there are any.
	Notices <-chan struct{}
}

// Addresses are how this computer is connected.
type Addresses map[netip.Addr]bool // true: the world is reached by it

// reach reports whether there is a way to the world.
func (a Addresses) reach() bool {
	for _, way := range a {
		if way {
			return true
		}
	}
	return false
}

// Watch calls tell with each event, one at a time, until ctx is done. What has
// been noticed before it began is no event.
func (w *Monitor) Watch(ctx context.Context, tell func(Event)) {
	notices := w.Notices
	if notices == nil {
		own, ended := make(chan struct{}, 1), make(chan struct{})
		notices = own
		go func() {
			defer close(ended)
			listen(ctx, own) // where that is impossible the ticks remain
		}()
		defer func() { <-ended }()
	}
	look := w.Addresses
	if look == nil {
		look = Current
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	settled := time.NewTimer(time.Hour)
	settled.Stop()
	defer settled.Stop()
	clocks, seen := w.read(), look()
	ways := connection{had: seen.reach()}
	for {
		var e Event
		select {
		case <-ctx.Done():
			return
		case <-notices:
			settled.Reset(settling)
			now := w.read()
			if e = clocks.until(now); e == (Event{}) {
				continue
			}
			clocks = now
		case <-settled.C:
		case <-ticker.C:
			now := w.read()
			e = clocks.until(now)
			clocks = now
		}
		if now := look(); !maps.Equal(now, seen) {
			seen, e.AddrsChanged = now, true
		}
		if e != (Event{}) {
			ways.tell(&e, seen.reach())
			tell(e)
		}
	}
}

// A connection is the history of the way to the world.
type connection struct {
	had  bool      // a computer that never had one can lose none
	lost time.Time // since when there is none; zero: there is one, or never was
}

// tell completes an event by what becomes of the way.
func (c *connection) tell(e *Event, way bool) {
	switch {
	case way && !c.lost.IsZero():
		e.OfflineFor, c.lost = time.Since(c.lost), time.Time{}
	case !way && c.had && c.lost.IsZero():
		c.lost = time.Now()
	}
	c.had = c.had || way
	e.Offline = !c.lost.IsZero()
}

// A reading is both clocks at one moment.
type reading struct {
	wall time.Time // without a monotonic part
	mono time.Time
}

func (w *Monitor) read() reading {
	now := time.Now()
	if w.Now != nil {
		return reading{w.Now().Round(0), now}
	}
	return reading{now.Round(0), now}
}

// until compares two readings that should lie no more than a tick apart.
func (r reading) until(next reading) (e Event) {
	wall, mono := next.wall.Sub(r.wall), next.mono.Sub(r.mono)
	if late := max(wall, mono) - min(mono, tick); late > slack {
		e.Slept = late
	}
	e.ClockSet = (wall - mono).Abs() > slack
	return e
}

// Current returns the addresses of this computer, without loopback and
// link-local ones. By an address whose interface has no carrier, as without its
// cable, the world is not reached.
func Current() Addresses {
	all := Addresses{}
	known, _ := net.InterfaceAddrs()
	for _, a := range known {
		prefix, err := netip.ParsePrefix(a.String())
		if ip := prefix.Addr(); err == nil && ip.IsGlobalUnicast() {
			all[ip.WithZone("").Unmap()] = false
		}
	}
	idle := withoutCarrier()
	// Connecting a datagram socket sends nothing; it shows which address the
	// system would use. These are the addresses for documentation (RFC 5737,
	// RFC 3849), which are routed as the world is.
	for _, world := range [...]string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		c, err := net.Dial("udp", world)
		if err != nil {
			continue
		}
		if used, ok := c.LocalAddr().(*net.UDPAddr); ok {
			ip := used.AddrPort().Addr().Unmap()
			all[ip] = !idle[ip]
		}
		_ = c.Close()
	}
	return all
}

// withoutCarrier returns the addresses of interfaces that are up, but not
// connected.
func withoutCarrier() map[netip.Addr]bool {
	all := map[netip.Addr]bool{}
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagRunning != 0 {
			continue
		}
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				all[prefix.Addr().WithZone("").Unmap()] = true
			}
		}
	}
	return all
}
