package relay_test

import (
	"context"
	"io"
	"net"
	"testing"

	"go.uber.org/goleak"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/relay"
	"vmess-local/pkg/transport/tcpconn"
	"vmess-local/pkg/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tcpPair returns the two ends of a loopback connection.
func tcpPair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		_ = c.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

func streamPair(t testing.TB) (a, b transport.StreamConn) {
	x, y := tcpPair(t)
	return tcpconn.New(x), tcpconn.New(y)
}

func pipePair(t testing.TB) (a, b transport.StreamConn) {
	x, y := transporttest.Pipe(1 << 16)
	t.Cleanup(func() { _ = x.Close(); _ = y.Close() })
	return x, y
}

// carriers are the streams that every relay test runs over.
var carriers = map[string]func(t testing.TB) (a, b transport.StreamConn){"pipe": pipePair, "tcp": streamPair}

// A ride is a running relay between an application and a far end.
type ride struct {
	app, far transport.StreamConn
	cancel   context.CancelCauseFunc
	done     chan relay.Outcome
}

// start relays between two pairs of a kind; the test ends only when the relay
// did.
func start(t testing.TB, r relay.Relay, pair func(t testing.TB) (a, b transport.StreamConn)) *ride {
	app, local := pair(t)
	remote, far := pair(t)
	return startOn(t, r, app, local, remote, far)
}

func startOn(t testing.TB, r relay.Relay, app, local, remote, far transport.StreamConn) *ride {
	ctx, cancel := context.WithCancelCause(context.Background())
	d := &ride{app: app, far: far, cancel: cancel, done: make(chan relay.Outcome, 1)}
	over := make(chan struct{})
	go func() {
		defer close(over)
		d.done <- r.Run(ctx, local, remote)
	}()
	t.Cleanup(func() {
		cancel(nil)
		<-over
	})
	return d
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

func mustEnd(t testing.TB, r io.Reader) {
	t.Helper()
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("read %d bytes, %v; want the end", n, err)
	}
}
