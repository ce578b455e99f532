package client

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/dispatch"
	"vmess-local/pkg/protocol/mux"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/relay"
)

// reporter tells of each request's end what is worth it: a failure of the
// tunnel to the user, and at debug level one line for every request.
// Destinations stand only in the latter.
type reporter struct {
	log *slog.Logger
}

// Report implements dispatch.Reporter.
func (r *reporter) Report(p dispatch.Report) {
	r.tell(p)
	if r.log.Enabled(context.Background(), slog.LevelDebug) {
		r.log.Debug("connection", "inbound", p.Request.Inbound, "to", p.Request.Destination.String(),
			"up", p.Up, "down", p.Down, "took", p.Duration.String(), "err", p.Err)
	}
}

// tell names the failure of an established tunnel. What failed before that is
// the guard's to tell, and what the application did is nobody's.
func (r *reporter) tell(p dispatch.Report) {
	var (
		side *relay.Error
		told *VerdictError
	)
	if !errors.As(p.Err, &side) || side.Side != relay.Remote || errors.As(p.Err, &told) {
		return
	}
	var (
		g      *guard
		tunnel *mux.TunnelError // one for all sessions of a tunnel
	)
	broke := diagnose.DestinationFacts{After: p.Duration, To: p.Request.Destination}
	// A destination that ends an idle connection by a reset owed nothing.
	if s, ok := p.Remote.(*session); ok && errors.Is(p.Err, mux.ErrFailed) {
		if !s.owed.Load() {
			return
		}
		broke.End = diagnose.BrokeSession
		_ = s.guard.destinationFailed(broke, p.Err)
		return
	}
	stream, ok := p.Remote.(*retryStream)
	if ok && errors.Is(p.Err, vmess.ErrDestinationBroke) {
		if !stream.owed.Load() {
			return
		}
		broke.End = diagnose.Broke
		_ = stream.guard.destinationFailed(broke, p.Err)
		return
	}
	switch {
	case ok:
		g = stream.guard
	case errors.As(p.Err, &tunnel):
		g, _ = tunnel.Owner.(*guard)
	}
	if g == nil {
		return // of a session, whose tunnel is well
	}
	kind := g.account.ServerKind()
	facts := diagnose.TunnelFacts{
		Err: p.Err, Age: p.Duration, IdleFor: p.IdleFor, Up: p.Up, Down: p.Down, Answered: p.Down > 0,
		Core: kind == vmess.KindV2Ray,
	}
	if stream != nil && p.Down > 0 {
		// V2Ray resets a tunnel that it closes while something lies unread there.
		unread := facts.Core && transport.IsReset(p.Err) && p.IdleFor < time.Second && p.Up > muchUp
		facts.Ambiguous = unread || !stream.conn.Load().MarksBreaks()
	}
	var to netaddr.Addr
	if facts.Ambiguous {
		to = p.Request.Destination
	}
	switch {
	case errors.Is(p.Err, vmess.ErrUnmarked):
		g.tunnelFailures.givenUp(&facts, p.Request.Destination)
		if _, ok := diagnose.Tunnel(facts, g.setting); !ok {
			return
		}
	case diagnose.Ordinary(p.Err):
		return
	}
	g.tunnelFailures.add(facts, to, tunnel)
}

const (
	// muchUp is what an application must have sent for more to be on its way.
	muchUp = 64 << 10
	// correlationWindow is how long tunnels that fail are gathered: a server that goes
	// away ends all of them at one moment.
	correlationWindow = 300 * time.Millisecond
	// callTime bounds the look whether the server is still there.
	callTime = 2 * time.Second
	// idleKept is how many ends are remembered, and idleBlur how far two
	// of the same timer may lie apart.
	idleKept = 8
	idleBlur = 400 * time.Millisecond
)

// idleHistory are the last tunnels of a kind that ended, which are remembered by
// their silence before.
type idleHistory []idleEnd

type idleEnd struct {
	idleFor time.Duration
	to      netaddr.Addr // none where it cannot have been the destination
	at      time.Time
}

// compare counts those that are like the end of a tunnel to a destination, and not
// of the same moment. Two of the same destination may be its own doing.
func (s idleHistory) compare(f *diagnose.TunnelFacts, to netaddr.Addr) {
	for _, one := range s {
		if (one.idleFor-f.IdleFor).Abs() < idleBlur && time.Since(one.at) > correlationWindow && (one.to != to || !to.IsValid()) {
			f.SeenBefore++
		}
	}
}

// add keeps one more.
func (s *idleHistory) add(idleFor time.Duration, to netaddr.Addr) {
	*s = append((*s)[max(0, len(*s)-idleKept+1):], idleEnd{idleFor, to, time.Now()})
}

// tunnelFailures gathers tunnels that failed, and tells those of one moment together.
type tunnelFailures struct {
	guard *guard

	mu             sync.Mutex
	first          diagnose.TunnelFacts      // of those gathered
	to             netaddr.Addr              // where that led, where it may have been the destination
	count          int                       // how many they are
	others         int                       // that are not explained by what explains the first
	shared         map[*mux.TunnelError]bool // those of them that had sessions
	timer          *time.Timer
	called         time.Time   // when the server was last looked for
	broken         idleHistory // that were told
	closedByServer idleHistory // that the server gave up in order
	closed         bool
	told           sync.WaitGroup // what is being told
}

// givenUp compares a tunnel that the server gave up in order to earlier ones. It
// may be no failure; when it comes again it is.
func (e *tunnelFailures) givenUp(f *diagnose.TunnelFacts, to netaddr.Addr) {
	if f.IdleFor < diagnose.LeastConnIdle {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closedByServer.compare(f, to)
	e.closedByServer.add(f.IdleFor, to)
}

// add gathers a tunnel that failed; shared is the error of one that has
// sessions, each of which adds it.
func (e *tunnelFailures) add(f diagnose.TunnelFacts, to netaddr.Addr, shared *mux.TunnelError) {
	if f.Answered {
		at := time.Now().Add(-f.IdleFor)
		e.guard.lastUsed.Store(&at)
	}
	if !f.Ambiguous {
		e.guard.noteFailure()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	if shared != nil {
		if e.shared[shared] {
			e.first.Answered = e.first.Answered || f.Answered
			// The tunnel was silent for as long as the liveliest of its sessions.
			e.first.IdleFor = min(e.first.IdleFor, f.IdleFor)
			return
		}
		e.shared[shared] = true
	}
	if e.count++; e.count > 1 {
		if !e.first.Ambiguous || e.to != to {
			e.others++
		}
		return
	}
	f.NetworkChanged = e.guard.networkChanged()
	e.first, e.to, e.others = f, to, 0
	e.told.Add(1)
	e.timer = time.AfterFunc(correlationWindow, e.tell)
}

// tell tells what was gathered.
func (e *tunnelFailures) tell() {
	defer e.told.Done()
	f, to, call := e.take()
	if call {
		f.ServerRefusesNow = e.guard.refusesNow()
	}
	e.mu.Lock()
	if !f.ServerRefusesNow && !errors.Is(f.Err, vmess.ErrUnmarked) {
		e.broken.add(f.IdleFor, to)
	}
	e.mu.Unlock()
	if v, ok := diagnose.Tunnel(f, e.guard.setting); ok {
		e.guard.failures.Report(v)
		if f.ServerRefusesNow {
			e.guard.down(v)
		}
	}
}

// take ends the gathering, and tells whether to look for the server.
func (e *tunnelFailures) take() (f diagnose.TunnelFacts, to netaddr.Addr, call bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f, to, f.OthersEnded = e.first, e.to, e.others
	if !errors.Is(f.Err, vmess.ErrUnmarked) {
		e.broken.compare(&f, to)
	}
	e.count = 0
	clear(e.shared)
	if call = time.Since(e.called) > lookPause; call {
		e.called = time.Now()
	}
	return f, to, call
}

// close tells what is gathered and returns when all is told. The guard's
// context must have ended.
func (e *tunnelFailures) close() {
	e.mu.Lock()
	e.closed = true
	pending := e.timer != nil && e.timer.Stop()
	e.mu.Unlock()
	if pending {
		e.tell()
	}
	e.told.Wait()
}

// refusesNow looks whether the server refuses connections.
func (g *guard) refusesNow() bool {
	ctx, cancel := context.WithTimeout(g.ctx, callTime)
	defer cancel()
	conn, err := g.path.unverified.ConnectStream(ctx, nil)
	if err == nil {
		_ = conn.Close()
		return false
	}
	var step *netdial.Error
	return errors.As(err, &step) && !step.Upstream && transport.CodeOf(err) == transport.CodeConnectionRefused
}
