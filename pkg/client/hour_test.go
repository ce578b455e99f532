package client_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/host/netmon"
	"vmess-local/pkg/server"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

// A silenceCutter is nginx as far as it matters here: it ends, without a word,
// connections whose server says nothing for a while (proxy_read_timeout).
type silenceCutter struct {
	behind *pipeListener
	after  time.Duration
}

func (s silenceCutter) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	far, err := s.behind.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	near, mine := net.Pipe()
	cut := func() { _ = mine.Close(); _ = far.Close() }
	silence := time.AfterFunc(s.after, cut)
	go func() {
		defer cut()
		_, _ = io.Copy(far, mine)
	}()
	go func() {
		defer cut()
		defer silence.Stop()
		buf := make([]byte, 4<<10)
		for {
			n, err := far.Read(buf)
			if err != nil {
				return
			}
			silence.Reset(s.after)
			if _, err := mine.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	return near, nil
}

// A destination is a way out behind which everything is served so.
type destination struct {
	serving *sync.WaitGroup
	serve   func(c net.Conn)
}

// DialStream implements transport.StreamDialer.
func (d destination) DialStream(_ context.Context, _ netaddr.Addr, first []byte) (transport.StreamConn, error) {
	near, far := transporttest.Pipe(4 << 10)
	d.serving.Go(func() {
		defer far.Close()
		d.serve(far)
	})
	_, err := near.Write(first)
	return near, err
}

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// tellOnFailure is a log that is shown when the test fails.
func tellOnFailure(t *testing.T) *slog.Logger {
	said := new(notebook)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the programs said:\n%s", said)
		}
	})
	return slog.New(logging.New(said, slog.LevelDebug, false))
}

// inMemory runs a client and a server without a system, and returns an
// application's connection to what serves all destinations. What is silent for so
// long between the two is cut.
func inMemory(t *testing.T, cut, ping time.Duration, serve func(c net.Conn)) (app net.Conn, stop func()) {
	t.Helper()
	return inMemoryThrough(t, func(between *pipeListener) dialFunc { return silenceCutter{between, cut}.dial }, ping, serve)
}

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// inMemoryThrough is inMemory with something else between the two.
func inMemoryThrough(t *testing.T, through func(between *pipeListener) dialFunc, ping time.Duration, serve func(c net.Conn)) (app net.Conn, stop func()) {
	t.Helper()
	near, between := newPipeListener(), newPipeListener()
	var serving sync.WaitGroup
	log := tellOnFailure(t)
	s, err := server.New(inMemoryServer(t), server.Options{Listener: between, Dialer: destination{&serving, serve}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	cfg := inMemoryClient(t)
	cfg.Server.WS.Ping = config.Duration(ping)
	c, err := client.New(cfg, client.Options{
		Listener: near, DialTCP: through(between), Log: log,
		Watcher: &netmon.Monitor{Notices: make(chan struct{}), Addresses: func() netmon.Addresses { return nil }},
	})
	if err != nil {
		t.Fatal(err)
	}
	end := runAll(t, s.Run, c.Run)
	if app, err = near.dial(t.Context(), "", ""); err != nil {
		t.Fatal(err)
	}
	askBySOCKS(t, app)
	return app, func() { _ = app.Close(); end(); serving.Wait() }
}

// TestIdleForAnHour: a session that says nothing lives behind a proxy that cuts
// after 60 s of silence, by the pings, until limits.idle; the clock is not the
// real one. Behind one that cuts sooner than the pings come it does not.
func TestIdleForAnHour(t *testing.T) {
	for _, tt := range []struct {
		name        string
		cut, silent time.Duration
		lives       bool
	}{
		{"59 minutes", time.Minute, 59 * time.Minute, true},
		{"beyond limits.idle", time.Minute, 61 * time.Minute, false},
		{"no ping in time", 20 * time.Second, time.Minute, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				app, stop := inMemory(t, tt.cut, 30*time.Second, echo)
				defer stop()
				echoOver(t, app, "before")
				time.Sleep(tt.silent)
				_, err := io.WriteString(app, "after")
				if err == nil {
					_ = app.SetReadDeadline(time.Now().Add(time.Second))
					_, err = io.ReadFull(app, make([]byte, len("after")))
				}
				if (err == nil) != tt.lives {
					t.Errorf("after %v of silence: %v", tt.silent, err)
				}
			})
		})
	}
}

// TestPausedForAnHour: who takes nothing for a while, an application or a
// destination, has not died, whoever pings and however many answers are missed
// meanwhile. Nothing cuts in between here.
func TestPausedForAnHour(t *testing.T) {
	const pause, size = 59*time.Minute + 10*time.Second, 4 << 20 // it does not end in the moment of a ping
	for _, ping := range []time.Duration{0, 30 * time.Second} {
		t.Run(fmt.Sprintf("down, client pings every %v", ping), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				app, stop := inMemory(t, 2*time.Hour, ping, func(c net.Conn) { _, _ = c.Write(make([]byte, size)) })
				defer stop()
				time.Sleep(pause)
				if n, err := io.Copy(io.Discard, app); n != size || err != nil {
					t.Errorf("%d bytes, %v", n, err)
				}
			})
		})
		t.Run(fmt.Sprintf("up, client pings every %v", ping), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				app, stop := inMemory(t, 2*time.Hour, ping, func(c net.Conn) {
					time.Sleep(time.Second) // the upload is stuck by now, and must not hold up the answer
					if _, err := io.WriteString(c, "go on"); err != nil {
						return
					}
					time.Sleep(pause)
					n, _ := io.CopyN(io.Discard, c, size)
					_, _ = fmt.Fprintf(c, "%d", n)
				})
				defer stop()
				want := "go on" + fmt.Sprint(size)
				go func() { _, _ = app.Write(make([]byte, size)) }()
				said := make([]byte, len(want))
				if _, err := io.ReadFull(app, said); string(said) != want || err != nil {
					t.Errorf("said %q, %v", said, err)
				}
			})
		})
	}
}

// A pongCutter is V2Ray 4.34 as far as it matters here: it gives the answer to a
// ping a second to be written, and ends the connection when what comes before it
// is not taken (docs/protocol.md 17, item 24).
type pongCutter struct {
	behind *pipeListener
	pings  atomic.Int64 // that it saw
}

func (p *pongCutter) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	far, err := p.behind.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	near, mine := net.Pipe()
	cut := func() { _ = mine.Close(); _ = far.Close() }
	var writes atomic.Int64 // odd: one is under way
	go func() {
		defer cut()
		from := bufio.NewReader(mine)
		for { // the upgrade request
			line, err := from.ReadString('\n')
			if _, werr := io.WriteString(far, line); err != nil || werr != nil {
				return
			}
			if line == "\r\n" {
				break
			}
		}
		for {
			f, err := readMaskedFrame(from)
			if err != nil {
				return
			}
			if before := writes.Load(); f[0]&0xf == 9 {
				p.pings.Add(1)
				time.AfterFunc(time.Second, func() {
					if n := writes.Load(); n%2 == 1 && n <= before+1 {
						cut()
					}
				})
			}
			if _, err := far.Write(f); err != nil {
				return
			}
		}
	}()
	go func() {
		defer cut()
		buf := make([]byte, 4<<10)
		for {
			n, err := far.Read(buf)
			if err != nil {
				return
			}
			writes.Add(1)
			_, err = mine.Write(buf[:n])
			writes.Add(1)
			if err != nil {
				return
			}
		}
	}()
	return near, nil
}

// readMaskedFrame reads a WebSocket frame of a client as it is.
func readMaskedFrame(r io.Reader) ([]byte, error) {
	f := make([]byte, 2, 14)
	if _, err := io.ReadFull(r, f); err != nil {
		return nil, err
	}
	more := map[byte]int{126: 2, 127: 8}[f[1]&0x7f]
	f = f[:2+more]
	if _, err := io.ReadFull(r, f[2:]); err != nil {
		return nil, err
	}
	n := int(f[1] & 0x7f)
	if more > 0 {
		n = 0
		for _, b := range f[2:] {
			n = n<<8 | int(b)
		}
	}
	f = append(f, make([]byte, 4+n)...)
	_, err := io.ReadFull(r, f[2+more:])
	return f, err
}

// TestPausedDownloadIsNotPinged: an application that takes nothing of its download
// for an hour, and says something every minute, keeps it through a server that
// ends what it cannot answer a ping on; and through ours.
func TestPausedDownloadIsNotPinged(t *testing.T) {
	const size = 4 << 20
	serve := func(c net.Conn) {
		go func() { _, _ = io.Copy(io.Discard, c) }()
		_, _ = c.Write(make([]byte, size))
	}
	for _, ping := range []time.Duration{0, 30 * time.Second} {
		for name, through := range map[string]func(between *pipeListener) dialFunc{
			"V2Ray": func(between *pipeListener) dialFunc { return (&pongCutter{behind: between}).dial },
			"ours":  func(between *pipeListener) dialFunc { return between.dial },
		} {
			t.Run(fmt.Sprintf("%s, client pings every %v", name, ping), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					app, stop := inMemoryThrough(t, through, ping, serve)
					defer stop()
					for range 60 {
						if _, err := io.WriteString(app, "still here"); err != nil {
							t.Fatal(err)
						}
						time.Sleep(time.Minute - 100*time.Millisecond) // it does not end in the moment of a ping
					}
					if n, err := io.Copy(io.Discard, app); n != size || err != nil {
						t.Errorf("%d bytes, %v", n, err)
					}
				})
			})
		}
	}
	t.Run("a ping would end it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			far := newPipeListener()
			cutter := &pongCutter{behind: far}
			go func() {
				server, err := far.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				go func() { _, _ = io.Copy(io.Discard, server) }()
				_, _ = server.Write(make([]byte, size))
				_ = server.Close()
			}()
			near, err := cutter.dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(near, "GET / HTTP/1.1\r\n\r\n\x89\x84maskping")
			time.Sleep(2 * time.Second)
			if n, _ := io.Copy(io.Discard, near); n == size || cutter.pings.Load() != 1 {
				t.Errorf("%d bytes after %d pings", n, cutter.pings.Load())
			}
		})
	})
}

// askBySOCKS asks for some destination by SOCKS5.
func askBySOCKS(t *testing.T, app net.Conn) {
	t.Helper()
	answer := make([]byte, 10)
	for _, say := range []struct {
		what string
		n    int
	}{{"\x05\x01\x00", 2}, {"\x05\x01\x00\x01\xc0\x00\x02\x05\x00\x16", 10}} {
		if _, err := io.WriteString(app, say.what); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(app, answer[:say.n]); err != nil || answer[1] != 0 {
			t.Fatalf("answered %x, %v", answer[:say.n], err)
		}
	}
}

func echoOver(t *testing.T, app net.Conn, what string) {
	t.Helper()
	if _, err := io.WriteString(app, what); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(what))
	if _, err := io.ReadFull(app, got); err != nil || string(got) != what {
		t.Fatalf("got %q, %v", got, err)
	}
}
