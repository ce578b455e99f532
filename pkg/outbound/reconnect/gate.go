// Package reconnect lets requests wait for a server that went down a moment ago
// while one of them at a time tries to reach it (gRPC: wait for ready).
package reconnect

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// minPause is the pause after the first failed attempt to reach a server that
	// is down. It is doubled each time, up to MaxPause.
	minPause = 250 * time.Millisecond
	// MaxPause is the longest pause between two attempts to reach a server that
	// is down. Pauses are jittered by a quarter.
	MaxPause = time.Second
	// MaxUnproven is how many attempts are made at once to a server that is not
	// known to be up or down.
	MaxUnproven = 4
)

// ErrNetworkChanged is the cause of the end of an attempt that began before
// Gate.NetworkChanged.
var ErrNetworkChanged = errors.New("this computer's network changed")

// A Gate is shared by all requests to a server that just became unreachable. Its
// zero value is ready to use; it may be used concurrently.
type Gate struct {
	// OnRecovered, unless nil, is called when a server that was down is reached
	// again. It must be set before the Gate is used.
	OnRecovered func(downFor time.Duration)

	mu        sync.Mutex
	changed   chan struct{} // closed at each change; nil while nobody waits
	dialing   int           // attempts under way
	reached   time.Time     // when an attempt last succeeded
	lastErr   error         // of the last attempt that failed
	down      error         // why the last attempt failed; nil: it is not known to be down
	downSince time.Time
	pause     time.Duration
	next      time.Time // when the next attempt may be made
	epoch     *Epoch    // nil: no attempt has been made since the last change
}

// An Epoch is the time between two changes of the network. Its end ends the
// attempts that began in it, as their path may be gone.
type Epoch struct {
	ctx context.Context
	end context.CancelCauseFunc
}

// Over reports whether the network has changed since the epoch began.
func (e *Epoch) Over() bool { return e.ctx.Err() != nil }

// Bound returns a copy of ctx that ends with the epoch as well, then with the
// cause ErrNetworkChanged. The caller must call the function returned with it.
func (e *Epoch) Bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(e.ctx, func() { cancel(ErrNetworkChanged) })
	return ctx, func() { stop(); cancel(nil) }
}

// Epoch returns the current epoch, for attempts made without the gate.
func (g *Gate) Epoch() *Epoch {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.currentEpoch()
}

// currentEpoch is Epoch with the lock held.
func (g *Gate) currentEpoch() *Epoch {
	if g.epoch == nil {
		ctx, cancel := context.WithCancelCause(context.Background())
		g.epoch = &Epoch{ctx, cancel}
	}
	return g.epoch
}

// NetworkChanged ends the attempts under way, and forgets what earlier ones found:
// the next is made at once.
func (g *Gate) NetworkChanged() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.epoch != nil {
		g.epoch.end(ErrNetworkChanged)
		g.epoch = nil
	}
	g.dialing = 0 // those that end do not count any more
	g.reset()
}

// Reset forgets what attempts found: the next is made at once.
func (g *Gate) Reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reset()
}

// reset is Reset with the lock held.
func (g *Gate) reset() {
	g.down, g.pause, g.reached = nil, 0, time.Time{}
	g.broadcast()
}

// ReachedSince reports whether the server was reached through the gate after t,
// by the wall clock, and nothing was forgotten since.
func (g *Gate) ReachedSince(t time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reached.Round(0).After(t)
}

// A wait says why an attempt must wait, and for what.
type wait struct {
	down    error // nil: others find out whether it is up
	changed <-chan struct{}
	pause   time.Duration // 0: only for a change
}

// until waits for a change, the end of the pause or that of ctx.
func (w wait) until(ctx context.Context) {
	var over <-chan time.Time
	if w.pause > 0 {
		t := time.NewTimer(w.pause)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-w.changed:
	case <-over:
	case <-ctx.Done():
	}
}

// acquire returns the epoch of an attempt that may be made now, which ends with
// release; nil and what to wait for otherwise. knownUp says that the server is up.
func (g *Gate) acquire(knownUp bool) (*Epoch, wait) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if g.dialing == 0 && now.Sub(g.next) > MaxPause {
		g.down = nil // no attempt was made since
	}
	switch {
	case g.down == nil && (knownUp || g.dialing < MaxUnproven),
		g.down != nil && g.dialing == 0 && !now.Before(g.next):
		g.dialing++
		return g.currentEpoch(), wait{}
	}
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	w := wait{down: g.down, changed: g.changed}
	if g.down != nil && g.dialing == 0 {
		w.pause = g.next.Sub(now)
	}
	return nil, w
}

// An Outcome is what an attempt found.
type Outcome uint8

// The outcomes of an attempt.
const (
	OK          Outcome = iota // the server is up, whatever it answered
	Unreachable                // it is down
	Canceled                   // not known: the time was over, or the caller gave up
)

// release ends an attempt; err is why it failed, if it did. What was found in an
// earlier epoch does not count.
func (g *Gate) release(e *Epoch, found Outcome, err error) {
	if downFor := g.record(e, found, err); downFor > 0 && g.OnRecovered != nil {
		g.OnRecovered(downFor)
	}
}

// record does what release does, and returns for how long the server was down if
// it has recovered.
func (g *Gate) record(e *Epoch, found Outcome, err error) (downFor time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e.Over() {
		return 0
	}
	g.dialing--
	if err != nil && !errors.Is(err, context.Canceled) {
		g.lastErr = err
	}
	switch now := time.Now(); {
	case found == OK:
		if g.down != nil {
			downFor = max(1, now.Sub(g.downSince))
		}
		g.down, g.pause, g.reached = nil, 0, now
	case found == Unreachable && (g.down == nil || !now.Before(g.next)):
		g.markDown(now, err)
	}
	g.broadcast()
	return downFor
}

// markDown takes note, with the lock held, that the server is down.
func (g *Gate) markDown(now time.Time, err error) {
	if g.down == nil {
		g.downSince = now
	}
	g.pause = min(max(2*g.pause, minPause), MaxPause)
	g.down, g.next = err, now.Add(g.pause*3/4+rand.N(g.pause/2))
}

// noAnswer takes note that an attempt has no answer yet, and goes on.
func (g *Gate) noAnswer(e *Epoch, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !e.Over() && g.down == nil {
		g.markDown(time.Now(), err)
		g.broadcast()
	}
}

func (g *Gate) broadcast() {
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

// lastFailure returns the error of the last attempt that failed.
func (g *Gate) lastFailure() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lastErr
}

// Try makes an attempt for which nobody waits, and reports whether one may be made
// now. The attempt's context ends with ctx and with the epoch.
func (g *Gate) Try(ctx context.Context, knownUp bool, attempt func(ctx context.Context) Outcome) bool {
	e, _ := g.acquire(knownUp)
	if e == nil {
		return false
	}
	bound, done := e.Bound(ctx)
	found := attempt(bound)
	done()
	g.release(e, found, nil)
	return true
}

// An Attempt is one try to reach the server. again says that the request may be
// sent by another attempt if this one failed or was ended. An attempt that has had
// no answer for a while may call noAnswer, and go on.
type Attempt func(ctx context.Context, noAnswer func(err error)) (found Outcome, again bool, err error)

// Do makes attempts until one ends otherwise than by finding the server down, for
// up to limit. Those of other requests to a server that is down are waited for.
// report is called at once when an attempt, its own or another's, has failed or has
// no answer, with the error and with what it returned the last time; what it
// returned last is the error of a request that is not served in time. It may be
// called from another goroutine, never concurrently.
func (g *Gate) Do(ctx context.Context, limit time.Duration, knownUp func() bool, attempt Attempt, report func(err, reported error) error) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r := &failureReport{report: report}
	for limited.Err() == nil {
		e, w := g.acquire(knownUp())
		if e == nil {
			if w.down == nil {
				w.until(ctx) // the attempts of others end in time
				continue
			}
			r.add(w.down)
			w.until(limited)
			continue
		}
		bound, done := e.Bound(limited)
		found, again, err := attempt(bound, func(err error) {
			g.noAnswer(e, err)
			go r.add(err) // which may take a follow-up probe
		})
		done()
		g.release(e, found, err)
		if err != nil && again && e.Over() && limited.Err() == nil {
			continue // on the new network
		}
		if err == nil || found != Unreachable || !again {
			if err != nil && limited.Err() != nil && r.last() != nil {
				break // it was cut short
			}
			return err
		}
		r.add(err)
	}
	reported := r.last()
	switch failure := g.lastFailure(); {
	case reported != nil:
		return reported
	case ctx.Err() != nil || failure == nil:
		return context.Cause(limited)
	default:
		return failure // what the attempts it waited for found
	}
}

// A failureReport is what one request reports of a server that is down.
type failureReport struct {
	report   func(err, reported error) error
	mu       sync.Mutex
	reported error // what report returned last
}

// add reports why the server is down, and returns when that is done.
func (r *failureReport) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reported = r.report(err, r.reported)
}

// last returns what was reported last.
func (r *failureReport) last() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reported
}
