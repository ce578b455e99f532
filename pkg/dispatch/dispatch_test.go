package dispatch

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/relay"
	"vmess-local/pkg/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var destination, _ = netaddr.Parse("origin.test:80")

// pending is an inbound's answer: app is the application's end of its stream.
type pending struct {
	local     *transporttest.Conn
	app       *transporttest.Conn
	proceeded chan struct{}
	aborted   error
	refuse    error // what Proceed returns
}

func newPending() *pending {
	local, app := transporttest.Pipe(1 << 16)
	return &pending{local: local, app: app, proceeded: make(chan struct{})}
}

func (p *pending) Proceed(netip.AddrPort) (transport.StreamConn, error) {
	if p.refuse != nil {
		return nil, p.refuse
	}
	close(p.proceeded)
	return p.local, nil
}

func (p *pending) Abort(cause error) error { p.aborted = cause; return p.local.Close() }

// far is a dialer that hands out one stream.
type far struct {
	conn, peer *transporttest.Conn
	first      []byte
	dialled    bool
	flushed    int // writes of no bytes
	err        error
}

func newFar() *far {
	conn, peer := transporttest.Pipe(1 << 16)
	return &far{conn: conn, peer: peer}
}

func (f *far) DialStream(_ context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
	f.dialled, f.first = true, append([]byte(nil), first...)
	if dst != destination {
		return nil, errors.New("another destination")
	}
	if f.err != nil {
		return nil, f.err
	}
	return &lazy{f.conn, f}, nil
}

// lazy counts the writes by which a held-back request is sent alone.
type lazy struct {
	*transporttest.Conn
	far *far
}

func (l *lazy) Write(p []byte) (int, error) {
	if len(p) == 0 {
		l.far.flushed++
	}
	return l.Conn.Write(p)
}

type reports chan Report

func (r reports) Report(p Report) { r <- p }

// serve runs one request in the bubble of a synctest.
func serve(d *Dispatcher, p *pending, first []byte) reports {
	r := make(reports, 1)
	d.Reporter = r
	go d.HandleStream(context.Background(), &transport.Request{Destination: destination, First: first, Inbound: "test", Pending: p})
	return r
}

func mustRead(t *testing.T, c io.Reader, want string) {
	t.Helper()
	p := make([]byte, len(want))
	if _, err := io.ReadFull(c, p); err != nil || string(p) != want {
		t.Fatalf("read %q, %v; want %q", p, err, want)
	}
}

func end(t *testing.T, p *pending, f *far, r reports) Report {
	t.Helper()
	_ = p.app.CloseWrite()
	_ = f.peer.CloseWrite()
	return <-r
}

func TestFirstBytesTravelWithTheRequest(t *testing.T) {
	for name, well := range map[string]bool{"known to be well": true, "not known": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, f := newPending(), newFar()
				r := serve(&Dispatcher{Dialer: f, FirstWait: 5 * time.Millisecond, Healthy: func() bool { return well }}, p, nil)
				<-p.proceeded
				synctest.Wait()
				if f.dialled == well {
					t.Fatalf("dialled before the application spoke: %v", f.dialled)
				}
				_, _ = p.app.Write([]byte("hello"))
				mustRead(t, f.peer, map[bool]string{true: "", false: "hello"}[well])
				_, _ = f.peer.Write([]byte("hi"))
				mustRead(t, p.app, "hi")
				if well && string(f.first) != "hello" {
					t.Errorf("dialled with %q", f.first)
				}
				if f.flushed != 0 {
					t.Errorf("%d empty writes", f.flushed)
				}
				report := end(t, p, f, r)
				if report.Err != nil || report.Up != 5 || report.Down != 2 {
					t.Errorf("reported %+v", report)
				}
			})
		})
	}
}

func TestSilentApplication(t *testing.T) {
	for name, well := range map[string]bool{"known to be well": true, "not known": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, f := newPending(), newFar()
				start := time.Now()
				r := serve(&Dispatcher{Dialer: f, FirstWait: 5 * time.Millisecond, Healthy: func() bool { return well }}, p, nil)
				_, _ = f.peer.Write([]byte("220 banner"))
				mustRead(t, p.app, "220 banner")
				if took := time.Since(start); took > 5*time.Millisecond {
					t.Errorf("the banner took %v", took)
				}
				if f.flushed != 1 {
					t.Errorf("%d empty writes, want 1", f.flushed)
				}
				if report := end(t, p, f, r); report.Err != nil {
					t.Errorf("reported %+v", report)
				}
			})
		})
	}
}

func TestFirstPayloadOfTheInbound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := newPending(), newFar()
		r := serve(&Dispatcher{Dialer: f, FirstWait: time.Hour, Healthy: func() bool { return true }}, p, []byte("GET"))
		<-p.proceeded
		if string(f.first) != "GET" {
			t.Errorf("dialled with %q", f.first)
		}
		if report := end(t, p, f, r); report.Up != 3 {
			t.Errorf("reported %+v", report)
		}
	})
}

func TestDialFails(t *testing.T) {
	cause := errors.New("no way")
	synctest.Test(t, func(t *testing.T) {
		p, f := newPending(), newFar()
		f.err = cause
		report := <-serve(&Dispatcher{Dialer: f, FirstWait: time.Millisecond}, p, nil)
		var dial *DialError
		if !errors.Is(p.aborted, cause) || !errors.As(report.Err, &dial) || !errors.Is(report.Err, cause) {
			t.Errorf("aborted with %v, reported %v", p.aborted, report.Err)
		}
		// Success was answered already: all that can be done is a reset.
		p, f = newPending(), newFar()
		f.err = cause
		r := serve(&Dispatcher{Dialer: f, FirstWait: time.Millisecond, Healthy: func() bool { return true }}, p, nil)
		report = <-r
		if _, err := p.app.Read(make([]byte, 1)); !errors.Is(err, transporttest.ErrReset) {
			t.Errorf("the application reads %v", err)
		}
		if p.aborted != nil || !errors.Is(report.Err, cause) {
			t.Errorf("aborted with %v, reported %v", p.aborted, report.Err)
		}
	})
}

func TestApplicationGone(t *testing.T) {
	for name, well := range map[string]bool{"known to be well": true, "not known": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, f := newPending(), newFar()
				_ = p.app.Reset()
				report := <-serve(&Dispatcher{Dialer: f, FirstWait: time.Second, Healthy: func() bool { return well }}, p, nil)
				var side *relay.Error
				if !errors.As(report.Err, &side) || side.Side != relay.Local {
					t.Errorf("reported %v", report.Err)
				}
				if f.dialled {
					if _, err := f.peer.Read(make([]byte, 1)); err == nil {
						t.Error("the stream to the destination lives on")
					}
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		p, f := newPending(), newFar()
		p.refuse = errors.New("nobody there")
		report := <-serve(&Dispatcher{Dialer: f, FirstWait: time.Second}, p, nil)
		if !errors.Is(report.Err, p.refuse) {
			t.Errorf("reported %v", report.Err)
		}
		if _, err := f.peer.Read(make([]byte, 1)); !errors.Is(err, transporttest.ErrReset) {
			t.Errorf("the destination reads %v", err)
		}
	})
}

func TestDialStreamIsReported(t *testing.T) {
	f, r := newFar(), make(reports, 1)
	d := &Dispatcher{Dialer: f, Reporter: r}
	c, err := d.DialStream(t.Context(), destination, []byte("first"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte(" second"))
	_, _ = f.peer.Write([]byte("answer"))
	mustRead(t, c, "answer")
	_ = f.peer.Reset()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatal("read after a reset")
	}
	_ = c.Close()
	_ = c.Close()
	report := <-r
	if report.Up != 12 || report.Down != 6 || !errors.Is(report.Err, transporttest.ErrReset) {
		t.Errorf("reported %+v", report)
	}
	f.err = errors.New("no way")
	if _, err := d.DialStream(t.Context(), destination, nil); !errors.Is(err, f.err) {
		t.Errorf("got %v", err)
	}
	if report := <-r; !errors.Is(report.Err, f.err) {
		t.Errorf("reported %+v", report)
	}
}

// A stream that fails after a silence is reported with that silence, not with
// what the inbound let pass until it closed the stream.
func TestDialStreamReportsSilence(t *testing.T) {
	for name, move := range map[string]func(c transport.StreamConn, far *transporttest.Conn){
		"nothing moved": func(transport.StreamConn, *transporttest.Conn) {},
		"up":            func(c transport.StreamConn, _ *transporttest.Conn) { _, _ = c.Write([]byte("x")) },
		"down": func(c transport.StreamConn, far *transporttest.Conn) {
			_, _ = far.Write([]byte("x"))
			_, _ = c.Read(make([]byte, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, r := newFar(), make(reports, 1)
				d := &Dispatcher{Dialer: f, Reporter: r}
				c, err := d.DialStream(t.Context(), destination, nil)
				if err != nil {
					t.Fatal(err)
				}
				want := 7 * time.Second
				if name == "nothing moved" {
					want += time.Minute
				}
				time.Sleep(time.Minute)
				move(c, f.peer)
				time.Sleep(7 * time.Second)
				_ = f.peer.Reset()
				if _, err := c.Read(make([]byte, 1)); err == nil {
					t.Fatal("read after a reset")
				}
				time.Sleep(time.Hour)
				_ = c.Close()
				if report := <-r; report.IdleFor != want {
					t.Errorf("reported %s without a byte, want %s", report.IdleFor, want)
				}
			})
		})
	}
}

// watcher remembers the last request that it was told of.
type watcher struct {
	begun, ended, failed int
	cut                  func()
}

func (w *watcher) Begin(_ *transport.Request, cut func()) (up, down *atomic.Int64, end func(failed bool)) {
	w.begun++
	w.cut = cut
	return new(atomic.Int64), new(atomic.Int64), func(failed bool) {
		w.ended++
		if failed {
			w.failed++
		}
	}
}

// A stream of an inbound's own is counted whether it comes about or not, and can
// be cut before and after.
func TestDialStreamIsWatched(t *testing.T) {
	f, w := newFar(), new(watcher)
	d := &Dispatcher{Dialer: f, Watcher: w}
	expect := func(what string, begun, ended, failed int) {
		t.Helper()
		if w.begun != begun || w.ended != ended || w.failed != failed {
			t.Errorf("%s: %d begun, %d ended, %d failed; want %d, %d, %d", what, w.begun, w.ended, w.failed, begun, ended, failed)
		}
	}
	ctx, over := context.WithCancel(t.Context())
	c, err := d.DialStream(ctx, destination, nil)
	if err != nil {
		t.Fatal(err)
	}
	over() // as that of an http.Transport's dial is
	expect("it runs", 1, 0, 0)
	_, _ = f.peer.Write([]byte("answer"))
	mustRead(t, c, "answer")
	_ = c.Close()
	expect("it has ended", 1, 1, 0)

	f.err = errors.New("no way")
	if _, err := d.DialStream(t.Context(), destination, nil); !errors.Is(err, f.err) {
		t.Errorf("got %v", err)
	}
	expect("it did not come about", 2, 2, 1)

	d.Dialer = transport.DialerFunc(func(ctx context.Context, _ netaddr.Addr, _ []byte) (transport.StreamConn, error) {
		w.cut()
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Second):
		}
		return nil, ctx.Err()
	})
	if _, err := d.DialStream(t.Context(), destination, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cut while it was dialled: %v", err)
	}
	expect("it was cut while it was dialled", 3, 3, 2)

	f = newFar()
	d.Dialer = f
	if c, err = d.DialStream(t.Context(), destination, nil); err != nil {
		t.Fatal(err)
	}
	w.cut()
	if _, err := f.peer.Read(make([]byte, 1)); !errors.Is(err, transporttest.ErrReset) {
		t.Errorf("the destination of what was cut reads %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("what was cut can be read")
	}
	_ = c.Close()
	expect("it was cut", 4, 4, 3)
}

// impatient is an inbound that can tell that its client went away.
type impatient struct {
	*pending
	gone chan struct{}
}

// WaitDisconnect implements transport.GoneWaiter.
func (p impatient) WaitDisconnect(ctx context.Context) bool {
	select {
	case <-p.gone:
		return true
	case <-ctx.Done():
		return false
	}
}

// TestGivenUp: nothing is dialled for an application that went away.
func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := impatient{newPending(), make(chan struct{})}
		d := &Dispatcher{Dialer: transport.DialerFunc(func(ctx context.Context, _ netaddr.Addr, _ []byte) (transport.StreamConn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})}
		time.AfterFunc(time.Second, func() { close(p.gone) })
		start := time.Now()
		d.HandleStream(t.Context(), &transport.Request{Destination: destination, Pending: p})
		if took := time.Since(start); took != time.Second || !errors.Is(p.aborted, context.Canceled) {
			t.Errorf("ended after %v with %v", took, p.aborted)
		}
	})
}

// leaver is a stream that knows of its far end what it is told.
type leaver struct {
	*transporttest.Conn
	broken, left atomic.Bool
}

func (l *leaver) ResetByPeer() bool { return l.broken.Load() }
func (l *leaver) PeerClosed() bool  { return l.left.Load() }

// answered is a pending whose stream is a leaver.
type answered struct {
	*pending
	stream *leaver
}

func (p answered) Proceed(netip.AddrPort) (transport.StreamConn, error) { return p.stream, nil }

// TestGivenUpAnswered: nor for one that went away when it had its answer; but
// what it said in order is sent.
func TestGivenUpAnswered(t *testing.T) {
	const away, dial = 3 * time.Second, time.Minute
	for name, tt := range map[string]struct {
		says string
		goes func(l *leaver)
		want time.Duration
	}{
		"reset":           {"hello", func(l *leaver) { l.broken.Store(true) }, away},
		"closed in order": {"hello", func(l *leaver) { l.left.Store(true) }, dial},
		"said nothing":    {"", func(l *leaver) { l.left.Store(true) }, away},
		"stays":           {"hello", func(*leaver) {}, dial},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPending()
				a := answered{p, &leaver{Conn: p.local}}
				d := &Dispatcher{
					FirstWait: 5 * time.Millisecond, Healthy: func() bool { return true },
					Dialer: transport.DialerFunc(func(ctx context.Context, _ netaddr.Addr, _ []byte) (transport.StreamConn, error) {
						ctx, cancel := context.WithTimeout(ctx, dial)
						defer cancel()
						<-ctx.Done()
						return nil, ctx.Err()
					}),
				}
				_, _ = io.WriteString(p.app, tt.says)
				time.AfterFunc(away-time.Second/2, func() { tt.goes(a.stream) })
				start := time.Now()
				d.HandleStream(t.Context(), &transport.Request{Destination: destination, Pending: a})
				if took := time.Since(start).Truncate(time.Second); took != tt.want {
					t.Errorf("ended after %v, want %v", took, tt.want)
				}
			})
		})
	}
}

// TestNotGivenUp: the look at the application ends before it is answered.
func TestNotGivenUp(t *testing.T) {
	p, f := impatient{newPending(), make(chan struct{})}, newFar()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		(&Dispatcher{Dialer: f}).HandleStream(t.Context(), &transport.Request{Destination: destination, First: []byte("hi"), Pending: p})
	}()
	<-p.proceeded
	if err := p.app.Close(); err != nil {
		t.Error(err)
	}
	_ = f.peer.Close()
	<-ended
}
