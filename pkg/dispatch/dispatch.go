// Package dispatch joins a request to a dialer: it dials, lets the inbound's
// answer wait for the result or not, relays, and reports how it went. It is
// the same on both sides: a client's requests come from SOCKS and go to VMess,
// a server's come from VMess and go out directly.
package dispatch

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/relay"
)

// A Report tells how one request ended.
type Report struct {
	Request *transport.Request
	Remote  transport.StreamConn // the stream to the destination, closed; nil where none came about
	// Err is what failed: nil for an orderly end, a *DialError when no stream
	// to the destination came about, and otherwise the relay's error.
	Err      error
	Up, Down int64 // bytes towards the destination and back
	Dropped  int64 // datagrams that did not go on, of an association
	Duration time.Duration
	IdleFor  time.Duration // from the last byte moved to the end
}

// A Reporter hears of every request's end. It is called concurrently and must
// not block.
type Reporter interface{ Report(r Report) }

// A Watcher sees requests while they run.
type Watcher interface {
	// Begin is told of a request. up and down count its bytes while it runs,
	// cut ends it, and end is called at its end. It is called concurrently.
	Begin(r *transport.Request, cut func()) (up, down *atomic.Int64, end func(failed bool))
}

// A DialError is a failure before a stream to the destination came about.
type DialError struct{ Err error }

// Error implements error.
func (e *DialError) Error() string { return e.Err.Error() }

// Unwrap returns the dialer's own error.
func (e *DialError) Unwrap() error { return e.Err }

// A Dispatcher joins requests to its Dialer. It may be used concurrently; its
// fields must not change then.
type Dispatcher struct {
	Dialer transport.StreamDialer
	// FirstWait is how long an application may take to speak first, so that
	// its first bytes travel with the dialer's own request; 0 is for dialers
	// that hold nothing back.
	FirstWait time.Duration
	// Healthy reports whether the way out is known to work, so that success can
	// be answered before it is tried; nil means never.
	Healthy func() bool
	// Idle ends a stream whose both directions were silent for so long; 0
	// means never.
	Idle time.Duration
	// Packets opens the associations of HandlePackets, which alone needs it.
	Packets transport.PacketDialer
	// PacketIdle ends an association through which no datagram came for so
	// long, either way; 0 means never.
	PacketIdle time.Duration
	// PacketRefused, when not nil, is called as soon as the rules refuse the
	// first datagram of an association, which goes on.
	PacketRefused func(r *transport.Request)
	// Reporter may be nil.
	Reporter Reporter
	// Watcher may be nil.
	Watcher Watcher
	// Load, when not nil, is called with 1 when a request begins and with -1 when
	// it has ended, concurrently.
	Load func(by int)
}

var _ transport.StreamDialer = (*Dispatcher)(nil)

// HandleStream serves one request until it is over. Cancelling ctx ends it.
func (d *Dispatcher) HandleStream(ctx context.Context, r *transport.Request) {
	d.count(1)
	defer d.count(-1)
	h := d.begin(ctx, r)
	defer h.cut()
	h.connect()
	if h.err == nil {
		h.outcome = h.relay.Run(h.ctx, h.local, h.remote)
		h.err = h.outcome.Err()
	}
	h.report()
}

func (d *Dispatcher) count(by int) {
	if d.Load != nil {
		d.Load(by)
	}
}

// A job is a request on its way. It is not on the stack of its goroutine,
// which is kept small: it may be idle for hours.
type job struct {
	streams
	dispatcher *Dispatcher
	ctx        context.Context
	cut        context.CancelFunc
	request    *transport.Request
	start      time.Time
	relay      relay.Relay
	end        func(failed bool)
	outcome    relay.Outcome
	err        error
}

func (d *Dispatcher) begin(ctx context.Context, r *transport.Request) *job {
	h := &job{dispatcher: d, ctx: ctx, cut: func() {}, request: r, start: time.Now(), end: func(bool) {}}
	h.relay.Idle = d.Idle
	if d.Watcher != nil {
		h.ctx, h.cut = context.WithCancel(ctx)
		h.relay.Up, h.relay.Down, h.end = d.Watcher.Begin(r, h.cut)
	}
	return h
}

// connect makes the streams in a goroutine of its own, for dialling makes the
// stack grow.
func (h *job) connect() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.streams, h.err = h.dispatcher.join(h.ctx, h.request)
	}()
	<-done
	if h.relay.Up != nil {
		h.relay.Up.Add(h.sent)
	}
}

func (h *job) report() {
	h.end(h.err != nil)
	o := &h.outcome
	h.dispatcher.report(Report{
		Request: h.request, Remote: h.remote, Err: h.err,
		Up: o.Up + h.sent, Down: o.Down, Duration: time.Since(h.start), IdleFor: o.IdleFor,
	})
}

func (d *Dispatcher) report(r Report) {
	if d.Reporter != nil {
		d.Reporter.Report(r)
	}
}

// A streams is the two streams of a request and how much payload went ahead of
// the relay.
type streams struct {
	local, remote transport.StreamConn
	sent          int64
}

// join makes the two streams of a request. What it made is closed on an error.
func (d *Dispatcher) join(ctx context.Context, r *transport.Request) (streams, error) {
	if len(r.First) == 0 && d.FirstWait > 0 && d.Healthy != nil && d.Healthy() {
		return d.answerFirst(ctx, r)
	}
	remote, err := d.dialWanted(ctx, r)
	if err != nil {
		err = &DialError{err}
		_ = r.Pending.Abort(err) // its error would say only that nobody listens
		return streams{}, err
	}
	local, err := r.Pending.Proceed(netip.AddrPort{})
	if err != nil {
		_ = transport.Reset(remote)
		return streams{}, &relay.Error{Side: relay.Local, Op: "answer", Err: err}
	}
	f := streams{local, remote, int64(len(r.First))}
	if len(r.First) > 0 || d.FirstWait == 0 {
		return f, nil
	}
	buf := transport.GetBuffer()
	defer buf.Release()
	first, err := d.readFirst(local, buf)
	if err == nil {
		if _, err = remote.Write(first); err != nil {
			err = &relay.Error{Side: relay.Remote, Op: "write", Err: err}
		}
	}
	if err != nil {
		_ = transport.Reset(local)
		_ = transport.Reset(remote)
		return streams{}, err
	}
	f.sent = int64(len(first))
	return f, nil
}

// dialWanted dials for as long as the client waits for the answer, where its
// inbound can tell.
func (d *Dispatcher) dialWanted(ctx context.Context, r *transport.Request) (transport.StreamConn, error) {
	client, ok := r.Pending.(transport.DisconnectWaiter)
	if !ok {
		return d.Dialer.DialStream(ctx, r.Destination, r.First)
	}
	wanted, giveUp := context.WithCancel(ctx)
	defer giveUp()
	watch, done := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if client.WaitDisconnect(watch) {
			giveUp()
		}
	}()
	defer func() { done(); <-watched }()
	return d.Dialer.DialStream(wanted, r.Destination, r.First)
}

// answerFirst answers success before it dials, so that the first bytes travel
// with the dial.
func (d *Dispatcher) answerFirst(ctx context.Context, r *transport.Request) (streams, error) {
	local, err := r.Pending.Proceed(netip.AddrPort{})
	if err != nil {
		return streams{}, &relay.Error{Side: relay.Local, Op: "answer", Err: err}
	}
	buf := transport.GetBuffer()
	defer buf.Release()
	first, err := d.readFirst(local, buf)
	if err != nil {
		_ = transport.Reset(local)
		return streams{}, err
	}
	remote, err := d.dialAnswered(ctx, r, local, first)
	if err == nil && len(first) == 0 {
		if _, err = remote.Write(nil); err != nil {
			_ = transport.Reset(remote)
		}
	}
	if err != nil {
		_ = transport.Reset(local)
		return streams{}, &DialError{err}
	}
	return streams{local, remote, int64(len(first))}, nil
}

// dialAnswered dials for as long as the application, which has its answer, is
// there. One that has said something and left may want it to arrive.
func (d *Dispatcher) dialAnswered(ctx context.Context, r *transport.Request, local transport.StreamConn, first []byte) (transport.StreamConn, error) {
	wanted, giveUp := context.WithCancel(ctx)
	defer giveUp()
	var gone relay.Poller
	defer gone.Stop()
	gone.Start(func() (again bool) {
		if transport.ResetByPeer(local) || len(first) == 0 && transport.PeerClosed(local) {
			giveUp()
			return false
		}
		return true
	})
	return d.Dialer.DialStream(wanted, r.Destination, first)
}

// readFirst gives the application a moment to speak first. An application that
// does not, or has nothing to say, gives no bytes and no error.
func (d *Dispatcher) readFirst(local transport.StreamConn, buf *transport.Buffer) ([]byte, error) {
	if err := local.SetReadDeadline(time.Now().Add(d.FirstWait)); err != nil {
		return nil, &relay.Error{Side: relay.Local, Op: "read", Err: err}
	}
	n, err := local.Read(buf[:firstRead])
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF) {
		err = local.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return nil, &relay.Error{Side: relay.Local, Op: "read", Err: err}
	}
	return buf[:n], nil
}

// firstRead is the most that is read ahead of the relay: more than any TLS
// ClientHello or HTTP head.
const firstRead = 32 << 10

// DialStream implements [transport.StreamDialer] for inbounds that make
// streams of their own (plain HTTP): the stream is reported when it is closed,
// or did not come about.
func (d *Dispatcher) DialStream(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
	return d.Dial(ctx, "http", dst, first)
}

// Dial is DialStream for the inbound of that name.
func (d *Dispatcher) Dial(ctx context.Context, inbound string, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
	w := &meteredConn{dispatcher: d, request: &transport.Request{Destination: dst, Inbound: inbound}, start: time.Now()}
	w.up, w.down, w.end = new(atomic.Int64), new(atomic.Int64), func(bool) {}
	if d.Watcher == nil {
		return w.dial(ctx, first)
	}
	// A cut ends the dial, and then the stream, which outlives ctx.
	cutting, cut := context.WithCancel(context.Background())
	w.up, w.down, w.end = d.Watcher.Begin(w.request, cut)
	wanted, giveUp := context.WithCancel(ctx)
	defer giveUp()
	defer context.AfterFunc(cutting, giveUp)()
	conn, err := w.dial(wanted, first)
	if err == nil {
		context.AfterFunc(cutting, w.cut)
	}
	return conn, err
}

// meteredConn reports a stream at its close.
type meteredConn struct {
	transport.StreamConn
	dispatcher *Dispatcher
	request    *transport.Request
	start      time.Time
	up, down   *atomic.Int64
	end        func(failed bool)
	moved      atomic.Int64            // when the last byte did, as a Duration since start
	failed     atomic.Pointer[failure] // the first error that is no end
	closed     atomic.Bool
}

// A failure is a stream's error and how long nothing had moved then.
type failure struct {
	err   error
	quiet time.Duration
}

// dial makes the stream, or reports that it did not come about.
func (w *meteredConn) dial(ctx context.Context, first []byte) (transport.StreamConn, error) {
	conn, err := w.dispatcher.Dialer.DialStream(ctx, w.request.Destination, first)
	if err != nil {
		err = &DialError{err}
		w.end(true)
		w.dispatcher.report(Report{Request: w.request, Err: err, Duration: time.Since(w.start)})
		return nil, err
	}
	w.StreamConn = conn
	w.count(w.up, len(first))
	return w, nil
}

// cut ends the stream.
func (w *meteredConn) cut() { _ = transport.Reset(w.StreamConn) }

func (w *meteredConn) Read(p []byte) (int, error) {
	n, err := w.StreamConn.Read(p)
	w.count(w.down, n)
	w.note("read", err)
	return n, err
}

func (w *meteredConn) Write(p []byte) (int, error) {
	n, err := w.StreamConn.Write(p)
	w.count(w.up, n)
	w.note("write", err)
	return n, err
}

func (w *meteredConn) count(counter *atomic.Int64, n int) {
	if n > 0 {
		counter.Add(int64(n))
		w.moved.Store(int64(time.Since(w.start)))
	}
}

// quiet returns how long no byte has moved.
func (w *meteredConn) quiet() time.Duration {
	return time.Since(w.start) - time.Duration(w.moved.Load())
}

func (w *meteredConn) note(op string, err error) {
	if err != nil && err != io.EOF && !w.closed.Load() && !transport.EndsAnswer(err, w.quiet()) {
		err = &relay.Error{Side: relay.Remote, Op: op, Err: err}
		w.failed.CompareAndSwap(nil, &failure{err, w.quiet()})
	}
}

func (w *meteredConn) Close() error {
	if w.closed.Swap(true) {
		return w.StreamConn.Close()
	}
	err := w.StreamConn.Close()
	r := Report{Request: w.request, Remote: w.StreamConn, Up: w.up.Load(), Down: w.down.Load(), Duration: time.Since(w.start), IdleFor: w.quiet()}
	if f := w.failed.Load(); f != nil {
		r.Err, r.IdleFor = f.err, f.quiet
	}
	w.end(r.Err != nil)
	w.dispatcher.report(r)
	return err
}
