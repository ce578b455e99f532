package e2e

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// TestConnIdle: V2Ray gives a stream up that is silent for twice its connIdle,
// pings or not, and closes it in order. But the stream has not come to its end,
// as those have that V2Ray marks. When another ends after the same silence that
// is named; destinations that end connections after one are not.
func TestConnIdle(t *testing.T) {
	t.Parallel()
	far := startV2rayServer(t, v2rayServer{connIdle: 6})
	l := newLab(t, labSetup{remote: with(remoteAt(t, far.addr), func(r *config.Remote) { r.WS.Ping = config.Duration(time.Second) })})
	whole := mustDialVia(t, l.addr, closingOrigin(t))
	if _, err := io.WriteString(whole, shortRequest(1, 100)); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, whole); n == 0 || err != nil {
		t.Fatalf("an answer that is whole: %d bytes, %v", n, err)
	}
	silence := 12 * time.Second
	var all sync.WaitGroup
	for range 2 { // in order, both after the same silence
		patient := mustDialVia(t, l.addr, leavingOrigin(t, silence-1500*time.Millisecond))
		if _, err := io.WriteString(patient, "hello\n"); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			if got, err := io.ReadAll(patient); string(got) != "hello\n" || err != nil {
				t.Errorf("from one that leaves: %q, %v", got, err)
			}
		})
		time.Sleep(time.Second) // not at one moment
	}
	for range 3 { // on a busy computer one may be off
		c, start := l.hold(t, echoOrigin(t)), time.Now()
		all.Go(func() {
			wantCut(t, c, startPatience)
			if took := time.Since(start); took < silence-time.Second {
				t.Errorf("it was given up after %v", took)
			}
		})
		time.Sleep(time.Second)
	}
	all.Wait()
	said := l.awaitCause(t, "tunnel.idle-cut").Msg
	if want := "V2Ray on " + far.addr + " closes connections after 12 s of silence, whatever the destination: that is its connIdle"; !strings.Contains(said, want) {
		t.Errorf("it says %q", said)
	}
	for _, cause := range l.causes(t) {
		if cause != "tunnel.idle-cut" {
			t.Errorf("told: %s", cause)
		}
	}
}

// leavingOrigin echoes what is said first, and ends the connection in order
// after a silence.
func leavingOrigin(t testing.TB, silence time.Duration) string {
	t.Helper()
	return serveOrigin(t, func(c *net.TCPConn) {
		if line, err := readLine(c); err == nil {
			_, _ = io.WriteString(c, line+"\n")
			_ = c.SetReadDeadline(time.Now().Add(silence))
			_, _ = c.Read(make([]byte, 1))
		}
	})
}
