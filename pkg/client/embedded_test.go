package client_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/server"
)

// A pipeListener is a listener without a system: what is dialled comes out of
// Accept.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{make(chan net.Conn), make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80} }

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestEmbeddedWithoutSystem: client and server meet in memory, by the listener
// of the one and the dialer of the other.
func TestEmbeddedWithoutSystem(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("the page")) }))
	defer page.Close()
	between := newPipeListener()
	s, err := server.New(inMemoryServer(t), server.Options{Listener: between})
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(inMemoryClient(t), client.Options{DialTCP: between.dial})
	if err != nil {
		t.Fatal(err)
	}
	defer runAll(t, s.Run, c.Run)()
	for range 3 {
		if got := getBy(c.Addr(), page.URL); got != "the page" {
			t.Fatal(got)
		}
	}
}

// inMemoryServer and inMemoryClient are configurations for each other.
func inMemoryServer(t *testing.T) *config.Server {
	t.Helper()
	s := config.DefaultServer()
	s.Listen, s.Egress.AllowPrivate, s.Limits.Drain = "192.0.2.1:80", true, 0
	s.Users = []config.User{{ID: userID}}
	if err := s.Normalize(); err != nil {
		t.Fatal(err)
	}
	return s
}

func inMemoryClient(t *testing.T) *config.Client {
	t.Helper()
	c := config.DefaultClient()
	c.Listen, c.Status.Enabled, c.Limits.Drain = "127.0.0.1:0", false, 0
	c.Server.Address, c.Server.Port, c.Server.TLS.Enabled = "192.0.2.1", 80, false
	c.Server.ID, c.Server.WS.Path = userID, config.DefaultServer().WS.Path
	if err := c.Normalize(); err != nil {
		t.Fatal(err)
	}
	return c
}

// runAll runs programs until stop is called, which waits for their end.
func runAll(t *testing.T, programs ...func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for _, run := range programs {
		all.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	return func() { cancel(); all.Wait() }
}
