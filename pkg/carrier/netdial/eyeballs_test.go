package netdial_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/transport/transporttest"
)

// A fate is what dialling an address comes to after a delay.
type fate struct {
	after time.Duration
	err   error
	deaf  bool // connects after the delay even if the attempt was cancelled
}

const never = 24 * time.Hour

// A fakeNet is a network in memory on the bubble's clock.
type fakeNet struct {
	began time.Time
	fates map[string]fate // by IP; others are unreachable

	mu    sync.Mutex
	dials []string // "IP@when"
	open  map[net.Conn]string
}

func newNet(fates map[string]fate) *fakeNet {
	return &fakeNet{began: time.Now(), fates: fates, open: make(map[net.Conn]string)}
}

type trackedConn struct {
	net.Conn
	net *fakeNet
}

func (c *trackedConn) Close() error {
	c.net.mu.Lock()
	delete(c.net.open, c)
	c.net.mu.Unlock()
	return c.Conn.Close()
}

func (n *fakeNet) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if network != "tcp" {
		return nil, errors.New("asked for network " + network)
	}
	to := netip.MustParseAddrPort(addr)
	ip := to.Addr().String()
	n.mu.Lock()
	n.dials = append(n.dials, fmt.Sprintf("%s@%d", ip, time.Since(n.began).Milliseconds()))
	f, known := n.fates[ip]
	n.mu.Unlock()
	if !known {
		f.err = syscall.ENETUNREACH
	}
	done := ctx.Done()
	if f.deaf {
		done = nil
	}
	select {
	case <-time.After(f.after):
	case <-done:
		return nil, ctx.Err()
	}
	if f.err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(to), Err: f.err}
	}
	near, _ := transporttest.Pipe(1 << 10)
	conn := &trackedConn{near, n}
	n.mu.Lock()
	n.open[conn] = ip
	n.mu.Unlock()
	return conn, nil
}

// set changes what becomes of dialling an address.
func (n *fakeNet) set(ip string, f fate) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fates[ip] = f
}

// dialled takes the attempts so far and forgets them.
func (n *fakeNet) dialled() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	dials := strings.Join(n.dials, " ")
	n.dials = nil
	return dials
}

// left names the connections still open.
func (n *fakeNet) left() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var ips []string
	for _, ip := range n.open {
		ips = append(ips, ip)
	}
	return ips
}

func TestEyeballs(t *testing.T) {
	refused := fate{err: syscall.ECONNREFUSED}
	for _, c := range []struct {
		name  string
		addrs []string
		fates map[string]fate
		dials string // attempts and the millisecond each began
		won   string // "" none
		took  time.Duration
		err   []error
	}{
		{
			name: "the first answers at once", addrs: []string{"2001:db8::1", "192.0.2.1"},
			fates: map[string]fate{"2001:db8::1": {after: 30 * time.Millisecond}, "192.0.2.1": {}},
			dials: "2001:db8::1@0", won: "2001:db8::1", took: 30 * time.Millisecond,
		},
		{
			name: "silent IPv6 gives way to IPv4", addrs: []string{"2001:db8::1", "2001:db8::2", "192.0.2.1"},
			fates: map[string]fate{"2001:db8::1": {after: never}, "192.0.2.1": {after: 20 * time.Millisecond}},
			dials: "2001:db8::1@0 192.0.2.1@250", won: "192.0.2.1", took: 270 * time.Millisecond,
		},
		{
			name: "the family of the first address comes first", addrs: []string{"192.0.2.1", "192.0.2.2", "2001:db8::1"},
			fates: map[string]fate{"192.0.2.1": {after: never}, "192.0.2.2": {after: never}, "2001:db8::1": {after: never}},
			dials: "192.0.2.1@0 2001:db8::1@250 192.0.2.2@500" + // and afresh, after 1, 2, 4 and 8 s
				" 192.0.2.1@1000 2001:db8::1@1250 192.0.2.2@1500 192.0.2.1@2000 2001:db8::1@2250 192.0.2.2@2500" +
				" 192.0.2.1@4000 2001:db8::1@4250 192.0.2.2@4500 192.0.2.1@8000 2001:db8::1@8250 192.0.2.2@8500", took: 10 * time.Second,
			err: []error{context.DeadlineExceeded},
		},
		{
			name: "a slow first still wins over a slower second", addrs: []string{"2001:db8::1", "192.0.2.1"},
			fates: map[string]fate{"2001:db8::1": {after: 400 * time.Millisecond}, "192.0.2.1": {after: 200 * time.Millisecond}},
			dials: "2001:db8::1@0 192.0.2.1@250", won: "2001:db8::1", took: 400 * time.Millisecond,
		},
		{
			name: "a refusal starts the next at once, ten milliseconds apart", addrs: []string{"2001:db8::1", "192.0.2.1", "192.0.2.2"},
			fates: map[string]fate{"2001:db8::1": refused, "192.0.2.1": {after: 60 * time.Millisecond, err: syscall.ECONNREFUSED}, "192.0.2.2": {}},
			dials: "2001:db8::1@0 192.0.2.1@10 192.0.2.2@70", won: "192.0.2.2", took: 70 * time.Millisecond,
		},
		{
			name: "all errors are told", addrs: []string{"2001:db8::1", "192.0.2.1"},
			fates: map[string]fate{"192.0.2.1": refused},
			dials: "2001:db8::1@0 192.0.2.1@10", took: 10 * time.Millisecond,
			err: []error{syscall.ENETUNREACH, syscall.ECONNREFUSED},
		},
		{
			name: "duplicates and mapped addresses are one", addrs: []string{"192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"},
			fates: map[string]fate{"192.0.2.1": refused}, dials: "192.0.2.1@0", err: []error{syscall.ECONNREFUSED},
		},
		{
			name: "a loser that connects too late is closed", addrs: []string{"2001:db8::1", "192.0.2.1"},
			fates: map[string]fate{"2001:db8::1": {after: time.Second, deaf: true}, "192.0.2.1": {}},
			dials: "2001:db8::1@0 192.0.2.1@250", won: "192.0.2.1", took: 250 * time.Millisecond,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network, seen := newNet(c.fates), new(steps)
				d := &netdial.Dialer{Server: addr(t, "server.example:443"), Resolver: answers(c.addrs...), DialTCP: network.dial, OnStep: seen.add}
				began := time.Now()
				conn, err := d.ConnectStream(t.Context(), []byte("hello"))
				if took := time.Since(began); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
				time.Sleep(2 * time.Second) // for stragglers, on the bubble's clock
				if got := network.dialled(); got != c.dials {
					t.Errorf("dialled %s, want %s", got, c.dials)
				}
				var want []string
				if c.won != "" {
					want = []string{c.won}
				}
				if left := network.left(); !slices.Equal(left, want) {
					t.Errorf("open connections: %v, want %v", left, want)
				}
				if (err == nil) != (c.won != "") {
					t.Fatalf("ConnectStream: %v", err)
				}
				for _, e := range c.err {
					if !errors.Is(err, e) {
						t.Errorf("%v does not tell %v", err, e)
					}
				}
				if err == nil {
					if got := seen.ended(t, netdial.StepTCP).Remote; got.String() != netip.AddrPortFrom(netip.MustParseAddr(c.won), 443).String() {
						t.Errorf("reported %v as the winner", got)
					}
					_ = conn.Close()
				}
			})
		})
	}
}

// A lab for what comes after a silence.
func silentAt(fates map[string]fate, addrs ...string) (*fakeNet, *netdial.Dialer) {
	network := newNet(fates)
	return network, &netdial.Dialer{Resolver: answers(addrs...), DialTCP: network.dial, Timeout: 19 * time.Second}
}

// TestSilentHostComesBack: an address that stays silent is tried afresh beside
// the attempt under way, so that a host that comes back is met; the losers are
// closed.
func TestSilentHostComesBack(t *testing.T) {
	for _, c := range []struct {
		name  string
		back  time.Duration
		fate  fate // then, of a fresh attempt
		dials string
		took  time.Duration
		err   error
	}{
		{"in time for the first", 0, fate{}, "192.0.2.1@0", 0, nil},
		{"at once", time.Millisecond, fate{}, "192.0.2.1@0 192.0.2.1@1000", time.Second, nil},
		{"after 7.6 s", 7600 * time.Millisecond, fate{}, "192.0.2.1@0 192.0.2.1@1000 192.0.2.1@2000 192.0.2.1@4000 192.0.2.1@8000", 8 * time.Second, nil},
		{"after 15 s", 15 * time.Second, fate{}, "192.0.2.1@0 192.0.2.1@1000 192.0.2.1@2000 192.0.2.1@4000 192.0.2.1@8000 192.0.2.1@12000 192.0.2.1@16000", 16 * time.Second, nil},
		{"and its service not yet", 3 * time.Second, fate{err: syscall.ECONNREFUSED}, "192.0.2.1@0 192.0.2.1@1000 192.0.2.1@2000 192.0.2.1@4000", 4 * time.Second, syscall.ECONNREFUSED},
		{"but no files are left", 3 * time.Second, fate{err: syscall.EMFILE}, "192.0.2.1@0 192.0.2.1@1000 192.0.2.1@2000 192.0.2.1@4000 192.0.2.1@8000 192.0.2.1@12000 192.0.2.1@16000", 19 * time.Second, context.DeadlineExceeded},
		{"never", time.Hour, fate{}, "192.0.2.1@0 192.0.2.1@1000 192.0.2.1@2000 192.0.2.1@4000 192.0.2.1@8000 192.0.2.1@12000 192.0.2.1@16000", 19 * time.Second, context.DeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network, d := silentAt(map[string]fate{"192.0.2.1": {after: never}}, "192.0.2.1")
				d.Server = addr(t, "server.example:443")
				if c.back == 0 {
					network.set("192.0.2.1", c.fate)
				}
				back := time.AfterFunc(c.back, func() { network.set("192.0.2.1", c.fate) })
				defer back.Stop()
				began := time.Now()
				conn, err := d.ConnectStream(t.Context(), nil)
				if took := time.Since(began); took != c.took || !errors.Is(err, c.err) {
					t.Errorf("%v after %v, want %v after %v", err, took, c.err, c.took)
				}
				var open int
				if err == nil {
					defer conn.Close()
					open = 1
				} else if n := strings.Count(err.Error(), "192.0.2.1"); n != 1 {
					t.Errorf("it names the address %d times: %v", n, err)
				}
				time.Sleep(time.Minute)
				if got := network.dialled(); got != c.dials {
					t.Errorf("dialled %s, want %s", got, c.dials)
				}
				if left := network.left(); len(left) != open {
					t.Errorf("open connections: %v", left)
				}
			})
		})
	}
}

// TestSilentHostIsNotHammered: a crowd to a host that is silent makes few
// attempts beside those that it would make anyway, whatever the time is.
func TestSilentHostIsNotHammered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const crowd = 1000
		network, d := silentAt(map[string]fate{"192.0.2.1": {after: never}}, "192.0.2.1")
		d.Server = addr(t, "server.example:443")
		var all sync.WaitGroup
		for range crowd {
			all.Go(func() {
				if conn, err := d.ConnectStream(t.Context(), nil); err == nil {
					_ = conn.Close()
				}
			})
		}
		all.Wait()
		if n := len(strings.Fields(network.dialled())); n != crowd+16 {
			t.Errorf("%d attempts by %d", n, crowd)
		}
	})
}

// TestSilenceIsTold: who asks hears, once, that nobody takes the connection,
// while the attempt goes on.
func TestSilenceIsTold(t *testing.T) {
	const after = 2500 * time.Millisecond
	for name, c := range map[string]struct {
		fate fate
		told bool
	}{
		"answers":        {fate{after: 2 * time.Second}, false},
		"answers late":   {fate{after: 3 * time.Second}, true},
		"never":          {fate{after: never}, true},
		"refuses before": {fate{err: syscall.ECONNREFUSED}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, d := silentAt(map[string]fate{"192.0.2.1": c.fate}, "192.0.2.1")
				d.Server = addr(t, "server.example:443")
				began := time.Now()
				var told []*netdial.Error
				conn, err := d.ConnectStream(netdial.WithSlowNotice(t.Context(), after, func(e *netdial.Error) {
					if took := time.Since(began); took != after || e.Took != after {
						t.Errorf("told after %v: %v", took, e)
					}
					told = append(told, e)
				}), nil)
				if err == nil {
					_ = conn.Close()
				}
				if (err == nil) != (c.fate.err == nil && c.fate.after != never) {
					t.Errorf("ended with %v", err)
				}
				if len(told) > 1 || c.told != (len(told) == 1) {
					t.Fatalf("told %v", told)
				}
				for _, e := range told {
					if e.Step != netdial.StepTCP || e.Addr != "server.example:443" || !e.Timeout() {
						t.Errorf("told %v", e)
					}
				}
			})
		})
	}
}

func TestEyeballsDeadHeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newNet(map[string]fate{"2001:db8::1": {after: 260 * time.Millisecond, deaf: true}, "192.0.2.1": {after: 10 * time.Millisecond, deaf: true}})
		d := &netdial.Dialer{Server: addr(t, "server.example:443"), Resolver: answers("2001:db8::1", "192.0.2.1"), DialTCP: network.dial}
		conn, err := d.ConnectStream(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if left := network.left(); len(left) != 1 {
			t.Errorf("open connections: %v, want one", left)
		}
		_ = conn.Close()
		if left := network.left(); len(left) != 0 {
			t.Errorf("open connections: %v, want none", left)
		}
	})
}

func TestEyeballsBoundsAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var many []string
		for i := range 200 {
			many = append(many, fmt.Sprintf("192.0.2.%d", i))
		}
		network := newNet(nil)
		d := &netdial.Dialer{Server: addr(t, "server.example:443"), Resolver: answers(many...), DialTCP: network.dial}
		failed(t, t.Context(), d, netdial.StepTCP)
		if n := len(strings.Fields(network.dialled())); n != 16 {
			t.Errorf("%d attempts, want 16", n)
		}
	})
}

func TestLastGoodAddressFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newNet(map[string]fate{"2001:db8::1": {after: never}, "2001:db8::2": {after: never}, "192.0.2.1": {}})
		d := &netdial.Dialer{Server: addr(t, "server.example:443"), DialTCP: network.dial}
		d.Resolver = answers("2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2")
		for range 2 {
			conn, err := d.ConnectStream(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
		}
		if got := network.dialled(); got != "2001:db8::1@0 192.0.2.1@250 192.0.2.1@250" {
			t.Errorf("dialled %s", got)
		}

		// It stops working: both families take turns behind it.
		network.set("192.0.2.1", fate{err: syscall.ECONNREFUSED})
		network.set("192.0.2.2", fate{})
		conn, err := d.ConnectStream(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		if got := network.dialled(); got != "192.0.2.1@250 2001:db8::1@260 192.0.2.2@510" {
			t.Errorf("dialled %s", got)
		}
	})
}

// TestBadAddressIsForgotten fails behind the TCP handshake at the address that
// worked before.
func TestBadAddressIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newNet(map[string]fate{"2001:db8::1": {after: never}, "192.0.2.1": {}})
		d := &netdial.Dialer{Server: addr(t, "server.example:443"), Resolver: answers("2001:db8::1", "192.0.2.1"), DialTCP: network.dial}
		for _, c := range []struct {
			first int // more than the pipe takes fails
			dials string
		}{
			{1, "2001:db8::1@0 192.0.2.1@250"},
			{1 << 20, "192.0.2.1@250"},
			{1, "2001:db8::1@10250 192.0.2.1@10500"},
		} {
			conn, err := d.ConnectStream(t.Context(), make([]byte, c.first))
			if err == nil {
				_ = conn.Close()
			}
			if got := network.dialled(); got != c.dials || (err == nil) != (c.first == 1) {
				t.Errorf("%d bytes: dialled %s, %v; want %s", c.first, got, err, c.dials)
			}
		}
	})
}

// TestForget: on another network the race is open again.
func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newNet(map[string]fate{"2001:db8::1": {after: never}, "192.0.2.1": {}})
		d := &netdial.Dialer{Server: addr(t, "server.example:443"), Resolver: answers("2001:db8::1", "192.0.2.1"), DialTCP: network.dial}
		for range 2 {
			d.Forget()
			conn, err := d.ConnectStream(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
		}
		if got := network.dialled(); got != "2001:db8::1@0 192.0.2.1@250 2001:db8::1@250 192.0.2.1@500" {
			t.Errorf("dialled %s", got)
		}
	})
}
