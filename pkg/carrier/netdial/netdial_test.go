package netdial_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

func TestPlain(t *testing.T) {
	d := &netdial.Dialer{Server: serve(t, echo), Timeout: time.Minute}
	ctx, cancel := context.WithCancel(t.Context())
	conn, err := d.ConnectStream(ctx, []byte("first "))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	cancel() // ends attempts, not connections
	roundTrip(t, conn, "first ", "and more")
	if _, ok := conn.(transport.ReadWaiter); !ok {
		t.Errorf("a %T cannot wait without a buffer", conn)
	}
}

func TestRefused(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := addr(t, ln.Addr().String())
	_ = ln.Close()
	e := failed(t, t.Context(), &netdial.Dialer{Server: server}, netdial.StepTCP)
	if !errors.Is(e, syscall.ECONNREFUSED) || transport.CodeOf(e) != transport.CodeConnectionRefused || e.Timeout() {
		t.Errorf("got %v", e)
	}
	if e.Addr != server.String() || !strings.HasPrefix(e.Error(), "tcp "+server.String()+": ") {
		t.Errorf("the text hides step or address: %v", e)
	}
}

// TestNoDeadlineStays dials through a proxy and TLS and lets the time of the
// attempt pass.
func TestNoDeadlineStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := transporttest.Pipe(1 << 10)
		d := &netdial.Dialer{
			Server:   addr(t, "server.example:443"),
			Upstream: upstream("http", nil, addr(t, "192.0.2.1:3128")),
			DialTCP:  func(context.Context, string, string) (net.Conn, error) { return near, nil },
		}
		go func() { answerConnect(t, far, "HTTP/1.1 200 OK\r\n\r\n") }()
		conn, err := d.ConnectStream(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		go func() { echo(far) }()
		roundTrip(t, conn, "", "late")
	})
}

// TestEarlySocketDeadline has the socket's deadline fire before the context's.
func TestEarlySocketDeadline(t *testing.T) {
	d := &netdial.Dialer{Server: addr(t, "192.0.2.1:443")}
	d.DialTCP = func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
	}
	if e := failed(t, t.Context(), d, netdial.StepTCP); !e.Timeout() || !errors.Is(e, context.DeadlineExceeded) {
		t.Errorf("got %v", e)
	}
}

// TestFirstIsBounded connects to a server that takes nothing.
func TestFirstIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newNet(map[string]fate{"192.0.2.1": {}})
		d := &netdial.Dialer{Server: addr(t, "192.0.2.1:80"), DialTCP: network.dial}
		_, err := d.ConnectStream(t.Context(), make([]byte, 1<<20))
		var e *netdial.Error
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &e) || e.Took != netdial.DefaultTimeout {
			t.Errorf("got %v", err)
		}
		if left := network.left(); len(left) != 0 {
			t.Errorf("still open: %v", left)
		}
	})
}

var errBored = errors.New("bored")

func TestCancel(t *testing.T) {
	for _, c := range []struct {
		name string
		step netdial.Step
		set  func(*netdial.Dialer, *fakeNet)
	}{
		{"dns", netdial.StepDNS, func(d *netdial.Dialer, _ *fakeNet) { d.Resolver = resolverFunc(silentResolver) }},
		{"tcp", netdial.StepTCP, func(_ *netdial.Dialer, n *fakeNet) { n.set("192.0.2.1", fate{after: never}) }},
		{"tcp, between two attempts", netdial.StepTCP, func(_ *netdial.Dialer, n *fakeNet) { n.set("192.0.2.1", fate{after: never, err: os.ErrInvalid}) }},
		{"upstream", netdial.StepUpstream, func(d *netdial.Dialer, _ *fakeNet) { d.Upstream = &url.URL{Scheme: "http", Host: "192.0.2.1"} }},
		{"upstream SOCKS", netdial.StepUpstream, func(d *netdial.Dialer, _ *fakeNet) { d.Upstream = &url.URL{Scheme: "socks5", Host: "192.0.2.1"} }},
		{"tls", netdial.StepTLS, func(d *netdial.Dialer, _ *fakeNet) { d.TLS = new(netdial.TLS) }},
		{"first", netdial.StepTCP, func(*netdial.Dialer, *fakeNet) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newNet(map[string]fate{"192.0.2.1": {}})
				d := &netdial.Dialer{Server: addr(t, "server.example:443"), Resolver: answers("192.0.2.1"), DialTCP: network.dial}
				c.set(d, network)
				ctx, cancel := context.WithCancelCause(t.Context())
				began := time.Now()
				time.AfterFunc(100*time.Millisecond, func() { cancel(errBored) })
				_, err := d.ConnectStream(ctx, make([]byte, 1<<20))
				var e *netdial.Error
				if !errors.Is(err, context.Canceled) || !errors.Is(err, errBored) || !errors.As(err, &e) || e.Step != c.step || e.Timeout() {
					t.Errorf("got %v", err)
				}
				if took := time.Since(began); took != 100*time.Millisecond {
					t.Errorf("took %v", took)
				}
				synctest.Wait()
				if left := network.left(); len(left) != 0 {
					t.Errorf("still open: %v", left)
				}
			})
		})
	}
}

func TestCancelledBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := &netdial.Dialer{Server: serve(t, echo), TLS: new(netdial.TLS)}
	if _, err := d.ConnectStream(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestConcurrentDials(t *testing.T) {
	self := issue(t, nil, false, "server.example")
	server := serveTLS(t, self.presents())
	host, err := netaddr.FromHost("server.example", server.Port())
	if err != nil {
		t.Fatal(err)
	}
	d := &netdial.Dialer{Server: host, TLS: &netdial.TLS{Pins: [][32]byte{self.pin()}}, Resolver: answers("127.0.0.1")}
	errs := make(chan error)
	for range 8 {
		go func() {
			conn, err := d.ConnectStream(t.Context(), []byte("x"))
			if err == nil {
				_ = conn.Close()
			}
			errs <- err
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
