package transport

import (
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"vmess-local/pkg/host/errno"
)

// NewTCP wraps an established TCP connection as a StreamConn that can wait
// without a buffer ([ReadWaiter], where the system allows it) and be reset
// ([Resetter]).
func NewTCP(c *net.TCPConn) StreamConn {
	t := &tcpConn{TCPConn: c}
	t.raw, _ = c.SyscallConn() // nil only for a closed connection
	t.bind()
	return t
}

type tcpConn struct {
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
func (t *tcpConn) Read(p []byte) (int, error) {
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
func (t *tcpConn) Write(p []byte) (int, error) {
	t.under.Add(1)
	n, err := t.write(p)
	return n, t.met(err)
}

// WriteTo implements io.WriterTo, for the same reason as Read.
func (t *tcpConn) WriteTo(w io.Writer) (int64, error) {
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

// ResetOnAbort implements [Frailer].
func (t *tcpConn) ResetOnAbort() {
	t.resetOnAbort.Store(true)
	_ = t.SetLinger(0) // fails only when already closed
}

// clearResetOnAbort takes Frail back: what is closed without that loses what was not sent.
func (t *tcpConn) clearResetOnAbort() {
	if t.resetOnAbort.CompareAndSwap(true, false) {
		_ = t.SetLinger(-1)
	}
}

// CloseWrite implements [StreamConn].
func (t *tcpConn) CloseWrite() error {
	t.clearResetOnAbort()
	return t.TCPConn.CloseWrite()
}

// Close implements net.Conn.
func (t *tcpConn) Close() error {
	t.clearResetOnAbort()
	return t.TCPConn.Close()
}

// Reset implements [Resetter]: the peer sees RST.
func (t *tcpConn) Reset() error {
	t.resetOnAbort.Store(false)
	_ = t.SetLinger(0)
	return t.TCPConn.Close()
}

// A AbortResetter can make a stream end in order by its CloseWrite and Close only:
// whatever else ends it, the death of the process too, is an error for the far
// end (TCP: RST). It is for far ends to which nothing but that end tells that
// all has come. Frail is called before the stream is used.
type AbortResetter interface{ ResetOnAbort() }

// ResetOnAbort makes a stream frail that can be.
func ResetOnAbort(c StreamConn) {
	if f, ok := c.(AbortResetter); ok {
		f.ResetOnAbort()
	}
}

var (
	_ AbortResetter = (*tcpConn)(nil)
	_ StreamConn    = (*tcpConn)(nil)
	_ Resetter      = (*tcpConn)(nil)
	_ ReadWaiter    = (*tcpConn)(nil)
	_ PooledReader  = (*tcpConn)(nil)
)
