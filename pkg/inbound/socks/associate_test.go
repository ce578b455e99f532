package socks

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/txthinking/socks5"

	"vmess-local/pkg/inbound/udp"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

// associatorFunc makes an Associator of a function.
type associatorFunc func(ctx context.Context, r *transport.Request)

func (f associatorFunc) HandleAssociate(ctx context.Context, r *transport.Request) { f(ctx, r) }

const associate5 = "\x05\x01\x00" + "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00"

func TestAssociateRequests(t *testing.T) {
	const hello = "\x05\x01\x00"
	for _, c := range []struct {
		name, send, want, named string
		report                  error
	}{
		{name: "anywhere", send: associate5, named: "0.0.0.0:0"},
		{name: "a port", send: hello + "\x05\x03\x00\x01\x00\x00\x00\x00\x12\x34", named: "0.0.0.0:4660"},
		{name: "an address", send: hello + "\x05\x03\x00\x01\xc0\x00\x02\x01\x12\x34", named: "192.0.2.1:4660"},
		{name: "IPv6", send: hello + "\x05\x03\x00\x04" + strings.Repeat("\x00", 16) + "\x12\x34", named: "[::]:4660"},
		{name: "a name", send: hello + "\x05\x03\x00\x03\x09localhost\x12\x34", named: "0.0.0.0:0"},
		{name: "no address", send: hello + "\x05\x03\x00\x03\x00\x12\x34", want: "\x01" + zeros, report: ErrBadRequest},
		{name: "bind", send: hello + "\x05\x02\x00\x01\xc0\x00\x02\x01\x12\x34", want: "\x07" + zeros, report: ErrCommand},
	} {
		t.Run(c.name, func(t *testing.T) {
			named := ""
			d := open(t, &Server{Associator: associatorFunc(func(_ context.Context, r *transport.Request) {
				named = r.Destination.String()
				if r.Source.Addr() != r.Local.Addr() || r.Local.Port() == 0 || r.Source.Port() == 0 || r.Inbound != "socks5" {
					t.Errorf("asked from %s at %s by %s", r.Source, r.Local, r.Inbound)
				}
				_, _ = r.Pending.Proceed(netip.MustParseAddrPort("192.0.2.9:4660"))
			})})
			want := c.want
			if want == "" {
				want = "\x00\x00\x01\xc0\x00\x02\x09\x12\x34"
			}
			if got := d.talk(t, c.send); got != "\x05\x00\x05"+want {
				t.Errorf("answered % x", got)
			}
			d.wantReport(t, c.report)
			if named != c.named {
				t.Errorf("named %q", named)
			}
		})
	}
}

func TestAssociateAborts(t *testing.T) {
	for _, c := range []struct {
		cause error
		want  string
	}{
		{udp.ErrTooMany, "\x05\x00\x05\x01"},
		{transport.ErrNotAllowed, "\x05\x00\x05\x02"},
		{nil, "\x05\x00\x05\x01"}, // left unanswered
	} {
		d := open(t, &Server{Associator: associatorFunc(func(_ context.Context, r *transport.Request) {
			if c.cause != nil {
				_ = r.Pending.Abort(c.cause)
			}
		})})
		if got := d.talk(t, associate5); !strings.HasPrefix(got, c.want) {
			t.Errorf("%v: answered % x", c.cause, got)
		}
		d.wantReport(t, nil)
	}
}

// udpEcho is a dialer whose far end returns every datagram.
type udpEcho struct{}

func (udpEcho) DialPacket(context.Context, netaddr.Addr) (transport.PacketConn, error) {
	near, far := transporttest.PacketPipe(16)
	go func() {
		b := make([]byte, transport.BufferSize)
		for {
			n, from, err := far.ReadPacket(b)
			if err != nil {
				return
			}
			_ = far.WritePacket(b[:n], from)
		}
	}()
	return near, nil
}

// associated is a client with an association of d: its control connection and
// a socket that sends to it.
func associated(t *testing.T, d *door) (control *net.TCPConn, socket *net.UDPConn) {
	t.Helper()
	control = d.dial(t)
	write(t, control, associate5)
	got := []byte(readN(t, control, 12))
	if string(got[:6]) != "\x05\x00\x05\x00\x00\x01" {
		t.Fatalf("answered % x", got)
	}
	bound := netip.AddrPortFrom(netip.AddrFrom4([4]byte(got[6:10])), binary.BigEndian.Uint16(got[10:]))
	socket, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(bound))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	_ = socket.SetDeadline(time.Now().Add(5 * time.Second))
	datagram := "\x00\x00\x00\x01\xc0\x00\x02\x01\x00\x35hello"
	write(t, socket, datagram)
	b := make([]byte, 100)
	if n, err := socket.Read(b); err != nil || string(b[:n]) != datagram {
		t.Fatalf("read %q, %v", b[:n], err)
	}
	return control, socket
}

// An association ends with its control connection, however that ends, and is
// not waited for by Drain.
func TestAssociationEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(t *testing.T, control *net.TCPConn, d *door)
	}{
		{"close", func(_ *testing.T, control *net.TCPConn, _ *door) { _ = control.Close() }},
		{"half close", func(_ *testing.T, control *net.TCPConn, _ *door) { _ = control.CloseWrite() }},
		{"reset", func(_ *testing.T, control *net.TCPConn, _ *door) {
			_ = control.SetLinger(0)
			_ = control.Close()
		}},
		{"drain", func(t *testing.T, _ *net.TCPConn, d *door) { d.settle(t) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			over := make(chan struct{})
			s := &udp.Server{Dialer: udpEcho{}}
			d := open(t, &Server{Associator: associatorFunc(func(ctx context.Context, r *transport.Request) {
				defer close(over)
				s.HandleAssociate(ctx, r)
			})})
			control, _ := associated(t, d)
			write(t, control, "what RFC 1928 knows nothing of")
			c.end(t, control, d)
			select {
			case <-over:
			case <-time.After(5 * time.Second):
				t.Fatal("the association goes on")
			}
			if n := s.Stats.Open.Load(); n != 0 {
				t.Errorf("%d are open", n)
			}
			if c.name == "half close" || c.name == "drain" {
				if got, err := io.ReadAll(control); len(got) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
					t.Errorf("the control connection ends with %q, %v", got, err)
				}
			}
			d.wantReport(t, nil)
		})
	}
}

// The library's own client gets its datagrams through, by name and by address,
// with a password and without.
func TestSOCKSClientUDP(t *testing.T) {
	for _, c := range []struct {
		name, user, password string
		auth                 *Auth
	}{
		{name: "none"},
		{name: "password", user: secret.Username, password: secret.Password, auth: &secret},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, &Server{Auth: c.auth, Associator: &udp.Server{Dialer: udpEcho{}}})
			client, err := socks5.NewClient(d.addr, c.user, c.password, 5, 5)
			if err != nil {
				t.Fatal(err)
			}
			for _, to := range []string{"192.0.2.1:53", "[2001:db8::1]:443", "example.com:53"} {
				conn, err := client.Dial("udp", to)
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range []int{1, 64, 1400, 8192} {
					sent, got := bytes.Repeat([]byte{byte(n)}, n), make([]byte, 1<<16)
					if _, err := conn.Write(sent); err != nil {
						t.Fatal(err)
					}
					if m, err := conn.Read(got); err != nil || !bytes.Equal(got[:m], sent) {
						t.Errorf("%d bytes to %s: read %d, %v", n, to, m, err)
					}
				}
				_ = conn.Close()
			}
		})
	}
	// Without the right password there is no association.
	d := open(t, &Server{Auth: &secret, Associator: &udp.Server{Dialer: udpEcho{}}})
	client, err := socks5.NewClient(d.addr, secret.Username, "wrong", 5, 5)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Dial("udp", "192.0.2.1:53"); err == nil {
		t.Error("a wrong password opens an association")
	}
}

// On a listener of all addresses, and through IPv4 mapped into IPv6, the
// association is on the address that the client reached.
func TestAssociateOnAnyListener(t *testing.T) {
	ln, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	d := openOn(t, &Server{Associator: &udp.Server{Dialer: udpEcho{}}}, ln)
	d.addr = net.JoinHostPort("127.0.0.1", port)
	_, socket := associated(t, d)
	if got := socket.RemoteAddr().(*net.UDPAddr).IP.String(); got != "127.0.0.1" {
		t.Errorf("the association is on %s", got)
	}
}
