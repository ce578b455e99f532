package wsconn

import (
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
)

const (
	// gorillaBuffer is the smallest read buffer gorilla takes: one control
	// frame's payload. It lives as long as the connection.
	gorillaBuffer = 125
	// ownBuffer is the room for what is read while nothing is lent: a header
	// and the start of a payload. It lives as long as the connection.
	ownBuffer = 128
	// lazyRead is the most that is read into a pooled buffer after an idle wait:
	// less than callers who take much have room for, so that the buffer is
	// empty after their next Read, and nothing small is left over for the one
	// after it.
	lazyRead = 48 << 10
	// minLent is the smallest buffer of a caller that is worth being read into.
	minLent = 16 << 10
	// maxEmptyFrames bounds the data frames without payload in a row.
	maxEmptyFrames = 4096
	// maxControls bounds the control frames in a row within controlTime: more
	// than a long pause can have piled up, and too few to keep anybody busy.
	maxControls = 4096
	controlTime = 10 * time.Second
	// maxScan bounds how many frames are looked at ahead of gorilla.
	maxScan = 16
	// maxIdleReads bounds the reads in a row that return nothing.
	maxIdleReads = 100
	// closeWait is how long a close frame may take to be written.
	closeWait = time.Second
)

// A frameConn is the net.Conn that gorilla sees. It follows the frames in what
// arrives and never hands gorilla bytes beyond the part it is asking for (a
// header, or the payload of the current frame), so that gorilla's own buffer
// is empty between its calls and can be tiny, and so that it is known whether
// more can be had without waiting.
//
// What arrives lies in the window buf[r:w], which is in one of three places:
// the caller's buffer while it is lent, a pooled buffer while more than
// ownBuffer bytes are unread, else own. A payload is moved to the front of the
// same lent buffer: it can only move down, past headers already read.
//
// Reading belongs to one goroutine; writing is serialised by gorilla.
type frameConn struct {
	conn   net.Conn
	waiter transport.ReadWaiter   // conn, where it can wait without a buffer
	lazy   transport.PooledReader // conn, where it can do so and read in one go
	watch  *pinger                // nil when pings are off
	answer *upgradeResponse       // not nil until the response head is read

	buf  []byte
	r, w int
	pool *transport.Buffer // not nil while the window is in it
	lent bool
	own  [ownBuffer]byte

	head    int            // bytes of the current header not yet handed out
	payload uint64         // bytes of the current payload not yet handed out
	control bool           // the current frame is a control frame
	want    int            // how much data payload gorilla was asked for
	empty   int            // data frames without payload in a row
	flood   controlLimiter // control frames in a row
	err     error          // of the connection; final
	told    error          // err, once gorilla knows it
	late    error          // came together with bytes: told after them

	writeErr atomic.Pointer[error] // the first, as gorilla hides it
}

func (c *frameConn) init(conn net.Conn) {
	c.conn = conn
	c.waiter, _ = conn.(transport.ReadWaiter)
	c.lazy, _ = conn.(transport.PooledReader)
	c.buf = c.own[:]
}

// Read serves gorilla; see carrier.
func (c *frameConn) Read(b []byte) (int, error) {
	n, err := c.serve(b)
	if err != nil {
		c.told = err
	}
	return n, err
}

func (c *frameConn) serve(b []byte) (int, error) {
	if c.answer != nil {
		return c.readAnswer(b)
	}
	if c.head == 0 && c.payload == 0 {
		if err := c.nextFrame(); err != nil {
			return 0, err
		}
	}
	if c.head > 0 {
		n := c.take(b, c.head)
		c.head -= n
		return n, nil
	}
	if c.r == c.w {
		// Without a waiter the rest of a payload is worth a large buffer.
		if err := c.fetch(c.control || c.waiter != nil); err != nil {
			return 0, err
		}
	}
	if !c.control {
		b = b[:min(len(b), c.want)]
	}
	n := c.take(b, int(min(c.payload, uint64(len(b)))))
	c.payload -= uint64(n)
	return n, nil
}

// nextFrame waits for a complete header. One that is cut off is handed out as
// it is, for gorilla to judge.
func (c *frameConn) nextFrame() error {
	h, ok := parseFrameHeader(c.buf[c.r:c.w])
	for !ok {
		if err := c.fetch(true); err != nil {
			c.head = c.w - c.r
			if c.head > 0 {
				return nil
			}
			return err
		}
		h, ok = parseFrameHeader(c.buf[c.r:c.w])
	}
	c.head, c.payload, c.control = h.size, h.payload, h.control()
	switch {
	case c.control:
		if c.flood.goesOn() {
			c.err = fmt.Errorf("%w: more than %d control frames within %v", ErrBadFrame, maxControls, controlTime)
			return c.err
		}
	case c.payload > 0:
		c.empty, c.flood.frames = 0, 0
	default:
		if c.empty++; c.empty > maxEmptyFrames {
			c.err = fmt.Errorf("%w: more than %d empty ones in a row", ErrBadFrame, maxEmptyFrames)
			return c.err
		}
	}
	return nil
}

// A controlLimiter counts control frames without data between them.
type controlLimiter struct {
	frames int
	since  time.Time
}

// goesOn counts a frame, and reports whether they are too many in their time.
func (f *controlLimiter) goesOn() bool {
	if f.frames == 0 {
		f.since = time.Now()
	}
	if f.frames++; f.frames <= maxControls {
		return false
	}
	f.frames = 0
	return time.Since(f.since) < controlTime
}

// ready reports whether data is at hand, so that gorilla returns some (or an
// error) without waiting.
func (c *frameConn) ready() bool {
	if c.payload > 0 {
		return c.r < c.w
	}
	at := c.buf[c.r:c.w]
	for range maxScan {
		h, ok := parseFrameHeader(at)
		if !ok || h.opcode == opcodeClose {
			return false
		}
		at = at[h.size:]
		if !h.control() && h.payload > 0 {
			return len(at) > 0
		}
		if uint64(len(at)) < h.payload {
			return false
		}
		at = at[h.payload:]
	}
	return false
}

// await waits for the first byte of the current payload. An error will be
// told when the payload is read.
func (c *frameConn) await() {
	if c.r == c.w {
		_ = c.fetch(true)
	}
}

// awaitFrame waits for the first byte of the next frame, so that a long wait
// has none of gorilla's calls on its stack. An error will be told when the
// frame is read.
func (c *frameConn) awaitFrame() {
	if c.head == 0 && c.payload == 0 {
		c.await()
	}
}

// take copies up to n bytes of the window to b.
func (c *frameConn) take(b []byte, n int) int {
	from := c.buf[c.r:min(c.w, c.r+n)]
	n = min(len(b), len(from))
	if n > 0 && &b[0] != &from[0] {
		copy(b, from)
	}
	c.r += n
	if c.r == c.w {
		c.drained()
	}
	return n
}

// drained starts the window anew and gives the pooled buffer back.
func (c *frameConn) drained() {
	c.r, c.w = 0, 0
	if c.pool != nil {
		c.releasePool()
		c.buf = c.own[:]
	}
}

func (c *frameConn) releasePool() {
	c.pool.Release()
	c.pool = nil
}

// lend offers p to be read into until settle is called. A window in a pooled
// buffer is emptied first, so then it is not taken.
func (c *frameConn) lend(p []byte) {
	if len(p) < minLent || c.pool != nil {
		return
	}
	c.move(p)
	c.lent = true
}

// settle takes the lent buffer back and leaves the window where it costs least.
func (c *frameConn) settle() {
	if !c.lent && c.pool == nil {
		return
	}
	c.lent = false
	switch old := c.pool; {
	case c.w-c.r <= ownBuffer:
		c.move(c.own[:])
		if old != nil {
			c.releasePool()
		}
	case old == nil:
		c.pool = transport.GetBuffer()
		c.move(c.pool[:])
	}
}

// move makes to the place of the window. It must have room for it.
func (c *frameConn) move(to []byte) {
	c.w = copy(to, c.buf[c.r:c.w])
	c.r, c.buf = 0, to
}

// fetch reads once from the connection, behind the window. idle says that the
// wait may be long: then no pooled buffer is held during it. The error is
// final, and comes after all bytes.
func (c *frameConn) fetch(idle bool) error {
	if c.err == nil {
		c.err = c.late
	}
	if c.err != nil {
		return c.err
	}
	if c.watch != nil {
		c.watch.reading.Store(true)
		defer c.watch.reading.Store(false)
	}
	for range maxIdleReads {
		n, err := c.readMore(idle)
		if n > 0 {
			c.w += n
			c.late = err
			if c.watch != nil {
				c.watch.hear()
			}
			return nil
		}
		if err != nil {
			c.err = err
			return err
		}
	}
	c.err = io.ErrNoProgress
	return c.err
}

// readMore reads once to behind the window, with room made for it.
func (c *frameConn) readMore(idle bool) (int, error) {
	if !idle || c.lazy == nil {
		c.makeRoom(idle)
		return c.conn.Read(c.buf[c.w:])
	}
	if !c.lent {
		c.settle()
	}
	if c.lent || c.pool != nil {
		c.move(c.buf)
		return c.conn.Read(c.buf[c.w:])
	}
	head := c.w - c.r
	p, n, err := c.lazy.ReadPooled(head, lazyRead)
	if p != nil {
		c.move(p[:])
		c.pool = p
	}
	return n, err
}

// makeRoom sees to it that there is room behind the window. An idle wait is
// done here where the connection can do it without a buffer; where it cannot,
// it is done reading into own.
func (c *frameConn) makeRoom(idle bool) {
	if idle && !c.lent {
		c.settle()
	}
	switch {
	case c.lent, c.pool != nil, idle && c.waiter == nil:
		c.move(c.buf)
		return
	case idle:
		_ = c.waiter.WaitRead() // its error is the read's too
	}
	p := transport.GetBuffer()
	c.move(p[:])
	c.pool = p
}

// Write serves gorilla, which writes one whole frame a call. While the answer
// to the upgrade request is due its errors are kept for later: the server may
// have answered and closed before it had read all of the request.
func (c *frameConn) Write(b []byte) (int, error) {
	if b[0] == finalClose {
		// Nothing is written after it, so the deadline is not taken back.
		_ = c.conn.SetWriteDeadline(time.Now().Add(closeWait))
	}
	n, err := c.conn.Write(b)
	if err != nil {
		first := err // so that only errors cost an allocation
		if n > 0 {
			first = fmt.Errorf("%w (%w)", err, transport.ErrPartSent)
		}
		c.writeErr.CompareAndSwap(nil, &first)
	}
	if c.answer != nil {
		c.answer.sent = time.Now()
		return len(b), nil
	}
	return n, err
}

// Close closes the connection.
func (c *frameConn) Close() error { return c.conn.Close() }

// LocalAddr implements net.Conn.
func (c *frameConn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *frameConn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// The deadlines are the Conn's: gorilla would reset them with each frame.

// SetDeadline does nothing.
func (c *frameConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *frameConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *frameConn) SetWriteDeadline(time.Time) error { return nil }

var _ net.Conn = (*frameConn)(nil)
