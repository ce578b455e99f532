package client

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fakeTunnels are the open tunnels of a server as a test wants them.
type fakeTunnels struct {
	ponged, heard bool
}

func (f fakeTunnels) AnswersPings() bool             { return f.ponged }
func (f fakeTunnels) HeardWithin(time.Duration) bool { return f.heard }
func (f fakeTunnels) Ping()                          {}

// TestLiveness plays the check of a tunnel on which a request waits.
func TestLiveness(t *testing.T) {
	for _, tt := range []struct {
		name    string
		tunnels fakeTunnels
		noPings bool
		used    bool
		connect error // of a new tunnel; errHangs: it is silent
		want    []string
		gone    bool
	}{
		{"frozen", fakeTunnels{ponged: true}, false, false, errHangs, []string{"down 5s", "retire 5s"}, true},
		{"frozen in use", fakeTunnels{ponged: true}, false, true, errHangs, []string{"down 5s", "retire 5s"}, true},
		{"frozen, and it refuses", fakeTunnels{ponged: true}, false, false, errors.New("refused"), []string{"down 5s", "retire 5s"}, true},
		{"another tunnel answers, this one never did", fakeTunnels{ponged: true, heard: true}, false, false, errHangs, nil, false},
		{"another tunnel answers, this one did", fakeTunnels{ponged: true, heard: true}, false, true, errHangs, []string{"retire 5s"}, true},
		{"a new tunnel comes about, this one was never answered", fakeTunnels{ponged: true}, false, false, nil, nil, false},
		{"a new tunnel comes about, this one was answered", fakeTunnels{ponged: true}, false, true, nil, []string{"retire 5s"}, true},
		{"pings were never answered, frozen", fakeTunnels{}, false, true, errHangs, []string{"down 5s", "retire 5s"}, true},
		{"pings were never answered, a new tunnel comes about", fakeTunnels{}, false, true, nil, nil, false},
		{"pings were never answered, another tunnel is heard", fakeTunnels{heard: true}, false, true, errHangs, nil, false},
		{"no pings, frozen", fakeTunnels{ponged: true}, true, true, errHangs, []string{"down 5s", "retire 5s"}, true},
		{"no pings, a new tunnel comes about", fakeTunnels{ponged: true}, true, true, nil, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var did []string
				note := func(what string) func() {
					return func() { did = append(did, what+" "+time.Since(start).String()) }
				}
				ctx, cancel := context.WithCancel(t.Context())
				l := &liveness{
					ctx: ctx, tunnels: &tt.tunnels, pings: !tt.noPings, pong: 5 * time.Second,
					connect: func(ctx context.Context) error {
						if errors.Is(tt.connect, errHangs) {
							<-ctx.Done()
						}
						return tt.connect
					},
					retire: note("retire"), down: note("down"),
				}
				l.Waiting()
				time.Sleep(4 * time.Second)
				l.Doubt()
				time.Sleep(time.Second)
				l.Silent(tt.used)
				l.judge() // of another tunnel
				time.Sleep(5 * time.Second)
				gone := l.Gone(tt.used)
				if !slices.Equal(did, tt.want) || gone != tt.gone {
					t.Errorf("did %q, gone is %v, want %q, %v", did, gone, tt.want, tt.gone)
				}
				cancel()
				l.close()
			})
		})
	}
}

var errHangs = errors.New("no answer")

// TestLivenessConnectsOnce: however many requests wait, one attempt to connect
// serves them all.
func TestLivenessConnectsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var attempts atomic.Int64
		l := &liveness{
			ctx: t.Context(), tunnels: &fakeTunnels{}, pings: true, pong: 5 * time.Second,
			connect: func(ctx context.Context) error { attempts.Add(1); <-ctx.Done(); return ctx.Err() },
			retire:  func() {}, down: func() {},
		}
		for range 20 {
			l.Waiting()
		}
		time.Sleep(5 * time.Second)
		l.close()
		if n := attempts.Load(); n != 1 {
			t.Errorf("%d attempts", n)
		}
	})
}

// TestLivenessLeavesHealthyServerAlone: a request to a slow destination causes no
// connection to a server that answers the ping.
func TestLivenessLeavesHealthyServerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &liveness{
			ctx: t.Context(), tunnels: answersSoon{at: time.Now().Add(100 * time.Millisecond)}, pings: true, pong: 5 * time.Second,
			connect: func(context.Context) error { t.Error("connected"); return nil },
			retire:  func() {}, down: func() {},
		}
		l.Waiting()
		l.close()
	})
}

// answersSoon are tunnels whose first ping is answered then.
type answersSoon struct {
	fakeTunnels
	at time.Time
}

func (a answersSoon) AnswersPings() bool             { return time.Now().After(a.at) }
func (a answersSoon) HeardWithin(time.Duration) bool { return time.Now().After(a.at) }
