package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// A way is a whole chain from an application's SOCKS5 proxy to destinations.
type way struct {
	name string
	open func(t *testing.T) (proxyAddr string)
}

// ways are those that the behaviour of streams is looked at on: our client
// with each kind of server.
func ways() []way {
	return []way{
		{"V2Ray server", viaV2rayServer},
		{"our server", viaOurServer},
		{"our server behind nginx", viaNginx},
	}
}

func viaV2rayServer(t *testing.T) string {
	return ourClient(t, clientConfig(remoteAt(t, startV2rayServer(t, v2rayServer{}).addr))).addr
}

func viaOurServer(t *testing.T) string {
	return ourClient(t, clientConfig(remoteAt(t, ourServer(t, serverConfig()).addr))).addr
}

func viaNginx(t *testing.T) string {
	certs := newCertificates(t)
	front := startNginx(t, ourServer(t, serverConfig()).addr, certs, 0)
	return ourClient(t, clientConfig(overTLS(remoteAt(t, front.addr), certs))).addr
}

// viaV2rayClient is real V2Ray as the client of our server.
func viaV2rayClient(t *testing.T) string {
	return startV2rayClient(t, ourServer(t, serverConfig()).addr, v2rayClient{}).addr
}

// viaFake is our client with a fake server.
func viaFake(ending fakeEnding) func(t *testing.T) string {
	return func(t *testing.T) string {
		r := remoteAt(t, fakeServer(t, ending))
		r.Security, r.GlobalPadding = "aes-128-gcm", false
		return ourClient(t, clientConfig(r)).addr
	}
}

// forEach runs a test on every way, beside each other.
func forEach(t *testing.T, all []way, test func(t *testing.T, proxyAddr string)) {
	t.Parallel()
	for _, w := range all {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			test(t, w.open(t))
		})
	}
}

// TestLateAnswerAfterHalfClose has an application that says that it will send
// nothing more, and a destination that takes 3 s to answer. V2Ray's own client
// loses that answer.
func TestLateAnswerAfterHalfClose(t *testing.T) {
	forEach(t, ways(), func(t *testing.T, proxyAddr string) {
		const late = 3 * time.Second
		origin := serveOrigin(t, func(c *net.TCPConn) {
			line, err := readLine(c)
			if err != nil {
				return
			}
			time.Sleep(late) // a slow destination
			_, _ = fmt.Fprintf(c, "late answer to %s", line)
		})
		c := mustDialVia(t, proxyAddr, origin)
		start := time.Now()
		if _, err := io.WriteString(c, "question\n"); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if want := "late answer to question"; string(got) != want || err != nil {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
		if took := time.Since(start); took < late || took > late+2*time.Second {
			t.Errorf("the answer and its end took %v, want about %v", took, late)
		}
	})
}

// TestHalfCloseReachesDestination has a destination that answers only when it
// has seen the end of the request: what works with our own server alone, for
// V2Ray's never tells a destination of it.
func TestHalfCloseReachesDestination(t *testing.T) {
	forEach(t, ways()[1:], func(t *testing.T, proxyAddr string) {
		origin := serveOrigin(t, func(c *net.TCPConn) {
			all, err := io.ReadAll(c)
			if err == nil {
				_, _ = fmt.Fprintf(c, "%d bytes", len(all))
			}
		})
		// An answer tells the client that it is our own server.
		if err := askShort(proxyAddr, closingOrigin(t), 1); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 1, 100 << 10} {
			took := askByHalfClose(t, proxyAddr, origin, n)
			if took > time.Second {
				t.Errorf("%d bytes: the end took %v to arrive", n, took)
			}
		}
	})
}

// TestHalfCloseReachesDestinationOfUnknownServer is the same while nothing is
// known of the server: it is asked to tell at once.
func TestHalfCloseReachesDestinationOfUnknownServer(t *testing.T) {
	t.Parallel()
	origin := serveOrigin(t, func(c *net.TCPConn) {
		all, err := io.ReadAll(c)
		if err == nil {
			_, _ = fmt.Fprintf(c, "%d bytes", len(all))
		}
	})
	if took := askByHalfClose(t, viaOurServer(t), origin, 1000); took > 2*time.Second {
		t.Errorf("the end took %v to arrive", took)
	}
}

// askByHalfClose sends n bytes and their end, and returns after how long an
// answer that needs the end was there.
func askByHalfClose(t *testing.T, proxyAddr, origin string, n int) time.Duration {
	t.Helper()
	c := mustDialVia(t, proxyAddr, origin)
	start := time.Now()
	if _, err := c.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if want := fmt.Sprintf("%d bytes", n); string(got) != want || err != nil {
		t.Errorf("after %d bytes: got %q, %v, want %q", n, got, err, want)
	}
	return time.Since(start)
}

// TestShortAnswersAreNotLost asks 1,000 times for an answer that the
// destination closes right behind, of servers that end tunnels in every way.
func TestShortAnswersAreNotLost(t *testing.T) {
	all := append(ways(),
		way{"V2Ray client", viaV2rayClient},
		way{"server that sends no end mark", viaFake(endByClose)},
		way{"server that ends with a bare FIN", viaFake(endByFIN)},
	)
	forEach(t, all, func(t *testing.T, proxyAddr string) {
		origin := closingOrigin(t)
		const total, atOnce = 1000, 100
		requests := make(chan int64, total)
		for i := range total {
			n := int64(i%40 + 1)
			if i%10 == 9 {
				n = 100_000 // more than one chunk, message and read
			}
			requests <- n
		}
		close(requests)
		var all sync.WaitGroup
		for range atOnce {
			all.Go(func() {
				for n := range requests {
					if err := askShort(proxyAddr, origin, n); err != nil {
						t.Errorf("an answer of %d bytes: %v", n, err)
					}
				}
			})
		}
		all.Wait()
	})
}

// askShort asks a closingOrigin for n bytes.
func askShort(proxyAddr, origin string, n int64) error {
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
	got, err := io.ReadAll(c)
	if err == nil && !bytes.Equal(got, want) {
		err = errors.New("not what was sent")
	}
	if err != nil {
		return fmt.Errorf("%d bytes came: %w", len(got), err)
	}
	return nil
}

// TestDestinationSpeaksFirst has an application that waits for the other side
// to begin, as SSH and mail programs do: nothing may wait for it.
func TestDestinationSpeaksFirst(t *testing.T) {
	forEach(t, append(ways(), way{"V2Ray client", viaV2rayClient}), func(t *testing.T, proxyAddr string) {
		origin := bannerOrigin(t)
		for i := range 5 { // the first before, the others after the server is known to be well
			c := mustDialVia(t, proxyAddr, origin)
			start := time.Now()
			line, err := readLine(c)
			if line+"\n" != banner || err != nil {
				t.Fatalf("connection %d: got %q, %v, want %q", i, line, err, banner)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("connection %d: the first line took %v", i, took)
			}
			echo(t, c, "and then this side\n")
		}
	})
}

// echo sends a line to an echoing destination and reads it back.
func echo(t *testing.T, c net.Conn, line string) {
	t.Helper()
	if err := tryEcho(c, line); err != nil {
		t.Fatal(err)
	}
}

func tryEcho(c net.Conn, line string) error {
	if _, err := io.WriteString(c, line); err != nil {
		return err
	}
	got := make([]byte, len(line))
	n, err := io.ReadFull(c, got)
	if err == nil && string(got) != line {
		err = errors.New("not an echo")
	}
	if err != nil {
		return fmt.Errorf("sent %q, got %q: %w", line, got[:n], err)
	}
	return nil
}

// TestManyAtOnce has 200 connections that are all open, and have all worked,
// before the first of them ends.
func TestManyAtOnce(t *testing.T) {
	forEach(t, append(ways(), way{"V2Ray client", viaV2rayClient}), func(t *testing.T, proxyAddr string) {
		const n = 200
		origin := echoOrigin(t)
		var working, all sync.WaitGroup
		working.Add(n)
		for i := range n {
			all.Go(func() {
				c, err := dialVia(proxyAddr, origin)
				if err == nil {
					defer c.Close()
					err = tryEcho(c, fmt.Sprintf("connection %d is open\n", i))
				}
				working.Done()
				if err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
				working.Wait()
				if err := tryEcho(c, fmt.Sprintf("connection %d is still open\n", i)); err != nil {
					t.Errorf("connection %d, with all others open: %v", i, err)
				}
			})
		}
		all.Wait()
	})
}

// TestAbortStopsDownload closes a tab in the middle of a download: the origin
// must not be left sending.
func TestAbortStopsDownload(t *testing.T) {
	forEach(t, append(ways(), way{"V2Ray client", viaV2rayClient}), func(t *testing.T, proxyAddr string) {
		stopped := make(chan error, 1)
		origin := serveOrigin(t, func(c *net.TCPConn) {
			_, err := io.Copy(c, endless{})
			stopped <- err
		})
		c := mustDialVia(t, proxyAddr, origin)
		if _, err := io.WriteString(c, "GET\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		select {
		case err := <-stopped:
			if err == nil {
				t.Error("the origin came to an end of what has none")
			}
		case <-time.After(2 * time.Second):
			t.Error("the origin still sends 2 s after the application went away")
		}
	})
}

// TestCutAnswerIsNoEnd has a destination that dies in the middle of its answer:
// the application must see an error, and not an end that makes half of it look
// like all. Only our own server tells.
func TestCutAnswerIsNoEnd(t *testing.T) {
	forEach(t, ways()[1:], func(t *testing.T, proxyAddr string) {
		origin := serveOrigin(t, func(c *net.TCPConn) {
			if _, err := readLine(c); err == nil {
				_, _ = c.Write(make([]byte, 100<<10))
				_ = c.SetLinger(0) // the close that follows is a reset
			}
		})
		c := mustDialVia(t, proxyAddr, origin)
		if _, err := io.WriteString(c, "GET\n"); err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, c); err == nil {
			t.Errorf("the application saw an orderly end after %d bytes", n)
		}
	})
}

// TestCutRequestIsNoEnd is the same for an application that dies, also where a
// proxy between client and server passes a reset on as an end.
func TestCutRequestIsNoEnd(t *testing.T) {
	for _, w := range []way{{"our server", viaOurServer}, {"our server behind nginx", viaNginx}} {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			seen := make(chan error, 1)
			origin := serveOrigin(t, func(c *net.TCPConn) {
				_, _ = io.WriteString(c, "go on\n")
				_, err := io.Copy(io.Discard, c)
				seen <- err
			})
			c := mustDialVia(t, w.open(t), origin)
			if _, err := readLine(c); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(make([]byte, 100<<10)); err != nil {
				t.Fatal(err)
			}
			_ = c.SetLinger(0)
			_ = c.Close()
			select {
			case err := <-seen:
				if err == nil {
					t.Error("the origin saw an orderly end")
				}
			case <-time.After(startPatience):
				t.Error("the origin was not told")
			}
		})
	}
}

// endless is a reader without end.
type endless struct{}

// Read implements io.Reader.
func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestIdleTunnelBehindNginx has an application that is silent for longer than
// nginx lets a tunnel be. The way without pings shows that nginx means it.
func TestIdleTunnelBehindNginx(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t)
	for _, tt := range []struct {
		name  string
		far   func(t *testing.T) string
		ping  time.Duration
		lives bool
	}{
		{"our server, pings", func(t *testing.T) string { return ourServer(t, serverConfig()).addr }, time.Second, true},
		{"V2Ray server, pings", func(t *testing.T) string { return startV2rayServer(t, v2rayServer{}).addr }, time.Second, true},
		{"V2Ray server, no pings", func(t *testing.T) string { return startV2rayServer(t, v2rayServer{}).addr }, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			front := startNginx(t, tt.far(t), certs, 3*time.Second)
			r := overTLS(remoteAt(t, front.addr), certs)
			r.WS.Ping = config.Duration(tt.ping)
			c := mustDialVia(t, ourClient(t, clientConfig(r)).addr, echoOrigin(t))
			echo(t, c, "before\n")
			time.Sleep(5 * time.Second) // the silence that is tested
			if err := tryEcho(c, "after\n"); (err == nil) != tt.lives {
				t.Errorf("after 5 s of silence: %v", err)
			}
		})
	}
}
