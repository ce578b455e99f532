package e2e

import (
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// pingingClient is our client with frequent pings on our server.
func pingingClient(t *testing.T, mux bool) (near, far *end) {
	t.Helper()
	far = ourServer(t, serverConfig())
	cfg := clientConfig(remoteAt(t, far.addr))
	cfg.Server.WS.Ping = config.Duration(time.Second)
	cfg.Mux.Enabled = mux
	near = ourClient(t, cfg)
	// An answer tells the client that it is our own server.
	if err := askShort(near.addr, closingOrigin(t), 1); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// TestHalfClosedTunnelAnswersPings has a destination that takes longer to answer
// a request that has ended than unanswered pings are put up with.
func TestHalfClosedTunnelAnswersPings(t *testing.T) {
	t.Parallel()
	for _, mux := range []bool{false, true} {
		t.Run(muxName(mux), func(t *testing.T) {
			t.Parallel()
			near, _ := pingingClient(t, mux)
			origin := serveOrigin(t, func(c *net.TCPConn) {
				if _, err := readLine(c); err == nil {
					time.Sleep(6 * time.Second) // of thinking
					_, _ = io.WriteString(c, "answer")
				}
			})
			c := mustDialVia(t, near.addr, origin)
			if _, err := io.WriteString(c, "question\n"); err != nil {
				t.Fatal(err)
			}
			_ = c.CloseWrite()
			if got, err := io.ReadAll(c); string(got) != "answer" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
			near.wantNoFailure(t)
		})
	}
}

// TestPingDoesNotCutAnswer has pings arrive behind the end of the request, and a
// slow reader of the answer.
func TestPingDoesNotCutAnswer(t *testing.T) {
	t.Parallel()
	near, _ := pingingClient(t, false)
	const size = 16 << 20
	origin := serveOrigin(t, func(c *net.TCPConn) {
		if _, err := io.ReadAll(c); err == nil {
			time.Sleep(2500 * time.Millisecond) // two pings
			_, _ = io.Copy(c, pattern(1, size))
		}
	})
	c := mustDialVia(t, near.addr, origin)
	if _, err := io.WriteString(c, "question\n"); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite()
	n := int64(0)
	for buf := make([]byte, 128<<10); ; time.Sleep(5 * time.Millisecond) { // a slow reader
		m, err := io.ReadFull(c, buf)
		n += int64(m)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("after %d bytes of %d: %v", n, size, err)
		}
	}
	if n != size {
		t.Errorf("%d bytes of %d arrived", n, size)
	}
	near.wantNoFailure(t)
}

// TestClientLeavesAfterHalfClose has clients of our server end their request, and
// then go away: the destination, which is silent, must not be held.
func TestClientLeavesAfterHalfClose(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("not tested: elsewhere the system does not tell that an application has left")
	}
	for _, c := range []struct {
		name  string
		v2ray bool
		leave func(t *testing.T, c *net.TCPConn, near *end)
	}{
		{"application closed", false, func(_ *testing.T, c *net.TCPConn, _ *end) { _ = c.Close() }},
		{"application reset", false, func(_ *testing.T, c *net.TCPConn, _ *end) { _ = c.SetLinger(0); _ = c.Close() }},
		{"client killed", false, func(t *testing.T, _ *net.TCPConn, near *end) {
			if err := near.proc.cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}},
		{"V2Ray gives up", true, func(*testing.T, *net.TCPConn, *end) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			far := ourServer(t, serverConfig())
			var near *end
			if c.v2ray {
				near = startV2rayClient(t, far.addr, v2rayClient{})
			} else {
				near = ourClient(t, clientConfig(remoteAt(t, far.addr)))
				if err := askShort(near.addr, closingOrigin(t), 1); err != nil {
					t.Fatal(err)
				}
			}
			ended := make(chan struct{}, 1)
			origin := serveOrigin(t, func(c *net.TCPConn) {
				_, _ = io.WriteString(c, "hello\n")
				_, _ = io.Copy(io.Discard, c)
				ended <- struct{}{}
				time.Sleep(10 * time.Second) // of silence
			})
			app := mustDialVia(t, near.addr, origin)
			if _, err := io.WriteString(app, "question\n"); err != nil {
				t.Fatal(err)
			}
			if _, err := readLine(app); err != nil {
				t.Fatal(err)
			}
			_ = app.CloseWrite()
			<-ended
			c.leave(t, app, near)
			awaitGone(t, 3*time.Second, func() bool { return strings.Contains(far.log.String(), "to="+origin) })
		})
	}
}

func muxName(mux bool) string {
	if mux {
		return "with Mux"
	}
	return "without Mux"
}

// wantNoFailure checks that no failure was logged.
func (e *end) wantNoFailure(t *testing.T) {
	t.Helper()
	if strings.Contains(e.log.String(), "error: ") {
		t.Error("the log tells of a failure")
	}
}
