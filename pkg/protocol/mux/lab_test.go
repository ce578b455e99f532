package mux

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/tcpconn"
	"vmess-local/pkg/transport/transporttest"
)

func addr(t testing.TB, s string) netaddr.Addr {
	t.Helper()
	a, err := netaddr.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A lab is a client and a server that are joined in memory.
type lab struct {
	Client Client
	Server Server
	size   int // of a tunnel's buffers, each way
	ctx    context.Context
	cancel context.CancelFunc // of the server's

	mu      sync.Mutex
	ends    []*transporttest.Conn // the client's, of every tunnel
	errs    []error               // what Serve returned
	serving sync.WaitGroup
	dialled atomic.Int64
	refuse  error // of dials
	streams chan transport.StreamConn
}

func newLab(t testing.TB) *lab {
	l := &lab{size: 1 << 16, streams: make(chan transport.StreamConn, 256)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.Client.Dial = l.dial
	l.Server.HandleStream = echo
	t.Cleanup(l.close)
	return l
}

func (l *lab) close() {
	_ = l.Client.Close()
	l.cancel()
	l.serving.Wait()
}

func (l *lab) dial(_ context.Context, first []byte) (transport.StreamConn, error) {
	l.dialled.Add(1)
	if l.refuse != nil {
		return nil, l.refuse
	}
	a, b := transporttest.Pipe(l.size)
	l.mu.Lock()
	l.ends = append(l.ends, a)
	l.mu.Unlock()
	l.serving.Go(func() {
		err := l.Server.Serve(l.ctx, b, "alice", netip.MustParseAddrPort("192.0.2.7:4321"))
		l.mu.Lock()
		defer l.mu.Unlock()
		l.errs = append(l.errs, err)
	})
	_, err := a.Write(first)
	return a, err
}

// overTCP makes tunnels go over loopback, which costs no memory.
func (l *lab) overTCP(t testing.TB) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			l.serving.Go(func() {
				_ = l.Server.Serve(l.ctx, tcpconn.New(c.(*net.TCPConn)), "", netip.AddrPort{})
			})
		}
	})
	context.AfterFunc(l.ctx, func() { _ = ln.Close() })
	l.Client.Dial = func(_ context.Context, first []byte) (transport.StreamConn, error) {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			return nil, err
		}
		_, err = c.Write(first)
		return tcpconn.New(c.(*net.TCPConn)), err
	}
}

// hand makes the server's handler hand its streams to the test.
func (l *lab) hand() {
	l.Server.HandleStream = func(ctx context.Context, r *transport.Request) {
		c, _ := r.Pending.Proceed(netip.AddrPort{})
		l.streams <- c
		<-ctx.Done()
	}
}

func echo(_ context.Context, r *transport.Request) {
	c, _ := r.Pending.Proceed(netip.AddrPort{})
	defer c.Close()
	if _, err := io.Copy(onlyWriter{c}, onlyReader{c}); err == nil {
		_ = c.CloseWrite()
	}
}

type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)

func (l *lab) open(t testing.TB, first string) transport.StreamConn {
	t.Helper()
	c, err := l.Client.DialStream(t.Context(), addr(t, "example.com:80"), []byte(first))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func mustRead(t testing.TB, c io.Reader, want string) {
	t.Helper()
	p := make([]byte, len(want))
	if _, err := io.ReadFull(c, p); err != nil || string(p) != want {
		t.Fatalf("read %q, %v; want %q", p, err, want)
	}
}

func mustWrite(t testing.TB, c io.Writer, s string) {
	t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

// exchange echoes n random bytes and compares their hashes.
func exchange(c transport.StreamConn, n int, seed uint64) error {
	source := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	sent, wrote := sha256.New(), make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.MultiWriter(onlyWriter{c}, sent), source, int64(n))
		wrote <- err
	}()
	got := sha256.New()
	if _, err := io.CopyN(got, onlyReader{c}, int64(n)); err != nil {
		_ = c.Close()
		return errors.Join(err, <-wrote)
	}
	if err := <-wrote; err != nil {
		return err
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		return errors.New("other bytes came back")
	}
	return nil
}

// A raw speaks frames with a server by hand.
type raw struct {
	*transporttest.Conn
	in   *Reader
	done chan error
}

func newRaw(t testing.TB, v *Server) *raw {
	a, b := transporttest.Pipe(1 << 20)
	r := &raw{Conn: a, in: NewReader(a), done: make(chan error, 1)}
	go func() { r.done <- v.Serve(context.Background(), b, "", netip.AddrPort{}) }()
	t.Cleanup(func() { _ = a.Close() })
	return r
}

func (r *raw) send(t testing.TB, f Frame, data string) {
	t.Helper()
	if _, err := r.Write(f.Append(nil, []byte(data))); err != nil {
		t.Fatal(err)
	}
}

func (r *raw) expect(t testing.TB, want Frame, data string) {
	t.Helper()
	got, err := r.in.Next()
	if err != nil || got != want {
		t.Fatalf("got %+v, %v; want %+v", got, err, want)
	}
	if p, err := io.ReadAll(r.in); string(p) != data || err != nil {
		t.Fatalf("data %q, %v; want %q", p, err, data)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}
