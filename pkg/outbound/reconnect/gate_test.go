package reconnect

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errDown = errors.New("down")

// A server is up from a moment on.
type server struct {
	up       time.Time
	hangs    bool // attempts while it is down do not end before their context
	sent     bool // an attempt that failed may have delivered the request
	attempts atomic.Int64
	dialing  atomic.Int64
	most     atomic.Int64 // of dialing
}

func (s *server) dial(ctx context.Context, _ func(error)) (Outcome, bool, error) {
	s.attempts.Add(1)
	s.most.Store(max(s.most.Load(), s.dialing.Add(1)))
	defer s.dialing.Add(-1)
	switch {
	case !time.Now().Before(s.up):
		return OK, false, nil
	case s.hangs:
		<-ctx.Done()
		return Canceled, !s.sent, context.Cause(ctx)
	}
	time.Sleep(time.Millisecond)
	return Unreachable, !s.sent, errDown
}

func isUp() bool              { return true }
func notUp() bool             { return false }
func asIs(err, _ error) error { return err }

// do has one request served, and returns how long that took.
func do(ctx context.Context, g *Gate, s *server, limit time.Duration) (took time.Duration, err error) {
	start := time.Now()
	err = g.Do(ctx, limit, notUp, s.dial, asIs)
	return time.Since(start), err
}

func TestRequestsWaitForServerThatReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const away, limit = 5 * time.Second, 10 * time.Second
		var recovered []time.Duration
		g := &Gate{OnRecovered: func(d time.Duration) { recovered = append(recovered, d) }}
		s := &server{up: time.Now().Add(away)}
		if found, _, _ := s.dial(t.Context(), nil); found != Unreachable {
			t.Fatal("it is up")
		}
		start := time.Now()
		var all sync.WaitGroup
		for range 30 {
			all.Go(func() {
				if _, err := do(t.Context(), g, s, limit); err != nil || time.Now().Before(s.up) || time.Since(s.up) > MaxPause*5/4 {
					t.Errorf("%v, %v after it was up", err, time.Since(s.up))
				}
			})
		}
		all.Wait()
		if most := s.most.Load(); most != MaxUnproven {
			t.Errorf("%d attempts at once, want %d", most, MaxUnproven)
		}
		// The first ones, those while it was down, and the requests when it was up.
		if n := s.attempts.Load(); n > 30+MaxUnproven+10 {
			t.Errorf("%d attempts", n)
		}
		if len(recovered) != 1 || recovered[0] < away-time.Second || recovered[0] > time.Since(start) {
			t.Errorf("recovered after %v", recovered)
		}
	})
}

func TestOneAttemptAtATimeWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, s := new(Gate), &server{up: time.Now().Add(time.Hour)}
		if _, err := do(t.Context(), g, s, time.Millisecond/2); err == nil {
			t.Fatal("served")
		}
		s.most.Store(0)
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if took, err := do(t.Context(), g, s, 10*time.Second); !errors.Is(err, errDown) || took != 10*time.Second {
					t.Errorf("%v after %v", err, took)
				}
			})
		}
		all.Wait()
		if most, n := s.most.Load(), s.attempts.Load(); most != 1 || n > 16 {
			t.Errorf("%d attempts, up to %d at once", n, most)
		}
	})
}

func TestKnownServerIsNotGated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, s := new(Gate), &server{up: time.Now().Add(time.Second), hangs: true}
		var all sync.WaitGroup
		for range 3 * MaxUnproven {
			all.Go(func() { _ = g.Do(t.Context(), time.Second, isUp, s.dial, asIs) })
		}
		all.Wait()
		if most := s.most.Load(); most != 3*MaxUnproven {
			t.Errorf("%d attempts at once", most)
		}
	})
}

// TestSentRequestIsNotRepeated: a request that may have been delivered fails with
// its attempt.
func TestSentRequestIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, s := new(Gate), &server{up: time.Now().Add(time.Second), sent: true}
		if took, err := do(t.Context(), g, s, time.Minute); !errors.Is(err, errDown) || took > time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
		s.hangs = true
		g.Reset()
		time.AfterFunc(100*time.Millisecond, g.NetworkChanged)
		if took, err := do(t.Context(), g, s, time.Minute); !errors.Is(err, ErrNetworkChanged) || took != 100*time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
		if n := s.attempts.Load(); n != 2 {
			t.Errorf("%d attempts", n)
		}
	})
}

// TestNetworkChangeRepeatsAttempts: attempts that hang are made again at once when
// the network changes, and so are those that wait.
func TestNetworkChangeRepeatsAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, s := new(Gate), &server{up: time.Now().Add(time.Second), hangs: true}
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if took, err := do(t.Context(), g, s, time.Minute); err != nil || took != time.Second {
					t.Errorf("%v after %v", err, took)
				}
			})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		g.NetworkChanged()
		all.Wait()
	})
}

// TestOutcomeOfEarlierEpochDoesNotCount: what an attempt found on the network that
// is gone says nothing about the server.
func TestOutcomeOfEarlierEpochDoesNotCount(t *testing.T) {
	g := new(Gate)
	e, _ := g.acquire(false)
	g.NetworkChanged()
	if !e.Over() || g.Epoch().Over() {
		t.Error("the epoch did not change")
	}
	g.noAnswer(e, errDown)
	g.release(e, Unreachable, errDown)
	for range MaxUnproven {
		if e, w := g.acquire(false); e == nil {
			t.Fatalf("an attempt has to wait: %v", w.down)
		}
	}
	if e, _ := g.acquire(false); e != nil || g.lastFailure() != nil {
		t.Error("the old attempt was counted")
	}
}

func TestAbandonedRequestLetsAnotherTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, s := new(Gate), &server{up: time.Now().Add(2 * time.Second), hangs: true}
		var all sync.WaitGroup
		for range MaxUnproven {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				if took, err := do(ctx, g, s, time.Minute); !errors.Is(err, context.DeadlineExceeded) || took != 2*time.Second {
					t.Errorf("%v after %v", err, took)
				}
			})
		}
		synctest.Wait()
		if took, err := do(t.Context(), g, s, time.Minute); err != nil || took != 2*time.Second {
			t.Errorf("%v after %v", err, took)
		}
		all.Wait()
	})
}

// TestNoAnswerIsReportedAtOnce: others hear of a server that does not answer, while
// the attempt goes on and may succeed.
func TestNoAnswerIsReportedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := new(Gate)
		var reported atomic.Int64
		report := func(err, before error) error {
			if errors.Is(err, errDown) && before == nil {
				reported.Add(1)
			}
			return err
		}
		slow := func(_ context.Context, noAnswer func(error)) (Outcome, bool, error) {
			time.Sleep(time.Second)
			noAnswer(errDown)
			time.Sleep(time.Second)
			return OK, false, nil
		}
		var all sync.WaitGroup
		for range MaxUnproven + 3 {
			all.Go(func() {
				if err := g.Do(t.Context(), time.Minute, notUp, slow, report); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := reported.Load(); n != MaxUnproven+3 {
			t.Errorf("%d requests heard of it", n)
		}
		all.Wait()
	})
}

// TestErrorOfAttemptsWaitedFor: a request that made no attempt of its own fails with
// what those of others found.
func TestErrorOfAttemptsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 10 * time.Second
		g := new(Gate)
		fails := func(ctx context.Context, _ func(error)) (Outcome, bool, error) {
			<-ctx.Done()
			return Canceled, true, errDown
		}
		var all sync.WaitGroup
		for range MaxUnproven {
			all.Go(func() { _ = g.Do(t.Context(), limit, notUp, fails, asIs) })
		}
		synctest.Wait()
		err := g.Do(t.Context(), limit-time.Second, notUp, func(context.Context, func(error)) (Outcome, bool, error) {
			t.Error("it made an attempt")
			return OK, false, nil
		}, asIs)
		if !errors.Is(err, errDown) {
			t.Error(err)
		}
		all.Wait()
	})
}

func TestTryMakesNoRequestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := new(Gate)
		try := func(found Outcome) bool {
			return g.Try(t.Context(), false, func(context.Context) Outcome { return found })
		}
		before := time.Now().Add(-time.Nanosecond)
		if !try(Canceled) || g.ReachedSince(before) {
			t.Error("an attempt that failed")
		}
		if !try(OK) || !g.ReachedSince(before) || g.ReachedSince(time.Now()) {
			t.Error("an attempt that succeeded")
		}
		s := &server{up: time.Now().Add(time.Hour)}
		_, _ = do(t.Context(), g, s, time.Millisecond)
		if try(OK) {
			t.Error("an attempt during the pause")
		}
		g.Reset()
		if !try(OK) {
			t.Error("no attempt after Reset")
		}
	})
}

// TestOldFailureIsForgotten: what nobody has looked at since is not held against a
// server.
func TestOldFailureIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gate{OnRecovered: func(d time.Duration) { t.Errorf("recovered after %v", d) }}
		s := &server{up: time.Now().Add(time.Second)}
		_, _ = do(t.Context(), g, s, time.Second/2)
		time.Sleep(3 * MaxPause)
		if err := g.Do(t.Context(), time.Second, notUp, s.dial, func(err, _ error) error {
			t.Errorf("reported %v", err)
			return err
		}); err != nil {
			t.Error(err)
		}
	})
}
