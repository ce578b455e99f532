package e2e

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// TestMuxDestinationFails: with Mux a destination's failure has the words that it
// has without: in the log, and on the page that plain HTTP gets. An answer without
// data that is whole is none.
func TestMuxDestinationFails(t *testing.T) {
	t.Parallel()
	for name, server := range map[string]func(t *testing.T) *end{
		"ours":  func(t *testing.T) *end { return inProcessServer(t, serverConfig(), inProcess{}) },
		"V2Ray": func(t *testing.T) *end { return startV2rayServer(t, v2rayServer{}) },
	} {
		for _, mux := range []bool{false, true} {
			t.Run(name+map[bool]string{true: " with Mux"}[mux], func(t *testing.T) {
				t.Parallel()
				l := newLab(t, labSetup{remote: remoteAt(t, server(t).addr), change: func(c *config.Client) { c.Mux.Enabled = mux }})
				l.ask(echoOrigin(t), "hello\n", 6).wantData(t, "hello\n")
				closed := freePort(t)
				l.ask(closed, "hello\n", 6)
				r := l.awaitCause(t, "destination.refused")
				t.Logf("%s [%s]; fix: %s", r.Msg, r.Confidence, r.Fix)
				if page := l.getPlain(t, "http://"+closed+"/"); !strings.Contains(page, "destination.refused: ") {
					t.Errorf("the page says %q", page)
				}
				if name == "ours" {
					c := mustDialVia(t, l.addr, resettingOrigin(t, 1500*time.Millisecond))
					echoOn(t, c, "hello\n")
					_, _ = io.WriteString(c, "and then?\n")
					_, _ = io.Copy(io.Discard, c)
					l.awaitCause(t, "destination.reset")
				}
				for _, r := range l.failures(t) {
					if !strings.HasPrefix(r.Cause, "destination.") {
						t.Errorf("told was %s: %s", r.Cause, r.Msg)
					}
				}
			})
		}
	}
}

// TestMuxDestinationStalls: a destination that takes nothing holds up the others of
// its Mux tunnel. It is ended for that, and not said to have reset.
func TestMuxDestinationStalls(t *testing.T) {
	t.Parallel()
	far := inProcessServer(t, serverConfig(), inProcess{})
	l := newLab(t, labSetup{remote: remoteAt(t, far.addr), change: func(c *config.Client) { c.Mux.Enabled = true }})
	running := mustDialVia(t, l.addr, echoOrigin(t))
	echoOn(t, running, "before\n")
	c := mustDialVia(t, l.addr, serveOrigin(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "ready\n")
		time.Sleep(labPatience)
	}))
	if line, err := readLine(c); err != nil {
		t.Fatal(line, err)
	}
	_ = c.SetDeadline(time.Now().Add(labPatience))
	if _, err := io.Copy(c, pattern(1, 1<<30)); err == nil || isTimeout(err) {
		t.Errorf("the application saw %v, want it broken off", err)
	}
	r := l.awaitCause(t, "destination.stalled")
	t.Logf("%s [%s]; fix: %s", r.Msg, r.Confidence, r.Fix)
	echoOn(t, running, "after\n")
	for _, r := range l.failures(t) {
		if r.Cause != "destination.stalled" {
			t.Errorf("told was %s: %s", r.Cause, r.Msg)
		}
	}
}

// TestMuxProgramStalls: a program that pauses a download holds up the others of its
// Mux tunnel. Its connection is ended for that, with words, and no one else is
// blamed.
func TestMuxProgramStalls(t *testing.T) {
	t.Parallel()
	far := inProcessServer(t, serverConfig(), inProcess{})
	l := newLab(t, labSetup{remote: remoteAt(t, far.addr), change: func(c *config.Client) { c.Mux.Enabled = true }})
	running := mustDialVia(t, l.addr, echoOrigin(t))
	echoOn(t, running, "before\n")
	c := mustDialVia(t, l.addr, serveOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, pattern(1, 1<<30)) }))
	time.Sleep(12 * time.Second) // the program's
	_ = c.SetDeadline(time.Now().Add(labPatience))
	if _, err := io.Copy(io.Discard, c); err == nil || isTimeout(err) {
		t.Errorf("the application saw %v, want it broken off", err)
	}
	r := l.awaitCause(t, "local.stalled")
	t.Logf("%s [%s]; fix: %s", r.Msg, r.Confidence, r.Fix)
	echoOn(t, running, "after\n")
	for _, r := range l.failures(t) {
		if r.Cause != "local.stalled" {
			t.Errorf("told was %s: %s", r.Cause, r.Msg)
		}
	}
}

// getPlain asks the HTTP proxy for a page and returns it.
func (l *lab) getPlain(t testing.TB, address string) string {
	t.Helper()
	l.visits.Lock()
	l.asked[strings.TrimSuffix(strings.TrimPrefix(address, "http://"), "/")] = true
	l.visits.Unlock()
	c := http.Client{Timeout: labPatience, Transport: &http.Transport{
		DisableKeepAlives: true,
		Proxy:             http.ProxyURL(&url.URL{Scheme: "http", Host: l.addr}),
		DialContext:       (&net.Dialer{Timeout: labPatience}).DialContext,
	}}
	r, err := c.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	page, _ := io.ReadAll(r.Body)
	return string(page)
}
