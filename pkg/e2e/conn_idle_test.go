package e2e

import (
	"io"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// TestConnIdle: V2Ray gives a stream up that is silent for twice its connIdle,
// pings or not, and closes it in order. But the stream has not come to its end,
// as those have that V2Ray marks.
func TestConnIdle(t *testing.T) {
	t.Parallel()
	far := startV2rayServer(t, v2rayServer{connIdle: 2})
	l := newLab(t, labSetup{remote: with(remoteAt(t, far.addr), func(r *config.Remote) { r.WS.Ping = config.Duration(time.Second) })})
	whole := mustDialVia(t, l.addr, closingOrigin(t))
	if _, err := io.WriteString(whole, shortRequest(1, 100)); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, whole); n == 0 || err != nil {
		t.Fatalf("an answer that is whole: %d bytes, %v", n, err)
	}
	c := l.hold(t, echoOrigin(t))
	start := time.Now()
	wantCut(t, c, startPatience)
	if took := time.Since(start); took < 3*time.Second {
		t.Errorf("it was given up after %v", took)
	}
}
