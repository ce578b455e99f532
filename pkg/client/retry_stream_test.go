package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/diagnose/failurelog"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

const testID = "5b1d9a60-3d0c-4a3e-9c0e-6f1d2f7a8b21"

var somewhere, _ = netaddr.FromHost("example.com", 80)

// A farEnd is a server in memory: it refuses the first requests, as far as it
// is told to, and echoes the rest.
type farEnd struct {
	t       *testing.T
	server  *vmess.Server
	refuses int
	// refuse is how; nil closes in order.
	refuse  func(c *transporttest.Conn)
	banner  string                    // said first
	asV2Ray bool                      // an answer to MD5 tells that it is of V2Ray
	thinks  func(n int) time.Duration // before connection n is answered; nil: not at all
	// connect runs before each connection, the first of which is 0.
	connect func(ctx context.Context, n int) error
	serving sync.WaitGroup

	mu    sync.Mutex
	count int
	seen  []string // payloads of accepted requests
}

// ConnectStream implements transport.StreamEndpoint.
func (f *farEnd) ConnectStream(ctx context.Context, first []byte) (transport.StreamConn, error) {
	f.mu.Lock()
	n := f.count
	f.count++
	f.mu.Unlock()
	if f.connect != nil {
		if err := f.connect(ctx, n); err != nil {
			return nil, err
		}
	}
	near, far := transporttest.Pipe(4 << 10)
	f.serving.Go(func() { f.serve(far, n) })
	if len(first) > 0 {
		if _, err := near.Write(first); err != nil {
			return nil, err
		}
	}
	return near, nil
}

func (f *farEnd) serve(c *transporttest.Conn, n int) {
	defer c.Close()
	if n < f.refuses {
		if f.refuse != nil {
			f.refuse(c)
			return
		}
		_, _ = io.ReadAtLeast(c, make([]byte, 4<<10), 1<<10)
		return
	}
	var carrier transport.StreamConn = c
	if f.asV2Ray {
		carrier = &unmarked{Conn: c}
	}
	in, err := f.server.Accept(context.Background(), carrier)
	if err != nil {
		return
	}
	if f.thinks != nil {
		time.Sleep(f.thinks(n))
	}
	conn, _ := in.Proceed(netip.AddrPort{})
	_, _ = io.WriteString(conn, f.banner)
	var got bytes.Buffer
	_, _ = io.Copy(io.MultiWriter(&got, conn), struct{ io.Reader }{conn})
	f.mu.Lock()
	f.seen = append(f.seen, got.String())
	f.mu.Unlock()
	_ = conn.CloseWrite()
	conn.(transport.PeerWaiter).WaitPeerClose()
}

// An unmarked conn takes the mark of this program's own servers, a bit of the
// second byte, from an MD5 answer, which nothing protects: what is left is the
// answer of a V2Ray.
type unmarked struct {
	*transporttest.Conn
	done bool
}

// Write implements net.Conn.
func (c *unmarked) Write(p []byte) (int, error) {
	if !c.done {
		c.done = true
		p = append([]byte(nil), p...)
		p[1] ^= 0x80
	}
	return c.Conn.Write(p)
}

func (f *farEnd) connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// newFarEnd returns a far end and a guard of it whose round of probes, so it
// believes, has just healed something: what is refused is sent again.
func newFarEnd(t *testing.T, refuses int) (*farEnd, *guard) {
	t.Helper()
	id, err := vmess.ParseID(testID)
	if err != nil {
		t.Fatal(err)
	}
	method, err := vmess.ParseMethod("aes-128-gcm", true, false)
	if err != nil {
		t.Fatal(err)
	}
	f := &farEnd{t: t, refuses: refuses}
	if f.server, err = vmess.NewServer(vmess.ServerConfig{Users: []vmess.User{{ID: id}}}); err != nil {
		t.Fatal(err)
	}
	cfg := config.DefaultClient()
	cfg.Server.Address, cfg.Server.Port, cfg.Server.ID, cfg.Server.TLS.Enabled = "192.0.2.1", 80, testID, false
	account := vmess.NewAccount(vmess.AccountConfig{ID: id, Method: method})
	g, err := newGuard(cfg, "server", &cfg.Server, Options{Log: slog.New(slog.DiscardHandler), LookupEnv: noEnv, DialTCP: noNetwork}, account)
	if err != nil {
		t.Fatal(err)
	}
	g.dialer.Endpoint = f
	g.prober.Endpoint, g.prober.Below, g.prober.Other = nowhere{}, nowhere{}, nowhere{}
	signed := g.signature()
	g.found, g.ended, g.next = outcome{healed: true, refused: &signed}, time.Now().Add(time.Hour), time.Now().Add(time.Hour)
	t.Cleanup(func() { g.close(); f.serving.Wait() })
	return f, g
}

// logTo has a guard log to log from now on.
func logTo(g *guard, log *slog.Logger) {
	g.failures = failurelog.New(failurelog.Options{Log: log, Server: g.Name(), LastAnswer: g.account.LastAnswer})
	g.log = log
}

func noEnv(string) (string, bool) { return "", false }

// noNetwork is for what a test does not replace: nothing leaves the test.
func noNetwork(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("a test has no network")
}

// nowhere is an endpoint that cannot be reached.
type nowhere struct{}

// ConnectStream implements transport.StreamEndpoint.
func (nowhere) ConnectStream(context.Context, []byte) (transport.StreamConn, error) {
	return nil, errors.New("nowhere")
}

func dialGuarded(t *testing.T, g *guard, first string) transport.StreamConn {
	t.Helper()
	c, err := g.DialStream(t.Context(), somewhere, []byte(first))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestGuardedResend(t *testing.T) {
	for name, tt := range map[string]struct {
		first string
		more  []string
		end   bool // half close before the answer
	}{
		"with the dial":              {first: "hello"},
		"after the dial":             {more: []string{"hello"}},
		"in pieces":                  {first: "he", more: []string{"l", "lo"}},
		"half closed":                {first: "hello", end: true},
		"in pieces, and half closed": {more: []string{"hel", "lo"}, end: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, g := newFarEnd(t, 2)
				c := dialGuarded(t, g, tt.first)
				for _, p := range tt.more {
					if _, err := io.WriteString(c, p); err != nil {
						t.Fatal(err)
					}
				}
				if tt.end {
					if err := c.CloseWrite(); err != nil {
						t.Fatal(err)
					}
				}
				got := make([]byte, 5)
				if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
					t.Fatalf("read %q, %v", got, err)
				}
				if !tt.end {
					if _, err := io.WriteString(c, " again"); err != nil {
						t.Fatal(err)
					}
					if err := c.CloseWrite(); err != nil {
						t.Fatal(err)
					}
				}
				rest, err := io.ReadAll(c)
				if want := map[bool]string{false: " again", true: ""}[tt.end]; err != nil || string(rest) != want {
					t.Errorf("then read %q, %v", rest, err)
				}
				_ = c.Close()
				f.serving.Wait()
				if want := "hello" + string(rest); len(f.seen) != 1 || f.seen[0] != want {
					t.Errorf("carried out were %q, want %q once", f.seen, want)
				}
			})
		})
	}
}

// TestGuardedResendOfNothing: the request of an application that waits for the
// far end to speak first.
func TestGuardedResendOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, g := newFarEnd(t, 1)
		f.banner = "220 hello"
		c := dialGuarded(t, g, "")
		if _, err := c.Write(nil); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(f.banner))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != f.banner {
			t.Errorf("read %q, %v", got, err)
		}
	})
}

// TestGuardedRefusedUnasked: an application that waits for the far end to speak
// first is told of a refusal as any other.
func TestGuardedRefusedUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, g := newFarEnd(t, 100)
		g.found = outcome{verdict: diagnose.Account(diagnose.AccountSignals{Configured: diagnose.ProbeRefused}, g.setting)}
		c := dialGuarded(t, g, "")
		if _, err := c.Write(nil); err != nil {
			t.Fatal(err)
		}
		var told *VerdictError
		if _, err := c.Read(make([]byte, 5)); !errors.As(err, &told) || told.Verdict.IsZero() {
			t.Errorf("read: %v", err)
		}
		if _, err := c.Write([]byte("late")); !errors.As(err, &told) {
			t.Errorf("write: %v", err)
		}
	})
}

// TestGuardedGivesUp: a request is not sent again for ever.
func TestGuardedGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, g := newFarEnd(t, 100)
		c := dialGuarded(t, g, "hello")
		for range 2 {
			if _, err := c.Read(make([]byte, 5)); !errors.Is(err, vmess.ErrNoAnswer) {
				t.Errorf("read: %v, want %v", err, vmess.ErrNoAnswer)
			}
		}
		if n := f.connections(); n != 1+maxAttempts {
			t.Errorf("%d connections for one request", n)
		}
	})
}

func TestGuardedKeepsLittle(t *testing.T) {
	for _, n := range []int{maxKept, maxKept + 1} {
		for _, way := range []string{"with the dial", "after the dial"} {
			t.Run(fmt.Sprintf("%d bytes %s", n, way), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f, g := newFarEnd(t, 1)
					f.refuse = func(c *transporttest.Conn) {
						_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
						_, _ = io.Copy(io.Discard, c)
					}
					payload := string(bytes.Repeat([]byte("x"), n))
					var c transport.StreamConn
					if way == "with the dial" {
						c = dialGuarded(t, g, payload)
					} else {
						c = dialGuarded(t, g, "")
						_, _ = io.WriteString(c, payload) // may have met the refusal
					}
					got := make([]byte, 1)
					_, err := io.ReadFull(c, got)
					_, sent := c.(*retryStream)
					switch {
					case !sent:
						t.Fatal("not guarded")
					case n <= maxKept && (err != nil || f.connections() != 2):
						t.Errorf("%v after %d connections, want it sent again", err, f.connections())
					case n > maxKept && (!errors.Is(err, vmess.ErrNoAnswer) || f.connections() != 1):
						t.Errorf("%v after %d connections, want it given up", err, f.connections())
					}
				})
			})
		}
	}
}

// TestGuardedCloseDuringResend: the connection that was to replace another
// does not outlive the stream.
func TestGuardedCloseDuringResend(t *testing.T) {
	for name, end := range map[string]func(transport.StreamConn) error{
		"close": transport.StreamConn.Close, "reset": transport.Reset,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, g := newFarEnd(t, 1)
				f.connect = func(ctx context.Context, n int) error {
					if n == 0 {
						return nil
					}
					<-ctx.Done()
					return ctx.Err()
				}
				c := dialGuarded(t, g, "hello")
				read := make(chan error, 1)
				go func() {
					_, err := c.Read(make([]byte, 5))
					read <- err
				}()
				synctest.Wait() // the resend is under way
				start := time.Now()
				if err := end(c); err != nil {
					t.Error(err)
				}
				if err := <-read; err == nil {
					t.Error("read something of a closed stream")
				}
				if took := time.Since(start); took > 0 {
					t.Errorf("closing took %v", took)
				}
			})
		})
	}
}

// TestGuardedCloseFreesWriter: a server that stops reading does not hold up
// who gives up.
func TestGuardedCloseFreesWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, g := newFarEnd(t, 1)
		held := make(chan struct{})
		f.refuse = func(*transporttest.Conn) { <-held }
		c := dialGuarded(t, g, "hello")
		written := make(chan error, 1)
		go func() {
			_, err := c.Write(make([]byte, 64<<10))
			written <- err
		}()
		synctest.Wait()
		start := time.Now()
		_ = transport.Reset(c)
		if err := <-written; err == nil {
			t.Error("wrote to a closed stream")
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("that took %v", took)
		}
		close(held)
	})
}

// TestGuardedAtOnce reads, writes and closes beside each other while requests
// are refused; the race detector judges.
func TestGuardedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for refuses := range 4 {
			for pause := range 3 {
				f, g := newFarEnd(t, refuses)
				c := dialGuarded(t, g, "")
				var all sync.WaitGroup
				all.Go(func() { _, _ = io.Copy(io.Discard, struct{ io.Reader }{c}) })
				all.Go(func() {
					for range 20 {
						_, _ = c.Write([]byte("some more"))
					}
					_ = c.CloseWrite()
				})
				all.Go(func() {
					time.Sleep(time.Duration(pause) * time.Millisecond)
					_ = c.Close()
				})
				all.Wait()
				g.close()
				f.serving.Wait()
			}
		}
	})
}

// TestGuardedSilence: a first flight that nobody answers is asked about after
// 3 s on a server that is not known to accept us.
func TestGuardedSilence(t *testing.T) {
	for name, known := range map[string]bool{"unknown server": false, "known server": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, g := newFarEnd(t, 1)
				if known {
					greet := dialGuarded(t, g, "x") // the first is refused, and sent again
					if _, err := greet.Read(make([]byte, 1)); err != nil {
						t.Fatal(err)
					}
					f.refuses = 3
				}
				g.found = outcome{verdict: diagnose.Verdict{Cause: diagnose.VMessUnknownUser, Confidence: diagnose.Certain, Sentence: "it broke", Fix: "mend it"}}
				f.refuse = func(c *transporttest.Conn) { _, _ = io.Copy(io.Discard, c) }
				c := dialGuarded(t, g, "hello")
				_ = c.SetReadDeadline(time.Now().Add(time.Minute))
				start := time.Now()
				_, err := c.Read(make([]byte, 5))
				var told *VerdictError
				switch took := time.Since(start); {
				case !known && (!errors.As(err, &told) || took != silence):
					t.Errorf("%v after %v, want the verdict after %v", err, took, silence)
				case known && (errors.As(err, &told) || took < time.Minute):
					t.Errorf("%v after %v, want it to wait", err, took)
				}
			})
		})
	}
}

// dateServer is an endpoint of plain HTTP whose clock is ahead by ahead.
type dateServer struct{ ahead, asked atomic.Int64 }

// ConnectStream implements transport.StreamEndpoint.
func (d *dateServer) ConnectStream(context.Context, []byte) (transport.StreamConn, error) {
	d.asked.Add(1)
	near, far := transporttest.Pipe(4 << 10)
	date := time.Now().Add(time.Duration(d.ahead.Load())).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
	_, _ = fmt.Fprintf(far, "HTTP/1.1 404 Not Found\r\nDate: %s\r\nContent-Length: 0\r\n\r\n", date)
	return near, nil
}

// lockedBuffer is a buffer for a writer and a reader.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// take returns what was written, and forgets it.
func (b *lockedBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.buf.Reset()
	return b.buf.String()
}

// TestClockMeasuredAgain: a clock that was healed is measured every hour.
func TestClockMeasuredAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, g := newFarEnd(t, 0)
		var text lockedBuffer
		logTo(g, slog.New(slog.NewTextHandler(&text, nil)))
		server := new(dateServer)
		g.prober.Below = server
		g.round.Lock()
		g.useServerTime(time.Hour)
		g.round.Unlock()
		_ = text.take()
		for _, step := range []struct {
			ahead, offset time.Duration
			says          bool
		}{
			{-time.Hour, -time.Hour, false},
			{5 * time.Minute, 5 * time.Minute, true}, // it is behind now
			{5 * time.Minute, 5 * time.Minute, false},
			{0, 0, false}, // it was set right, which is nothing to talk about
			{-2 * time.Minute, -2 * time.Minute, true},
		} {
			server.ahead.Store(int64(step.ahead))
			time.Sleep(skewPause)
			synctest.Wait()
			if got := g.account.Offset(); (got - step.offset).Abs() > time.Second {
				t.Errorf("%v ahead: the offset is %v, want %v", step.ahead, got, step.offset)
			}
			if said := text.take(); said != "" != step.says {
				t.Errorf("%v ahead: said %q", step.ahead, said)
			}
		}
		if n := server.asked.Load(); n != 5 {
			t.Errorf("the server was asked %d times in 5 hours", n)
		}
	})
}

// TestProbesOutcomeStands: one round in ten minutes, and none for a request
// that was sent after a healing of the last minute.
func TestProbesOutcomeStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, g := newFarEnd(t, 0)
		var asked atomic.Int64
		g.prober.Endpoint = transport.EndpointFunc(func(context.Context, []byte) (transport.StreamConn, error) {
			asked.Add(1)
			near, far := transporttest.Pipe(8 << 10)
			_ = far.Close()
			return near, nil
		})
		g.found, g.ended, g.next = outcome{}, time.Time{}, time.Time{}
		for i, step := range []struct {
			after time.Duration
			round bool
		}{{0, true}, {time.Second, false}, {9 * time.Minute, false}, {time.Minute, true}, {time.Minute, false}} {
			time.Sleep(step.after)
			before := asked.Load()
			if o := g.probe(&request{guard: g, start: time.Now()}, false); o.verdict.Cause != diagnose.VMessRefused {
				t.Errorf("step %d: %+v", i, o.verdict)
			}
			if round := asked.Load() > before; round != step.round {
				t.Errorf("step %d: asked %v, want %v", i, round, step.round)
			}
		}
		before := asked.Load()
		g.found, g.ended, g.next = outcome{fine: true, healed: true}, time.Now(), time.Now().Add(probeCacheTTL)
		earlier := &request{guard: g, start: time.Now().Add(-time.Second)}
		time.Sleep(time.Second)
		later := &request{guard: g, start: time.Now()}
		for _, x := range []*request{earlier, later} {
			if o := g.probe(x, false); !o.fine || asked.Load() > before {
				t.Errorf("after a healing: %+v, asked %v", o, asked.Load() > before)
			}
		}
		time.Sleep(healedPause)
		if o := g.probe(later, false); asked.Load() == before || o.fine {
			t.Error("a healing that failed for a minute is not looked at again")
		}
	})
}

func TestEarlyDataLost(t *testing.T) {
	for _, tt := range []struct {
		without, with diagnose.ProbeResult
		lost          bool
	}{
		{diagnose.ProbeAccepted, diagnose.ProbeNotTried, false},
		{diagnose.ProbeAccepted, diagnose.ProbeAccepted, false},
		{diagnose.ProbeAccepted, diagnose.ProbeRefused, true},
		{diagnose.ProbeAccepted, diagnose.ProbeSilent, true},
		{diagnose.ProbeAccepted, diagnose.ProbeFailed, true},
		{diagnose.ProbeAccepted, diagnose.ProbePending, true},
		{diagnose.ProbePending, diagnose.ProbePending, false},
		{diagnose.ProbeRefused, diagnose.ProbeRefused, false},
	} {
		if got := earlyDataLost(tt.without, tt.with); got != tt.lost {
			t.Errorf("%v without, %v with: lost is %v", tt.without, tt.with, got)
		}
	}
}
