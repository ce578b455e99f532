package mux

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

const (
	// maxKept is the most payload that is kept until the first answer, so that a
	// session that was not taken can be opened again.
	maxKept = 16 << 10
	// maxAttempts is how often one is.
	maxAttempts = 4
)

// attemptKey is where a context says how often its session was opened again.
type attemptKey struct{}

func attemptsOf(ctx context.Context) int {
	n, _ := ctx.Value(attemptKey{}).(int)
	return n
}

// A reopener is a client's stream whose session is opened again elsewhere as long
// as the server has not taken it. From the first answer on it is the stream
// itself.
type reopener struct {
	again   func(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error)
	dst     netaddr.Addr
	conn    atomic.Pointer[transport.StreamConn]
	settled atomic.Bool // the connection stays what it is

	mu     sync.Mutex
	ctx    context.Context // of the dial, without its end; nil once settled
	first  *session        // nil once settled
	sent   []byte          // payload so far
	lost   bool            // more was sent than is kept
	ended  bool            // CloseWrite was called
	closed bool
	cancel context.CancelFunc // of an attempt under way
}

var (
	_ transport.StreamConn = (*reopener)(nil)
	_ transport.ReadWaiter = (*reopener)(nil)
	_ transport.Resetter   = (*reopener)(nil)
	_ transport.PeerWaiter = (*reopener)(nil)
)

func newReopener(ctx context.Context, again func(context.Context, netaddr.Addr, []byte) (transport.StreamConn, error), s *session, first []byte) *reopener {
	ctx = context.WithValue(context.WithoutCancel(ctx), attemptKey{}, attemptsOf(ctx)+1)
	x := &reopener{again: again, dst: s.dst, ctx: ctx, first: s}
	x.keep(first)
	x.use(stream{s})
	return x
}

func (x *reopener) use(c transport.StreamConn) { x.conn.Store(&c) }

func (x *reopener) current() transport.StreamConn { return *x.conn.Load() }

// keep keeps what is about to be sent, and reports whether the session can be
// opened again with it. It is called with the lock held.
func (x *reopener) keep(p []byte) bool {
	if x.lost = x.lost || len(x.sent)+len(p) > maxKept; x.lost {
		x.sent = nil
	} else {
		x.sent = append(x.sent, p...)
	}
	return !x.lost
}

// settle ends the keeping.
func (x *reopener) settle() {
	if x.settled.Swap(true) {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ctx, x.first, x.sent = nil, nil, nil
}

// Read implements net.Conn.
func (x *reopener) Read(p []byte) (int, error) {
	for {
		n, err := x.current().Read(p)
		if x.settled.Load() || n == 0 && err == nil {
			return n, err
		}
		if n > 0 || !x.untaken(err) {
			x.settle()
			return n, err
		}
		err = x.reopen()
		x.settle()
		if err != nil {
			return 0, err
		}
	}
}

// untaken reports whether a session that ended with err was not taken by the
// server, or never left.
func (x *reopener) untaken(err error) bool {
	x.mu.Lock()
	s := x.first
	x.mu.Unlock()
	var broken *TunnelError
	return errors.Is(err, ErrDraining) || errors.As(err, &broken) && s != nil && !s.sent()
}

// reopen opens the session again. Who writes meanwhile meets a session that is
// over, and what it wrote was kept.
func (x *reopener) reopen() error {
	x.mu.Lock()
	if x.closed || x.lost {
		defer x.mu.Unlock()
		if x.lost {
			return ErrDraining
		}
		return net.ErrClosed
	}
	ctx, cancel := context.WithCancel(x.ctx)
	defer cancel()
	x.cancel = cancel
	done := len(x.sent)
	first := x.sent[:done:done]
	x.mu.Unlock()
	c, err := x.again(ctx, x.dst, first)
	if err != nil {
		return err
	}
	if err = x.replace(c, done); err != nil {
		_ = transport.Reset(c)
	}
	return err
}

// replace puts c in the place of the session, once it has been told what was said
// behind the first done bytes.
func (x *reopener) replace(c transport.StreamConn, done int) error {
	for opened, ended := done > 0, false; ; {
		x.mu.Lock()
		rest, end := x.sent[min(done, len(x.sent)):], x.ended && !ended
		switch {
		case x.closed:
			x.mu.Unlock()
			return net.ErrClosed
		case x.lost:
			x.mu.Unlock()
			return ErrDraining
		case opened && len(rest) == 0 && !end:
			x.use(c)
			x.mu.Unlock()
			return nil
		}
		x.mu.Unlock()
		if _, err := c.Write(rest); err != nil {
			return err
		}
		done, opened = done+len(rest), true
		if end {
			ended = true
			if err := c.CloseWrite(); err != nil {
				return err
			}
		}
	}
}

// WaitRead implements transport.ReadWaiter.
func (x *reopener) WaitRead() error {
	if w, ok := x.current().(transport.ReadWaiter); ok {
		return w.WaitRead()
	}
	return nil
}

// Write implements net.Conn. Before the first answer a session that ended is the
// reader's affair: it may yet be opened again.
func (x *reopener) Write(p []byte) (int, error) {
	if x.settled.Load() {
		return x.current().Write(p)
	}
	x.mu.Lock()
	// One that is settled meanwhile keeps nothing.
	c, kept := x.current(), x.ctx != nil && !x.closed && x.keep(p)
	x.mu.Unlock()
	n, err := c.Write(p) // without the lock: it waits for room
	if kept && err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
		return len(p), nil
	}
	return n, err
}

// CloseWrite implements transport.StreamConn.
func (x *reopener) CloseWrite() error {
	x.mu.Lock()
	x.ended = true
	c, kept := x.current(), x.ctx != nil && !x.lost
	x.mu.Unlock()
	if err := c.CloseWrite(); err != nil && !kept {
		return err
	}
	return nil
}

// WaitPeerClose implements transport.PeerWaiter.
func (x *reopener) WaitPeerClose() (gone bool) {
	if w, ok := x.current().(transport.PeerWaiter); ok {
		return w.WaitPeerClose()
	}
	return true
}

// Close implements net.Conn.
func (x *reopener) Close() error { return x.end().Close() }

// Reset implements transport.Resetter.
func (x *reopener) Reset() error { return transport.Reset(x.end()) }

// end ends an attempt to open the session again, and returns what is to be
// closed.
func (x *reopener) end() transport.StreamConn {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	if x.cancel != nil {
		x.cancel()
	}
	return x.current()
}

// LocalAddr implements net.Conn.
func (x *reopener) LocalAddr() net.Addr { return x.current().LocalAddr() }

// RemoteAddr implements net.Conn.
func (x *reopener) RemoteAddr() net.Addr { return x.current().RemoteAddr() }

// SetDeadline implements net.Conn.
func (x *reopener) SetDeadline(t time.Time) error { return x.current().SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (x *reopener) SetReadDeadline(t time.Time) error { return x.current().SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (x *reopener) SetWriteDeadline(t time.Time) error { return x.current().SetWriteDeadline(t) }
