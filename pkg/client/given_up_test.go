package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/carrier/wsconn"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/transporttest"
)

// newV2Ray returns a far end that has answered once, as V2Ray does, and a guard
// of it that has forgotten all else.
func newV2Ray(t *testing.T, patience time.Duration) (*farEnd, *guard) {
	t.Helper()
	f, g := newFarEnd(t, 0)
	id, _ := vmess.ParseID(testID)
	method, _ := vmess.ParseMethod("aes-128-gcm", true, false)
	g.account = vmess.NewAccount(vmess.AccountConfig{ID: id, Method: method, AEADDisabled: true, EndPatience: patience})
	g.dialer.Client, g.prober.Account = g.account, g.account
	f.asV2Ray = true
	greet := dialGuarded(t, g, "x")
	if _, err := greet.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if kind := g.account.ServerKind(); kind != vmess.KindV2Ray {
		t.Fatalf("the far end is of kind %d", kind)
	}
	g.account.SetMode(vmess.ModeAEAD)
	f.asV2Ray, g.found = false, outcome{}
	return f, g
}

// closesAfter has the connections to come closed in order, without an answer, so
// long after their first bytes.
func (f *farEnd) closesAfter(d time.Duration, times int) {
	f.refuses = f.connections() + times
	f.refuse = func(c *transporttest.Conn) {
		if _, err := c.Read(make([]byte, 16)); err != nil {
			return
		}
		timer := time.AfterFunc(d, func() { _ = c.Close() })
		defer timer.Stop()
		_, _ = io.Copy(io.Discard, c)
	}
}

// TestRefusedAtOnce: V2Ray closes a request that its replay filter refused by
// mistake within round trips, and closes alike what it carried out and gave up
// later. Only the former is sent again.
func TestRefusedAtOnce(t *testing.T) {
	for name, tt := range map[string]struct {
		closes time.Duration // after the flight
		trip   time.Duration
		silent time.Duration // the application, before it says something
		half   bool          // it ends its side then
		again  bool
		cause  diagnose.Cause
	}{
		"at once":                     {again: true},
		"in time":                     {closes: 1400 * time.Millisecond, again: true},
		"too late":                    {closes: 1600 * time.Millisecond, cause: diagnose.DestinationNoAnswer},
		"far away":                    {closes: 2 * time.Second, trip: 200 * time.Millisecond, again: true},
		"far away, too late":          {closes: 2200 * time.Millisecond, trip: 200 * time.Millisecond, cause: diagnose.DestinationNoAnswer},
		"a very slow upgrade":         {closes: 5 * time.Second, trip: 9 * time.Second, cause: diagnose.DestinationNoAnswer},
		"the application was silent":  {closes: time.Second, silent: time.Minute, again: true},
		"it was silent, too late":     {closes: 4 * time.Second, silent: time.Minute, cause: diagnose.DestinationNoAnswer},
		"the end mark is out":         {closes: 1200 * time.Millisecond, half: true, cause: diagnose.DestinationNoAnswer},
		"the end mark is out in vain": {closes: 4 * time.Second, half: true, cause: diagnose.DestinationNoAnswer},
		"connIdle":                    {closes: 300 * time.Second, cause: diagnose.TunnelIdleCut},
		"twice connIdle":              {closes: 600 * time.Second, silent: time.Minute, cause: diagnose.TunnelIdleCut},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, g := newV2Ray(t, time.Second)
				f.closesAfter(tt.closes, 1)
				g.path.handshakeRTT.Store(int64(tt.trip))
				before := f.connections()
				var c transport.StreamConn
				if tt.silent > 0 {
					c = dialGuarded(t, g, "")
					time.Sleep(tt.silent)
					if _, err := io.WriteString(c, "hello"); err != nil {
						t.Fatal(err)
					}
				} else {
					c = dialGuarded(t, g, "hello")
				}
				if tt.half {
					if err := c.CloseWrite(); err != nil {
						t.Fatal(err)
					}
				}
				got := make([]byte, 5)
				_, err := io.ReadFull(c, got)
				var told *VerdictError
				switch n := f.connections() - before; {
				case tt.again && (n != 2 || err != nil || string(got) != "hello"):
					t.Errorf("read %q, %v by %d connections, want it sent again", got, err, n)
				case !tt.again && n != 1:
					t.Errorf("it was sent %d times", n)
				case !tt.again && (!errors.As(err, &told) || told.Verdict.Cause != tt.cause):
					t.Errorf("read: %v, want %s", err, tt.cause)
				}
			})
		})
	}
}

// TestDatagramsGivenUp: the same for datagrams, of which it is normal that
// nobody answers.
func TestDatagramsGivenUp(t *testing.T) {
	for name, tt := range map[string]struct {
		closes time.Duration
		times  int
	}{
		"refused by mistake": {0, 2}, "given up": {4 * time.Second, 1}, "connIdle": {300 * time.Second, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, g := newV2Ray(t, 0)
				var text lockedBuffer
				logTo(g, slog.New(slog.NewTextHandler(&text, nil)))
				f.closesAfter(tt.closes, 1)
				before := f.connections()
				c, err := guardedPackets{g}.DialPacket(t.Context(), somewhere)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				time.Sleep(time.Minute)
				if err := c.WritePacket([]byte("hello"), somewhere); err != nil {
					t.Fatal(err)
				}
				_, _, err = c.ReadPacket(make([]byte, 64))
				if n := f.connections() - before; n != tt.times || (err == nil) != (n == 2) {
					t.Errorf("%v after it was sent %d times, want %d", err, n, tt.times)
				}
				if said := text.take(); said != "" {
					t.Errorf("said %q", said)
				}
			})
		})
	}
}

// TestEarlyDataHealedBeside: what the first request's silence shows of early
// data concerns those that began as early data. The first did not, and those
// behind it do not any more: all are carried out once, and none is refused.
func TestEarlyDataHealedBeside(t *testing.T) {
	for name, healed := range map[string]bool{"healed": true, "not healed": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, g := newV2Ray(t, 0)
				time.Sleep(2 * freshness) // so that silence is asked about
				var probes atomic.Int64
				f.thinks = func(int) time.Duration { return 7 * time.Second }
				g.prober.Endpoint = transport.EndpointFunc(func(ctx context.Context, first []byte) (transport.StreamConn, error) {
					probes.Add(1)
					return (&farEnd{t: t, server: f.server}).ConnectStream(ctx, first)
				})
				g.prober.EarlyEndpoint = transport.EndpointFunc(func(context.Context, []byte) (transport.StreamConn, error) {
					near, far := transporttest.Pipe(8 << 10)
					_ = far.Close()
					return near, nil
				})
				g.path.early.Store(true)
				g.heal.EarlyData = healed
				g.found, g.ended, g.next = outcome{}, time.Time{}, time.Time{}
				before := f.connections()
				for i := range 2 {
					c := dialGuarded(t, g, "hello")
					got := make([]byte, 5)
					if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
						t.Errorf("request %d: %q, %v", i, got, err)
					}
					time.Sleep(2 * freshness)
				}
				if n := f.connections() - before; n != 2 {
					t.Errorf("2 requests were sent %d times", n)
				}
				if probes.Load() == 0 || g.path.early.Load() == healed {
					t.Errorf("%d probes, early data is used: %v", probes.Load(), g.path.early.Load())
				}
			})
		})
	}
}

// TestEarlyDataUnproven: a probe that did not even get its upgrade is a reason
// to go on without early data, and no proof that a request was lost that did.
func TestEarlyDataUnproven(t *testing.T) {
	for early, lost := range map[diagnose.ProbeResult]bool{diagnose.ProbeFailed: false, diagnose.ProbeSilent: true} {
		_, g := newFarEnd(t, 0)
		sig := signals{early: early}
		sig.Configured, sig.EarlyDataLost = diagnose.ProbeAccepted, true
		if o := g.act(sig); !o.healed || !o.fine || o.failed(transmission{early: true}) != lost {
			t.Errorf("the probe %v: %+v", early, o)
		}
	}
}

// TestOnlyWhatFailedIsSentAgain: what a healing put right says nothing of the
// requests that were sent otherwise.
func TestOnlyWhatFailedIsSentAgain(t *testing.T) {
	old, now := signature{vmess.ModeLegacy, 0}, signature{vmess.ModeAEAD, 0}
	for _, tt := range []struct {
		o     outcome
		f     transmission
		again bool
	}{
		{outcome{healed: true, early: true}, transmission{early: true}, true},
		{outcome{healed: true, early: true}, transmission{}, false},
		{outcome{healed: true}, transmission{early: true}, false}, // nobody knows whether it was lost
		{outcome{healed: true, refused: &old}, transmission{signed: old}, true},
		{outcome{healed: true, refused: &old}, transmission{signed: now}, false},
		{outcome{healed: true, refused: &old}, transmission{signed: signature{vmess.ModeLegacy, time.Hour}}, false},
		{outcome{early: true}, transmission{early: true}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			_, g := newFarEnd(t, 0)
			tt.o.fine = true
			g.found = tt.o
			x := &retryStream{request: request{guard: g, start: time.Now(), dst: somewhere, flight: tt.f}}
			x.impl = x
			x.conn.Store(new(vmess.Conn))
			if d := g.silent(&x.request); d.again != tt.again || !tt.again && d.wait == tt.o.failed(tt.f) {
				t.Errorf("%+v is silent after %+v: %+v", tt.f, tt.o, d)
			}
			if d := g.refused(&x.request, vmess.ErrNoAnswer, time.Now()); d.again != tt.again {
				t.Errorf("%+v is refused after %+v: %+v", tt.f, tt.o, d)
			}
		})
	}
}

// TestPartSentIsNotSentAgain: a request of which a part may have arrived goes
// neither to the server that returns nor to another.
func TestPartSentIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, part := range []bool{false, true} {
			l := newComebackLab(t)
			if l.fault = wsconn.ErrClosedEarly; part {
				l.fault = fmt.Errorf("%w (%w)", l.fault, transport.ErrPartSent)
			}
			time.Sleep(healthyFor)
			l.leaveFor(time.Second)
			took, err := l.ask(t.Context())
			if (err != nil) != part || part != (took == 0) {
				t.Errorf("a part was sent: %v; %v after %v", part, err, took)
			}
			if part && l.guard.notExecuted(err, []byte("hello")) {
				t.Error("another server may carry it out")
			}
		}
	})
}
