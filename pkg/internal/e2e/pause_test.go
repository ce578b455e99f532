package e2e

import (
	"io"
	"net"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// TestPauses: a destination, or an application, that takes nothing for a while
// is no path that died: when it goes on, all goes on, however many pings went
// unanswered meanwhile, because who should answer them was held up.
func TestPauses(t *testing.T) {
	t.Parallel()
	const ping, pause, size = time.Second, 6 * time.Second, 48 << 20
	servers := []struct {
		name  string
		start func(t testing.TB) *end
	}{
		{"V2Ray server", func(t testing.TB) *end { return startV2rayServer(t, v2rayServer{}) }},
		{"our server", func(t testing.TB) *end { return ourServer(t, serverConfig()) }},
	}
	for _, server := range servers {
		client := func(t *testing.T) string {
			r := remoteAt(t, server.start(t).addr)
			r.WS.Ping = config.Duration(ping)
			return ourClient(t, clientConfig(r)).addr
		}
		t.Run("up, "+server.name, func(t *testing.T) {
			t.Parallel()
			origin := serveOrigin(t, func(c *net.TCPConn) {
				if _, err := io.WriteString(c, "go on\n"); err != nil {
					return
				}
				time.Sleep(pause / 6) // the upload is stuck by now
				if _, err := io.WriteString(c, "wait\n"); err != nil {
					return // saying something does not mean reading
				}
				time.Sleep(pause) // it takes nothing
				n, _ := io.CopyN(io.Discard, c, size)
				if n == size {
					_, _ = io.WriteString(c, "all of it\n")
				}
			})
			c := mustDialVia(t, client(t), origin)
			if _, err := readLine(c); err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(startPatience))
			if _, err := io.CopyN(c, pattern(1, size), size); err != nil {
				t.Fatalf("the upload: %v", err)
			}
			for _, want := range []string{"wait", "all of it"} {
				if said, err := readLine(c); err != nil || said != want {
					t.Fatalf("the destination says %q, %v", said, err)
				}
			}
		})
		t.Run("down, "+server.name, func(t *testing.T) {
			t.Parallel()
			origin := serveOrigin(t, func(c *net.TCPConn) { _, _ = io.CopyN(c, pattern(1, size), size) })
			c := mustDialVia(t, client(t), origin)
			time.Sleep(pause) // it takes nothing
			_ = c.SetDeadline(time.Now().Add(startPatience))
			if n, err := io.Copy(io.Discard, c); n != size {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
}
