package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/netaddr"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/vmess"
)

const (
	// roundPause is how long the outcome of a round of probes stands.
	roundPause = 10 * time.Minute
	// roundTime bounds a round.
	roundTime = 8 * time.Second
	// accepting is how fresh an authentic answer must be for the server to
	// count as accepting us: then a request without one is not the account's
	// fault, and nothing is probed.
	accepting = time.Minute
	// maxTries is how often a request that the server refused by mistake is
	// sent again.
	maxTries = 2
	// skewLimit is the difference of clocks from which on it is set right; the
	// server allows 120 s.
	skewLimit = 90 * time.Second
	// lookPause is how often a failed way is looked at again.
	lookPause = 10 * time.Second
	// skewPause is how often a clock that was found wrong is measured again.
	skewPause = time.Hour
)

// A guard is the way to one server with an eye on it: it names what fails,
// heals what may be healed, and repeats requests that were refused by mistake.
type guard struct {
	ctx      context.Context // of what runs by itself
	cancel   context.CancelFunc
	way      *way
	dialer   *vmess.Dialer
	account  *vmess.Client
	prober   *diagnose.Prober
	setting  diagnose.Setting
	heal     config.Heal
	dialTime time.Duration
	voice    *voice
	endings  endings
	names    nameWatch
	resent   atomic.Int64 // requests sent again

	round   sync.Mutex // held during a round of probes
	next    time.Time  // until when the last round's outcome stands
	found   outcome    // that outcome
	measure *time.Timer
	closed  bool

	looking sync.Mutex
	looked  time.Time
	facts   diagnose.WayFacts
}

func newGuard(cfg *config.Client, opt Options, account *vmess.Client) (*guard, error) {
	w, err := newWay(cfg, opt)
	if err != nil {
		return nil, err
	}
	s := &cfg.Server
	setting := diagnose.SettingOf(cfg, "server", s)
	setting.Host, setting.ServerName = hostHeader(s), serverName(s)
	setting.AEADDisabled = vmess.AEADDisabled(opt.LookupEnv)
	name := s.Name
	if name == "" {
		name = s.Address
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &guard{
		ctx: ctx, cancel: cancel,
		way:     w,
		dialer:  &vmess.Dialer{Client: account, Endpoint: w},
		account: account,
		prober: &diagnose.Prober{
			Endpoint: w.through(w.plain), EarlyEndpoint: w.through(w.withEarly), Below: w.unverified, Other: w.other,
			TLS: s.TLS.Enabled, EarlyData: s.WS.EarlyData > 0, Host: setting.Host, Account: account, Now: opt.Now,
		},
		setting: setting, heal: cfg.Heal, dialTime: w.dial,
		voice: newVoice(opt.Log, name),
	}
	g.endings.guard = g
	return g, nil
}

// An outcome is what a round of probes found.
type outcome struct {
	verdict diagnose.Verdict
	healed  bool // requests may be sent again
	fine    bool // the server accepts us: nothing is wrong with the account
	cut     bool // no probe came through
	account diagnose.ProbeResult
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

// Unwrap returns what was seen.
func (e *VerdictError) Unwrap() error { return e.Err }

// DialStream implements transport.StreamDialer.
func (g *guard) DialStream(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
	if g.names.saw(dst) {
		g.voice.hint(diagnose.HintBareAddresses())
	}
	start := g.now()
	conn, err := g.dialer.DialStream(ctx, dst, first)
	if err != nil {
		return nil, g.wayFailed(ctx, err)
	}
	x := &guarded{guard: g, dst: dst, start: start}
	x.conn.Store(conn.(*vmess.Conn))
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

// wayFailed names a failure on the way to the server.
func (g *guard) wayFailed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err // the application went away, or we end
	}
	v, ok := diagnose.Way(err, g.setting, g.look(ctx, err))
	if !ok {
		return err
	}
	g.voice.say(v)
	return &VerdictError{v, err}
}

// look takes a second look at a failed way, once in a while: the facts are
// those of the last look otherwise.
func (g *guard) look(ctx context.Context, err error) diagnose.WayFacts {
	g.looking.Lock()
	defer g.looking.Unlock()
	if g.looked.IsZero() || time.Since(g.looked) > lookPause {
		g.facts = g.prober.Look(ctx, err)
		g.looked = time.Now()
	}
	return g.facts
}

// known reports whether the server has ever accepted us.
func (g *guard) known() bool { return !g.account.Answered().IsZero() }

// since reports whether the server answered anybody after t.
func (g *guard) since(t time.Time) bool { return g.account.Answered().After(t) }

func (g *guard) now() time.Time { return time.Now() }

// refused decides on a request whose connection ended without an answer.
func (g *guard) refused(x *guarded, err error) decision {
	if g.known() && !errors.Is(err, vmess.ErrBadResponse) {
		// V2Ray's replay filter takes one honest request in hundreds for a
		// replay; such a request was drained, not carried out, and closed in
		// order. sing-box and mihomo close alike when they tried and failed, and
		// what broke off may have been carried out too.
		inOrder := errors.Is(err, io.EOF)
		if inOrder && g.heal.Refused && g.account.Kind() == vmess.KindV2Ray && !g.account.Legacy() && x.tries < maxTries {
			g.resent.Add(1)
			return decision{again: true}
		}
		if !inOrder && g.account.Kind() != vmess.KindSing {
			return g.brokeOff(x, err)
		}
		if g.since(g.now().Add(-accepting)) {
			return g.beyond(x, diagnose.NoWord, diagnose.ProbeNotTried, err)
		}
	}
	o := g.probe(x, errors.Is(err, vmess.ErrBadResponse))
	switch {
	case o.healed && x.tries < maxTries:
		return decision{again: true}
	case diagnose.IsReset(err) && (o.fine || o.cut):
		return g.brokeOff(x, err) // a server that refuses a request says goodbye
	case o.fine:
		return g.beyond(x, diagnose.NoWord, o.account, err)
	}
	g.voice.say(o.verdict)
	return decision{err: &VerdictError{o.verdict, err}}
}

// brokeOff names the end of a connection that was no refusal, but the tunnel's.
func (g *guard) brokeOff(x *guarded, err error) decision {
	age := g.now().Sub(x.start)
	facts := diagnose.TunnelFacts{Err: io.ErrUnexpectedEOF, Age: age, IdleFor: age}
	if diagnose.IsReset(err) {
		facts.Err = err
	}
	v, ok := diagnose.Tunnel(facts, g.setting)
	if !ok {
		return decision{err: err}
	}
	g.endings.add(facts)
	return decision{err: &VerdictError{v, err}}
}

// beyond names a failure behind a server that accepts us.
func (g *guard) beyond(x *guarded, end diagnose.End, account diagnose.ProbeResult, err error) decision {
	v := diagnose.Destination(diagnose.DestinationFacts{
		End: end, After: g.now().Sub(x.start), Account: account, To: x.dst, Show: true,
	}, g.setting)
	g.voice.say(v)
	return decision{err: &VerdictError{v, err}}
}

// silent decides on a request that stays unanswered.
func (g *guard) silent(x *guarded) decision {
	if g.since(x.start) {
		return decision{wait: true} // it is the destination that takes its time
	}
	o := g.probe(x, false)
	switch {
	case o.healed && x.tries < maxTries:
		return decision{again: true}
	case o.fine:
		g.beyond(x, diagnose.StillSilent, o.account, nil)
		return decision{wait: true}
	case o.healed:
		return decision{wait: true}
	}
	g.voice.say(o.verdict)
	return decision{err: &VerdictError{o.verdict, vmess.ErrNoAnswer}}
}

// empty takes note of an authentic answer that ended without data.
func (g *guard) empty(x *guarded) {
	g.beyond(x, diagnose.NoData, diagnose.ProbeNotTried, nil)
}

// probe returns the outcome of a round of probes: that of the last round while
// it stands, for probes are visible at the server.
func (g *guard) probe(x *guarded, badResponse bool) outcome {
	g.round.Lock()
	defer g.round.Unlock()
	if g.closed || time.Now().Before(g.next) {
		return g.found
	}
	ctx, cancel := context.WithTimeout(g.ctx, roundTime)
	defer cancel()
	sig := g.ask(ctx, badResponse)
	if x.start.After(g.account.Answered()) && ctx.Err() != nil {
		return outcome{verdict: diagnose.Account(sig, g.setting)} // cut short: it does not stand
	}
	g.found, g.next = g.act(sig), time.Now().Add(roundPause)
	if g.found.cut {
		g.next = time.Now().Add(lookPause) // the server was not asked
	}
	return g.found
}

// ask gathers the signals that tell why the account is refused, side by side.
func (g *guard) ask(ctx context.Context, badResponse bool) diagnose.AccountSignals {
	ctx, decided := context.WithCancel(ctx)
	defer decided()
	sig := diagnose.AccountSignals{BadResponse: badResponse}
	mode, offset := g.account.Mode(), g.account.Offset()
	var (
		all   sync.WaitGroup
		early = diagnose.ProbeNotTried
	)
	all.Go(func() {
		if sig.Configured = g.prober.Ask(ctx, mode, offset); accepts(sig.Configured) && !g.way.early.Load() {
			decided()
		}
	})
	all.Go(func() {
		if sig.Other = g.askOther(ctx, mode, offset); sig.Other == diagnose.ProbeAccepted && mode != vmess.ModeAEAD {
			decided()
		}
	})
	if g.way.early.Load() {
		all.Go(func() { early = g.prober.AskEarly(ctx, mode, offset) })
	}
	all.Go(func() {
		skew, err := g.prober.Skew(ctx)
		if err != nil {
			return
		}
		sig.Skew = &skew
		if skew.Abs() < skewLimit {
			return
		}
		var both sync.WaitGroup
		both.Go(func() { sig.ServerTime = g.prober.Ask(ctx, mode, -skew) })
		both.Go(func() { sig.OtherServerTime = g.askOther(ctx, mode, -skew) })
		both.Wait()
	})
	all.Wait()
	sig.EarlyDataLost = early != diagnose.ProbeNotTried && accepts(sig.Configured) && !accepts(early)
	return sig
}

// askOther asks in the other mode; MD5 has two.
func (g *guard) askOther(ctx context.Context, m vmess.Mode, offset time.Duration) diagnose.ProbeResult {
	if m != vmess.ModeAEAD {
		return g.prober.Ask(ctx, vmess.ModeAEAD, offset)
	}
	var (
		main, derived diagnose.ProbeResult
		both          sync.WaitGroup
	)
	both.Go(func() { main = g.prober.Ask(ctx, vmess.ModeLegacy, offset) })
	both.Go(func() { derived = g.prober.Ask(ctx, vmess.ModeLegacyAlter, offset) })
	both.Wait()
	if accepts(derived) {
		return derived
	}
	return main
}

func accepts(r diagnose.ProbeResult) bool {
	return r == diagnose.ProbeAccepted || r == diagnose.ProbeHeld
}

// act heals what may be healed.
func (g *guard) act(sig diagnose.AccountSignals) outcome {
	alone := g.setting.AlterID > 0 && !g.setting.AEADDisabled // MD5 by an old link, not by the user's word
	switch {
	case sig.EarlyDataLost:
		if g.heal.EarlyData {
			g.way.early.Store(false)
			g.voice.healed(diagnose.WSEarlyDataRefused, diagnose.HealedEarlyData(g.setting))
			return outcome{healed: true}
		}
	case sig.Configured == diagnose.ProbeFailed, sig.BadResponse:
	case accepts(sig.Configured):
		return outcome{fine: true, account: sig.Configured}
	case accepts(sig.Other) && alone && g.heal.AEAD:
		g.useAEAD()
		return outcome{healed: true}
	case accepts(sig.ServerTime) && g.heal.Clock:
		g.useServerTime(*sig.Skew)
		return outcome{healed: true}
	case accepts(sig.OtherServerTime) && alone && g.heal.AEAD && g.heal.Clock:
		g.useAEAD()
		g.useServerTime(*sig.Skew)
		return outcome{healed: true}
	}
	return outcome{verdict: diagnose.Account(sig, g.setting), cut: sig.Configured == diagnose.ProbeFailed}
}

func (g *guard) useAEAD() {
	g.account.SetMode(vmess.ModeAEAD)
	g.voice.healed(diagnose.VMessAEADRequired, diagnose.HealedAEAD(g.setting))
}

// useServerTime signs with the server's time from now on, and measures again
// every hour. It is called with the round locked.
func (g *guard) useServerTime(skew time.Duration) {
	g.account.SetOffset(-skew)
	g.voice.healed(diagnose.VMessClockSkew, diagnose.HealedClock(skew))
	if g.measure == nil {
		g.measure = time.AfterFunc(skewPause, g.measureAgain)
	}
}

// measureAgain follows a clock that was found wrong.
func (g *guard) measureAgain() {
	ctx, cancel := context.WithTimeout(g.ctx, roundTime)
	defer cancel()
	skew, err := g.prober.Skew(ctx)
	g.round.Lock()
	defer g.round.Unlock()
	if g.closed {
		return
	}
	switch change := skew + g.account.Offset(); {
	case err != nil || change.Abs() < 2*time.Second:
	case skew.Abs() < skewLimit:
		g.account.SetOffset(0)
		g.voice.healed(diagnose.VMessClockSkew, diagnose.HealedClock(skew))
	default:
		g.account.SetOffset(-skew)
		g.voice.healed(diagnose.VMessClockSkew, diagnose.HealedClock(skew))
	}
	g.measure.Reset(skewPause)
}

// close ends what runs by itself.
func (g *guard) close() {
	g.cancel()
	g.endings.close()
	g.round.Lock()
	defer g.round.Unlock()
	g.closed = true
	if g.measure != nil {
		g.measure.Stop()
	}
	g.voice.close()
}
