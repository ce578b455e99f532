package e2e

import (
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// TestRestart: a server that was killed is started again a while later, itself
// or behind nginx. Meanwhile that is told at once, and once, and the requests
// are served when it is back.
func TestRestart(t *testing.T) {
	t.Parallel()
	const page = 10
	for _, tt := range []struct {
		name  string
		away  time.Duration
		front bool
		cause string
	}{
		{"for 1 s", time.Second, false, "tcp.refused"},
		{"for 4 s", 4 * time.Second, false, "tcp.refused"},
		{"for 2 s behind nginx", 2 * time.Second, true, "ws.bad-gateway"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := serverConfig()
			cfg.Listen = freePort(t)
			far := ourServer(t, cfg)
			remote := remoteAt(t, far.addr)
			if tt.front {
				certs := newCertificates(t)
				remote = overTLS(remoteAt(t, startNginx(t, far.addr, certs, 0).addr), certs)
			}
			origin := echoOrigin(t)
			l := newLab(t, labSetup{remote: remote, change: func(c *config.Client) { c.Warm.Max = 4 }})
			l.ask(origin, "hello\n", 6).wantData(t, "hello\n")

			far.proc.kill()
			gone := time.Now()
			var all sync.WaitGroup
			for range page {
				all.Go(func() {
					r := askVia(l.addr, origin, "hello\n", 6, startPatience)
					r.wantData(t, "hello\n")
				})
			}
			told := l.awaitCause(t, tt.cause)
			if took := told.Time.Sub(gone); took > time.Second+slowness {
				t.Errorf("it was told after %v", took)
			}
			time.Sleep(time.Until(gone.Add(tt.away))) // the time that it is away
			far.restart(t)
			back := time.Now()
			all.Wait()
			if late := time.Since(back); late > 2*time.Second+slowness {
				t.Errorf("served %v after it was back", late)
			}
			if n := strings.Count(l.text.String(), "error: "+tt.cause); n != 1 {
				t.Errorf("it was told %d times:\n%s", n, l.text)
			}
		})
	}
}

// TestRestartTakesLong: nobody waits for longer than limits.dial; who comes
// near the end is served.
func TestRestartTakesLong(t *testing.T) {
	t.Parallel()
	const dial = 3 * time.Second
	cfg := serverConfig()
	cfg.Listen = freePort(t)
	far := ourServer(t, cfg)
	origin := echoOrigin(t)
	l := newLab(t, labSetup{remote: remoteAt(t, far.addr), change: func(c *config.Client) { c.Limits.Dial = config.Duration(dial) }})
	l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
	far.proc.kill()
	first := make(chan struct{})
	go func() { // finds out, and may have been promised a stream before
		defer close(first)
		askVia(l.addr, origin, "hello\n", 6, startPatience)
	}()
	l.awaitCause(t, "tcp.refused")
	start := time.Now()
	l.ask(origin, "hello\n", 6).wantCode(t, replyConnRefused)
	<-first
	if took := time.Since(start); took < dial || took > dial+slowness {
		t.Errorf("it failed after %v, want %v", took, dial)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
	}()
	time.Sleep(dial / 3) // near the end
	far.restart(t)
	<-served
}

// TestRestartFor30s: a server is away for half a minute. Who asks meanwhile is
// told after limits.dial, who asks near the end is served as soon as it is
// back, and so is who asks then. It is told when it went, and what came again
// is counted.
func TestRestartFor30s(t *testing.T) {
	t.Parallel()
	const away, every = 30 * time.Second, time.Second
	dial := time.Duration(config.DefaultClient().Limits.Dial)
	cfg := serverConfig()
	cfg.Listen = freePort(t)
	ours, theirs := ourServer(t, cfg), startV2rayServer(t, v2rayServer{})
	for _, tt := range []struct {
		name string
		far  *end
	}{{"ours", ours}, {"V2Ray's", theirs}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			origin := echoOrigin(t)
			l := newLab(t, labSetup{remote: remoteAt(t, tt.far.addr), change: func(c *config.Client) { c.Warm.Max = 4 }})
			l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
			tt.far.proc.kill()
			gone := time.Now()
			var all sync.WaitGroup
			all.Go(func() { askVia(l.addr, origin, "hello\n", 6, away) }) // may have been promised a stream before
			l.awaitCause(t, "tcp.refused")
			for at := every; at < away; at += every {
				all.Go(func() {
					time.Sleep(at) // an application of its own, which asks then
					r := askVia(l.addr, origin, "hello\n", 6, away)
					switch {
					case at+dial < away-2*time.Second && (r.code != replyConnRefused || r.coded < dial || r.coded > dial+slowness):
						t.Errorf("asked after %v: %d after %v, want a refusal after %v", at, r.code, r.coded, dial)
					case at+dial > away+2*time.Second && (r.data != "hello\n" || at+r.ended > away+2*time.Second+slowness):
						t.Errorf("asked after %v: %v, %q after %v", at, r.end, r.data, r.ended)
					}
				})
			}
			time.Sleep(time.Until(gone.Add(away))) // the time that it is away
			tt.far.restart(t)
			all.Wait()
			l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
			if n := strings.Count(l.text.String(), "error: tcp.refused"); n != 1 {
				t.Errorf("it was told %d times:\n%s", n, l.text)
			}
		})
	}
}

// TestRestartOfAll: of several servers those that worked are away, and one that
// never did. Requests wait for the first that is back, and do not hammer any.
func TestRestartOfAll(t *testing.T) {
	t.Parallel()
	const page, away = 10, 2 * time.Second
	for _, back := range []int{1, 2} {
		t.Run(string(rune('a'+back)), func(t *testing.T) {
			t.Parallel()
			origin := echoOrigin(t)
			remotes := []config.Remote{remoteAt(t, deadAddress(t))}
			var fars []*end
			for range 2 {
				cfg := serverConfig()
				cfg.Listen = freePort(t)
				far := ourServer(t, cfg)
				fars = append(fars, far)
				remotes = append(remotes, remoteAt(t, far.addr))
			}
			l := severalServers(t, remotes...)
			l.ask(origin, "hello\n", 6).wantData(t, "hello\n") // by b
			fars[0].proc.kill()
			l.ask(origin, "hello\n", 6).wantData(t, "hello\n") // by c
			fars[1].proc.kill()
			gone := time.Now()
			var all sync.WaitGroup
			for range page {
				all.Go(func() { askVia(l.addr, origin, "hello\n", 6, startPatience).wantData(t, "hello\n") })
			}
			time.Sleep(time.Until(gone.Add(away))) // the time that they are away
			fars[back-1].restart(t)
			came := time.Now()
			all.Wait()
			if late := time.Since(came); late > 2*time.Second+slowness {
				t.Errorf("served %v after it was back", late)
			}
			l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
		})
	}
}

// TestAbandonedRequestStopsWaiting: an application that goes away while its request waits
// for the server is let go at once.
func TestAbandonedRequestStopsWaiting(t *testing.T) {
	cfg := serverConfig()
	cfg.Listen = freePort(t)
	far := ourServer(t, cfg)
	origin := echoOrigin(t)
	l := newLab(t, labSetup{remote: remoteAt(t, far.addr), change: func(c *config.Client) { c.Limits.Dial = config.Duration(time.Minute) }})
	l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
	far.proc.kill()
	base := settled(0)
	var waiting []*net.TCPConn
	for range 20 {
		c, err := net.Dial("tcp", l.addr)
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, c.(*net.TCPConn))
		if err := connectRequest(c, origin); err != nil {
			t.Fatal(err)
		}
	}
	l.awaitCause(t, "tcp.refused")
	for i, c := range waiting {
		if i%2 == 0 {
			_ = c.SetLinger(0) // the close is a reset
		}
		_ = c.Close()
	}
	if left := settled(base); left > base {
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines before, %d after:\n%s", base, left, stacks[:runtime.Stack(stacks, true)])
	}
}
