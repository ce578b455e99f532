package client_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/client"
	"vmess-local/pkg/host/netmon"
	"vmess-local/pkg/server"
)

// A rebooting host swallows what is said to it until it is back: a SYN from
// before is never answered.
type rebooting struct {
	*pipeListener
	back atomic.Int64 // Unix nanoseconds
	syns atomic.Int64 // that it swallowed

	mu    sync.Mutex
	conns []net.Conn
}

func (r *rebooting) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if time.Now().UnixNano() < r.back.Load() {
		r.syns.Add(1)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	c, err := r.pipeListener.dial(ctx, network, addr)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.conns = append(r.conns, c)
	}
	return c, err
}

// reboot ends all connections, and begins to swallow.
func (r *rebooting) reboot(takes time.Duration) {
	r.back.Store(time.Now().Add(takes).UnixNano())
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

// A notebook is text that is written and read concurrently.
type notebook struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (n *notebook) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(p)
}

func (n *notebook) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

// askOnce is an application that asks for something and is answered.
func askOnce(t *testing.T, near *pipeListener) error {
	t.Helper()
	app, err := near.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	return exchange(app)
}

// TestSilentReboot: a server's host that reboots answers nothing, not even with
// a refusal. Requests say so within seconds, and are served as soon as it is
// back; they do not hammer it. One that takes too long is given up in time.
func TestSilentReboot(t *testing.T) {
	for _, tt := range []struct {
		name  string
		takes time.Duration
	}{
		{"for 1.5 s", 1500 * time.Millisecond},
		{"for 7.6 s", 7600 * time.Millisecond},
		{"for 30 s", 30 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const page, limit = 10, 10 * time.Second
				near, host := newPipeListener(), &rebooting{pipeListener: newPipeListener()}
				var serving sync.WaitGroup
				defer serving.Wait()
				s, err := server.New(inMemoryServer(t), server.Options{Listener: host, Dialer: destination{&serving, echo}})
				if err != nil {
					t.Fatal(err)
				}
				var said notebook
				c, err := client.New(inMemoryClient(t), client.Options{
					Listener: near, DialTCP: host.dial, Log: slog.New(logging.New(&said, slog.LevelInfo, false)),
					Watcher: &netmon.Monitor{Notices: make(chan struct{}), Addresses: func() netmon.Addresses { return nil }},
				})
				if err != nil {
					t.Fatal(err)
				}
				defer runAll(t, s.Run, c.Run)()
				ask := func() error { return askOnce(t, near) }
				if err := ask(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute) // no tunnel is at hand
				host.reboot(tt.takes)
				start := time.Now()
				var all sync.WaitGroup
				for range page {
					all.Go(func() {
						err := ask()
						took := time.Since(start)
						if served := tt.takes < limit; served != (err == nil) || took > min(tt.takes+2*time.Second, limit+time.Second) {
							t.Errorf("%v after %v, away for %v", err, took, tt.takes)
						}
					})
				}
				time.Sleep(3 * time.Second)
				synctest.Wait()
				told := strings.Count(said.String(), "error: tcp.timeout: no answer from 192.0.2.1:80")
				if want := tt.takes > 3*time.Second; want != (told == 1) || told > 1 {
					t.Errorf("after 3 s it is told %d times:\n%s", told, said.String())
				}
				all.Wait()
				if n := strings.Count(said.String(), "error: "); n != told {
					t.Errorf("in the end it is told %d times:\n%s", n, said.String())
				}
				if n := host.syns.Load(); n > 40 {
					t.Errorf("%d SYNs by %d requests", n, page)
				}
			})
		})
	}
}

// exchange asks for some destination by SOCKS5, and has something echoed.
func exchange(app net.Conn) error {
	answer := make([]byte, 10)
	for _, say := range []struct {
		what string
		n    int
	}{{"\x05\x01\x00", 2}, {"\x05\x01\x00\x01\xc0\x00\x02\x05\x00\x16", 10}, {"hello", 5}} {
		if _, err := io.WriteString(app, say.what); err != nil {
			return err
		}
		if _, err := io.ReadFull(app, answer[:say.n]); err != nil {
			return err
		}
		if answer[0] == 5 && answer[1] != 0 {
			return io.ErrUnexpectedEOF
		}
	}
	return nil
}
