package client

import (
	"context"
	"sync"
	"time"

	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/protocol/vmess"
)

// probe returns the outcome of a round of probes: that of the last round while
// it stands, for probes are visible at the server, or of the one under way.
func (g *guard) probe(x *request, badResponse bool) outcome {
	if o, _, ok := g.standing(x); ok {
		return o
	}
	return g.probes.do(g.ctx, func() outcome { return g.probeNow(x, badResponse) })
}

// standing returns the outcome of the last round, and whether it stands.
func (g *guard) standing(x *request) (o outcome, epoch int, ok bool) {
	g.round.Lock()
	defer g.round.Unlock()
	now := g.now()
	// A request that was sent after a healing shows, in time, that it failed.
	stale := g.found.healed && x.sentAt().After(g.ended) && now.Sub(g.ended) >= healedPause
	return g.found, g.epoch, g.closed || now.Before(g.next) && !stale
}

// probeNow makes a round of probes.
func (g *guard) probeNow(x *request, badResponse bool) outcome {
	o, epoch, ok := g.standing(x) // it may have been made between the question and now
	if ok {
		return o
	}
	ctx, cancel := context.WithTimeout(g.ctx, probeTimeout)
	defer cancel()
	sig := g.ask(ctx, badResponse)
	if x.start.After(g.account.LastAnswer()) && ctx.Err() != nil {
		return outcome{verdict: diagnose.Account(sig.AccountSignals, g.setting)} // cut short: it does not stand
	}
	g.round.Lock()
	defer g.round.Unlock()
	o = g.act(sig)
	if g.epoch != epoch {
		return o // it was asked by a network that is gone
	}
	g.found, g.ended = o, g.now()
	g.next = g.ended.Add(probeCacheTTL)
	if o.cut {
		g.next = g.ended.Add(lookPause) // the server was not asked
	}
	return o
}

// signals are what a round of probes heard.
type signals struct {
	diagnose.AccountSignals
	signed signature            // of the probes in the configured mode
	early  diagnose.ProbeResult // of one that began as early data
}

// ask gathers the signals that tell why the account is refused, side by side.
func (g *guard) ask(ctx context.Context, badResponse bool) signals {
	ctx, decided := context.WithCancel(ctx)
	defer decided()
	sig := signals{AccountSignals: diagnose.AccountSignals{BadResponse: badResponse}, signed: g.signature()}
	mode, offset := sig.signed.mode, sig.signed.offset
	var all sync.WaitGroup
	answered := make(chan struct{}) // in the configured mode
	all.Go(func() {
		defer close(answered)
		if sig.Configured = g.prober.Ask(ctx, mode, offset); accepts(sig.Configured) && !g.path.early.Load() {
			decided()
		}
	})
	all.Go(func() {
		if sig.Other = g.askOther(ctx, mode, offset); sig.Other == diagnose.ProbeAccepted && mode != vmess.ModeAEAD {
			select { // the configured mode may be accepted as well
			case <-answered:
			case <-time.After(grace):
			}
			decided()
		}
	})
	if g.path.early.Load() {
		all.Go(func() { sig.early = g.prober.AskEarly(ctx, mode, offset) })
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
	sig.EarlyDataLost = earlyDataLost(sig.Configured, sig.early)
	return sig
}

// earlyDataLost compares the probes without early data and with. A flight that
// lost its beginning is not filled any more, so that its silence is none of a
// server that thinks.
func earlyDataLost(without, with diagnose.ProbeResult) bool {
	switch with {
	case diagnose.ProbeNotTried, diagnose.ProbeAccepted:
		return false
	case diagnose.ProbePending:
		return without == diagnose.ProbeAccepted
	}
	return accepts(without)
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
	return r == diagnose.ProbeAccepted || r == diagnose.ProbePending
}

// act heals what may be healed.
func (g *guard) act(sig signals) outcome {
	alone := g.setting.AlterID > 0 && !g.setting.AEADDisabled // MD5 by an old link, not by the user's word
	resigned := outcome{fine: true, healed: true, refused: &sig.signed}
	switch {
	case sig.EarlyDataLost:
		// Others than those that began as early data are fine. One whose upgrade
		// came about is lost if a probe was whose upgrade did, too.
		o := outcome{fine: true, account: sig.Configured, early: sig.early != diagnose.ProbeFailed}
		if !g.heal.EarlyData {
			o.verdict = diagnose.Account(sig.AccountSignals, g.setting)
			return o
		}
		o.healed = true
		g.path.early.Store(false)
		g.failures.Healed(diagnose.WSEarlyDataRefused, diagnose.HealedEarlyData(g.setting))
		return o
	case sig.Configured == diagnose.ProbeFailed, sig.BadResponse:
	case accepts(sig.Configured):
		return outcome{fine: true, account: sig.Configured}
	case accepts(sig.Other) && alone && g.heal.AEAD:
		resigned.account = sig.Other
		g.useAEAD()
		return resigned
	case accepts(sig.ServerTime) && g.heal.Clock:
		resigned.account = sig.ServerTime
		g.useServerTime(*sig.Skew)
		return resigned
	case accepts(sig.OtherServerTime) && alone && g.heal.AEAD && g.heal.Clock:
		resigned.account = sig.OtherServerTime
		g.useAEAD()
		g.useServerTime(*sig.Skew)
		return resigned
	}
	return outcome{verdict: diagnose.Account(sig.AccountSignals, g.setting), cut: sig.Configured == diagnose.ProbeFailed}
}

func (g *guard) useAEAD() {
	g.account.SetMode(vmess.ModeAEAD)
	g.failures.Healed(diagnose.VMessAEADRequired, diagnose.HealedAEAD(g.setting))
}

// useServerTime signs with the server's time from now on, and measures again
// every hour. It is called with the round locked.
func (g *guard) useServerTime(skew time.Duration) {
	g.account.SetOffset(-skew)
	g.failures.Healed(diagnose.VMessClockSkew, diagnose.HealedClock(skew))
	if g.measure == nil {
		g.measure = time.AfterFunc(skewPause, g.measureAgain)
	}
}

// measureAgain follows a clock that was found wrong.
func (g *guard) measureAgain() {
	g.gauges.do(g.ctx, g.remeasureSkew)
	g.round.Lock()
	defer g.round.Unlock()
	if !g.closed {
		g.measure.Reset(skewPause)
	}
}

// remeasured reports whether a refused request is to be signed anew, because
// the clock that was found wrong has been set since.
func (g *guard) remeasured(x *request) bool {
	reset := func() bool { return x.sending().signed.offset != g.account.Offset() }
	switch {
	case !x.repeatable(maxAttempts):
		return false
	case reset():
		return true
	case g.account.Offset() == 0 || g.gaugedLately():
		return false
	}
	return g.gauges.do(g.ctx, func() bool { return !g.gaugedLately() && g.remeasureSkew() }) || reset()
}

// gaugedLately reports whether a clock that was found wrong was measured again a
// moment ago.
func (g *guard) gaugedLately() bool {
	g.round.Lock()
	defer g.round.Unlock()
	return g.now().Sub(g.skewMeasured) < lookPause
}

// remeasureSkew measures how far this clock is off, which it was, and reports whether
// that has changed.
func (g *guard) remeasureSkew() bool {
	ctx, cancel := context.WithTimeout(g.ctx, probeTimeout)
	defer cancel()
	skew, err := g.prober.Skew(ctx)
	g.round.Lock()
	defer g.round.Unlock()
	g.skewMeasured = g.now()
	if g.closed || err != nil || (skew+g.account.Offset()).Abs() < skewTolerance {
		return false
	}
	if skew.Abs() < skewLimit {
		g.account.SetOffset(0)
		return true
	}
	g.account.SetOffset(-skew)
	g.failures.Healed(diagnose.VMessClockSkew, diagnose.HealedClock(skew))
	return true
}
