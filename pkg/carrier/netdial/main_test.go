package netdial_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// resolverFunc makes a resolver of a function.
type resolverFunc func(ctx context.Context, host string) ([]netip.Addr, error)

func (f resolverFunc) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if network != "ip" {
		return nil, errors.New("asked for network " + network)
	}
	return f(ctx, host)
}

// answers resolves every name to the given addresses.
func answers(addrs ...string) resolverFunc {
	ips := make([]netip.Addr, len(addrs))
	for i, a := range addrs {
		ips[i] = netip.MustParseAddr(a)
	}
	return func(context.Context, string) ([]netip.Addr, error) { return ips, nil }
}

// refuseNames fails the test when anything is resolved.
func refuseNames(t *testing.T) resolverFunc {
	return func(_ context.Context, host string) ([]netip.Addr, error) {
		t.Errorf("%q was resolved", host)
		return nil, errors.New("no names here")
	}
}

func addr(t testing.TB, s string) netaddr.Addr {
	t.Helper()
	a, err := netaddr.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// serve runs handle for each connection to a loopback port until the test ends.
func serve(t *testing.T, handle func(net.Conn)) netaddr.Addr {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var (
		mu    sync.Mutex
		conns []net.Conn
		busy  sync.WaitGroup
	)
	busy.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			busy.Go(func() {
				defer func() { _ = c.Close() }()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		busy.Wait()
	})
	return addr(t, ln.Addr().String())
}

func echo(c net.Conn) {
	_, _ = io.Copy(c, c)
	if half, ok := c.(transport.StreamConn); ok {
		_ = half.CloseWrite()
	}
}

// drain reads until the other side is gone.
func drain(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// steps records what OnStep told.
type steps struct {
	mu  sync.Mutex
	all []netdial.Progress
}

func (s *steps) add(p netdial.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, p)
}

// ended returns the last report of how step ended.
func (s *steps) ended(t *testing.T, step netdial.Step) netdial.Progress {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.all) - 1; i >= 0; i-- {
		if s.all[i].Step == step && s.all[i].Done {
			return s.all[i]
		}
	}
	t.Fatalf("step %v never ended: %+v", step, s.all)
	return netdial.Progress{}
}

// words tells the reports in short: "dns… dns! tcp… tcp".
func (s *steps) words() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var words []string
	for _, p := range s.all {
		word := p.Step.String()
		switch {
		case !p.Done:
			word += "…"
		case p.Err != nil:
			word += "!"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// failed dials, wants a failure in step and returns it.
func failed(t *testing.T, ctx context.Context, d *netdial.Dialer, step netdial.Step) *netdial.Error {
	t.Helper()
	conn, err := d.ConnectStream(ctx, nil)
	if err == nil {
		_ = conn.Close()
		t.Fatalf("connected; want a failure in step %v", step)
	}
	var e *netdial.Error
	if !errors.As(err, &e) {
		t.Fatalf("%T %v is no *netdial.Error", err, err)
	}
	if e.Step != step {
		t.Fatalf("failed in step %v: %v; want step %v", e.Step, err, step)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	return e
}

// roundTrip sends text over an echoing stream and ends it.
func roundTrip(t *testing.T, conn transport.StreamConn, already, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != already+text {
		t.Fatalf("read %q, %v; want %q", got, err, already+text)
	}
}
