package client_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/awake"
	"vmess-local/pkg/client"
	"vmess-local/pkg/netaddr"
	"vmess-local/pkg/server"
	"vmess-local/pkg/transport"
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

// echoes is a way out behind which everything is echoed.
type echoes struct{ serving *sync.WaitGroup }

// DialStream implements transport.StreamDialer.
func (e echoes) DialStream(_ context.Context, _ netaddr.Addr, first []byte) (transport.StreamConn, error) {
	near, far := transporttest.Pipe(4 << 10)
	e.serving.Go(func() {
		defer far.Close()
		_, _ = io.Copy(far, far)
	})
	_, err := near.Write(first)
	return near, err
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
				near, between := newPipeListener(), newPipeListener()
				var serving sync.WaitGroup
				defer serving.Wait()
				s, err := server.New(inMemoryServer(t), server.Options{Listener: between, Dialer: echoes{&serving}})
				if err != nil {
					t.Fatal(err)
				}
				c, err := client.New(inMemoryClient(t), client.Options{
					Listener: near, DialTCP: silenceCutter{between, tt.cut}.dial,
					Watcher: &awake.Watcher{Notices: make(chan struct{}), Addresses: func() awake.Addresses { return nil }},
				})
				if err != nil {
					t.Fatal(err)
				}
				defer runAll(t, s.Run, c.Run)()
				app, err := near.dial(t.Context(), "", "")
				if err != nil {
					t.Fatal(err)
				}
				defer app.Close()
				askBySOCKS(t, app)
				echoOver(t, app, "before")
				time.Sleep(tt.silent)
				_, err = io.WriteString(app, "after")
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
