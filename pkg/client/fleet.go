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

	"vmess-local/pkg/awake"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/logline"
	"vmess-local/pkg/netaddr"
	"vmess-local/pkg/transport"
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

// A fleet is the configured servers in order of preference. The first that is
// well is used; where nobody knows that, those that are silent are not waited for
// (see race). One that fails is left alone for a while; then the next
// request, which another server carries, has it tried, and it is used again
// when it accepts us. Without requests nothing is tried. When all failed that
// worked a moment ago, requests wait for the return of one.
type fleet struct {
	log      *slog.Logger
	single   *member       // the only one; nil when there are several
	patience time.Duration // how long a request waits for a return
	comeback comeback
	trials   sync.WaitGroup

	ctx context.Context // ends with close
	end context.CancelFunc

	mu         sync.Mutex
	members    []*member
	using      *member
	why, words string // why the one in use failed last, as in choose
	racing     *race  // the last that began; nil once it is over
	closed     bool
}

// A member is one server of a fleet.
type member struct {
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

func newFleet(log *slog.Logger, guards []*guard, patience time.Duration) *fleet {
	f := &fleet{log: log, patience: patience}
	f.ctx, f.end = context.WithCancel(context.Background())
	for _, g := range guards {
		m := &member{guard: g}
		f.members = append(f.members, m)
		g.failed = func(v diagnose.Verdict) { f.failure(m, v) }
		g.packets.plain.GiveUp = func(err error) bool { return f.leaves(m, err) }
		if g.packets.sessions != nil {
			g.packets.sessions.Again = func(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
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
func (f *fleet) DialStream(ctx context.Context, dst netaddr.Addr, first []byte) (conn transport.StreamConn, err error) {
	err = f.dial(ctx, first, func(ctx context.Context, g *guard) (err error) {
		conn, err = g.DialStream(ctx, dst, first)
		return err
	})
	return conn, err
}

// again dials for a request that a server did not take because it is about to
// stop: it may be back in a moment.
func (f *fleet) again(ctx context.Context, m *member, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
	now := time.Now()
	m.guard.worked.Store(&now)
	ctx, cancel := context.WithTimeout(ctx, f.patience)
	defer cancel()
	return f.DialStream(ctx, dst, first)
}

// DialPacket implements transport.PacketDialer, as DialStream does.
func (f *fleet) DialPacket(ctx context.Context, dst netaddr.Addr) (conn transport.PacketConn, err error) {
	err = f.dial(ctx, nil, func(ctx context.Context, g *guard) (err error) {
		conn, err = g.packets.DialPacket(ctx, dst)
		return err
	})
	return conn, err
}

// dial has a request whose first payload is first dialled by one server after
// the other, and waits for the return of one where that makes sense.
func (f *fleet) dial(ctx context.Context, first []byte, dial func(ctx context.Context, g *guard) error) error {
	if f.single != nil {
		return dial(ctx, f.single.guard) // it waits itself
	}
	if !f.patient() {
		_, _, err := f.round(ctx, ctx, first, dial)
		return err
	}
	return f.comeback.await(ctx, f.patience, func() bool { return true },
		func(waiting context.Context, _ func(error)) (how attempted, again bool, err error) {
			return f.round(ctx, waiting, first, dial)
		},
		func(err, _ error) error { return err }) // the guards have told
}

// patient reports whether a server worked a moment ago.
func (f *fleet) patient() bool {
	return slices.ContainsFunc(f.all(), func(m *member) bool { return m.guard.lately() })
}

// round tries one server after the other. Each of those that are up has its own
// time: a silent one would take that of the next otherwise, and would not be
// found to have failed. Where none is up, waiting bounds all of it.
func (f *fleet) round(ctx, waiting context.Context, first []byte, dial func(ctx context.Context, g *guard) error) (how attempted, again bool, err error) {
	members, up := f.order()
	if !up {
		ctx = waiting
	}
	how = cutShort
	for len(members) > 0 {
		m, restarts, failed := f.pick(ctx, members)
		if failed != nil {
			if restarts && ctx.Err() == nil {
				how = missed
			}
			return how, ctx.Err() == nil, failed
		}
		if err = dial(ctx, m.guard); err == nil {
			f.served(m)
			return reached, false, nil
		}
		if ctx.Err() != nil || !m.guard.untouched(err, first) {
			return cutShort, false, err
		}
		if m.guard.lately() && m.guard.restarting(err, nil) {
			how = missed
		}
		members = without(members, m)
	}
	return how, true, err
}

func without(members []*member, m *member) []*member {
	return slices.DeleteFunc(slices.Clone(members), func(one *member) bool { return one == m })
}

// leaves reports whether datagrams that failed with err go by another server
// from now on.
func (f *fleet) leaves(m *member, err error) bool {
	var v *VerdictError
	return f.single == nil && errors.As(err, &v) && f.isDown(m)
}

// untouched reports whether a request whose way failed with err cannot have
// been carried out.
func (g *guard) untouched(err error, first []byte) bool {
	var v *VerdictError
	if !errors.As(err, &v) || errors.Is(err, transport.ErrPartSent) {
		return false
	}
	early := len(first) > 0 && g.way.early.Load()
	return !early || strings.HasPrefix(string(v.Verdict.Cause), "tcp.") || strings.HasPrefix(string(v.Verdict.Cause), "dns.")
}

// current returns the guard of the server that is used.
func (f *fleet) current() *guard {
	if f.single != nil {
		return f.single.guard
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.using.guard
}

// all returns the members, in order of preference.
func (f *fleet) all() []*member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.members
}

func (f *fleet) isDown(m *member) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return m.down
}

// well reports whether the server that is used is known to be well.
func (f *fleet) well() bool { return f.current().well() }

// order returns the servers for one request: those that are up, in order of
// preference. When none is, it is those that worked a moment ago, the last one
// first, and when there are none of these, it is all.
func (f *fleet) order() (members []*member, anyUp bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	up, lately := make([]*member, 0, len(f.members)), []*member(nil)
	for _, m := range f.members {
		switch {
		case !m.down:
			up = append(up, m)
			continue
		case now.After(m.until):
			f.trial(m)
		}
		if m.guard.lately() {
			lately = append(lately, m)
		}
	}
	switch {
	case len(up) > 0:
		return up, true
	case len(lately) > 0:
		slices.SortStableFunc(lately, func(a, b *member) int { return b.served.Compare(a.served) })
		return lately, false
	}
	return f.members, false
}

// served takes note that a server has taken a request. One that was thought to
// be away is tried at once; one that is there and refuses us is left alone.
func (f *fleet) served(m *member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m.served = time.Now()
	if m.down && (!m.refuses || m.served.After(m.until)) {
		f.trial(m)
	}
}

// trial begins to look whether a server is back. It is called with the lock
// held.
func (f *fleet) trial(m *member) {
	if !m.tried && !f.closed {
		m.tried = true
		f.trials.Go(func() { f.try(m) })
	}
}

// failure takes note that a server failed, and says which is used then.
func (f *fleet) failure(m *member, v diagnose.Verdict) {
	if f.single != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if m.down {
		if now.After(m.until) {
			f.lay(m, now)
		}
		return
	}
	if now.Sub(m.since) > restForgiven {
		m.rest = 0
	}
	m.down = true
	f.lay(m, now)
	if m == f.using {
		f.why = "failed: " + string(v.Cause)
		f.words = m.quoted() + " " + f.why
	}
	f.replace()
}

// replace chooses another server for one in use that is down. It is called with
// the lock held.
func (f *fleet) replace() {
	if f.using.down {
		f.choose(f.why, f.words)
	}
}

// lay leaves a server alone for twice as long as the last time.
func (f *fleet) lay(m *member, now time.Time) {
	m.rest = min(max(2*m.rest, firstRest), lastRest)
	m.until, m.since = now.Add(m.rest), now
}

// choose makes the first server that is up the one that is used, unless a race is
// about to show whether it is; words tell why in a sentence. It is called with
// the lock held.
func (f *fleet) choose(why, words string) {
	for _, m := range f.members {
		if m.down || m != f.using && f.undecided(m) {
			continue
		}
		if old := f.using; m != old {
			f.using = m
			f.log.Info("server", logline.Text("now using server %s (%s)", m.quoted(), words),
				"server", m.guard.voice.server, "before", old.guard.voice.server, "why", why)
		}
		return
	}
}

// try looks whether a server that failed accepts us again.
func (f *fleet) try(m *member) {
	ctx, cancel := context.WithTimeout(m.guard.ctx, trialTime)
	defer cancel()
	e := m.guard.comeback.era()
	ctx, done := e.bound(ctx)
	defer done()
	found := m.guard.prober.Ask(ctx, m.guard.account.Mode(), m.guard.account.Offset())
	ok := accepts(found)
	f.mu.Lock()
	defer f.mu.Unlock()
	m.tried = false
	now := time.Now()
	switch {
	case !ok && e.over():
		return // of this network nothing was found
	case !ok:
		m.refuses = found != diagnose.ProbeFailed && found != diagnose.ProbeNotTried
		f.lay(m, now)
		return
	}
	f.back(m, now)
}

// back takes note that a server accepts us again. It is called with the lock
// held.
func (f *fleet) back(m *member, now time.Time) {
	m.down, m.refuses, m.since = false, false, now
	words := "it is back, and comes before " + f.using.quoted()
	if f.using.down {
		words = "it is back, and " + f.using.quoted() + " is not"
	}
	f.choose("is back", words)
}

// quoted is the server's name in a sentence.
func (m *member) quoted() string { return strconv.Quote(m.guard.voice.server) }

// woke has the servers looked at anew after a sleep or a change of networks:
// what failed on another network may work on this one.
func (f *fleet) woke(e awake.Event) {
	f.mu.Lock()
	members := f.members
	now := time.Now()
	for _, m := range members {
		m.until, m.rest = now, 0
	}
	f.mu.Unlock()
	f.comeback.forget()
	for _, m := range members {
		m.guard.woke(e)
	}
}

// prefer makes a server the one that is used first, until another is named.
func (f *fleet) prefer(which string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.named(which)
	if m == nil {
		return false
	}
	f.members = append([]*member{m}, without(f.members, m)...)
	m.down, m.refuses = false, false
	const why = "was left by hand"
	f.choose(why, f.using.quoted()+" "+why)
	return true
}

// member returns the one that is named, as prefer does.
func (f *fleet) member(which string) *member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.named(which)
}

// close ends what runs by itself.
func (f *fleet) close() {
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
