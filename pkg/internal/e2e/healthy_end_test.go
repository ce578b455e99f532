package e2e

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// healthy is how many healthy requests each kind of ending is tried with.
var healthy = flag.Int("healthy", 240, "how many requests TestHealthyEndingsAreQuiet makes of each kind")

// TestHealthyEndingsAreQuiet: however servers of every kind end a tunnel behind
// a whole answer, with Mux and without, nothing has failed: one at a time, many at
// once, and with an application that still says goodbye when the server has gone,
// as TLS does.
func TestHealthyEndingsAreQuiet(t *testing.T) {
	t.Parallel()
	servers := map[string]func(t *testing.T) (config.Remote, string){
		"our server": func(t *testing.T) (config.Remote, string) {
			return remoteAt(t, inProcessServer(t, serverConfig(), inProcess{}).addr), politeOrigin(t)
		},
		"V2Ray": func(t *testing.T) (config.Remote, string) {
			return remoteAt(t, labV2ray(t).addr), politeOrigin(t)
		},
	}
	for ending := endByClose; ending <= endMarkedByReset; ending++ {
		servers[ending.String()] = func(t *testing.T) (config.Remote, string) {
			r := remoteAt(t, fakeServer(t, ending))
			r.Security, r.GlobalPadding = "aes-128-gcm", false
			return r, "example.com:80" // a fake server answers itself
		}
	}
	for name, start := range servers {
		for _, mux := range []bool{false, true} {
			t.Run(name+", "+muxName(mux), func(t *testing.T) {
				t.Parallel()
				r, origin := start(t)
				l := newLab(t, labSetup{remote: r, change: func(c *config.Client) { c.Mux.Enabled = mux }})
				ask := func(n int64) { // a fake server answers itself, whatever the destination
					if err := askThenSay(l.addr, origin, n); err != nil {
						t.Error(err)
					}
				}
				const alone, atOnce = 10, 40
				for range alone {
					ask(1000)
				}
				var all sync.WaitGroup
				for i := range atOnce {
					all.Go(func() {
						for range (*healthy - alone) / atOnce {
							ask([]int64{1, 40, 5000, 20_000}[i%4])
						}
					})
				}
				all.Wait()
				time.Sleep(time.Second) // failures of one moment are gathered, and then told
				l.wantQuiet(t)
			})
		}
	}
}

// politeOrigin is a closingOrigin that hears its peer out: what is said to one that
// closes at once has its system reset the connection.
func politeOrigin(t testing.TB) string {
	t.Helper()
	return serveOrigin(t, func(c *net.TCPConn) {
		line, err := readLine(c)
		if err != nil {
			return
		}
		if answer, err := shortAnswer(line); err == nil {
			_, _ = c.Write(answer)
			_ = c.CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		}
	})
}

// askThenSay asks for n bytes and, once they are there, says something that
// nobody hears any more.
func askThenSay(proxyAddr, origin string, n int64) error {
	c, err := dialVia(proxyAddr, origin)
	if err != nil {
		return err
	}
	defer c.Close()
	seed := rand.Uint64()
	if _, err := io.WriteString(c, shortRequest(seed, n)); err != nil {
		return err
	}
	want, err := io.ReadAll(pattern(seed, n))
	if err != nil {
		return err
	}
	got := make([]byte, n)
	m, err := io.ReadFull(c, got)
	if err == nil && !bytes.Equal(got, want) {
		err = errors.New("not what was sent")
	}
	if err != nil {
		return fmt.Errorf("%d of %d bytes came: %w", m, n, err)
	}
	for range 3 {
		if _, err := io.WriteString(c, "goodbye"); err != nil {
			break
		}
	}
	_ = c.CloseWrite()
	_, _ = io.Copy(io.Discard, c)
	return nil
}

// TestHealthyDestinationResetIsQuiet: a destination that closes while something of
// its client's lies unread resets behind its whole answer. The application has all
// of it, and nothing is told.
func TestHealthyDestinationResetIsQuiet(t *testing.T) {
	t.Parallel()
	l := newLab(t, labSetup{remote: remoteAt(t, inProcessServer(t, serverConfig(), inProcess{}).addr)})
	origin := serveOrigin(t, func(c *net.TCPConn) {
		line, err := readLine(c)
		if err != nil {
			return
		}
		answer, err := shortAnswer(line)
		if err != nil {
			return
		}
		_, _ = c.Write(answer)
		_, _ = c.Read(make([]byte, 1)) // the goodbye: the rest of it lies unread
	})
	for i := range 50 {
		if err := askThenSay(l.addr, origin, []int64{1, 40, 5000, 20_000}[i%4]); err != nil {
			t.Error(err)
		}
	}
	time.Sleep(time.Second) // failures of one moment are gathered, and then told
	l.wantQuiet(t)
}
