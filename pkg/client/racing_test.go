package client_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/host/netmon"
	"vmess-local/pkg/server"
)

// How a server of a starting grid behaves besides answering after a while.
const (
	neverAnswers = -1
	refuses      = -2
)

// A startingGrid is a client with several servers, of which the tests say after
// how long each can be connected to.
type startingGrid struct {
	near     *pipeListener
	said     notebook
	requests atomic.Int64 // that reached a destination
	tunnels  []atomic.Int64

	mu      sync.Mutex
	after   []time.Duration // how long connecting takes
	dials   []int           // made: package netdial makes several of one that is silent
	dialing map[int]int     // under way
}

// dialsOfSilent is how many one attempt of 5 s is made of.
const dialsOfSilent = 4

// newStartingGrid runs one in the test's bubble; stop ends it.
func newStartingGrid(t *testing.T, change func(*config.Client), after ...time.Duration) (g *startingGrid, stop func()) {
	t.Helper()
	g = &startingGrid{near: newPipeListener(), after: after, dials: make([]int, len(after)), dialing: map[int]int{}, tunnels: make([]atomic.Int64, len(after))}
	var serving sync.WaitGroup
	host := newPipeListener()
	s, err := server.New(inMemoryServer(t), server.Options{Listener: host, Dialer: destination{&serving, func(c net.Conn) {
		g.requests.Add(1)
		echo(c)
	}}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := inMemoryClient(t)
	cfg.Warm.Max = 0
	for i := range after {
		r := cfg.Server
		r.Address, r.Name = fmt.Sprintf("192.0.2.%d", i+1), fmt.Sprintf("s%d", i)
		cfg.Servers = append(cfg.Servers, r)
	}
	cfg.Server = config.DefaultClient().Server
	if change != nil {
		change(cfg)
	}
	if err := cfg.Normalize(); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cfg, client.Options{
		Listener: g.near, Log: slog.New(logging.New(&g.said, slog.LevelInfo, false)),
		DialTCP: func(ctx context.Context, network, addr string) (net.Conn, error) {
			var i int
			if _, err := fmt.Sscanf(addr, "192.0.2.%d:80", &i); err != nil {
				return nil, err
			}
			return g.dial(ctx, i-1, host)
		},
		Watcher: &netmon.Monitor{Notices: make(chan struct{}), Addresses: func() netmon.Addresses { return nil }},
	})
	if err != nil {
		t.Fatal(err)
	}
	end := runAll(t, s.Run, c.Run)
	return g, func() { end(); serving.Wait() }
}

func (g *startingGrid) dial(ctx context.Context, i int, host *pipeListener) (net.Conn, error) {
	g.mu.Lock()
	after := g.after[i]
	g.dials[i]++
	g.dialing[i]++
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.dialing[i]--; g.dialing[i] == 0 {
			delete(g.dialing, i)
		}
	}()
	switch {
	case after == refuses:
		return nil, syscall.ECONNREFUSED
	case after == neverAnswers:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	select {
	case <-time.After(after):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	g.tunnels[i].Add(1)
	return host.dial(ctx, "", "")
}

// ask makes a request, and wants an answer after so long.
func (g *startingGrid) ask(t *testing.T, want time.Duration) {
	t.Helper()
	start := time.Now()
	if err := askOnce(t, g.near); err != nil {
		t.Fatalf("%v\n%s", err, g.said.String())
	}
	if took := time.Since(start).Round(time.Millisecond); took < want || took > want+50*time.Millisecond {
		t.Errorf("answered after %v, want %v", took, want)
	}
}

// made returns how often a server was dialled.
func (g *startingGrid) made(i int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dials[i]
}

// failures are the lines about servers in what was said.
func (g *startingGrid) failures() (all []string) {
	for line := range strings.Lines(g.said.String()) {
		if strings.HasPrefix(line, "error: ") || strings.HasPrefix(line, "now using ") {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return all
}

// Silent servers are not waited for one after the other; when their time is over
// they are down, which is said once, and the request went out once.
func TestRaceOfServers(t *testing.T) {
	const good = 10 * time.Millisecond
	for _, tt := range []struct {
		name  string
		after []time.Duration
		want  time.Duration
	}{
		{"the first answers", []time.Duration{good, neverAnswers, good}, good},
		{"the first is slow", []time.Duration{900 * time.Millisecond, good}, 900 * time.Millisecond},
		{"the first is silent", []time.Duration{neverAnswers, good}, time.Second + good},
		{"three are silent", []time.Duration{neverAnswers, neverAnswers, neverAnswers, good}, 1400*time.Millisecond + good},
		{"the first refuses", []time.Duration{refuses, good}, good},
		{"notes before servers", []time.Duration{neverAnswers, neverAnswers, refuses, good, good}, 1200*time.Millisecond + good},
		{"all refuse but one", []time.Duration{refuses, refuses, refuses, refuses, good}, good},
		{"a slow one is overtaken", []time.Duration{neverAnswers, 600 * time.Millisecond, good}, 1200*time.Millisecond + good},
	} {
		for _, mux := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, mux %v", tt.name, mux), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g, stop := newStartingGrid(t, func(c *config.Client) { c.Mux.Enabled = mux }, tt.after...)
					defer stop()
					g.ask(t, tt.want)
					if n := g.requests.Load(); n != 1 {
						t.Errorf("the destination got %d requests", n)
					}
					silent, refused := 0, 0
					for _, after := range tt.after[:len(tt.after)-1] {
						switch after {
						case neverAnswers:
							silent++
						case refuses:
							refused++
						}
					}
					if tt.after[0] == neverAnswers {
						if n := len(g.failures()); n != refused {
							t.Errorf("%d lines while nobody knows more: %q", n, g.failures())
						}
					} else if tt.after[0] != refuses {
						silent = 0 // it was not looked for
					}
					time.Sleep(10 * time.Second)
					want := silent + refused
					if want > 0 {
						want++ // and which is used
					}
					if got := g.failures(); len(got) != want {
						t.Errorf("%d lines, want %d: %q", len(got), want, got)
					}
					for i, after := range tt.after[:len(tt.after)-1] {
						if n := g.made(i); n > dialsOfSilent && after == neverAnswers {
							t.Errorf("server %d was dialled %d times", i, n)
						}
					}
				})
			})
		}
	}
}

// Requests that come together share one race, and those that come while it is
// not known what has become of the silent ones go where it led.
func TestRaceIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, stop := newStartingGrid(t, nil, neverAnswers, neverAnswers, 10*time.Millisecond)
		defer stop()
		var all sync.WaitGroup
		for range 30 {
			all.Go(func() { g.ask(t, 1210*time.Millisecond) })
		}
		all.Wait()
		for range 20 { // 4 s
			start := time.Now()
			if err := askOnce(t, g.near); err != nil || time.Since(start) > 20*time.Millisecond {
				t.Errorf("%v after %v", err, time.Since(start))
			}
			time.Sleep(200 * time.Millisecond)
		}
		if a, b := g.made(0), g.made(1); a > dialsOfSilent || b > dialsOfSilent {
			t.Errorf("the silent servers were dialled %d and %d times", a, b)
		}
		if n := g.requests.Load(); n != 50 {
			t.Errorf("%d requests at the destination, want 50", n)
		}
	})
}

// A lost race says nothing of a server: nothing is logged, the one in use stays
// the one in use, and the next request goes there by the tunnel that came late.
func TestLostRaceIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, stop := newStartingGrid(t, nil, 1500*time.Millisecond, 10*time.Millisecond)
		defer stop()
		g.ask(t, 1010*time.Millisecond)
		time.Sleep(time.Second)
		g.ask(t, 0)
		if n, m := g.tunnels[0].Load(), g.tunnels[1].Load(); n != 1 || m != 1 {
			t.Errorf("%d and %d tunnels, want one each", n, m)
		}
		time.Sleep(5 * time.Minute)
		if got := g.failures(); len(got) > 0 {
			t.Errorf("told were %q", got)
		}
	})
}

// No more than twelve servers are dialled at one time, and the list is gone
// through all the same.
func TestRaceIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		after := make([]time.Duration, 31)
		for i := range 30 {
			after[i] = neverAnswers
		}
		after[30] = 10 * time.Millisecond
		g, stop := newStartingGrid(t, nil, after...)
		defer stop()
		answered := make(chan error)
		go func() { answered <- askOnce(t, g.near) }()
		start, most := time.Now(), 0
		for over := false; !over; {
			select {
			case err := <-answered:
				if over = true; err != nil {
					t.Error(err)
				}
			case <-time.After(20 * time.Millisecond):
				synctest.Wait()
				g.mu.Lock()
				most = max(most, len(g.dialing))
				g.mu.Unlock()
			}
		}
		if took := time.Since(start); took > 15*time.Second {
			t.Errorf("answered after %v", took)
		}
		if most != 12 {
			t.Errorf("%d servers were dialled at one time, want 12", most)
		}
	})
}

// A race that nobody waits for any more ends, and reports nothing: here because
// the program ends, which does not wait for it.
func TestAbandonedRaceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, stop := newStartingGrid(t, nil, neverAnswers, neverAnswers, neverAnswers)
		app, err := g.near.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer app.Close()
		_, _ = io.WriteString(app, "GET http://192.0.2.7/ HTTP/1.1\r\nHost: 192.0.2.7\r\n\r\n")
		time.Sleep(1100 * time.Millisecond)
		start := time.Now()
		stop()
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("the end took %v", took)
		}
		if a, b := g.made(1), g.made(2); a != 1 || b != 0 {
			t.Errorf("the second server was dialled %d times, the third %d", a, b)
		}
		if got := g.failures(); len(got) > 0 {
			t.Errorf("reported were %q", got)
		}
	})
}
