package netdial_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/carrier/netdial"
)

func TestResolverErrors(t *testing.T) {
	gone := &net.DNSError{Err: "no such host", Name: "server.example", Server: "192.0.2.53:53", IsNotFound: true}
	for _, c := range []struct {
		name     string
		resolver resolverFunc
		check    func(*net.DNSError) bool
	}{
		{"not found", func(context.Context, string) ([]netip.Addr, error) { return nil, gone }, func(e *net.DNSError) bool {
			return e == gone
		}},
		{"no address", answers(), func(e *net.DNSError) bool { return e.IsNotFound && e.Name == "server.example" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &netdial.Dialer{Server: addr(t, "server.example:443"), Resolver: c.resolver}
			e := failed(t, t.Context(), d, netdial.StepDNS)
			var dns *net.DNSError
			if !errors.As(e, &dns) || !c.check(dns) {
				t.Errorf("got %v", e)
			}
			if e.Addr != "server.example" || e.Upstream || e.Timeout() {
				t.Errorf("got %+v", e)
			}
		})
	}
}

// silentResolver answers when ctx ends, as net.Resolver does.
func silentResolver(ctx context.Context, host string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, &net.DNSError{Err: "i/o timeout", Name: host, Server: "192.0.2.53:53", IsTimeout: true}
}

func TestResolverTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &netdial.Dialer{Server: addr(t, "server.example:443"), Resolver: resolverFunc(silentResolver), Timeout: 3 * time.Second}
		e := failed(t, t.Context(), d, netdial.StepDNS)
		var dns *net.DNSError
		if !errors.As(e, &dns) || dns.Server != "192.0.2.53:53" {
			t.Errorf("the resolver asked got lost: %v", e)
		}
		if !e.Timeout() || !errors.Is(e, context.DeadlineExceeded) || e.Took != 3*time.Second {
			t.Errorf("got %+v", e)
		}
		if !strings.HasPrefix(e.Error(), "dns server.example: timed out after 3s: ") {
			t.Errorf("the text hides the step or the time: %v", e)
		}
	})
}

func TestResolverDownUsesEarlierAnswer(t *testing.T) {
	broken := func(context.Context, string) ([]netip.Addr, error) {
		return nil, &net.DNSError{Err: "server misbehaving", Server: "192.0.2.53:53"}
	}
	for _, c := range []struct {
		name     string
		resolver resolverFunc
		took     time.Duration
	}{
		{"fails", broken, 0},
		{"is silent", silentResolver, 2 * time.Second},
		{"ignores its hurry", func(ctx context.Context, host string) ([]netip.Addr, error) {
			time.Sleep(3 * time.Second)
			return silentResolver(ctx, host)
		}, 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network, seen := newNet(map[string]fate{"192.0.2.1": {}}), new(steps)
				d := &netdial.Dialer{Server: addr(t, "server.example:443"), Resolver: answers("192.0.2.1"), DialTCP: network.dial, OnStep: seen.add}
				connect := func() {
					t.Helper()
					conn, err := d.ConnectStream(t.Context(), nil)
					if err != nil {
						t.Fatal(err)
					}
					_ = conn.Close()
				}
				connect()
				if p := seen.ended(t, netdial.StepDNS); p.Remembered || len(p.Addrs) != 1 || p.Addr != "server.example" {
					t.Errorf("reported %+v", p)
				}

				d.Resolver = c.resolver
				began := time.Now()
				connect()
				if took := time.Since(began); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
				p := seen.ended(t, netdial.StepDNS)
				var dns *net.DNSError
				if !p.Remembered || len(p.Addrs) != 1 || !errors.As(p.Err, &dns) || dns.Server != "192.0.2.53:53" {
					t.Errorf("reported %+v", p)
				}
				if got, want := seen.words(), "dns… dns tcp… tcp dns… dns! tcp… tcp"; got != want {
					t.Errorf("steps %s, want %s", got, want)
				}

				// The old address does not work: the resolver is part of why.
				network.set("192.0.2.1", fate{err: syscall.ECONNREFUSED})
				e := failed(t, t.Context(), d, netdial.StepTCP)
				if !errors.Is(e, syscall.ECONNREFUSED) || e.Timeout() || !errors.As(e.Stale, &dns) {
					t.Errorf("got %+v", e)
				}
				if !strings.Contains(e.Error(), "earlier answer") {
					t.Errorf("the text hides that the address is old: %v", e)
				}
			})
		})
	}
}

// TestMissingNameIsBelievedLate: a resolver that says there is no such name is
// not believed at once, for those of networks being joined say so of all.
func TestMissingNameIsBelievedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		missing := func(_ context.Context, host string) ([]netip.Addr, error) {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		good := answers("192.0.2.1")
		network := newNet(map[string]fate{"192.0.2.1": {}})
		d := &netdial.Dialer{Server: addr(t, "server.example:443"), DialTCP: network.dial}
		for i, step := range []struct {
			resolver resolverFunc
			after    time.Duration
			works    bool
		}{
			{missing, 0, false}, // nothing is known yet
			{good, time.Minute, true},
			{missing, time.Hour, true},
			{missing, 9 * time.Minute, true},
			{good, 0, true},
			{missing, 5 * time.Minute, true},
			{missing, 9 * time.Minute, true},
			{missing, 2 * time.Minute, false},
			{missing, time.Hour, false},
			{good, 0, true},
		} {
			time.Sleep(step.after)
			d.Resolver = step.resolver
			conn, err := d.ConnectStream(t.Context(), nil)
			if err == nil {
				_ = conn.Close()
			}
			if (err == nil) != step.works {
				t.Errorf("step %d: %v", i, err)
			}
		}
	})
}

// TestOnlyGoodAddressesAreRemembered: a resolver that lies for a while, as that
// of a network that wants a login first, does not make the good ones forgotten.
func TestOnlyGoodAddressesAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newNet(map[string]fate{"192.0.2.1": {}, "10.0.0.1": {err: syscall.ECONNREFUSED}})
		d := &netdial.Dialer{Server: addr(t, "server.example:443"), DialTCP: network.dial}
		connect := func(r resolverFunc) error {
			d.Resolver = r
			conn, err := d.ConnectStream(t.Context(), nil)
			if err == nil {
				_ = conn.Close()
			}
			return err
		}
		if err := connect(answers("192.0.2.1")); err != nil {
			t.Fatal(err)
		}
		if err := connect(answers("10.0.0.1")); err == nil {
			t.Fatal("came through by an address that leads nowhere")
		}
		if err := connect(silentResolver); err != nil {
			t.Error(err)
		}
	})
}

func TestLiteralIsNotResolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, seen := newNet(map[string]fate{"2001:db8::1": {}}), new(steps)
		d := &netdial.Dialer{Server: addr(t, "[2001:db8::1]:443"), Resolver: refuseNames(t), DialTCP: network.dial, OnStep: seen.add}
		conn, err := d.ConnectStream(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		if got := seen.words(); got != "tcp… tcp" {
			t.Errorf("steps %s", got)
		}
	})
}

func TestNoServer(t *testing.T) {
	failed(t, t.Context(), &netdial.Dialer{}, netdial.StepTCP)
}
