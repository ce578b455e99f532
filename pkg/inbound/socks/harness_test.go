package socks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A door is a running Server with what it reported and was asked for.
type door struct {
	*Server
	addr string

	mu       sync.Mutex
	reports  []error
	requests []transport.Request
}

// open serves s on a loopback port until the test ends.
func open(t *testing.T, s *Server) *door {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return openOn(t, s, ln)
}

func openOn(t *testing.T, s *Server, ln net.Listener) *door {
	t.Helper()
	d := &door{Server: s, addr: ln.Addr().String()}
	s.Report = func(err error, _ netip.AddrPort) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.reports = append(d.reports, err)
	}
	if s.Handler == nil {
		s.Handler = HandlerFunc(echo)
	}
	inner := s.Handler
	s.Handler = HandlerFunc(func(ctx context.Context, r *transport.Request) {
		d.mu.Lock()
		d.requests = append(d.requests, *r)
		d.mu.Unlock()
		inner.HandleStream(ctx, r)
	})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		_ = s.Drain(ctx)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return d
}

// reported waits for the connections to end and returns what was reported.
func (d *door) reported(t *testing.T) []error {
	t.Helper()
	d.settle(t)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reports
}

// settle drains: afterwards nothing more can be reported.
func (d *door) settle(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := d.Drain(ctx); err != nil {
		t.Fatalf("Drain: %v", err)
	}
}

func (d *door) asked() []transport.Request {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.requests
}

// wantReport checks that exactly one report was made, or none for nil.
func (d *door) wantReport(t *testing.T, want error) {
	t.Helper()
	got := d.reported(t)
	if want == nil && len(got) == 0 || len(got) == 1 && want != nil && errors.Is(got[0], want) {
		return
	}
	t.Errorf("reported %v, want %v", got, want)
}

func (d *door) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// talk sends a client's whole side and returns all that comes back.
func (d *door) talk(t *testing.T, send string) string {
	t.Helper()
	c := d.dial(t)
	if _, err := io.WriteString(c, send); err != nil {
		t.Fatal(err)
	}
	return readAll(t, c)
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	got, err := io.ReadAll(r)
	if err != nil && !strings.Contains(err.Error(), "reset") {
		t.Fatalf("after %q: %v", got, err)
	}
	return string(got)
}

func readN(t *testing.T, r io.Reader, n int) string {
	t.Helper()
	p := make([]byte, n)
	if m, err := io.ReadFull(r, p); err != nil {
		t.Fatalf("after %q: %v", p[:m], err)
	}
	return string(p)
}

func write(t *testing.T, w io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
}

// echo proceeds, returns what it gets, and ends when the client does.
func echo(_ context.Context, r *transport.Request) {
	c, err := r.Pending.Proceed(netip.AddrPort{})
	if err != nil {
		return
	}
	defer c.Close()
	if len(r.First) > 0 {
		_, _ = c.Write(r.First)
	}
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

// greet proceeds with bound, says hello and ends.
func greet(bound netip.AddrPort) Handler {
	return HandlerFunc(func(_ context.Context, r *transport.Request) {
		if c, err := r.Pending.Proceed(bound); err == nil {
			_, _ = io.WriteString(c, "hello")
			_ = c.Close()
		}
	})
}

func abort(cause error) Handler {
	return HandlerFunc(func(_ context.Context, r *transport.Request) { _ = r.Pending.Abort(cause) })
}

// coded is an error with a code.
type coded transport.Code

func (c coded) Error() string        { return fmt.Sprintf("code %d", c) }
func (c coded) Code() transport.Code { return transport.Code(c) }

// dialerTo is a dialer that reaches addr, whatever the destination.
func dialerTo(addr func(dst netaddr.Addr) string) transport.DialerFunc {
	return func(ctx context.Context, dst netaddr.Addr, _ []byte) (transport.StreamConn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr(dst))
		if err != nil {
			return nil, err
		}
		return c.(*net.TCPConn), nil
	}
}

// A memListener hands out connections made by the test.
type memListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newMemListener() *memListener {
	return &memListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *memListener) Addr() net.Addr { return &net.UnixAddr{Name: "mem"} }

// dial returns the client's end of a new connection.
func (l *memListener) dial() net.Conn {
	near, far := net.Pipe()
	l.conns <- far
	return near
}
