package e2e

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// many is as many connections as show what happens once in hundreds.
const many = 10_000

// requests makes n requests for an echo through a proxy, so many at a time,
// and fails the test for each that goes without its answer. It returns the
// longest time that one took.
func requests(t *testing.T, proxyAddr, echo string, n, atOnce int) (longest time.Duration) {
	t.Helper()
	var (
		all       sync.WaitGroup
		left, bad atomic.Int64
		slowest   atomic.Int64
	)
	left.Store(int64(n))
	for range atOnce {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				r := askVia(proxyAddr, echo, "hello\n", 6, ioPatience)
				if r.data != "hello\n" && bad.Add(1) <= 5 {
					t.Errorf("a request got code %d and %q, ended by %v after %v", r.code, r.data, r.end, r.ended)
				}
				for old := slowest.Load(); int64(r.ended) > old && !slowest.CompareAndSwap(old, int64(r.ended)); old = slowest.Load() {
				}
			}
		})
	}
	all.Wait()
	if bad.Load() > 0 {
		t.Errorf("%d of %d requests went without their answer", bad.Load(), n)
	}
	return time.Duration(slowest.Load())
}

// lineOrigin sends back one line and ends.
func lineOrigin(t testing.TB) string {
	t.Helper()
	return serveOrigin(t, func(c *net.TCPConn) {
		if line, err := readLine(c); err == nil {
			_, _ = io.WriteString(c, line+"\n")
		}
	})
}

// TestManyConnections makes more new connections through real V2Ray than its
// filter against replays bears without mistakes: every one is answered.
func TestManyConnections(t *testing.T) {
	far := labV2ray(t)
	l := newLab(t, labSetup{remote: remoteAt(t, far.addr), change: func(c *config.Client) { c.Log.Level = "info" }})
	start := time.Now()
	longest := requests(t, l.addr, lineOrigin(t), many, 48)
	took := time.Since(start)
	t.Logf("%d connections in %.1f s; %d were refused by V2Ray's filter and sent again; the longest took %v",
		many, took.Seconds(), l.client.Resent(), longest)
	if took > 2*time.Minute {
		t.Errorf("that took %v: V2Ray's filter forgets after two minutes", took)
	}
	l.wantQuiet(t)
}

// TestFalseAlarms makes as many healthy requests, each a connection of its
// own, over a long and uneven way, hundreds at once: none is taken for a
// failure, and nobody is asked.
func TestFalseAlarms(t *testing.T) {
	const (
		rtt    = 200 * time.Millisecond
		jitter = 100 * time.Millisecond // on top, each way
		atOnce = 200
	)
	echo := lineOrigin(t)
	for name, start := range map[string]func(t *testing.T) string{
		"v2ray": func(t *testing.T) string { return labV2ray(t).addr },
		"ours":  func(t *testing.T) string { return inProcessServer(t, serverConfig(), inProcess{}).addr },
	} {
		t.Run(name, func(t *testing.T) {
			far := newRoad(t, start(t), rtt, jitter)
			l := newLab(t, labSetup{remote: remoteAt(t, far.addr)})
			begin := time.Now()
			longest := requests(t, l.addr, echo, many/2, atOnce)
			took := time.Since(begin)
			l.wantQuiet(t)
			far.wantNoProbe(t, many/2+int(l.client.Resent()))
			t.Logf("%d requests in %.1f s, %d at once; %d were refused by mistake and sent again; the longest took %v; %d lines of complaint",
				many/2, took.Seconds(), atOnce, l.client.Resent(), longest, len(l.failures(t)))
		})
	}
}
