package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/carrier/connpool"
	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/diagnose/failurelog"
	"vmess-local/pkg/outbound/packetenc"
	"vmess-local/pkg/outbound/reconnect"
	"vmess-local/pkg/protocol/mux"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

const (
	// probeCacheTTL is how long the outcome of a round of probes stands.
	probeCacheTTL = 10 * time.Minute
	// probeTimeout bounds a round.
	probeTimeout = 8 * time.Second
	// freshness is how long an authentic answer proves that the server accepts
	// first flights, so that their silence is the destination's.
	freshness = 5 * time.Minute
	// accepting is how fresh an authentic answer must be for the server to
	// count as accepting us: then a request without one is not the account's
	// fault, and nothing is probed.
	accepting = time.Minute
	// maxTries is how often a request that the server refused by mistake is
	// sent again, and mostTries how often one is for whatever reason.
	maxTries    = 2
	maxAttempts = 4
	// refusalTime, with three round trips, is how long after its flight a
	// refusal may come. V2Ray's shortest timer that ends what it carries out,
	// connIdle, takes 2 s at the least.
	refusalTime = 1500 * time.Millisecond
	// longTrip is the most that counts as a round trip.
	longTrip = time.Second
	// skewLimit is the difference of clocks from which on it is set right; the
	// server allows 120 s.
	skewLimit = 90 * time.Second
	// lookPause is how often a failed way is looked at again.
	lookPause = 10 * time.Second
	// grace is how long the configured mode may take longer than the other one
	// to be accepted.
	grace = 500 * time.Millisecond
	// skewPause is how often a clock that was found wrong is measured again.
	skewPause = time.Hour
	// skewTolerance is how well a clock is measured.
	skewTolerance = 2 * time.Second
	// healedPause is how long a healing must have failed until the server is
	// asked anew.
	healedPause = time.Minute
)

// A guard is the way to one server with an eye on it: it names what fails,
// heals what may be healed, and repeats requests that were refused by mistake.
type guard struct {
	ctx      context.Context // of what runs by itself
	cancel   context.CancelFunc
	path     *path
	link     transport.StreamEndpoint // makes tunnels: way
	remote   *config.Remote
	pool     *connpool.Pool // ready tunnels
	dialer   *vmess.Dialer
	account  *vmess.Account
	prober   *diagnose.Prober
	section  string // where the server stands in the configuration
	identity string // of the server
	setting  diagnose.ServerContext
	heal     config.Heal
	// kindShows: answers tell what kind of server it is, for they echo what
	// the request asked of the body ("zero" asks nothing).
	kindShows      bool
	dialTime       time.Duration
	log            *slog.Logger
	failures       *failurelog.Log
	sessions       *mux.Client // TCP goes over it, too; nil without Mux
	packets        *packetenc.Dialer
	failed         func(diagnose.Verdict) // hears of failures that are the server's; may be nil
	alone          bool                   // there is no other server
	breaker        circuitBreaker
	reconnect      reconnect.Gate
	tunnelFailures tunnelFailures
	names          diagnose.LocalResolutionDetector
	resent         atomic.Int64              // requests sent again
	lastFailure    atomic.Int64              // when something failed last, Unix nanoseconds
	lastUsed       atomic.Pointer[time.Time] // when a tunnel that has ended worked last
	checkedUntil   atomic.Pointer[time.Time] // when open tunnels are no longer checked because of a change of networks
	checked        atomic.Pointer[time.Time] // when a check found all well

	probes   sharedCall[outcome] // rounds of probes
	gauges   sharedCall[bool]    // measurements of a clock that was found wrong
	followUp followUp
	liveness *liveness

	round        sync.Mutex // guards what follows
	next         time.Time  // until when the last round's outcome stands
	found        outcome    // that outcome
	ended        time.Time  // when that round was over
	epoch        int        // how often the network has changed
	measure      *time.Timer
	skewMeasured time.Time // when a clock that was found wrong was measured again
	closed       bool
}

// newGuard makes the guard of a configuration's server; section is where that
// stands ("server").
func newGuard(cfg *config.Client, section string, s *config.Remote, opt Options, account *vmess.Account) (*guard, error) {
	w, err := newPath(cfg, s, opt)
	if err != nil {
		return nil, err
	}
	setting := diagnose.ServerContextOf(cfg, section, s)
	setting.AEADDisabled = vmess.AEADDisabled(opt.LookupEnv)
	ctx, cancel := context.WithCancel(context.Background())
	if w.wantsTLS != nil {
		w.wantsTLS.ctx = ctx
	}
	g := &guard{
		ctx: ctx, cancel: cancel,
		log:     opt.Log,
		path:    w,
		link:    w,
		remote:  s,
		account: account,
		prober: &diagnose.Prober{
			Endpoint: w.withDialTimeout(w.plain), EarlyEndpoint: w.withDialTimeout(w.withEarly), Below: w.unverified, Secure: w.plain.Endpoint, Other: w.other,
			TLS: s.TLS.Enabled, EarlyData: s.WS.EarlyData > 0, Host: setting.Host, Account: account, Now: opt.Now,
		},
		section: section, identity: s.Identity(), setting: setting, heal: cfg.Heal, kindShows: s.Security != "zero", dialTime: w.dial,
		failures: failurelog.New(failurelog.Options{
			Log: opt.Log, Server: nameOf(s), Registry: opt.board, LastAnswer: account.LastAnswer,
		}),
		alone: len(cfg.Servers) <= 1,
	}
	_, warmMax, _ := shares(cfg)
	g.pool = connpool.NewPool(transport.EndpointFunc(g.reach), connpool.Options{
		Max: warmMax, Idle: time.Duration(cfg.Warm.Idle), Ahead: transport.EndpointFunc(g.ahead), Now: opt.Now,
	})
	g.dialer = &vmess.Dialer{Client: account, Endpoint: transport.EndpointFunc(g.tunnel)}
	g.reconnect.OnRecovered = func(away time.Duration) { g.failures.Recovered(away) }
	if cfg.Mux.Enabled {
		g.sessions = &mux.Client{Dial: g.muxTunnel, Concurrency: cfg.Mux.Concurrency, Owner: g}
	}
	g.packets = newPacketDialer(g, cfg)
	g.liveness = g.newLiveness(s.WS.Ping > 0, time.Duration(cfg.Limits.Dial))
	g.tunnelFailures.guard, g.tunnelFailures.shared = g, map[*mux.TunnelError]bool{}
	return g, nil
}

// tunnel is a ready tunnel, or a new one. None are made ahead for a server that
// has not accepted us yet: it would take each for a rejected request.
func (g *guard) tunnel(ctx context.Context, first []byte) (transport.StreamConn, error) {
	if g.everAccepted() {
		return g.pool.ConnectStream(ctx, first)
	}
	return g.pool.ConnectSingle(ctx, first)
}

// An outcome is what a round of probes found.
type outcome struct {
	verdict diagnose.Verdict
	fine    bool // the server accepts us, as we ask now: nothing is wrong with the account
	cut     bool // no probe came through
	account diagnose.ProbeResult
	healed  bool // requests are sent otherwise now
	// What was wrong with requests that were sent before, if anything was.
	refused *signature // those signed so were refused
	early   bool       // those that began as early data were lost
}

// failed reports whether a request is known to have failed by the way it was
// sent: it was not carried out.
func (o *outcome) failed(f transmission) bool {
	return o.early && f.early || o.refused != nil && *o.refused == f.signed
}

// A decision is what becomes of a request without an answer.
type decision struct {
	again bool  // send it again
	wait  bool  // go on waiting
	err   error // otherwise
}

// A VerdictError is a failure that was named, and told, already.
type VerdictError struct {
	Verdict diagnose.Verdict
	Err     error // what was seen
}

// Error implements error: cause and fix in one line.
func (e *VerdictError) Error() string {
	return fmt.Sprintf("%s; %s", e.Verdict.Line(), e.Verdict.FixLine())
}

// Public implements socks.PublicError.
func (e *VerdictError) Public() string { return e.Verdict.Public() }

// Unwrap returns what was seen.
func (e *VerdictError) Unwrap() error { return e.Err }

// Name returns the server's name, as people know it.
func (g *guard) Name() string { return nameOf(g.remote) }

// DialStream implements transport.StreamDialer.
func (g *guard) DialStream(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
	if g.names.Observe(dst) {
		g.failures.Hint(diagnose.HintBareAddresses())
	}
	if g.sessions != nil {
		return g.dialSession(ctx, dst, first)
	}
	return g.open(ctx, dst, true, first, func(ctx context.Context, first []byte) (*vmess.Conn, error) {
		conn, err := g.dialer.DialStream(ctx, dst, first)
		if err != nil {
			return nil, err
		}
		return conn.(*vmess.Conn), nil
	})
}

// muxTunnel opens a Mux.Cool tunnel for sessions, guarded as a request is.
func (g *guard) muxTunnel(ctx context.Context, first []byte) (transport.StreamConn, error) {
	return g.open(ctx, netaddr.Addr{}, true, first, g.dialer.DialMux)
}

// An opener opens a request whose first payload is first.
type opener func(ctx context.Context, first []byte) (*vmess.Conn, error)

// open opens a request to dst and guards it; named is as in a request.
func (g *guard) open(ctx context.Context, dst netaddr.Addr, named bool, first []byte, open opener) (transport.StreamConn, error) {
	start, cold := g.now(), !g.everAccepted()
	if v, ok := g.breaker.reject(start, g.account.LastAnswer()); ok {
		return nil, g.refuses(v, vmess.ErrNoAnswer).err
	}
	c, f, err := g.launch(ctx, open, first)
	if err != nil {
		return nil, err
	}
	x := &retryStream{open: open, request: request{
		guard: g, dst: dst, start: start, cold: cold, flight: f, page: wantsErrorText(ctx), named: named,
	}}
	x.impl = x
	x.conn.Store(c)
	if len(first) > 0 {
		x.asked.Store(true)
		x.mu.Lock()
		if x.lost = len(first) > maxKept; !x.lost {
			x.sent = append([]byte(nil), first...)
		}
		x.watch()
		x.mu.Unlock()
	}
	return x, nil
}

// launch opens a request; its flight has left where there is something in first.
func (g *guard) launch(ctx context.Context, open opener, first []byte) (*vmess.Conn, transmission, error) {
	f, begun := transmission{signed: g.signature()}, g.now()
	c, err := open(ctx, first)
	if err != nil {
		return nil, f, g.wayFailed(ctx, err)
	}
	f.signed.mode, f.signed.offset = c.Signed()
	if len(first) > 0 {
		f.at, f.early = g.path.firstFlightSentAt(c, begun), g.path.earlyDataUnproven(c)
	}
	return c, f, nil
}

// signature returns how requests are signed now.
func (g *guard) signature() signature { return signature{g.account.Mode(), g.account.Offset()} }

// wayFailed names a failure on the way to the server.
func (g *guard) wayFailed(ctx context.Context, err error) error {
	var told *VerdictError
	if ctx.Err() != nil || errors.Is(err, reconnect.ErrNetworkChanged) || errors.As(err, &told) {
		return err // the application went away, or we end, or the network is another, or it was named already
	}
	g.noteFailure()
	v, ok := diagnose.Connect(err, g.setting, diagnose.ConnectFacts{})
	if !ok {
		return err
	}
	facts := g.look(ctx, err, v.Cause)
	facts.Worked = g.RecentlyUp()
	v, _ = diagnose.Connect(err, g.setting, facts)
	g.failures.Report(v)
	g.down(v)
	return &VerdictError{v, err}
}

// down tells that the server failed, and not what is behind it.
func (g *guard) down(v diagnose.Verdict) {
	if g.failed != nil {
		g.failed(v)
	}
}

// look takes a second look at a way that failed, at first sight, for a cause.
// While the cause stays the same that is done once in a while, and the facts
// are those of the last look otherwise.
func (g *guard) look(ctx context.Context, err error, cause diagnose.Cause) diagnose.ConnectFacts {
	return g.followUp.look(ctx, cause, func() diagnose.ConnectFacts { return g.prober.Look(g.ctx, err) })
}

// everAccepted reports whether the server has ever accepted us.
func (g *guard) everAccepted() bool { return !g.account.LastAnswer().IsZero() }

// noteFailure takes note of a failure of the way or of a tunnel.
func (g *guard) noteFailure() { g.lastFailure.Store(time.Now().UnixNano()) }

// healthy reports whether the server is known to be well: a ready tunnel is at
// hand, or it answered a moment ago and nothing has failed since.
func (g *guard) healthy() bool {
	if g.everAccepted() && g.pool.Ready() {
		return true
	}
	at := g.account.LastAnswer().Round(0) // before a sleep is long ago
	return time.Since(at) < healthyFor && at.UnixNano() > g.lastFailure.Load()
}

// fresh reports whether it has lately.
func (g *guard) fresh() bool { return g.since(g.now().Add(-freshness)) }

// since reports whether the server answered anybody after t, by the wall clock:
// before a sleep is long ago.
func (g *guard) since(t time.Time) bool { return g.account.LastAnswer().Round(0).After(t) }

func (g *guard) now() time.Time { return time.Now() }

// refused decides on a request whose connection ended, then, without an answer.
func (g *guard) refused(x *request, err error, ended time.Time) decision {
	bad, f := errors.Is(err, vmess.ErrBadResponse), x.sending()
	late := g.late(x, f, ended)
	if g.everAccepted() && !bad && !f.early {
		if d, ok := g.decideWithoutProbe(x, err, late); ok {
			return d
		}
	}
	o := g.probe(x, bad)
	switch {
	case o.healed && o.failed(f) && x.attempts() < maxAttempts:
		return decision{again: true}
	case o.failed(f):
	case diagnose.IsReset(err) && (o.fine || o.cut):
		return g.brokenTunnel(x, err) // a server that refuses a request says goodbye
	case o.fine && late:
		return g.closedByServer(x, o.account, err)
	case o.fine && g.alwaysAnswers():
		return g.falseReplay(err)
	case o.fine:
		return g.noteDestination(x, diagnose.NoWord, o.account, err)
	}
	return g.refuses(o.verdict, err)
}

// late reports whether a connection to V2Ray ended, then, too late to be that of
// a request that was refused by mistake. Flights are filled up so that V2Ray has
// drained what it refuses once it has arrived; later, or a second after the end
// mark, it closes, alike, what it carried out and gave up.
func (g *guard) late(x *request, f transmission, ended time.Time) bool {
	switch {
	case f.at.IsZero(), !g.alwaysAnswers(), g.kind() != vmess.KindV2Ray:
		return false
	case x.impl.over():
		return true
	}
	trip := min(time.Duration(g.path.handshakeRTT.Load()), longTrip)
	// One clock stands still while this computer sleeps, the other is set.
	age := max(ended.Sub(f.at), ended.Round(0).Sub(f.at.Round(0)))
	return age >= refusalTime+3*trip
}

// decideWithoutProbe decides on a request that got no answer though the server has
// accepted us before, where that can be decided without asking.
//
// V2Ray's replay filter takes one honest request in hundreds for a replay; such
// a request was drained, not carried out, and closed in order and promptly.
// sing-box and mihomo close alike when they tried and failed, and what broke off
// may have been carried out too.
func (g *guard) decideWithoutProbe(x *request, err error, late bool) (d decision, ok bool) {
	lately := g.since(g.now().Add(-accepting))
	switch kind, inOrder := g.account.ServerKind(), errors.Is(err, io.EOF); {
	case !inOrder && kind != vmess.KindSingBox:
		return g.brokenTunnel(x, err), true
	case !g.alwaysAnswers():
		if lately {
			return g.noteDestination(x, diagnose.NoWord, diagnose.ProbeNotTried, err), true
		}
	case late && g.account.Legacy() && !g.since(x.sentAt()):
		// It is not filled up, and may have been refused.
	case late:
		return g.closedByServer(x, diagnose.ProbeNotTried, err), true
	case g.remeasured(x):
		return decision{again: true}, true
	case kind == vmess.KindNative || g.account.Legacy(): // which refuse nobody by mistake
		if g.since(x.sentAt()) {
			return g.falseReplay(err), true
		}
	case g.heal.Refused && x.repeatable(maxTries):
		g.resent.Add(1)
		g.failures.ShowHealed(diagnose.VMessRefused, diagnose.HealedRefused(1))
		return decision{again: true}, true
	case lately && (x.attempts() == 0 || g.since(x.start)):
		return g.falseReplay(err), true
	}
	return decision{}, false
}

// alwaysAnswers reports whether the server is one that answers all that it accepts,
// whatever the destination does.
func (g *guard) alwaysAnswers() bool {
	kind := g.kind()
	return g.kindShows && (kind == vmess.KindV2Ray || kind == vmess.KindNative)
}

// kind returns what sort of server answered last, if only a probe.
func (g *guard) kind() vmess.ServerKind {
	if kind := g.account.ServerKind(); kind != vmess.KindUnknown {
		return kind
	}
	return g.prober.Kind()
}

// falseReplay names a refusal by a server that accepts us.
func (g *guard) falseReplay(err error) decision {
	v := diagnose.Account(diagnose.AccountSignals{
		Configured: diagnose.ProbeRefused, ServerTime: diagnose.ProbeAccepted, Skew: new(time.Duration),
	}, g.setting)
	return g.name(v, err)
}

// refuses ends a request to a server that does not accept us.
func (g *guard) refuses(v diagnose.Verdict, err error) decision {
	if !v.IsZero() {
		g.down(v)
	}
	return g.name(v, err)
}

// name ends a request with a verdict, if there is one.
func (g *guard) name(v diagnose.Verdict, err error) decision {
	if v.IsZero() {
		return decision{err: err}
	}
	g.failures.Report(v)
	return decision{err: &VerdictError{v, err}}
}

// brokenTunnel names the end of a connection that was no refusal, but the tunnel's.
func (g *guard) brokenTunnel(x *request, err error) decision {
	how := io.ErrUnexpectedEOF
	if diagnose.IsReset(err) {
		how = err
	}
	if d, ok := g.endedBy(x, how, err); ok {
		return d
	}
	return decision{err: err}
}

// closedByServer names the orderly end of a request that V2Ray had accepted: by its
// connIdle, where the time fits, or because the destination was silent for
// longer than it waits otherwise.
func (g *guard) closedByServer(x *request, account diagnose.ProbeResult, err error) decision {
	if !x.named {
		return decision{err: err}
	}
	if d, ok := g.endedBy(x, vmess.ErrUnmarked, err); ok {
		return d
	}
	return g.unanswered(x, diagnose.GivenUp, account, err)
}

// endedBy names the end of a request's tunnel, if it is worth it.
func (g *guard) endedBy(x *request, how, err error) (d decision, ok bool) {
	now := g.now()
	facts := diagnose.TunnelFacts{Err: how, Age: now.Sub(x.start), IdleFor: x.idle(now)}
	v, ok := diagnose.Tunnel(facts, g.setting)
	if ok {
		g.tunnelFailures.add(facts, netaddr.Addr{}, nil)
		d.err = &VerdictError{v, err}
	}
	return d, ok
}

// noteDestination names a failure behind a server that accepts us.
func (g *guard) noteDestination(x *request, end diagnose.End, account diagnose.ProbeResult, err error) decision {
	if !x.dst.IsValid() {
		return decision{err: err} // a tunnel of many destinations
	}
	return g.unanswered(x, end, account, err)
}

// broke names that the destination broke off, as the server says.
func (g *guard) broke(x *request, err error) error {
	return g.noteDestination(x, diagnose.Broke, diagnose.ProbeNotTried, err).err
}

// unanswered names that nothing came from the destination.
func (g *guard) unanswered(x *request, end diagnose.End, account diagnose.ProbeResult, err error) decision {
	return decision{err: g.destinationFailed(diagnose.DestinationFacts{
		End: end, After: g.now().Sub(x.start), Account: account, To: x.dst,
	}, err)}
}

// destinationFailed names a failure of a destination, which is named only to
// whoever asked for it.
func (g *guard) destinationFailed(facts diagnose.DestinationFacts, err error) error {
	v := diagnose.Destination(facts, g.setting)
	facts.Show = true
	named := diagnose.Destination(facts, g.setting)
	g.failures.ReportSite(facts.To.String(), v, named)
	return &VerdictError{named, err}
}

// silent decides on a request that stays unanswered.
func (g *guard) silent(x *request) decision {
	f := x.sending()
	if g.since(x.sentAt()) && !f.early {
		return decision{wait: true} // it is the destination that takes its time
	}
	known := g.everAccepted()
	o := g.probe(x, false)
	switch {
	case o.healed && o.failed(f) && x.attempts() < maxAttempts:
		return decision{again: true}
	case o.failed(f):
	case o.fine && !known:
		g.noteDestination(x, diagnose.StillSilent, o.account, nil)
		return decision{wait: true}
	case o.fine:
		return decision{wait: true}
	}
	g.breaker.trip(o.verdict, g.now())
	return g.refuses(o.verdict, vmess.ErrNoAnswer)
}

// empty names an authentic answer that ended without data. For most
// applications that is an end like any other.
func (g *guard) empty(x *request) error {
	d := g.noteDestination(x, diagnose.NoData, diagnose.ProbeNotTried, nil)
	if x.page {
		return d.err
	}
	return io.EOF
}

// close ends what runs by itself.
func (g *guard) close() {
	g.cancel()
	if g.path.wantsTLS != nil {
		g.path.wantsTLS.close()
	}
	if g.sessions != nil {
		_ = g.sessions.Close()
	}
	g.packets.Close()
	_ = g.pool.Close()
	g.tunnelFailures.close()
	g.probes.close()
	g.gauges.close()
	g.followUp.close()
	g.liveness.close()
	g.round.Lock()
	defer g.round.Unlock()
	g.closed = true
	if g.measure != nil {
		g.measure.Stop()
	}
	g.failures.Close()
}
