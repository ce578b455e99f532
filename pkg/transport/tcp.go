package transport

import (
	"io"
	"net"
	"syscall"
)

// NewTCP wraps an established TCP connection as a StreamConn that can wait
// without a buffer ([ReadWaiter], where the system allows it) and be reset
// ([Resetter]).
func NewTCP(c *net.TCPConn) StreamConn {
	t := &tcpConn{TCPConn: c}
	t.raw, _ = c.SyscallConn() // nil only for a closed connection
	t.poll = t.readable
	t.lazy.read = t.readLazily
	return t
}

type tcpConn struct {
	*net.TCPConn
	raw  syscall.RawConn
	poll func(fd uintptr) bool // readable, bound once so that waiting allocates nothing
	// lost is the error that WaitRead met. The system tells it once and an end
	// from then on, so every later read must be told it from here.
	lost error
	lazy lazyRead
}

// A lazyRead is a ReadLazy under way: what its callback is asked for, and what
// it found.
type lazyRead struct {
	read       func(fd uintptr) bool // bound once, as poll
	head, most int
	buf        *Buffer
	n          int
	err        error
}

// Read implements net.Conn.
func (t *tcpConn) Read(p []byte) (int, error) {
	if t.lost != nil {
		return 0, t.lost
	}
	return t.TCPConn.Read(p)
}

// WriteTo implements io.WriterTo, for the same reason as Read.
func (t *tcpConn) WriteTo(w io.Writer) (int64, error) {
	if t.lost != nil {
		return 0, t.lost
	}
	return t.TCPConn.WriteTo(w)
}

// Reset implements [Resetter]: the peer sees RST.
func (t *tcpConn) Reset() error {
	_ = t.SetLinger(0) // fails only when already closed
	return t.Close()
}

var (
	_ StreamConn = (*tcpConn)(nil)
	_ Resetter   = (*tcpConn)(nil)
	_ ReadWaiter = (*tcpConn)(nil)
	_ LazyReader = (*tcpConn)(nil)
)
