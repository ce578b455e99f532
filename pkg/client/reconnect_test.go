package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/carrier/wsconn"
	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/host/netmon"
	"vmess-local/pkg/outbound/reconnect"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// A comebackLab is a server that is away until some moment, and its guard.
type comebackLab struct {
	*farEnd
	guard    *guard
	text     lockedBuffer
	fault    error        // while it is away; nil: what ended the attempt
	back     atomic.Int64 // Unix nanoseconds; 0: it is there
	attempts atomic.Int64 // to reach it while it is away
	hangs    atomic.Bool  // these take as long as they may
}

var errRefused = &netdial.Error{Step: netdial.StepTCP, Addr: "192.0.2.1:80", Err: syscall.ECONNREFUSED}

// newComebackLab returns one that has served a request.
func newComebackLab(t *testing.T) *comebackLab {
	t.Helper()
	l := &comebackLab{fault: errRefused}
	l.farEnd, l.guard = newFarEnd(t, 0)
	l.connect = func(ctx context.Context, _ int) error {
		if time.Now().UnixNano() < l.back.Load() {
			l.attempts.Add(1)
			if l.hangs.Load() {
				<-ctx.Done()
			}
			if l.fault == nil {
				return fmt.Errorf("websocket upgrade: %w", context.Cause(ctx)) // as wsconn has it
			}
			return l.fault
		}
		return nil
	}
	l.guard.link = l.farEnd
	l.guard.dialer.Endpoint = transport.EndpointFunc(l.guard.tunnel)
	logTo(l.guard, slog.New(logging.New(&l.text, slog.LevelInfo, false)))
	l.serve(t)
	return l
}

// leaveFor makes it go away, and its unused tunnels with it.
func (l *comebackLab) leaveFor(d time.Duration) {
	l.back.Store(time.Now().Add(d).UnixNano())
	synctest.Wait()
	l.guard.pool.Drop()
}

// ask has one request answered, and returns how long that took.
func (l *comebackLab) ask(ctx context.Context) (took time.Duration, err error) {
	start := time.Now()
	c, err := l.guard.DialStream(ctx, somewhere, []byte("hello"))
	if err != nil {
		return time.Since(start), err
	}
	defer c.Close()
	_, err = io.ReadFull(c, make([]byte, 5))
	return time.Since(start), err
}

func (l *comebackLab) serve(t *testing.T) {
	t.Helper()
	if _, err := l.ask(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestComeback: a page of requests to a server that restarts is served as soon
// as it is back, and does not hammer it.
func TestComeback(t *testing.T) {
	const page = 30
	for name, tt := range map[string]struct {
		away  time.Duration
		fault error
		cause diagnose.Cause
	}{
		"for 1 s":         {time.Second, errRefused, diagnose.TCPRefused},
		"for 8 s":         {8 * time.Second, errRefused, diagnose.TCPRefused},
		"behind a server": {3 * time.Second, &wsconn.HandshakeError{Status: http.StatusBadGateway}, diagnose.WSBadGateway},
		"in the upgrade":  {3 * time.Second, wsconn.ErrClosedEarly, diagnose.WSReset},
		"no network":      {3 * time.Second, &netdial.Error{Step: netdial.StepTCP, Err: syscall.ENETUNREACH}, diagnose.TCPUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newComebackLab(t)
				l.fault = tt.fault
				time.Sleep(healthyFor)
				l.leaveFor(tt.away)
				var all sync.WaitGroup
				for range page {
					all.Go(func() {
						took, err := l.ask(t.Context())
						if late := took - tt.away; err != nil || late < 0 || late > reconnect.MaxPause*5/4 {
							t.Errorf("%v after %v, away for %v", err, took, tt.away)
						}
					})
				}
				synctest.Wait()
				if said := l.text.take(); strings.Count(said, string(tt.cause)) != 1 {
					t.Errorf("said at once: %q", said)
				}
				all.Wait()
				if said := l.text.take(); !strings.HasPrefix(said, "back: 192.0.2.1 answers again, after ") || strings.Count(said, "\n") != 1 {
					t.Errorf("said later: %q", said)
				}
				if n := l.attempts.Load(); n < 2 || n > 20 {
					t.Errorf("%d attempts in %v by %d requests", n, tt.away, page)
				}
			})
		})
	}
}

// TestComebackTooLate: nobody waits for longer than limits.dial, and who asks
// near the end is served.
func TestComebackTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const away = 30 * time.Second
		l := newComebackLab(t)
		l.leaveFor(away)
		var all sync.WaitGroup
		for at := range 29 {
			asked := time.Duration(at) * time.Second
			all.Go(func() {
				time.Sleep(asked)
				took, err := l.ask(t.Context())
				var told *VerdictError
				switch {
				case asked+l.guard.dialTime < away:
					if !errors.As(err, &told) || told.Verdict.Cause != diagnose.TCPRefused || !errors.Is(err, syscall.ECONNREFUSED) || took != l.guard.dialTime {
						t.Errorf("asked at %v: %v after %v", asked, err, took)
					}
				case asked+l.guard.dialTime > away+reconnect.MaxPause*5/4:
					if err != nil {
						t.Errorf("asked at %v: %v after %v", asked, err, took)
					}
				}
			})
		}
		all.Wait()
		if n := l.attempts.Load(); n > 50 {
			t.Errorf("%d attempts in %v", n, away)
		}
		l.serve(t)
	})
}

// TestNoWaitForServerThatNeverWorked: only a server that worked a moment ago is waited for.
func TestNoWaitForServerThatNeverWorked(t *testing.T) {
	for name, change := range map[string]func(l *comebackLab){
		"long ago":             func(*comebackLab) { time.Sleep(recentlyUpFor) },
		"several servers":      func(l *comebackLab) { l.guard.alone = false },
		"other than a restart": func(l *comebackLab) { l.fault = &wsconn.HandshakeError{Status: http.StatusNotFound} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newComebackLab(t)
				l.leaveFor(0)
				change(l)
				l.leaveFor(time.Second)
				if took, err := l.ask(t.Context()); err == nil || took != 0 {
					t.Errorf("%v after %v", err, took)
				}
			})
		})
	}
}

// TestComebackOfUsed: a tunnel that was in use a moment ago proves that the
// server worked, however long ago it answered a request.
func TestComebackOfUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newComebackLab(t)
		time.Sleep(time.Hour)
		l.guard.tunnelFailures.add(diagnose.TunnelFacts{Err: syscall.ECONNRESET, Answered: true, IdleFor: time.Second}, netaddr.Addr{}, nil)
		l.leaveFor(time.Second)
		if took, err := l.ask(t.Context()); err != nil || took < time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// TestComebackAfterSleep: a moment ago is meant by the clock that stands still
// while this computer sleeps, where there is one. No test can make the clocks
// differ, so this one looks that those times have that clock's reading.
func TestComebackAfterSleep(t *testing.T) {
	for name, tt := range map[string]struct {
		works func(l *comebackLab)
		at    func(g *guard) time.Time
	}{
		"an answer": {func(*comebackLab) {}, func(g *guard) time.Time { return g.account.LastAnswer() }},
		"a tunnel": {func(l *comebackLab) {
			l.guard.tunnelFailures.add(diagnose.TunnelFacts{Err: syscall.ECONNRESET, Answered: true, IdleFor: time.Second}, netaddr.Addr{}, nil)
		}, func(g *guard) time.Time { return *g.lastUsed.Load() }},
		"a resume": {func(l *comebackLab) { l.guard.onNetworkChange(netmon.Event{Slept: time.Hour}) }, func(g *guard) time.Time { return *g.lastUsed.Load() }},
	} {
		t.Run(name, func(t *testing.T) {
			l := newComebackLab(t) // in no bubble: there is one clock only
			tt.works(l)
			if at := tt.at(l.guard); at == at.Round(0) || !l.guard.RecentlyUp() {
				t.Errorf("%v is by the wall clock alone", at)
			}
		})
	}
}

// TestComebackForsaken: who gives up is let go at once, and another request
// takes over.
func TestComebackForsaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newComebackLab(t)
		l.leaveFor(5 * time.Second)
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if took, err := l.ask(ctx); err == nil || took != time.Second {
					t.Errorf("gave up: %v after %v", err, took)
				}
			})
		}
		if took, err := l.ask(t.Context()); err != nil || took > 5*time.Second+reconnect.MaxPause*5/4 {
			t.Errorf("waited: %v after %v", err, took)
		}
		all.Wait()
	})
}

// TestComebackHangs: where attempts hang, those that wait for them end in time
// and with their failure.
func TestComebackHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newComebackLab(t)
		time.Sleep(healthyFor)
		l.fault = &netdial.Error{Step: netdial.StepTCP, Err: context.DeadlineExceeded}
		l.leaveFor(time.Hour)
		l.hangs.Store(true)
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				took, err := l.ask(t.Context())
				var told *VerdictError
				if !errors.As(err, &told) || told.Verdict.Cause != diagnose.TCPTimeout || took != l.guard.dialTime {
					t.Errorf("%v after %v", err, took)
				}
			})
		}
		all.Wait()
		if n := l.attempts.Load(); n > 3*reconnect.MaxUnproven { // some for nobody, too
			t.Errorf("%d attempts", n)
		}
	})
}

// TestComebackMoved: when this computer moves, requests that wait for attempts
// on the old network, and those that made them, go by the new one at once. So do
// those to a server that nobody has heard of for long.
func TestComebackMoved(t *testing.T) {
	for name, idle := range map[string]time.Duration{"a moment ago": healthyFor, "long ago": 2 * recentlyUpFor} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newComebackLab(t)
				time.Sleep(idle)
				l.fault = &netdial.Error{Step: netdial.StepTCP, Err: context.DeadlineExceeded}
				l.leaveFor(time.Hour)
				l.hangs.Store(true)
				const moved = time.Second
				var all sync.WaitGroup
				for range 10 {
					all.Go(func() {
						if took, err := l.ask(t.Context()); err != nil || took != moved {
							t.Errorf("%v after %v", err, took)
						}
					})
				}
				time.Sleep(moved)
				synctest.Wait()
				l.back.Store(0)
				l.guard.onNetworkChange(netmon.Event{AddrsChanged: true})
				if took, err := l.ask(t.Context()); err != nil || took > 0 {
					t.Errorf("asked then: %v after %v", err, took)
				}
				all.Wait()
				l.guard.failures.Close()
				if said := l.text.take(); said != "" {
					t.Errorf("said %q", said)
				}
			})
		})
	}
}

// TestNetworkChangeKeepsDialLimit: a move gives nobody more time, and what may have been
// sent already is not sent again.
func TestNetworkChangeKeepsDialLimit(t *testing.T) {
	below, upgrade := &netdial.Error{Step: netdial.StepTLS, Err: context.DeadlineExceeded}, &wsconn.TimeoutError{}
	const every = 3 * time.Second
	for name, tt := range map[string]struct {
		idle     time.Duration
		fault    error
		attempts int64
		took     time.Duration
	}{
		"below the upgrade":           {healthyFor, below, 4, 0},
		"in the upgrade":              {healthyFor, upgrade, 1, every},
		"below the upgrade, long ago": {2 * recentlyUpFor, below, 4, 0},
		"in the upgrade, long ago":    {2 * recentlyUpFor, upgrade, 1, every},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newComebackLab(t)
				time.Sleep(tt.idle)
				l.fault = tt.fault
				l.leaveFor(time.Hour)
				l.hangs.Store(true)
				for at := range 3 {
					move := time.AfterFunc(time.Duration(at+1)*every, func() { l.guard.onNetworkChange(netmon.Event{AddrsChanged: true}) })
					defer move.Stop()
				}
				want := tt.took
				if want == 0 {
					want = l.guard.dialTime
				}
				took, err := l.ask(t.Context())
				if n := l.attempts.Load() - 1; err == nil || took != want || n != tt.attempts { // one was for the next request
					t.Errorf("%v after %v, %d attempts", err, took, n)
				}
			})
		})
	}
}

// TestMovedIsNoFailure: that an upgrade was given up for a change of networks is
// no failure of the server's, and nothing to mend in the configuration.
func TestMovedIsNoFailure(t *testing.T) {
	for name, alone := range map[string]bool{"the only server": true, "one of several": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newComebackLab(t)
				synctest.Wait()
				l.guard.alone = alone
				l.guard.failed = func(v diagnose.Verdict) { t.Errorf("failed: %s", v.Cause) }
				time.Sleep(healthyFor)
				l.fault = nil
				l.leaveFor(time.Hour)
				l.hangs.Store(true)
				time.AfterFunc(time.Second, func() { l.guard.onNetworkChange(netmon.Event{AddrsChanged: true}) })
				if took, err := l.ask(t.Context()); !errors.Is(err, reconnect.ErrNetworkChanged) || took != time.Second {
					t.Errorf("%v after %v", err, took)
				}
				l.guard.failures.Close()
				if said := l.text.take(); said != "" {
					t.Errorf("said %q", said)
				}
			})
		})
	}
}

// TestComebackIsNoNews: what was found of a server a while ago is not told to
// those who come when it is back.
func TestComebackIsNoNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newComebackLab(t)
		l.leaveFor(15 * time.Second)
		if _, err := l.ask(t.Context()); err == nil {
			t.Error("served by nobody")
		}
		time.Sleep(10 * time.Second)
		_ = l.text.take()
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if took, err := l.ask(t.Context()); err != nil || took > 0 {
					t.Errorf("%v after %v", err, took)
				}
			})
		}
		all.Wait()
		l.guard.failures.Close()
		if said := l.text.take(); said != "" {
			t.Errorf("said %q", said)
		}
	})
}
