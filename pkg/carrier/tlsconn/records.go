package tlsconn

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"vmess-local/pkg/transport"
)

const (
	// ownBuffer is the room for the start of a record while nothing is lent.
	// It lives as long as the connection.
	ownBuffer = 64
	// firstRead is how much is read for a reader of whom nothing is known: less
	// than one who takes much has room for.
	firstRead = 48 << 10
	// maxIdleReads bounds the reads in a row that return nothing.
	maxIdleReads = 100
	// corkSize holds what corkedText becomes when it is sealed, whatever the
	// cipher, and a little that comes between.
	corkSize = 88 << 10
)

// errNoRecord says that the next record is not complete yet. It is Temporary,
// for which crypto/tls takes up later where it stopped.
var errNoRecord net.Error = noRecord{}

type noRecord struct{}

func (noRecord) Error() string   { return "no complete record is at hand" }
func (noRecord) Timeout() bool   { return false }
func (noRecord) Temporary() bool { return true }

type corkBuffer [corkSize]byte

// corks lends the buffers in which the records of one Write are collected.
var corks = sync.Pool{New: func() any { return new(corkBuffer) }}

// A records is the net.Conn that the TLS implementation sees. It reads in
// large pieces, follows the records in them, and hands out one at a time, as
// soon as it is complete, so that the TLS implementation never holds a part of
// the next and it is known whether one more can be had without waiting.
//
// What arrives lies in the window buf[r:w], which is in a pooled buffer while
// more than ownBuffer bytes are unread, else in own.
//
// Reading belongs to one goroutine. Writes may come from any.
type records struct {
	conn   net.Conn
	lazy   transport.PooledReader // conn, where it can wait without a buffer and read in one go
	waiter transport.ReadWaiter   // conn, where it can wait without a buffer

	buf       []byte
	r, w      int
	pool      *transport.Buffer // not nil while the window is in it
	left      int               // bytes of the current record not yet handed out
	most      int               // to be in the window; see want
	impatient bool              // Read returns errNoRecord rather than wait
	err       error             // of reading; final, told after the window
	own       [ownBuffer]byte

	writing  sync.Mutex
	cork     *corkBuffer // not nil while writes are collected
	corked   int         // bytes in it
	uncorked int         // bytes sent since it was lent
	writeErr error       // the first; final
}

func (r *records) init(conn net.Conn) {
	r.conn = conn
	r.lazy, _ = conn.(transport.PooledReader)
	r.waiter, _ = conn.(transport.ReadWaiter)
	r.buf, r.most = r.own[:], firstRead
}

// Read serves the TLS implementation; see records.
func (r *records) Read(b []byte) (int, error) {
	if r.left == 0 {
		if err := r.nextRecord(); err != nil {
			return 0, err
		}
	}
	if r.r == r.w { // of a record that was not awaited
		if err := r.fetch(); err != nil {
			return 0, err
		}
	}
	n := copy(b, r.buf[r.r:min(r.w, r.r+r.left)])
	r.r += n
	r.left -= n
	if r.r == r.w {
		r.drained()
	}
	return n, nil
}

// nextRecord waits for a record. One that is cut off is handed out as it is,
// for the TLS implementation to judge.
func (r *records) nextRecord() error {
	if r.impatient && !r.complete() {
		return errNoRecord
	}
	if err := r.await(); err != nil {
		if r.r == r.w || r.err == nil {
			return err
		}
		r.left = r.w - r.r
		return nil
	}
	h, _ := parseHeader(r.buf[r.r:r.w])
	r.left = h.size()
	return nil
}

// await waits for a record that is worth handing out: a complete one, or a
// header that no record has. Its error is that of the Read that follows.
func (r *records) await() error {
	for {
		h, ok := parseHeader(r.buf[r.r:r.w])
		if ok && (!h.plausible() || r.w-r.r >= h.size()) {
			return nil
		}
		if err := r.fetch(); err != nil {
			return err
		}
	}
}

// complete reports whether a whole record is at hand, and the one before it
// has been read.
func (r *records) complete() bool {
	h, ok := parseHeader(r.buf[r.r:r.w])
	return ok && r.left == 0 && h.plausible() && r.w-r.r >= h.size()
}

// drained starts the window anew and gives the pooled buffer back.
func (r *records) drained() {
	r.r, r.w = 0, 0
	if r.pool != nil {
		r.pool.Release()
		r.pool, r.buf = nil, r.own[:]
	}
}

// fetch reads once from the connection, behind the window. An error is final
// unless it is that of a deadline, which may be moved.
func (r *records) fetch() error {
	if r.err != nil {
		return r.err
	}
	for range maxIdleReads {
		n, err := r.readMore()
		if err != nil && isFinal(err) {
			r.err = err
		}
		if n > 0 {
			r.w += n
			return nil
		}
		if r.w-r.r <= ownBuffer {
			r.settle()
		}
		if err != nil {
			return err
		}
	}
	r.err = io.ErrNoProgress
	return r.err
}

// want says how much the reader takes next. For one who takes much no more is
// read than he can take at once, so that nothing small is left over for his
// next read.
func (r *records) want(n int) {
	r.most = transport.BufferSize
	if n >= transport.BufferSize/2 {
		r.most = min(n, r.most)
	}
}

// room is what may be filled behind the window.
func (r *records) room() []byte {
	return r.buf[r.w:min(len(r.buf), max(r.most, r.w+1))]
}

// readMore reads once to behind the window. The wait may be long: no pooled
// buffer is held for few bytes.
func (r *records) readMore() (int, error) {
	have := r.w - r.r
	if have > ownBuffer {
		r.move(r.buf)
		return r.conn.Read(r.room())
	}
	r.settle()
	switch {
	case r.lazy != nil:
		p, n, err := r.lazy.ReadPooled(have, max(1, r.most-have))
		if p != nil {
			r.use(p)
		}
		return n, err
	case r.waiter != nil:
		_ = r.waiter.WaitRead() // its error is the read's too
	case have < ownBuffer:
		return r.conn.Read(r.buf[r.w:])
	}
	r.use(transport.GetBuffer())
	return r.conn.Read(r.room())
}

// settle moves a window that fits to own and gives the pooled buffer back.
func (r *records) settle() {
	old := r.pool
	r.pool = nil
	r.move(r.own[:])
	if old != nil {
		old.Release()
	}
}

// use moves the window to a pooled buffer.
func (r *records) use(p *transport.Buffer) {
	r.move(p[:])
	r.pool = p
}

// move makes to the place of the window. It must have room for it.
func (r *records) move(to []byte) {
	r.w = copy(to, r.buf[r.r:r.w])
	r.r, r.buf = 0, to
}

// Write serves the TLS implementation, which writes whole records.
func (r *records) Write(b []byte) (int, error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	if r.cork != nil && len(b) > corkSize-r.corked {
		r.flush()
	}
	switch {
	case r.writeErr != nil:
		return 0, r.writeErr
	case r.cork != nil && len(b) <= corkSize:
		r.corked += copy(r.cork[r.corked:], b)
		return len(b), nil
	}
	return r.send(b)
}

// collect keeps what is written from now on until release.
func (r *records) collect() {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.cork, r.uncorked = corks.Get().(*corkBuffer), 0
}

// release sends what was collected, and returns how many bytes went out since
// collect.
func (r *records) release() (sent int, err error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.flush()
	corks.Put(r.cork)
	r.cork = nil
	return r.uncorked, r.writeErr
}

func (r *records) flush() {
	if r.corked > 0 && r.writeErr == nil {
		_, _ = r.send(r.cork[:r.corked])
	}
	r.corked = 0
}

func (r *records) send(b []byte) (n int, err error) {
	n, err = r.conn.Write(b)
	r.uncorked += n
	r.writeErr = err
	return n, err
}

// Close closes the connection.
func (r *records) Close() error { return r.conn.Close() }

// LocalAddr implements net.Conn.
func (r *records) LocalAddr() net.Addr { return r.conn.LocalAddr() }

// RemoteAddr implements net.Conn.
func (r *records) RemoteAddr() net.Addr { return r.conn.RemoteAddr() }

// SetDeadline implements net.Conn.
func (r *records) SetDeadline(t time.Time) error { return r.conn.SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (r *records) SetReadDeadline(t time.Time) error { return r.conn.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (r *records) SetWriteDeadline(t time.Time) error { return r.conn.SetWriteDeadline(t) }

var _ net.Conn = (*records)(nil)

// isFinal tells the errors of reading from those of a deadline, which may be
// moved. The system tells its own only once, so they must be kept.
func isFinal(err error) bool { return !errors.Is(err, os.ErrDeadlineExceeded) }
