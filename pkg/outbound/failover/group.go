// Package failover sends each request to the first healthy server
// and ejects those that fail, with exponential back-off.
package failover

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/outbound/reconnect"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

const (
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

// A Server is one server of a Group.
type Server interface {
	transport.StreamDialer
	transport.PacketDialer
	// Name is the server's name in log lines.
	Name() string
	// RecentlyUp reports whether the server worked a moment ago.
	RecentlyUp() bool
	// Ready reports whether a request can be sent without finding out first
	// whether the server can be reached.
	Ready() bool
	// Prepare connects to the server without a request, unless it is ready. It
	// does not report a failure once ctx has ended.
	Prepare(ctx context.Context) error
	// Probe finds out whether the server accepts requests again.
	Probe(ctx context.Context) ProbeResult
	// Classify says what it means that a request failed with err, whose first
	// payload is first.
	Classify(err error, first []byte) Failure
}

// A Failure is what is known of a request that failed.
type Failure struct {
	// NotExecuted: the path to the server failed before the request can have
	// been executed, so it may be sent to another server.
	NotExecuted bool
	// Restarting: the server worked a moment ago and seems to restart.
	Restarting bool
}

// A ProbeResult is what a probe found.
type ProbeResult uint8

// The results of a probe.
const (
	ProbeUnreachable  ProbeResult = iota // nothing answered
	ProbeAccepted                        // the server accepts requests
	ProbeRejected                        // it is there and does not accept them
	ProbeInconclusive                    // the network changed meanwhile
)

// A Group is the configured servers in order of preference, as a dialer. The first
// healthy one is used; where none is known to be healthy, those that are silent are
// not waited for (see race). One that fails is ejected for a while; then the next
// request, which another server carries, has it probed, and it is used again when
// it accepts requests. Without requests nothing is probed. When all failed that
// worked a moment ago, requests wait for one to recover.
type Group struct {
	log         *slog.Logger
	single      *entry        // the only one; nil when there are several
	waitTimeout time.Duration // how long a request waits for one to recover
	reconnect   reconnect.Gate
	trials      sync.WaitGroup

	ctx context.Context // ends with Close
	end context.CancelFunc

	mu         sync.Mutex
	members    []*entry
	using      *entry
	why, words string // why the one in use failed last, as in choose
	racing     *race  // the last that began; nil once it is over
	closed     bool
}

// An entry is one server of a Group.
type entry struct {
	server Server
	// The rest is guarded by the Group.
	down  bool
	until time.Time     // when it may be tried again
	rest  time.Duration // how long it was ejected last
	since time.Time     // when it recovered, or failed
	tried bool          // a trial is under way
	// rejects: the last trial reached it, and it did not accept requests.
	rejects bool
	// served is when it last took a request.
	served time.Time
}

// New returns the group of servers, at least one, in order of preference. A request
// waits for up to waitTimeout for one to recover. Close must be called.
func New(log *slog.Logger, servers []Server, waitTimeout time.Duration) *Group {
	f := &Group{log: log, waitTimeout: waitTimeout}
	f.ctx, f.end = context.WithCancel(context.Background())
	for _, s := range servers {
		f.members = append(f.members, &entry{server: s})
	}
	f.using = f.members[0]
	if len(servers) == 1 {
		f.single = f.using
	}
	return f
}

// DialStream implements transport.StreamDialer: where the way to a server
// fails, the request goes to the next.
func (f *Group) DialStream(ctx context.Context, dst netaddr.Addr, first []byte) (conn transport.StreamConn, err error) {
	err = f.dial(ctx, first, func(ctx context.Context, s Server) (err error) {
		conn, err = s.DialStream(ctx, dst, first)
		return err
	})
	return conn, err
}

// DialPacket implements transport.PacketDialer, as DialStream does.
func (f *Group) DialPacket(ctx context.Context, dst netaddr.Addr) (conn transport.PacketConn, err error) {
	err = f.dial(ctx, nil, func(ctx context.Context, s Server) (err error) {
		conn, err = s.DialPacket(ctx, dst)
		return err
	})
	return conn, err
}

// dial has a request whose first payload is first dialled by one server after
// the other, and waits for the return of one where that makes sense.
func (f *Group) dial(ctx context.Context, first []byte, dial func(ctx context.Context, s Server) error) error {
	if f.single != nil {
		return dial(ctx, f.single.server) // it waits itself
	}
	if !f.waitForReady() {
		_, _, err := f.round(ctx, ctx, first, dial)
		return err
	}
	return f.reconnect.Do(ctx, f.waitTimeout, func() bool { return true },
		func(waiting context.Context, _ func(error)) (how reconnect.Outcome, again bool, err error) {
			return f.round(ctx, waiting, first, dial)
		},
		func(err, _ error) error { return err }) // the servers have reported it
}

// waitForReady reports whether a server worked a moment ago.
func (f *Group) waitForReady() bool {
	return slices.ContainsFunc(f.all(), func(m *entry) bool { return m.server.RecentlyUp() })
}

// round tries one server after the other. Each of those that are up has its own
// time: a silent one would take that of the next otherwise, and would not be
// found to have failed. Where none is up, waiting bounds all of it.
func (f *Group) round(ctx, waiting context.Context, first []byte, dial func(ctx context.Context, s Server) error) (how reconnect.Outcome, again bool, err error) {
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
		if err = dial(ctx, m.server); err == nil {
			f.markServed(m)
			return reconnect.OK, false, nil
		}
		failure := m.server.Classify(err, first)
		if ctx.Err() != nil || !failure.NotExecuted {
			return reconnect.Canceled, false, err
		}
		if failure.Restarting {
			how = reconnect.Unreachable
		}
		members = without(members, m)
	}
	return how, true, err
}

func without(members []*entry, m *entry) []*entry {
	return slices.DeleteFunc(slices.Clone(members), func(one *entry) bool { return one == m })
}

// Current returns the server that is used.
func (f *Group) Current() Server {
	if f.single != nil {
		return f.single.server
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.using.server
}

// all returns the members, in order of preference.
func (f *Group) all() []*entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.members
}

// Servers returns the servers, in order of preference.
func (f *Group) Servers() []Server {
	var all []Server
	for _, m := range f.all() {
		all = append(all, m.server)
	}
	return all
}

// IsDown reports whether a server is ejected.
func (f *Group) IsDown(s Server) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.entryOf(s)
	return m != nil && m.down
}

// entryOf returns the entry of a server; nil when there is none. It is called with
// the lock held.
func (f *Group) entryOf(s Server) *entry {
	for _, m := range f.members {
		if m.server == s {
			return m
		}
	}
	return nil
}

// order returns the servers for one request: those that are up, in order of
// preference. When none is, it is those that worked a moment ago, the last one
// first, and when there are none of these, it is all.
func (f *Group) order() (members []*entry, anyUp bool) {
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
		if m.server.RecentlyUp() {
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
func (f *Group) markServed(m *entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m.served = time.Now()
	if m.down && (!m.rejects || m.served.After(m.until)) {
		f.trial(m)
	}
}

// trial begins to look whether a server is back. It is called with the lock
// held.
func (f *Group) trial(m *entry) {
	if !m.tried && !f.closed {
		m.tried = true
		f.trials.Go(func() { f.try(m) })
	}
}

// MarkDown ejects a server that failed, and chooses which is used then. The only
// server is never ejected.
func (f *Group) MarkDown(s Server, cause string) {
	if f.single != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	m, now := f.entryOf(s), time.Now()
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
		f.why = "failed: " + cause
		f.words = m.quoted() + " " + f.why
	}
	f.replace()
}

// replace chooses another server for one in use that is down. It is called with
// the lock held.
func (f *Group) replace() {
	if f.using.down {
		f.choose(f.why, f.words)
	}
}

// eject leaves a server alone for twice as long as the last time.
func (f *Group) eject(m *entry, now time.Time) {
	m.rest = min(max(2*m.rest, firstRest), lastRest)
	m.until, m.since = now.Add(m.rest), now
}

// choose makes the first server that is up the one that is used, unless a race is
// about to show whether it is; words tell why in a sentence. It is called with
// the lock held.
func (f *Group) choose(why, words string) {
	for _, m := range f.members {
		if m.down || m != f.using && f.undecided(m) {
			continue
		}
		if old := f.using; m != old {
			f.using = m
			f.log.Info("server", logging.Text("now using server %s (%s)", m.quoted(), words),
				"server", m.server.Name(), "before", old.server.Name(), "why", why)
		}
		return
	}
}

// try looks whether a server that failed accepts us again.
func (f *Group) try(m *entry) {
	ctx, cancel := context.WithTimeout(f.ctx, trialTime)
	defer cancel()
	found := m.server.Probe(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	m.tried = false
	now := time.Now()
	switch found {
	case ProbeInconclusive:
		return
	case ProbeUnreachable, ProbeRejected:
		m.rejects = found == ProbeRejected
		f.eject(m, now)
		return
	}
	f.back(m, now)
}

// back takes note that a server accepts us again. It is called with the lock
// held.
func (f *Group) back(m *entry, now time.Time) {
	m.down, m.rejects, m.since = false, false, now
	words := "it is back, and comes before " + f.using.quoted()
	if f.using.down {
		words = "it is back, and " + f.using.quoted() + " is not"
	}
	f.choose("is back", words)
}

// quoted is the server's name in a sentence.
func (m *entry) quoted() string { return strconv.Quote(m.server.Name()) }

// NetworkChanged lets the servers be tried again at once after a sleep or a change of
// networks: what failed on another network may work on this one.
func (f *Group) NetworkChanged() {
	f.mu.Lock()
	now := time.Now()
	for _, m := range f.members {
		m.until, m.rest = now, 0
	}
	f.mu.Unlock()
	f.reconnect.Reset()
}

// Pin makes a server the one that is used first, until another is pinned. It reports
// false if the server is not one of the group.
func (f *Group) Pin(s Server) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.entryOf(s)
	if m == nil {
		return false
	}
	f.members = append([]*entry{m}, without(f.members, m)...)
	m.down, m.rejects = false, false
	const why = "was left by hand"
	f.choose(why, f.using.quoted()+" "+why)
	return true
}

// Close ends races and probes; Wait waits until they have ended.
func (f *Group) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.end()
}

// Wait waits for the end of races and probes, after Close.
func (f *Group) Wait() { f.trials.Wait() }
