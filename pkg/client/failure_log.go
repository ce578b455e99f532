package client

import (
	"log/slog"
	"strings"
	"sync"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/status/stats"
)

const (
	// repeatWindow is how long repeats of a failure are counted before they are told.
	repeatWindow = time.Minute
	// quietPeriod is how long a failure of the way must not have happened, and the
	// server have answered meanwhile, for the next to be told at once.
	quietPeriod = 5 * time.Second
)

// A failureLog tells failures to people: each once, and then how often it came
// again.
type failureLog struct {
	log    *slog.Logger
	server string
	board  *stats.Registry  // nil where nobody looks
	well   func() time.Time // when the server answered last; nil where there is none

	mu     sync.Mutex
	active map[diagnose.Cause]*active
	closed bool
}

// A active is a failure that was told and is not over yet.
type active struct {
	verdict diagnose.Verdict
	sure    diagnose.Confidence // as it was told
	since   time.Time
	last    time.Time // when it happened last
	again   int
	timer   *time.Timer
}

func newFailureLog(log *slog.Logger, server string) *failureLog {
	return &failureLog{log: log, server: server, active: map[diagnose.Cause]*active{}}
}

// Report tells a verdict, or counts it when the same was told a moment ago, no less
// sure.
func (o *failureLog) Report(v diagnose.Verdict) {
	if v.IsZero() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	now := time.Now()
	if t := o.active[v.Cause]; t != nil {
		if !o.over(t, now) && v.Confidence <= t.sure {
			t.again++
			t.verdict, t.last = v, now
			return
		}
		t.timer.Stop()
		if t.again > 0 {
			o.repeat(t)
		}
	}
	t := &active{verdict: v, sure: v.Confidence, since: now, last: now}
	t.timer = time.AfterFunc(repeatWindow, func() { o.sum(t) })
	o.active[v.Cause] = t
	o.record(v, 1, now, logging.Text("%s\n%s", v.Line(), v.FixLine()))
}

// sayOf tells the failure of a site, which has no part in the server's: the page
// names it each time, and the log at debug level.
func (o *failureLog) sayOf(site string, v, named diagnose.Verdict) {
	if o.board != nil {
		o.remember(named, site, 1, time.Now())
	}
	o.log.Debug("site failed", "to", site, "cause", string(named.Cause), "sentence", named.Sentence, "server", o.server)
	o.Report(v)
}

// remember puts a failure on the page.
func (o *failureLog) remember(v diagnose.Verdict, site string, count int, last time.Time) {
	o.board.AddFailure(stats.Failure{
		Time: last, Cause: string(v.Cause), Sentence: v.Sentence, Fix: v.Fix,
		Confidence: v.Confidence.String(), Server: o.server, Site: site, Count: count,
	})
}

// over reports whether a failure is over, so that another is news: the server
// could be reached meanwhile.
func (o *failureLog) over(t *active, now time.Time) bool {
	return t.verdict.Cause.OfPath() && now.Sub(t.last) >= quietPeriod && o.well != nil && o.well().After(t.last)
}

// sum tells how often a failure came again, and ends its telling if it did not.
func (o *failureLog) sum(t *active) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.active[t.verdict.Cause] != t {
		return
	}
	if t.again == 0 {
		delete(o.active, t.verdict.Cause)
		return
	}
	o.repeat(t)
	t.again, t.since = 0, time.Now()
	t.timer.Reset(repeatWindow)
}

func (o *failureLog) repeat(t *active) {
	v := t.verdict
	o.record(v, t.again, t.last, logging.Text("%s", diagnose.RepeatLine(v, t.again, time.Since(t.since))))
}

// record writes a failure that happened count times, at last then, with its words
// for people.
func (o *failureLog) record(v diagnose.Verdict, count int, last time.Time, text slog.Attr) {
	if o.board != nil && !v.Cause.OfDestination() {
		o.remember(v, "", count, last)
	}
	msg, attrs := v.Record()
	o.log.Error(msg, append(attrs, text, "server", o.server, "count", count)...)
}

// healed tells what was put right.
func (o *failureLog) healed(c diagnose.Cause, what string) {
	o.show(c, what)
	o.log.Info("healed", logging.Text("%s", what), "cause", string(c), "healed", what, "server", o.server)
}

// back tells that the server is there again for which requests have waited.
func (o *failureLog) back(away time.Duration) {
	away = max(away.Round(time.Second), time.Second)
	o.log.Info("back", logging.Text("back: %s answers again, after %v", o.server, away), "server", o.server, "away", away.String())
}

// show puts on the page what was put right.
func (o *failureLog) show(c diagnose.Cause, what string) {
	if o.board != nil {
		sentence := strings.TrimPrefix(what, "healed: "+string(c)+": ")
		o.board.AddHealing(stats.Healing{Time: time.Now(), Cause: string(c), Sentence: sentence, Server: o.server})
	}
}

// hint gives advice where nothing has failed.
func (o *failureLog) hint(text string) {
	o.log.Info("hint", logging.Text("%s", text), "hint", text)
}

// close tells the repeats that were not told yet, and then nothing any more.
func (o *failureLog) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.closed = true
	for _, t := range o.active {
		t.timer.Stop()
		if t.again > 0 {
			o.repeat(t)
		}
	}
}
