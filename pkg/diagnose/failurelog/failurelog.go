// Package failurelog logs each failure once and then how often it repeated.
package failurelog

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
	// repeatWindow is how long repeats of a failure are counted before their
	// number is logged.
	repeatWindow = time.Minute
	// quietPeriod is how long a failure of the path must not have happened, and
	// the server have answered meanwhile, for the next to be logged at once.
	quietPeriod = 5 * time.Second
)

// Options configure a Log.
type Options struct {
	Log    *slog.Logger
	Server string // its name in log lines and on the status page
	// Registry keeps the failures for the status page. It may be nil.
	Registry *stats.Registry
	// LastAnswer returns when the server last answered. It may be nil.
	LastAnswer func() time.Time
}

// A Log logs the failures of one server: each once, and then how often it
// repeated. It may be used concurrently.
type Log struct {
	opt Options

	mu     sync.Mutex
	active map[diagnose.Cause]*active
	closed bool
}

// An active is a failure that was logged and is not over yet.
type active struct {
	verdict    diagnose.Verdict
	confidence diagnose.Confidence // as it was logged
	since      time.Time
	last       time.Time // when it last happened
	repeats    int       // not logged yet
	timer      *time.Timer
}

// New returns a Log. Its Close must be called.
func New(opt Options) *Log {
	return &Log{opt: opt, active: map[diagnose.Cause]*active{}}
}

// Report logs a verdict, or counts it if the same cause was logged recently with
// no less confidence. The zero verdict is ignored.
func (l *Log) Report(v diagnose.Verdict) {
	if v.IsZero() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	now := time.Now()
	if a := l.active[v.Cause]; a != nil {
		if !l.over(a, now) && v.Confidence <= a.confidence {
			a.repeats++
			a.verdict, a.last = v, now
			return
		}
		a.timer.Stop()
		if a.repeats > 0 {
			l.logRepeats(a)
		}
	}
	a := &active{verdict: v, confidence: v.Confidence, since: now, last: now}
	a.timer = time.AfterFunc(repeatWindow, func() { l.endWindow(a) })
	l.active[v.Cause] = a
	l.record(v, 1, now, logging.Text("%s\n%s", v.Line(), v.FixLine()))
}

// ReportSite reports the failure of a destination, for which the server is not to
// blame: the status page shows it each time as named, the log at debug level. v,
// which may be zero, is what Report is to log.
func (l *Log) ReportSite(site string, v, named diagnose.Verdict) {
	l.addFailure(named, site, 1, time.Now())
	l.opt.Log.Debug("site failed", "to", site, "cause", string(named.Cause), "sentence", named.Sentence, "server", l.opt.Server)
	l.Report(v)
}

// addFailure puts a failure on the status page.
func (l *Log) addFailure(v diagnose.Verdict, site string, count int, last time.Time) {
	if l.opt.Registry == nil {
		return
	}
	l.opt.Registry.AddFailure(stats.Failure{
		Time: last, Cause: string(v.Cause), Sentence: v.Sentence, Fix: v.Fix,
		Confidence: v.Confidence.String(), Server: l.opt.Server, Site: site, Count: count,
	})
}

// over reports whether a failure is over, so that the next is news: the server
// could be reached meanwhile.
func (l *Log) over(a *active, now time.Time) bool {
	return a.verdict.Cause.OfPath() && now.Sub(a.last) >= quietPeriod && l.opt.LastAnswer != nil && l.opt.LastAnswer().After(a.last)
}

// endWindow logs how often a failure repeated, and forgets it if it did not.
func (l *Log) endWindow(a *active) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.active[a.verdict.Cause] != a {
		return
	}
	if a.repeats == 0 {
		delete(l.active, a.verdict.Cause)
		return
	}
	l.logRepeats(a)
	a.repeats, a.since = 0, time.Now()
	a.timer.Reset(repeatWindow)
}

func (l *Log) logRepeats(a *active) {
	v := a.verdict
	l.record(v, a.repeats, a.last, logging.Text("%s", diagnose.RepeatLine(v, a.repeats, time.Since(a.since))))
}

// record writes a failure that happened count times, most recently at last, with
// its text for people.
func (l *Log) record(v diagnose.Verdict, count int, last time.Time, text slog.Attr) {
	if !v.Cause.OfDestination() {
		l.addFailure(v, "", count, last)
	}
	msg, attrs := v.Record()
	l.opt.Log.Error(msg, append(attrs, text, "server", l.opt.Server, "count", count)...)
}

// Healed logs that a problem is worked around, in a line made by package
// diagnose, and shows it on the status page.
func (l *Log) Healed(c diagnose.Cause, line string) {
	l.ShowHealed(c, line)
	l.opt.Log.Info("healed", logging.Text("%s", line), "cause", string(c), "healed", line, "server", l.opt.Server)
}

// ShowHealed does as Healed, on the status page only.
func (l *Log) ShowHealed(c diagnose.Cause, line string) {
	if l.opt.Registry != nil {
		sentence := strings.TrimPrefix(line, "healed: "+string(c)+": ")
		l.opt.Registry.AddHealing(stats.Healing{Time: time.Now(), Cause: string(c), Sentence: sentence, Server: l.opt.Server})
	}
}

// Recovered logs that the server, for which requests have waited, is reachable
// again.
func (l *Log) Recovered(downFor time.Duration) {
	downFor = max(downFor.Round(time.Second), time.Second)
	l.opt.Log.Info("back", logging.Text("back: %s answers again, after %v", l.opt.Server, downFor), "server", l.opt.Server, "away", downFor.String())
}

// Hint logs advice where nothing has failed.
func (l *Log) Hint(text string) {
	l.opt.Log.Info("hint", logging.Text("%s", text), "hint", text)
}

// Close logs the repeats that were not logged yet. After it Report does nothing.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	for _, a := range l.active {
		a.timer.Stop()
		if a.repeats > 0 {
			l.logRepeats(a)
		}
	}
}
