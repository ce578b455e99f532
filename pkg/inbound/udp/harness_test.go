package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

// TestMain is another user's program where it is asked to be.
func TestMain(m *testing.M) {
	if to := os.Getenv(asSender); to != "" {
		if err := sendAs(to); err != nil {
			fmt.Println(err)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

const patience = 10 * time.Second

func addr(s string) netaddr.Addr {
	a, err := netaddr.Parse(s)
	if err != nil {
		panic(err)
	}
	return a
}

// dialerFunc is a dialer in one function.
type dialerFunc func(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error)

func (f dialerFunc) DialPacket(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	return f(ctx, dst)
}

// pipes is a dialer whose far ends arrive in far.
type pipes struct {
	size int
	far  chan *transporttest.PacketEnd
}

func newPipes(size int) *pipes {
	return &pipes{size, make(chan *transporttest.PacketEnd, 16)}
}

func (p *pipes) DialPacket(context.Context, netaddr.Addr) (transport.PacketConn, error) {
	near, far := transporttest.PacketPipe(p.size)
	p.far <- far
	return near, nil
}

// An echo is a PacketConn that returns what is written to it.
type echo struct{ *transporttest.PacketEnd }

func (e echo) Close() error { return e.PacketEnd.Close() }

func dialEcho(context.Context, netaddr.Addr) (transport.PacketConn, error) {
	near, far := transporttest.PacketPipe(64)
	go func() {
		for {
			b, p, from, err := far.ReadPacketPooled()
			if err != nil {
				return
			}
			_ = far.WritePacket(p, from)
			b.Release()
		}
	}()
	return echo{near}, nil
}

// answer is a transport.Pending for a UDP association.
type pendingStub struct {
	control transport.StreamConn
	bound   chan netip.AddrPort
	aborted chan error
}

func (p *pendingStub) Proceed(bound netip.AddrPort) (transport.StreamConn, error) {
	p.bound <- bound
	return p.control, nil
}

func (p *pendingStub) Abort(cause error) error { p.aborted <- cause; return nil }

// A user is a client of a Server with one association.
type user struct {
	*net.UDPConn
	control *transporttest.Conn
	bound   netip.AddrPort
	over    chan struct{} // closed when the association has ended
	cut     context.CancelFunc
}

// ask asks s for an association from source, which names a sender.
func ask(s *Server, source, local netip.AddrPort, named netaddr.Addr) (*user, *pendingStub) {
	near, far := transporttest.Pipe(1024)
	pending := &pendingStub{near, make(chan netip.AddrPort, 1), make(chan error, 1)}
	ctx, cut := context.WithCancel(context.Background())
	u := &user{control: far, over: make(chan struct{}), cut: cut}
	go func() {
		defer close(u.over)
		s.HandleAssociate(ctx, &transport.Request{
			Destination: named, Source: source, Local: local, Inbound: "socks5", Pending: pending,
		})
	}()
	return u, pending
}

var anywhere = addr("0.0.0.0:0")

func loopback(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

// join opens an association of s whose client sends from a socket on ip, until
// the test ends.
func join(t testing.TB, s *Server, ip string) *user {
	t.Helper()
	u := enter(t, s, ip)
	t.Cleanup(func() { u.leave(t) })
	return u
}

// enter is join for an association that is left by hand.
func enter(t testing.TB, s *Server, ip string) *user {
	t.Helper()
	a := netip.MustParseAddr(ip)
	u, pending := ask(s, netip.AddrPortFrom(a, 40000), netip.AddrPortFrom(a, 1080), anywhere)
	select {
	case u.bound = <-pending.bound:
	case err := <-pending.aborted:
		t.Fatalf("refused: %v", err)
	}
	u.UDPConn = connectFrom(t, ip, u.bound)
	return u
}

// leave ends the association and waits for that.
func (u *user) leave(t testing.TB) {
	t.Helper()
	_ = u.UDPConn.Close()
	_ = u.control.Close()
	select {
	case <-u.over:
	case <-time.After(patience):
		t.Error("the association goes on")
	}
	u.cut()
}

// dialFrom is a socket on ip that sends to to, until the test ends.
func dialFrom(t testing.TB, ip string, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	c := connectFrom(t, ip, to)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func connectFrom(t testing.TB, ip string, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 0)), net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// pack is a datagram of a client.
func pack(to netaddr.Addr, payload []byte) []byte { return append(appendHeader(nil, to), payload...) }

func (u *user) send(t testing.TB, to, payload string) {
	t.Helper()
	if _, err := u.Write(pack(addr(to), []byte(payload))); err != nil {
		t.Fatal(err)
	}
}

func (u *user) want(t testing.TB, from, payload string) {
	t.Helper()
	b := make([]byte, 1<<16)
	n, err := u.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	got, data, err := make(names).parse(b[:n])
	if err != nil || got != addr(from) || string(data) != payload {
		t.Fatalf("read %.40q from %s, %v; want %.40q from %s", data, got, err, payload, from)
	}
}

// wantRead checks what arrives at the far end of a tunnel.
func wantRead(t testing.TB, far transport.PacketConn, to, payload string) {
	t.Helper()
	b := transport.GetBuffer()
	defer b.Release()
	n, got, err := far.ReadPacket(b[:])
	if err != nil || got != addr(to) || string(b[:n]) != payload {
		t.Fatalf("read %.40q to %s, %v; want %.40q to %s", b[:n], got, err, payload, to)
	}
}

// until waits for ok, which something else makes true.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not yet: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// A record keeps reports.
type record struct {
	mu   sync.Mutex
	errs []error
}

func (r *record) report(err error, _ netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, err)
}

// count returns how many reports are of kind.
func (r *record) count(kind error) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, err := range r.errs {
		if errors.Is(err, kind) {
			n++
		}
	}
	return n
}
