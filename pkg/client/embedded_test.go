package client_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
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
	far := config.DefaultServer()
	far.Listen, far.Egress.AllowPrivate, far.Limits.Drain = "192.0.2.1:80", true, 0
	far.Users = []config.User{{ID: userID}}
	near := config.DefaultClient()
	near.Listen, near.Status.Enabled, near.Limits.Drain = "127.0.0.1:0", false, 0
	near.Server.Address, near.Server.Port, near.Server.TLS.Enabled = "192.0.2.1", 80, false
	near.Server.ID, near.Server.WS.Path = userID, far.WS.Path
	if err := far.Normalize(); err != nil {
		t.Fatal(err)
	}
	if err := near.Normalize(); err != nil {
		t.Fatal(err)
	}
	s, err := server.New(far, server.Options{Listener: between})
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(near, client.Options{DialTCP: between.dial})
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range []func(context.Context) error{s.Run, c.Run} {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- run(ctx) }()
		defer func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
	}
	for range 3 {
		if got := getBy(c.Addr(), page.URL); got != "the page" {
			t.Fatal(got)
		}
	}
}
