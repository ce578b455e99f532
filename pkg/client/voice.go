package client

import (
	"log/slog"
	"strings"
	"sync"
	"time"

	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/logline"
	"vmess-local/pkg/stats"
)

const (
	// foldTime is how long repeats of a failure are counted before they are told.
	foldTime = time.Minute
	// lull is how long a failure of the way must not have happened, and the
	// server have answered meanwhile, for the next to be told at once.
	lull = 5 * time.Second
)

// A voice tells failures to people: each once, and then how often it came
// again.
type voice struct {
	log    *slog.Logger
	server string
	board  *stats.Board     // nil where nobody looks
	well   func() time.Time // when the server answered last; nil where there is none

	mu     sync.Mutex
	told   map[diagnose.Cause]*telling
	closed bool
}

// A telling is a failure that was told and is not over yet.
type telling struct {
	verdict diagnose.Verdict
	sure    diagnose.Confidence // as it was told
	since   time.Time
	last    time.Time // when it happened last
	again   int
	timer   *time.Timer
}

func newVoice(log *slog.Logger, server string) *voice {
	return &voice{log: log, server: server, told: map[diagnose.Cause]*telling{}}
}

// say tells a verdict, or counts it when the same was told a moment ago, no less
// sure.
func (o *voice) say(v diagnose.Verdict) {
	if v.IsZero() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	now := time.Now()
	if t := o.told[v.Cause]; t != nil {
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
	t := &telling{verdict: v, sure: v.Confidence, since: now, last: now}
	t.timer = time.AfterFunc(foldTime, func() { o.sum(t) })
	o.told[v.Cause] = t
	o.record(v, 1, now, logline.Text("%s\n%s", v.Line(), v.FixLine()))
}

// sayOf tells the failure of a site, which has no part in the server's: the page
// names it each time, and the log at debug level.
func (o *voice) sayOf(site string, v, named diagnose.Verdict) {
	if o.board != nil {
		o.remember(named, site, 1, time.Now())
	}
	o.log.Debug("site failed", "to", site, "cause", string(named.Cause), "sentence", named.Sentence, "server", o.server)
	o.say(v)
}

// remember puts a failure on the page.
func (o *voice) remember(v diagnose.Verdict, site string, count int, last time.Time) {
	o.board.Tell(stats.Failure{
		Time: last, Cause: string(v.Cause), Sentence: v.Sentence, Fix: v.Fix,
		Confidence: v.Confidence.String(), Server: o.server, Site: site, Count: count,
	})
}

// over reports whether a failure is over, so that another is news: the server
// could be reached meanwhile.
func (o *voice) over(t *telling, now time.Time) bool {
	return t.verdict.Cause.OfWay() && now.Sub(t.last) >= lull && o.well != nil && o.well().After(t.last)
}

// sum tells how often a failure came again, and ends its telling if it did not.
func (o *voice) sum(t *telling) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.told[t.verdict.Cause] != t {
		return
	}
	if t.again == 0 {
		delete(o.told, t.verdict.Cause)
		return
	}
	o.repeat(t)
	t.again, t.since = 0, time.Now()
	t.timer.Reset(foldTime)
}

func (o *voice) repeat(t *telling) {
	v := t.verdict
	o.record(v, t.again, t.last, logline.Text("%s", diagnose.Folded(v, t.again, time.Since(t.since))))
}

// record writes a failure that happened count times, at last then, with its words
// for people.
func (o *voice) record(v diagnose.Verdict, count int, last time.Time, text slog.Attr) {
	if o.board != nil && !v.Cause.OfDestination() {
		o.remember(v, "", count, last)
	}
	msg, attrs := v.Record()
	o.log.Error(msg, append(attrs, text, "server", o.server, "count", count)...)
}

// healed tells what was put right.
func (o *voice) healed(c diagnose.Cause, what string) {
	o.show(c, what)
	o.log.Info("healed", logline.Text("%s", what), "cause", string(c), "healed", what, "server", o.server)
}

// back tells that the server is there again for which requests have waited.
func (o *voice) back(away time.Duration) {
	away = max(away.Round(time.Second), time.Second)
	o.log.Info("back", logline.Text("back: %s answers again, after %v", o.server, away), "server", o.server, "away", away.String())
}

// show puts on the page what was put right.
func (o *voice) show(c diagnose.Cause, what string) {
	if o.board != nil {
		sentence := strings.TrimPrefix(what, "healed: "+string(c)+": ")
		o.board.Heal(stats.Healing{Time: time.Now(), Cause: string(c), Sentence: sentence, Server: o.server})
	}
}

// hint gives advice where nothing has failed.
func (o *voice) hint(text string) {
	o.log.Info("hint", logline.Text("%s", text), "hint", text)
}

// close tells the repeats that were not told yet, and then nothing any more.
func (o *voice) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.closed = true
	for _, t := range o.told {
		t.timer.Stop()
		if t.again > 0 {
			o.repeat(t)
		}
	}
}
