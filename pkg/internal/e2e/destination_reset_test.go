package e2e

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// resettingOrigin answers the first line by itself, and resets the connection after
// a silence.
func resettingOrigin(t testing.TB, silence time.Duration) string {
	t.Helper()
	return serveOrigin(t, func(c *net.TCPConn) {
		line, err := readLine(c)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, line+"\n")
		time.Sleep(silence) // of the destination
		_ = c.SetLinger(0)
	})
}

// TestDestinationReset: a destination that resets is not the path's fault: in use
// and after a silence, again and again, many at once, and in the middle of bytes
// that flow both ways. With our server the application sees a reset each time; V2Ray
// ends the answer as if it were whole.
func TestDestinationReset(t *testing.T) {
	t.Parallel()
	for name, server := range map[string]func(t *testing.T) *end{
		"ours":  func(t *testing.T) *end { return inProcessServer(t, serverConfig(), inProcess{}) },
		"V2Ray": func(t *testing.T) *end { return startV2rayServer(t, v2rayServer{}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labSetup{remote: remoteAt(t, server(t).addr)})
			l.ask(echoOrigin(t), "hello\n", 6).wantData(t, "hello\n")
			half := false
			once := func(origin string) {
				c := mustDialVia(t, l.addr, origin)
				echoOn(t, c, "hello\n")
				if _, err := io.WriteString(c, "and then?\n"); err != nil { // which gets no answer
					t.Error(err)
				}
				if half {
					_ = c.CloseWrite()
				}
				_ = c.SetReadDeadline(time.Now().Add(labPatience))
				if _, err := io.Copy(io.Discard, c); name == "ours" && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the application saw %v, want a reset", err)
				}
			}
			atOnce, later := resettingOrigin(t, 100*time.Millisecond), resettingOrigin(t, 2*time.Second)
			once(atOnce)
			half = true
			once(atOnce)
			half = false
			for range 2 {
				once(later)
			}
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() { once(later) })
			}
			all.Wait()
			for range 4 {
				resetAmidBulk(t, l)
			}
			time.Sleep(time.Second) // failures of one moment are gathered, and then told
			for _, r := range l.failures(t) {
				t.Logf("%s [%s]; fix: %s", r.Msg, r.Confidence, r.Fix)
				if !strings.HasPrefix(r.Cause, "destination.") {
					t.Errorf("told was %s: %s", r.Cause, r.Msg)
				}
			}
			if name == "ours" && !strings.Contains(l.text.String(), "error: destination.reset: ") {
				t.Error("destination.reset was not told")
			}
		})
	}
}

// resetAmidBulk has a destination reset while much goes both ways.
func resetAmidBulk(t testing.TB, l *lab) {
	t.Helper()
	origin := serveOrigin(t, func(c *net.TCPConn) {
		go func() { _, _ = io.Copy(c, pattern(1, 1<<30)) }()
		_, _ = io.CopyN(io.Discard, c, 4<<20)
		_ = c.SetLinger(0)
	})
	c := mustDialVia(t, l.addr, origin)
	_ = c.SetDeadline(time.Now().Add(labPatience))
	written := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, pattern(2, 1<<30))
		written <- err
	}()
	_, err := io.Copy(io.Discard, c) // the system tells a reset to one of the two
	_ = c.Close()
	if err = errors.Join(err, <-written); err == nil || isTimeout(err) {
		t.Errorf("the application saw %v, want it broken off", err)
	}
}

// TestDestinationResetSeenByV2Ray: what our server says of a destination that
// resets is not for V2Ray's client, which is not sent it: its application gets the
// data that was sent, and then an end, as V2Ray makes one of the tunnel's reset.
func TestDestinationResetSeenByV2Ray(t *testing.T) {
	t.Parallel()
	server := ourServer(t, serverConfig())
	origin := resettingOrigin(t, 100*time.Millisecond)
	for _, security := range []string{"aes-128-gcm", "chacha20-poly1305", "none"} {
		t.Run(security, func(t *testing.T) {
			t.Parallel()
			client := startV2rayClient(t, server.addr, v2rayClient{security: security})
			for range 20 {
				c := mustDialVia(t, client.addr, origin)
				if _, err := io.WriteString(c, "hello\n"); err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(c)
				if string(got) != "hello\n" || err != nil && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("read %q, %v", got, err)
				}
			}
		})
	}
}

// TestIdleDestinationResetIsQuiet: a destination that ends a connection by a reset
// on which it owes nothing has not failed, however long the connection was idle.
func TestIdleDestinationResetIsQuiet(t *testing.T) {
	t.Parallel()
	for _, mux := range []bool{false, true} {
		t.Run(muxName(mux), func(t *testing.T) {
			t.Parallel()
			far := inProcessServer(t, serverConfig(), inProcess{})
			l := newLab(t, labSetup{remote: remoteAt(t, far.addr), change: func(c *config.Client) { c.Mux.Enabled = mux }})
			c := mustDialVia(t, l.addr, resettingOrigin(t, 1500*time.Millisecond))
			echoOn(t, c, "hello\n")
			_ = c.SetReadDeadline(time.Now().Add(labPatience))
			if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the application saw %v, want a reset", err)
			}
			time.Sleep(time.Second) // failures of one moment are gathered before they are logged
			l.wantQuiet(t)
		})
	}
}
