package vmess

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

// What the tests of whole connections share.

var (
	testID      = mustID("b831381d-6324-4d53-ad4f-8cda48b30811")
	otherID     = mustID("27848739-7e62-4138-9fd3-098a63964b6b")
	destination = mustAddr("www.example.com:443")
)

func mustID(s string) ID {
	id, err := ParseID(s)
	if err != nil {
		panic(err)
	}
	return id
}

func mustAddr(s string) netaddr.Addr {
	a, err := netaddr.Parse(s)
	if err != nil {
		panic(err)
	}
	return a
}

const (
	chunked = OptionChunked
	masked  = OptionChunked | OptionMasking
	padded  = OptionChunked | OptionMasking | OptionPadding
	sealed  = OptionAuthenticatedLength
)

// A style is one way to make requests.
type style struct {
	name   string
	legacy bool
	method Method
}

// styles returns every way whose directions end apart; with the slow race
// detector, a choice of the legacy ones, which differ in their headers only.
func styles() (all []style) {
	for _, mode := range []struct {
		name   string
		legacy bool
	}{{"aead", false}, {"legacy", true}} {
		add := func(s Security, name string, o Option) {
			if raceEnabled && mode.legacy && s != SecurityAESCFB && name != "SM" {
				return
			}
			all = append(all, style{mode.name + "/" + s.String() + "/" + name, mode.legacy, Method{s, o}})
		}
		for _, s := range []Security{SecurityAESGCM, SecurityChaCha20Poly1305} {
			add(s, "S", chunked)
			add(s, "SM", masked)
			add(s, "SMP", padded)
			add(s, "SMA", masked|sealed)
			add(s, "SMPA", padded|sealed)
		}
		add(SecurityNone, "S", chunked)
		add(SecurityNone, "SM", masked)
		add(SecurityAESCFB, "S", chunked)
		add(SecurityAESCFB, "SM", masked)
		add(SecurityAESCFB, "SMP", padded)
	}
	return all
}

// rawStyles returns the ways whose bodies end with the carrier.
func rawStyles() []style {
	return []style{
		{"aead/zero", false, Method{Security: SecurityNone}},
		{"legacy/zero", true, Method{Security: SecurityNone}},
		{"aead/aes-128-cfb", false, Method{Security: SecurityAESCFB}},
		{"legacy/aes-128-cfb", true, Method{Security: SecurityAESCFB}},
	}
}

func (s style) client(id ID) *Account {
	return NewAccount(AccountConfig{ID: id, AEADDisabled: s.legacy, Method: s.method})
}

func newTestServer(t testing.TB, c ServerConfig) *Server {
	t.Helper()
	if c.Users == nil {
		c.Users = []User{{ID: testID, Name: "alice"}}
	}
	s, err := NewServer(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// handOver is an endpoint that connects to a carrier at hand.
func handOver(carrier transport.StreamConn) transport.EndpointFunc {
	return func(_ context.Context, first []byte) (transport.StreamConn, error) {
		_, err := carrier.Write(first)
		return carrier, err
	}
}

func dialOver(t testing.TB, c *Account, carrier transport.StreamConn, first string) *Conn {
	t.Helper()
	d := Dialer{Client: c, Endpoint: handOver(carrier)}
	conn, err := d.DialStream(context.Background(), destination, []byte(first))
	if err != nil {
		t.Fatal(err)
	}
	return conn.(*Conn)
}

// connect makes both ends of an accepted request, of which the request's
// header only has been sent.
func connect(t testing.TB, c *Account, s *Server) (client, server *Conn) {
	t.Helper()
	return connectOver(t, c, s, 1<<17)
}

func connectOver(t testing.TB, c *Account, s *Server, size int) (client, server *Conn) {
	t.Helper()
	near, far := transporttest.Pipe(size)
	client = dialOver(t, c, near, "")
	if _, err := client.Write(nil); err != nil {
		t.Fatal(err)
	}
	in, err := s.Accept(context.Background(), far)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := in.Proceed(mustAddr("127.0.0.1:1").AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = conn.Close() })
	return client, conn.(*Conn)
}

// taught lets a client learn that the server lets directions end apart, as it
// does from the first answer.
func taught(t testing.TB, c *Account, s *Server) *Account {
	t.Helper()
	client, server := connect(t, c, s)
	mustWrite(t, server, "x")
	mustRead(t, client, "x")
	return c
}

// acceptForeign is a server of another kind: it does not say that it lets
// directions end apart.
func acceptForeign(t testing.TB, s *Server, carrier transport.StreamConn) *Conn {
	t.Helper()
	in := newInbuf(carrier)
	o := requestParser{server: s, in: &in}
	h, err := o.open()
	if err != nil {
		t.Fatal(err)
	}
	keys := deriveResponse(h, o.credential.user != nil)
	header, stream := keys.seal(nil, h.v, 0)
	conn := &Conn{
		carrier: carrier, reader: bodyReader{in: in},
		writer: newBodyWriter(responseFormat(h, keys), stream), pending: header,
	}
	conn.reader.start(requestFormat(h, keys.legacy), nil)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func connectForeign(t testing.TB, c *Account, s *Server) (client, server *Conn) {
	t.Helper()
	near, far := transporttest.Pipe(1 << 17)
	client = dialOver(t, c, near, "hello")
	server = acceptForeign(t, s, far)
	t.Cleanup(func() { _ = client.Close() })
	mustRead(t, server, "hello")
	return client, server
}

func mustWrite(t testing.TB, w io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t testing.TB, r io.Reader, want string) {
	t.Helper()
	p := make([]byte, len(want))
	if _, err := io.ReadFull(r, p); err != nil || string(p) != want {
		t.Fatalf("read %q, %v; want %q", p, err, want)
	}
}

func mustFail(t testing.TB, r io.Reader, want error) {
	t.Helper()
	for range 2 { // every end is final
		if n, err := r.Read(make([]byte, 1)); n != 0 || err != want {
			t.Fatalf("read %d bytes, %v; want %v", n, err, want)
		}
	}
}

func pattern(n int, seed uint64) []byte {
	rnd, p := rand.New(rand.NewPCG(seed, 7)), make([]byte, n)
	for i := range p {
		p[i] = byte(rnd.Uint32())
	}
	return p
}

// A recorder is a carrier that keeps what is written to it and reads what it
// was given.
type recorder struct {
	mu     sync.Mutex
	writes [][]byte
	in     io.Reader
	err    error // of writes
	closed bool
}

func (r *recorder) Read(p []byte) (int, error) {
	if r.in == nil {
		return 0, io.EOF
	}
	return r.in.Read(p)
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	r.writes = append(r.writes, bytes.Clone(p))
	return len(p), nil
}

func (r *recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return net.ErrClosed
	}
	r.closed = true
	return nil
}
func (r *recorder) CloseWrite() error                { return nil }
func (r *recorder) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (r *recorder) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (r *recorder) SetDeadline(time.Time) error      { return nil }
func (r *recorder) SetReadDeadline(time.Time) error  { return nil }
func (r *recorder) SetWriteDeadline(time.Time) error { return nil }

// An echo is a carrier that hands what is written to it back, for one
// goroutine, without allocating. It is never asked for more than it has.
type echo struct {
	recorder
	buf  [1 << 18]byte
	r, w int
}

func (e *echo) Write(p []byte) (int, error) {
	e.w += copy(e.buf[e.w:], p)
	return len(p), nil
}

func (e *echo) Read(p []byte) (int, error) {
	n := copy(p, e.buf[e.r:e.w])
	if e.r += n; e.r == e.w {
		e.r, e.w = 0, 0
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}
