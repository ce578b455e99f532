package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// A counter counts what its origin was told, line by line, and answers
// nothing.
type counter struct {
	mu   sync.Mutex
	came map[string]int
}

// countingOrigin returns an origin that takes one line of each connection.
// then is what it does about it; nil waits until the connection is given up.
func countingOrigin(t testing.TB, then func(c *net.TCPConn)) (addr string, lines *counter) {
	t.Helper()
	lines = &counter{came: map[string]int{}}
	return serveOrigin(t, func(c *net.TCPConn) {
		line, err := readLine(c)
		if err != nil {
			return
		}
		lines.mu.Lock()
		lines.came[line]++
		lines.mu.Unlock()
		if then != nil {
			then(c)
			return
		}
		_, _ = io.Copy(io.Discard, c) // V2Ray does not pass a half close on
		var gone [1]byte
		_ = c.SetReadDeadline(time.Now().Add(startPatience))
		_, _ = c.Read(gone[:])
	}), lines
}

// wantOnce wants that n requests came, each once.
func (o *counter) wantOnce(t testing.TB, n int) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.came) != n {
		t.Errorf("%d requests were carried out, want %d", len(o.came), n)
	}
	for line, times := range o.came {
		if times != 1 {
			t.Errorf("%q was carried out %d times", line, times)
		}
	}
}

// TestGivenUpOnce: V2Ray gives up a request that it has carried out, and closes
// as it does one that it refused: when its connIdle is over, a second after the
// end mark that tells of an application's half close, and when the destination
// breaks off; now and then it says before that it had accepted it. Such a request
// was delivered, and is not sent again. After a half close the application gets
// an error either way: the answer may have been still to come.
func TestGivenUpOnce(t *testing.T) {
	t.Parallel()
	const requests = 8
	for name, tt := range map[string]struct {
		connIdle int
		half     bool
		mux      bool
		breaks   bool
	}{
		"half close":    {half: true},
		"connIdle":      {connIdle: 2},
		"connIdle, mux": {connIdle: 2, mux: true},
		"it breaks off": {breaks: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			far := startV2rayServer(t, v2rayServer{connIdle: tt.connIdle})
			l := newLab(t, labSetup{
				remote: remoteAt(t, far.addr),
				change: func(c *config.Client) { c.Mux.Enabled = tt.mux },
			})
			l.ask(echoOrigin(t), "hello\n", 6).wantData(t, "hello\n") // nobody probes
			var end func(c *net.TCPConn)
			if tt.breaks {
				end = func(c *net.TCPConn) { _ = c.SetLinger(0) }
			}
			origin, lines := countingOrigin(t, end)
			var all sync.WaitGroup
			for i := range requests {
				all.Go(func() {
					c := mustDialVia(t, l.addr, origin)
					defer c.Close()
					_, _ = fmt.Fprintf(c, "pay %d\n", i)
					if tt.half {
						_ = c.CloseWrite()
					}
					_ = c.SetReadDeadline(time.Now().Add(2 * startPatience))
					n, err := io.Copy(io.Discard, c)
					if n > 0 || isTimeout(err) || tt.half && !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("request %d: %d bytes, %v; want it given up", i, n, err)
					}
				})
			}
			all.Wait()
			lines.wantOnce(t, requests)
			for _, r := range l.failures(t) {
				t.Logf("%s [%s]; fix: %s", r.Msg, r.Confidence, r.Fix)
				if strings.HasPrefix(r.Cause, "vmess.") || tt.half && r.Cause != "destination.no-answer" {
					t.Errorf("told was %s: the server did not refuse anything", r.Cause)
				}
			}
		})
	}
}

// TestEarlyDataHealedBeside: V2Ray without early data loses requests that begin
// so. The first request does not, for it waits for the upgrade; a destination
// that takes longer to answer than silence lasts gets it once, and its answer is
// waited for.
func TestEarlyDataHealedBeside(t *testing.T) {
	t.Parallel()
	remote := remoteAt(t, labV2ray(t).addr)
	remote.WS.EarlyData = 2048
	l := newLab(t, labSetup{remote: remote})
	origin, lines := countingOrigin(t, func(c *net.TCPConn) {
		time.Sleep(7 * time.Second) // it thinks
		_, _ = io.WriteString(c, "paid\n")
	})
	l.ask(origin, "pay\n", 5).wantData(t, "paid\n")
	lines.wantOnce(t, 1)
	for _, r := range l.failures(t) {
		if r.Cause != "destination.no-answer" { // as is true after 3 s
			t.Errorf("told was %s: %s", r.Cause, r.Msg)
		}
	}
	l.expectHealed(t, "ws.early-data-refused", `set "ws.earlyData": 0 at config.json:`)
}
