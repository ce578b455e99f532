package client

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
)

// A retryStream stream is one request to the server. Until the server has answered
// it authentically, it can be sent again in another connection: a refused
// request was never carried out. Afterwards it is the stream itself.
type retryStream struct {
	request
	open  opener
	conn  atomic.Pointer[vmess.Conn]
	some  atomic.Bool // something of the answer has come
	asked atomic.Bool // the application said something and waits for an answer
	owed  atomic.Bool // nothing has come since the application wrote last

	sent  []byte // payload so far; with mu locked, as is ended
	ended bool   // CloseWrite was called
}

var (
	_ transport.StreamConn   = (*retryStream)(nil)
	_ transport.ReadWaiter   = (*retryStream)(nil)
	_ transport.Resetter     = (*retryStream)(nil)
	_ transport.PeerWaiter   = (*retryStream)(nil)
	_ transport.NonceLimiter = (*retryStream)(nil)
)

// Read implements net.Conn.
func (x *retryStream) Read(p []byte) (int, error) {
	for {
		c := x.conn.Load()
		n, err := c.Read(p)
		if n > 0 {
			set(&x.some, true)
			set(&x.owed, false)
		}
		if errors.Is(err, vmess.ErrDestinationBroke) {
			return n, x.broke(c, err)
		}
		if x.settled.Load() && x.conn.Load() == c {
			return n, x.verdict(err)
		}
		if n > 0 || err == nil || c.Answered() {
			x.answered(c)
			switch {
			case errors.Is(err, vmess.ErrGivenUp):
				err = x.guard.closedByServer(&x.request, diagnose.ProbeNotTried, err).err
				x.fail(err)
			case n == 0 && err == io.EOF && x.asked.Load() && x.dst.IsValid():
				err = x.guard.empty(&x.request)
			}
			return n, err
		}
		if err := x.judge(c, err); err != nil {
			return 0, err
		}
	}
}

// set stores v without disturbing other processors where it is there already.
func set(b *atomic.Bool, v bool) {
	if b.Load() != v {
		b.Store(v)
	}
}

// broke ends the stream by the destination's break. One that has answered may have
// said everything: then its silence before decides, and the reporter names it.
func (x *retryStream) broke(c *vmess.Conn, err error) error {
	x.answered(c)
	if x.some.Load() {
		return &transport.AmbiguousEnd{Err: err}
	}
	if fatal := x.verdict(err); fatal != err {
		return fatal
	}
	err = x.guard.broke(&x.request, err)
	x.fail(err)
	return err
}

// answered ends the guarding by an answer, to early data too where there was
// some.
func (x *retryStream) answered(c *vmess.Conn) {
	if c.Answered() && x.sending().early {
		x.guard.path.earlyTaken.Store(true)
	}
	if x.cold && !x.settled.Load() && c.Answered() {
		x.guard.pool.Prefetch() // now it is worth it: the next connection is warm
	}
	x.settle()
}

// current implements sender.
func (x *retryStream) current() any { return x.conn.Load() }

// over implements sender.
func (x *retryStream) over() bool { return x.conn.Load().Ended() }

// forget implements sender.
func (x *retryStream) forget() { x.sent = nil }

// cut implements sender.
func (x *retryStream) cut() { _ = x.conn.Load().Reset() }

// resend implements sender.
func (x *retryStream) resend() error {
	ctx, cancel := context.WithTimeout(x.guard.ctx, x.guard.dialTime)
	defer cancel()
	x.redial.Store(&cancel)
	_ = x.conn.Load().Reset() // frees a writer that holds the lock
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.closed.Load(): // who closes from now on cancels ctx
		return net.ErrClosed
	case x.lost:
		return errNotKept
	}
	c, f, err := x.dial(ctx)
	if err != nil {
		return err
	}
	x.tries, x.flight = x.tries+1, f
	x.conn.Store(c)
	if x.timer != nil {
		x.timer.Reset(silence)
	}
	return nil
}

// dial connects again and says what was said so far. It is called with the
// lock held.
func (x *retryStream) dial(ctx context.Context) (*vmess.Conn, transmission, error) {
	c, f, err := x.guard.launch(ctx, x.open, x.sent)
	if err != nil {
		return nil, f, err
	}
	if len(x.sent) == 0 {
		f.at = x.guard.now()
		_, err = c.Write(nil)
	}
	if err == nil && x.ended {
		err = c.CloseWrite()
	}
	if err != nil {
		_ = c.Reset()
		return nil, f, err
	}
	return c, f, nil
}

// WaitRead implements transport.ReadWaiter.
func (x *retryStream) WaitRead() error { return x.conn.Load().WaitRead() }

// Write implements net.Conn. Before the first answer a connection that broke is
// the reader's affair: it may yet be replaced.
func (x *retryStream) Write(p []byte) (int, error) {
	if len(p) > 0 {
		set(&x.owed, true)
	}
	if x.settled.Load() {
		n, err := x.conn.Load().Write(p)
		return n, x.verdict(err)
	}
	x.mu.Lock()
	if x.fatal != nil {
		defer x.mu.Unlock()
		return 0, x.fatal
	}
	c := x.conn.Load()
	if x.closed.Load() || x.settled.Load() || !x.keep(p) {
		x.mu.Unlock() // the reader settles while a write waits for the far end to read
		return c.Write(p)
	}
	defer x.mu.Unlock()
	n, err := c.Write(p)
	if err != nil {
		return len(p), nil
	}
	return n, nil
}

// keep keeps what is about to be sent, and reports whether the request can be
// sent again with it. It is called with the lock held.
func (x *retryStream) keep(p []byte) bool {
	x.asked.Store(len(p) > 0 || x.asked.Load())
	if x.lost = x.lost || len(x.sent)+len(p) > maxKept; x.lost {
		x.sent = nil
	} else {
		x.sent = append(x.sent, p...)
	}
	x.speaks()
	x.watch()
	return !x.lost
}

// watch starts the clock of the first flight, where nobody knows whether the
// server takes it. It is called with the lock held.
func (x *retryStream) watch() {
	if x.timer == nil && (x.flight.early || !x.guard.fresh()) {
		x.timer = time.AfterFunc(silence, x.silent)
	}
}

// CloseWrite implements transport.StreamConn.
func (x *retryStream) CloseWrite() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ended = true
	x.asked.Store(false)
	x.speaks()
	err := x.conn.Load().CloseWrite()
	if err != nil && !x.settled.Load() && !x.lost {
		return nil // as in Write
	}
	return err
}

// Close implements net.Conn.
func (x *retryStream) Close() error { return x.end((*vmess.Conn).Close) }

// Reset implements transport.Resetter.
func (x *retryStream) Reset() error { return x.end((*vmess.Conn).Reset) }

// end ends the connection, and the one that may be about to replace it.
func (x *retryStream) end(end func(*vmess.Conn) error) error {
	x.closed.Store(true)
	if cancel := x.redial.Load(); cancel != nil {
		(*cancel)()
	}
	c := x.conn.Load()
	err := end(c) // frees a writer that holds the lock
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.timer != nil {
		x.timer.Stop()
	}
	if fresh := x.conn.Load(); fresh != c {
		err = end(fresh)
	}
	return err
}

// WaitPeerClose implements transport.PeerWaiter.
func (x *retryStream) WaitPeerClose() (gone bool) { return x.conn.Load().WaitPeerClose() }

// WriteReady implements transport.WriteReadier. Before the first answer a Write may
// wait for another connection.
func (x *retryStream) WriteReady() bool {
	return x.settled.Load() && transport.WriteReady(x.conn.Load())
}

// NearNonceLimit implements transport.NonceLimiter.
func (x *retryStream) NearNonceLimit() bool { return x.conn.Load().NearNonceLimit() }

// LocalAddr implements net.Conn.
func (x *retryStream) LocalAddr() net.Addr { return x.conn.Load().LocalAddr() }

// RemoteAddr implements net.Conn.
func (x *retryStream) RemoteAddr() net.Addr { return x.conn.Load().RemoteAddr() }

// SetDeadline implements net.Conn.
func (x *retryStream) SetDeadline(t time.Time) error { return x.conn.Load().SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (x *retryStream) SetReadDeadline(t time.Time) error { return x.conn.Load().SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (x *retryStream) SetWriteDeadline(t time.Time) error { return x.conn.Load().SetWriteDeadline(t) }
