package client

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/host/netmon"
	"vmess-local/pkg/outbound/reconnect"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

const (
	// severalDial bounds the path to a server that is not the only one.
	severalDial = 5 * time.Second
	// firstRest is how long a server that failed is left alone, lastRest the
	// most: each time it fails again the rest is doubled.
	firstRest = 5 * time.Second
	lastRest  = 5 * time.Minute
	// restForgiven is how long a server must have been well for the next
	// failure to count as its first.
	restForgiven = 5 * time.Minute
	// trialTime bounds a look whether a server is back.
	trialTime = 10 * time.Second
)

// A failoverGroup is the configured servers in order of preference. The first that is
// well is used; where nobody knows that, those that are silent are not waited for
// (see race). One that fails is left alone for a while; then the next
// request, which another server carries, has it tried, and it is used again
// when it accepts us. Without requests nothing is tried. When all failed that
// worked a moment ago, requests wait for the return of one.
type failoverGroup struct {
	log         *slog.Logger
	single      *entry        // the only one; nil when there are several
	waitTimeout time.Duration // how long a request waits for a return
	reconnect   reconnect.Gate
	trials      sync.WaitGroup

	ctx context.Context // ends with close
	end context.CancelFunc

	mu         sync.Mutex
	members    []*entry
	using      *entry
	why, words string // why the one in use failed last, as in choose
	racing     *race  // the last that began; nil once it is over
	closed     bool
}

// A entry is one server of a fleet.
type entry struct {
	guard *guard
	// The rest is guarded by the fleet.
	down  bool
	until time.Time     // when it may be tried again
	rest  time.Duration // how long it was left alone last
	since time.Time     // when it was found well, or failed
	tried bool          // a trial is under way
	// refuses: the last trial reached it, and it did not accept us.
	refuses bool
	// served is when it last took a request.
	served time.Time
}

func newFailoverGroup(log *slog.Logger, guards []*guard, patience time.Duration) *failoverGroup {
	f := &failoverGroup{log: log, waitTimeout: patience}
	f.ctx, f.end = context.WithCancel(context.Background())
	for _, g := range guards {
		m := &entry{guard: g}
		f.members = append(f.members, m)
		g.failed = func(v diagnose.Verdict) { f.failure(m, v) }
		g.packets.Plain().GiveUp = func(err error) bool { return f.shouldSwitch(m, err) }
		if g.sessions != nil {
			g.sessions.Again = func(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
				return f.again(ctx, m, dst, first)
			}
		}
	}
	f.using = f.members[0]
	if len(guards) == 1 {
		f.single = f.using
	}
	return f
}

// DialStream implements transport.StreamDialer: where the way to a server
// fails, the request goes to the next.
func (f *failoverGroup) DialStream(ctx context.Context, dst netaddr.Addr, first []byte) (conn transport.StreamConn, err error) {
	err = f.dial(ctx, first, func(ctx context.Context, g *guard) (err error) {
		conn, err = g.DialStream(ctx, dst, first)
		return err
	})
	return conn, err
}

// again dials for a request that a server did not take because it is about to
// stop: it may be back in a moment.
func (f *failoverGroup) again(ctx context.Context, m *entry, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
	now := time.Now()
	m.guard.lastUsed.Store(&now)
	ctx, cancel := context.WithTimeout(ctx, f.waitTimeout)
	defer cancel()
	return f.DialStream(ctx, dst, first)
}

// DialPacket implements transport.PacketDialer, as DialStream does.
func (f *failoverGroup) DialPacket(ctx context.Context, dst netaddr.Addr) (conn transport.PacketConn, err error) {
	err = f.dial(ctx, nil, func(ctx context.Context, g *guard) (err error) {
		conn, err = g.packets.DialPacket(ctx, dst)
		return err
	})
	return conn, err
}

// dial has a request whose first payload is first dialled by one server after
// the other, and waits for the return of one where that makes sense.
func (f *failoverGroup) dial(ctx context.Context, first []byte, dial func(ctx context.Context, g *guard) error) error {
	if f.single != nil {
		return dial(ctx, f.single.guard) // it waits itself
	}
	if !f.waitForReady() {
		_, _, err := f.round(ctx, ctx, first, dial)
		return err
	}
	return f.reconnect.Do(ctx, f.waitTimeout, func() bool { return true },
		func(waiting context.Context, _ func(error)) (how reconnect.Outcome, again bool, err error) {
			return f.round(ctx, waiting, first, dial)
		},
		func(err, _ error) error { return err }) // the guards have told
}

// waitForReady reports whether a server worked a moment ago.
func (f *failoverGroup) waitForReady() bool {
	return slices.ContainsFunc(f.all(), func(m *entry) bool { return m.guard.recentlyUp() })
}

// round tries one server after the other. Each of those that are up has its own
// time: a silent one would take that of the next otherwise, and would not be
// found to have failed. Where none is up, waiting bounds all of it.
func (f *failoverGroup) round(ctx, waiting context.Context, first []byte, dial func(ctx context.Context, g *guard) error) (how reconnect.Outcome, again bool, err error) {
	members, up := f.order()
	if !up {
		ctx = waiting
	}
	how = reconnect.Canceled
	for len(members) > 0 {
		m, restarts, failed := f.pick(ctx, members)
		if failed != nil {
			if restarts && ctx.Err() == nil {
				how = reconnect.Unreachable
			}
			return how, ctx.Err() == nil, failed
		}
		if err = dial(ctx, m.guard); err == nil {
			f.markServed(m)
			return reconnect.OK, false, nil
		}
		if ctx.Err() != nil || !m.guard.notExecuted(err, first) {
			return reconnect.Canceled, false, err
		}
		if m.guard.recentlyUp() && m.guard.restarting(err, nil) {
			how = reconnect.Unreachable
		}
		members = without(members, m)
	}
	return how, true, err
}

func without(members []*entry, m *entry) []*entry {
	return slices.DeleteFunc(slices.Clone(members), func(one *entry) bool { return one == m })
}

// shouldSwitch reports whether datagrams that failed with err go by another server
// from now on.
func (f *failoverGroup) shouldSwitch(m *entry, err error) bool {
	var v *VerdictError
	return f.single == nil && errors.As(err, &v) && f.isDown(m)
}

// notExecuted reports whether a request whose way failed with err cannot have
// been carried out.
func (g *guard) notExecuted(err error, first []byte) bool {
	var v *VerdictError
	if !errors.As(err, &v) || errors.Is(err, transport.ErrPartSent) {
		return false
	}
	early := len(first) > 0 && g.path.early.Load()
	return !early || strings.HasPrefix(string(v.Verdict.Cause), "tcp.") || strings.HasPrefix(string(v.Verdict.Cause), "dns.")
}

// current returns the guard of the server that is used.
func (f *failoverGroup) current() *guard {
	if f.single != nil {
		return f.single.guard
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.using.guard
}

// all returns the members, in order of preference.
func (f *failoverGroup) all() []*entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.members
}

func (f *failoverGroup) isDown(m *entry) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return m.down
}

// healthy reports whether the server that is used is known to be well.
func (f *failoverGroup) healthy() bool { return f.current().healthy() }

// order returns the servers for one request: those that are up, in order of
// preference. When none is, it is those that worked a moment ago, the last one
// first, and when there are none of these, it is all.
func (f *failoverGroup) order() (members []*entry, anyUp bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	up, lately := make([]*entry, 0, len(f.members)), []*entry(nil)
	for _, m := range f.members {
		switch {
		case !m.down:
			up = append(up, m)
			continue
		case now.After(m.until):
			f.trial(m)
		}
		if m.guard.recentlyUp() {
			lately = append(lately, m)
		}
	}
	switch {
	case len(up) > 0:
		return up, true
	case len(lately) > 0:
		slices.SortStableFunc(lately, func(a, b *entry) int { return b.served.Compare(a.served) })
		return lately, false
	}
	return f.members, false
}

// markServed takes note that a server has taken a request. One that was thought to
// be away is tried at once; one that is there and refuses us is left alone.
func (f *failoverGroup) markServed(m *entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m.served = time.Now()
	if m.down && (!m.refuses || m.served.After(m.until)) {
		f.trial(m)
	}
}

// trial begins to look whether a server is back. It is called with the lock
// held.
func (f *failoverGroup) trial(m *entry) {
	if !m.tried && !f.closed {
		m.tried = true
		f.trials.Go(func() { f.try(m) })
	}
}

// failure takes note that a server failed, and says which is used then.
func (f *failoverGroup) failure(m *entry, v diagnose.Verdict) {
	if f.single != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if m.down {
		if now.After(m.until) {
			f.eject(m, now)
		}
		return
	}
	if now.Sub(m.since) > restForgiven {
		m.rest = 0
	}
	m.down = true
	f.eject(m, now)
	if m == f.using {
		f.why = "failed: " + string(v.Cause)
		f.words = m.quoted() + " " + f.why
	}
	f.replace()
}

// replace chooses another server for one in use that is down. It is called with
// the lock held.
func (f *failoverGroup) replace() {
	if f.using.down {
		f.choose(f.why, f.words)
	}
}

// eject leaves a server alone for twice as long as the last time.
func (f *failoverGroup) eject(m *entry, now time.Time) {
	m.rest = min(max(2*m.rest, firstRest), lastRest)
	m.until, m.since = now.Add(m.rest), now
}

// choose makes the first server that is up the one that is used, unless a race is
// about to show whether it is; words tell why in a sentence. It is called with
// the lock held.
func (f *failoverGroup) choose(why, words string) {
	for _, m := range f.members {
		if m.down || m != f.using && f.undecided(m) {
			continue
		}
		if old := f.using; m != old {
			f.using = m
			f.log.Info("server", logging.Text("now using server %s (%s)", m.quoted(), words),
				"server", m.guard.Name(), "before", old.guard.Name(), "why", why)
		}
		return
	}
}

// try looks whether a server that failed accepts us again.
func (f *failoverGroup) try(m *entry) {
	ctx, cancel := context.WithTimeout(m.guard.ctx, trialTime)
	defer cancel()
	e := m.guard.reconnect.Epoch()
	ctx, done := e.Bound(ctx)
	defer done()
	found := m.guard.prober.Ask(ctx, m.guard.account.Mode(), m.guard.account.Offset())
	ok := accepts(found)
	f.mu.Lock()
	defer f.mu.Unlock()
	m.tried = false
	now := time.Now()
	switch {
	case !ok && e.Over():
		return // of this network nothing was found
	case !ok:
		m.refuses = found != diagnose.ProbeFailed && found != diagnose.ProbeNotTried
		f.eject(m, now)
		return
	}
	f.back(m, now)
}

// back takes note that a server accepts us again. It is called with the lock
// held.
func (f *failoverGroup) back(m *entry, now time.Time) {
	m.down, m.refuses, m.since = false, false, now
	words := "it is back, and comes before " + f.using.quoted()
	if f.using.down {
		words = "it is back, and " + f.using.quoted() + " is not"
	}
	f.choose("is back", words)
}

// quoted is the server's name in a sentence.
func (m *entry) quoted() string { return strconv.Quote(m.guard.Name()) }

// onNetworkChange has the servers looked at anew after a sleep or a change of networks:
// what failed on another network may work on this one.
func (f *failoverGroup) onNetworkChange(e netmon.Event) {
	f.mu.Lock()
	members := f.members
	now := time.Now()
	for _, m := range members {
		m.until, m.rest = now, 0
	}
	f.mu.Unlock()
	f.reconnect.Reset()
	for _, m := range members {
		m.guard.onNetworkChange(e)
	}
}

// pin makes a server the one that is used first, until another is named.
func (f *failoverGroup) pin(which string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.named(which)
	if m == nil {
		return false
	}
	f.members = append([]*entry{m}, without(f.members, m)...)
	m.down, m.refuses = false, false
	const why = "was left by hand"
	f.choose(why, f.using.quoted()+" "+why)
	return true
}

// member returns the one that is named, as prefer does.
func (f *failoverGroup) member(which string) *entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.named(which)
}

// close ends what runs by itself.
func (f *failoverGroup) close() {
	f.mu.Lock()
	f.closed = true
	members := f.members
	f.mu.Unlock()
	f.end()
	for _, m := range members {
		m.guard.close()
	}
	f.trials.Wait()
}
