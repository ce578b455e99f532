// Package tcpconn is a TCP connection as a transport.StreamConn, with what the
// operating system knows of it and of the user at its other end.
package tcpconn

import (
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"vmess-local/pkg/host/errno"
	"vmess-local/pkg/transport"
)

// New wraps an established TCP connection.
func New(c *net.TCPConn) *Conn {
	t := &Conn{TCPConn: c}
	t.raw, _ = c.SyscallConn() // nil only for a closed connection
	t.bind()
	return t
}

// A Conn is a TCP connection. It can wait without a buffer
// ([transport.ReadWaiter], where the system allows it), be reset
// ([transport.Resetter]), and tell what the system knows of its far end. Those
// that wrap it are asked the same ([transport.ResetByPeer] and the others).
type Conn struct {
	*net.TCPConn
	raw syscall.RawConn
	// lost is the error that WaitRead met. The system tells it once and an end
	// from then on, so every later read must be told it from here.
	lost         error
	resetOnAbort atomic.Bool
	calls        calls
	writes
}

// writes is what a reader has to know of the writers: a reset is told once, and
// when a write is told, the reader that is woken with it finds an end in order
// where the peer broke off. What a write meets behind a true end is another
// error (EPIPE), and no concern of a reader.
type writes struct {
	under atomic.Int32 // writes under way
	reset atomic.Pointer[error]
}

// met returns err, the end of a write.
func (w *writes) met(err error) error {
	if errno.IsConnReset(err) {
		reset := err // only a reset is worth the memory
		w.reset.CompareAndSwap(nil, &reset)
	}
	w.under.Add(-1)
	return err
}

// end returns io.EOF, or the reset that a write was told of. A write that is
// under way has a moment to be told.
func (w *writes) end() error {
	for range 10 {
		if w.reset.Load() != nil || w.under.Load() == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := w.reset.Load(); err != nil {
		return *err
	}
	return io.EOF
}

// Read implements net.Conn.
func (t *Conn) Read(p []byte) (int, error) {
	if t.lost != nil {
		return 0, t.lost
	}
	n, err := t.read(p)
	if err == io.EOF {
		err = t.end()
	}
	return n, err
}

// Write implements net.Conn.
func (t *Conn) Write(p []byte) (int, error) {
	t.under.Add(1)
	n, err := t.write(p)
	return n, t.met(err)
}

// WriteTo implements io.WriterTo, for the same reason as Read.
func (t *Conn) WriteTo(w io.Writer) (int64, error) {
	if t.lost != nil {
		return 0, t.lost
	}
	n, err := t.TCPConn.WriteTo(w)
	if err == nil {
		if err = t.end(); err == io.EOF {
			err = nil
		}
	}
	return n, err
}

// ResetOnAbort implements [transport.AbortResetter].
func (t *Conn) ResetOnAbort() {
	t.resetOnAbort.Store(true)
	_ = t.SetLinger(0) // fails only when already closed
}

// clearResetOnAbort takes ResetOnAbort back: what is closed without that loses what was not sent.
func (t *Conn) clearResetOnAbort() {
	if t.resetOnAbort.CompareAndSwap(true, false) {
		_ = t.SetLinger(-1)
	}
}

// CloseWrite implements [transport.StreamConn].
func (t *Conn) CloseWrite() error {
	t.clearResetOnAbort()
	return t.TCPConn.CloseWrite()
}

// Close implements net.Conn.
func (t *Conn) Close() error {
	t.clearResetOnAbort()
	return t.TCPConn.Close()
}

// Reset implements [transport.Resetter]: the peer sees RST.
func (t *Conn) Reset() error {
	t.resetOnAbort.Store(false)
	_ = t.SetLinger(0)
	return t.TCPConn.Close()
}

var (
	_ transport.AbortResetter = (*Conn)(nil)
	_ transport.StreamConn    = (*Conn)(nil)
	_ transport.Resetter      = (*Conn)(nil)
	_ transport.ReadWaiter    = (*Conn)(nil)
	_ transport.PooledReader  = (*Conn)(nil)
)
