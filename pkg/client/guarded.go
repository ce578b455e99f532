package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/netaddr"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/vmess"
)

// silence is how long a first flight may stay unanswered on a server that is
// not known to accept us before somebody asks.
const silence = 3 * time.Second

// maxKept is the most payload that is kept until the first answer, so that a
// refused request can be sent again. A request that sent more is not repeated.
const maxKept = 16 << 10

// A guarded stream is one request to the server. Until the server has answered
// it authentically, it can be sent again in another connection: a refused
// request was never carried out. Afterwards it is the stream itself.
type guarded struct {
	guard *guard
	dst   netaddr.Addr // none for a tunnel that many share
	open  opener
	start time.Time
	cold  bool // nobody had been accepted when it was dialled

	page  bool // the application is told failures in words
	early bool // it began as early data, and nothing proved that the server takes it

	conn    atomic.Pointer[vmess.Conn]
	settled atomic.Bool // answered, or failed for good: conn stays what it is
	asked   atomic.Bool // the application said something and waits for an answer
	closed  atomic.Bool

	mu    sync.Mutex
	sent  []byte    // payload so far
	lost  bool      // more was sent than is kept
	ended bool      // CloseWrite was called
	tries int       // how often it was sent again
	last  time.Time // when it was sent last
	fatal error     // what reads and writes get once it failed for good
	timer *time.Timer

	judging sync.Mutex                         // one judgement at a time
	redial  atomic.Pointer[context.CancelFunc] // ends a resend under way
}

var (
	_ transport.StreamConn = (*guarded)(nil)
	_ transport.ReadWaiter = (*guarded)(nil)
	_ transport.Resetter   = (*guarded)(nil)
	_ transport.PeerWaiter = (*guarded)(nil)
)

// Read implements net.Conn.
func (x *guarded) Read(p []byte) (int, error) {
	for {
		c := x.conn.Load()
		n, err := c.Read(p)
		if x.settled.Load() && x.conn.Load() == c {
			return n, x.verdict(err)
		}
		if n > 0 || err == nil || c.Answered() {
			x.answered(c)
			if n == 0 && err == io.EOF && x.asked.Load() && x.dst.IsValid() {
				err = x.guard.empty(x)
			}
			return n, err
		}
		if err := x.judge(c, err); err != nil {
			return 0, err
		}
	}
}

// answered ends the guarding by an answer, to early data too where there was
// some.
func (x *guarded) answered(c *vmess.Conn) {
	if x.early && x.attempts() == 0 && c.Answered() {
		x.guard.way.earlyTaken.Store(true)
	}
	if x.cold && !x.settled.Load() && c.Answered() {
		x.guard.pool.Expect() // now it is worth it: the next connection is warm
	}
	x.settle()
}

// judge decides what becomes of a request whose connection c ended without an
// answer: nil when another connection has taken its place.
func (x *guarded) judge(c *vmess.Conn, err error) error {
	x.judging.Lock()
	defer x.judging.Unlock()
	x.mu.Lock()
	fatal := x.fatal
	x.mu.Unlock()
	switch {
	case fatal != nil:
		return fatal
	case x.closed.Load():
		return err
	case x.conn.Load() != c:
		return nil
	}
	if !refusedLike(err) {
		x.settle()
		return err
	}
	return x.act(x.guard.refused(x, err))
}

// act does what the guard decided.
func (x *guarded) act(d decision) error {
	if d.again {
		err := x.resend()
		if err == nil {
			return nil
		}
		if d.err == nil {
			d.err = err
		}
	}
	x.fail(d.err)
	return d.err
}

// refusedLike reports whether a connection that gave no answer ended as those
// of refused requests do: by a close or, with unread bytes left, a reset.
func refusedLike(err error) bool {
	return errors.Is(err, vmess.ErrNoAnswer) || errors.Is(err, vmess.ErrBadResponse) || diagnose.IsReset(err)
}

// silent is called when the first flight stayed unanswered.
func (x *guarded) silent() {
	if x.settled.Load() || x.closed.Load() {
		return
	}
	c := x.conn.Load()
	d := x.guard.silent(x)
	if d.wait {
		return
	}
	x.judging.Lock()
	defer x.judging.Unlock()
	if x.settled.Load() || x.closed.Load() || x.conn.Load() != c {
		return
	}
	if x.act(d) != nil {
		_ = c.Reset() // frees the reader, which finds the verdict
	}
}

// settle ends the guarding.
func (x *guarded) settle() {
	if x.settled.Swap(true) {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.sent = nil
	if x.timer != nil {
		x.timer.Stop()
	}
}

// fail ends the guarding with an error.
func (x *guarded) fail(err error) {
	x.mu.Lock()
	x.fatal = err
	x.mu.Unlock()
	x.settle()
}

// verdict returns what a read or write of a failed stream gets instead of err.
func (x *guarded) verdict(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.fatal != nil {
		return x.fatal
	}
	return err
}

// attempts returns how often the request was sent again.
func (x *guarded) attempts() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.tries
}

// sentAt returns when the request was sent last.
func (x *guarded) sentAt() time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.last.IsZero() {
		return x.start
	}
	return x.last
}

// repeatable reports whether the request can be sent again, which it may be so
// often in all.
func (x *guarded) repeatable(often int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return !x.lost && x.tries < often
}

var errNotKept = fmt.Errorf("%w, and too much was sent to send it again", vmess.ErrNoAnswer)

// resend sends the request again in a fresh connection.
func (x *guarded) resend() error {
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
	c, err := x.dial(ctx)
	if err != nil {
		return err
	}
	x.tries, x.last = x.tries+1, x.guard.now()
	x.conn.Store(c)
	if x.timer != nil {
		x.timer.Reset(silence)
	}
	return nil
}

// dial connects again and says what was said so far. It is called with the
// lock held.
func (x *guarded) dial(ctx context.Context) (*vmess.Conn, error) {
	c, err := x.open(ctx, x.sent)
	if err != nil {
		return nil, x.guard.wayFailed(ctx, err)
	}
	if len(x.sent) == 0 {
		_, err = c.Write(nil)
	}
	if err == nil && x.ended {
		err = c.CloseWrite()
	}
	if err != nil {
		_ = c.Reset()
		return nil, err
	}
	return c, nil
}

// WaitRead implements transport.ReadWaiter.
func (x *guarded) WaitRead() error { return x.conn.Load().WaitRead() }

// Write implements net.Conn. Before the first answer a connection that broke is
// the reader's affair: it may yet be replaced.
func (x *guarded) Write(p []byte) (int, error) {
	if x.settled.Load() {
		n, err := x.conn.Load().Write(p)
		return n, x.verdict(err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.fatal != nil:
		return 0, x.fatal
	case x.closed.Load() || x.settled.Load():
		return x.conn.Load().Write(p)
	}
	x.asked.Store(len(p) > 0 || x.asked.Load())
	if x.lost = x.lost || len(x.sent)+len(p) > maxKept; x.lost {
		x.sent = nil
	} else {
		x.sent = append(x.sent, p...)
	}
	x.watch()
	n, err := x.conn.Load().Write(p)
	if err != nil && !x.lost {
		return len(p), nil
	}
	return n, err
}

// watch starts the clock of the first flight, where nobody knows whether the
// server takes it. It is called with the lock held.
func (x *guarded) watch() {
	if x.timer == nil && (x.early || !x.guard.fresh()) {
		x.timer = time.AfterFunc(silence, x.silent)
	}
}

// CloseWrite implements transport.StreamConn.
func (x *guarded) CloseWrite() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ended = true
	x.asked.Store(false)
	err := x.conn.Load().CloseWrite()
	if err != nil && !x.settled.Load() && !x.lost {
		return nil // as in Write
	}
	return err
}

// Close implements net.Conn.
func (x *guarded) Close() error { return x.end((*vmess.Conn).Close) }

// Reset implements transport.Resetter.
func (x *guarded) Reset() error { return x.end((*vmess.Conn).Reset) }

// end ends the connection, and the one that may be about to replace it.
func (x *guarded) end(end func(*vmess.Conn) error) error {
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
func (x *guarded) WaitPeerClose() { x.conn.Load().WaitPeerClose() }

// LocalAddr implements net.Conn.
func (x *guarded) LocalAddr() net.Addr { return x.conn.Load().LocalAddr() }

// RemoteAddr implements net.Conn.
func (x *guarded) RemoteAddr() net.Addr { return x.conn.Load().RemoteAddr() }

// SetDeadline implements net.Conn.
func (x *guarded) SetDeadline(t time.Time) error { return x.conn.Load().SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (x *guarded) SetReadDeadline(t time.Time) error { return x.conn.Load().SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (x *guarded) SetWriteDeadline(t time.Time) error { return x.conn.Load().SetWriteDeadline(t) }
