//go:build unix

package e2e

import (
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// freeze stops the end's process as if it hung: its system goes on
// acknowledging what it is sent. It goes on at the end of the test at the latest.
func (e *end) freeze(t testing.TB) (thaw func()) {
	t.Helper()
	pid := e.proc.cmd.Process.Pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	thaw = func() { once.Do(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) }
	t.Cleanup(thaw)
	return thaw
}

// TestFrozenServer: a server freezes on which ready tunnels wait. No request
// hangs longer than limits.dial and 3 s, new ones use the next server once the
// first is noticed, and none is carried out twice when the server goes on.
func TestFrozenServer(t *testing.T) {
	t.Parallel()
	const limit, slack = 13 * time.Second, 1500 * time.Millisecond
	servers := []struct {
		name  string
		start func(t testing.TB) *end
	}{
		{"V2Ray", func(t testing.TB) *end { return startV2rayServer(t, v2rayServer{}) }},
		{"ours", func(t testing.TB) *end { return ourServer(t, serverConfig()) }},
	}
	for _, server := range servers {
		for _, how := range []struct {
			name string
			mux  bool
			ping time.Duration
			rest time.Duration // before the freeze: long enough for pings to have been answered
		}{
			{"just used", false, 30 * time.Second, 0},
			{"known to answer pings", false, 6 * time.Second, 7 * time.Second},
			{"Mux, just used", true, 30 * time.Second, 0},
			{"Mux, known to answer pings", true, 6 * time.Second, 7 * time.Second},
			{"no pings", false, 0, 0},
		} {
			t.Run(server.name+", "+how.name, func(t *testing.T) {
				t.Parallel()
				visits := &visitBook{seen: map[string]int{}}
				origin := serveOrigin(t, visits.serve)
				frozen, spare := server.start(t), inProcessServer(t, serverConfig(), inProcess{})
				a, b := remoteAt(t, frozen.addr), remoteAt(t, spare.addr)
				a.Name, b.Name = "a", "b"
				a.WS.Ping, b.WS.Ping = config.Duration(how.ping), config.Duration(how.ping)
				l := newLab(t, labSetup{remote: a, change: func(c *config.Client) {
					c.Server, c.Servers = config.DefaultClient().Server, []config.Remote{a, b}
					c.Warm.Max, c.Mux.Enabled = 8, how.mux
				}})
				for i := range 12 {
					if answer, _, err := askLine(l.addr, origin, fmt.Sprint("before ", i)); err != nil {
						t.Fatalf("%q, %v", answer, err)
					}
				}
				time.Sleep(how.rest)
				thaw := frozen.freeze(t)
				var all sync.WaitGroup
				for i := range 12 {
					all.Go(func() {
						answer, took, err := askLine(l.addr, origin, fmt.Sprint("frozen ", i))
						t.Logf("request %d: %q, %v after %v", i, answer, err, took.Round(time.Millisecond))
						if took > limit+slack {
							t.Errorf("request %d hung for %v", i, took)
						}
					})
				}
				l.awaitServer(t, "b")
				for i := range 12 {
					if answer, took, err := askLine(l.addr, origin, fmt.Sprint("after ", i)); err != nil || took > 2*time.Second {
						t.Errorf("with the next server: %q, %v after %v", answer, err, took)
					}
				}
				all.Wait()
				thaw()
				time.Sleep(time.Second) // what it had taken is carried out
				visits.mu.Lock()
				defer visits.mu.Unlock()
				for id, n := range visits.seen {
					if n > 1 {
						t.Errorf("%q was carried out %d times", id, n)
					}
				}
			})
		}
	}
}

// A visitBook is an origin that counts what it is asked.
type visitBook struct {
	mu   sync.Mutex
	seen map[string]int
}

func (b *visitBook) serve(c *net.TCPConn) {
	line, err := readLine(c)
	if err != nil {
		return
	}
	b.mu.Lock()
	b.seen[line]++
	b.mu.Unlock()
	_, _ = io.WriteString(c, "seen\n")
}

// askLine asks an origin once, and returns how long the answer or the end took.
func askLine(proxy, origin, what string) (answer string, took time.Duration, err error) {
	start := time.Now()
	c, err := dialVia(proxy, origin)
	if err != nil {
		return "", time.Since(start), err
	}
	defer c.Close()
	_ = c.SetDeadline(start.Add(time.Minute))
	if _, err = io.WriteString(c, what+"\n"); err == nil {
		answer, err = readLine(c)
	}
	return answer, time.Since(start), err
}
