package vmess

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
)

// endMarkPatience is how long an answer may be silent before a held-back end
// mark is sent after all (section 14).
const endMarkPatience = 10 * time.Second

// downlinkOnly is how long V2Ray and Xray wait for an answer after our end mark
// at the least; round trips come on top of it (section 14).
const downlinkOnly = time.Second

// A Conn is a VMess stream over a carrier: the client's or the server's side.
// It keeps the contract of transport.StreamConn; Close closes the carrier.
//
// On the client's side the request is sent with the first Write, or alone by a
// Write of no bytes; and CloseWrite may hold the end mark back, because V2Ray
// and Xray cut an answer that is silent for a second after it. It is sent at
// once towards servers that say they wait (this package's own), and otherwise
// when the answer has ended or was silent for 10 s.
type Conn struct {
	carrier transport.StreamConn

	reader bodyReader
	// prologue reads what stands before the body on the first read (a
	// response's header); nil when there is nothing.
	prologue func() error

	write    sync.Mutex // the writer's side
	writer   bodyWriter
	pending  []byte       // header to send with the first bytes
	plain    *plainHeader // of a client's request, to bring pending up to date
	closing  bool         // only the end mark may follow
	writeErr error        // of the carrier; part of a chunk may be out, so nothing may follow

	delayedEnd *delayedEnd // a client's held-back end mark; nil on the server
	closed     atomic.Bool // the carrier is closed
	// endedAt is when the end mark went out, or nothing more might come where
	// there is none; set by the writer's side.
	endedAt atomic.Pointer[time.Time]

	answered atomic.Bool // a client's: the response's header was authentic
	halfUsed atomic.Bool // half of a direction's nonces are
	// marksBreaks: a destination that breaks off is marked by the server, or ends
	// the stream otherwise than the path does.
	marksBreaks atomic.Bool
}

var (
	_ transport.StreamConn   = (*Conn)(nil)
	_ transport.ReadWaiter   = (*Conn)(nil)
	_ transport.Resetter     = (*Conn)(nil)
	_ transport.PeerWaiter   = (*Conn)(nil)
	_ transport.NonceLimiter = (*Conn)(nil)
	_ transport.BreakMarker  = (*Conn)(nil)
)

// errEnded is returned by writes after CloseWrite.
var errEnded = fmt.Errorf("write after the end: %w", net.ErrClosed)

// Read implements net.Conn. io.EOF is an orderly end, by the end mark or
// between two chunks; [ErrTruncated], [ErrGivenUp], [ErrBadChunk] and
// [ErrBadResponse] tell of others.
func (c *Conn) Read(p []byte) (int, error) {
	if err := c.readPrologue(); err != nil {
		return 0, err
	}
	n, err := c.reader.read(p)
	if c.delayedEnd != nil {
		c.delayedEnd.onRead(c, err)
	}
	return n, err
}

func (c *Conn) readPrologue() error {
	if c.prologue == nil {
		return nil
	}
	if c.reader.err == nil {
		c.reader.err = c.prologue()
	}
	c.prologue = nil
	return nil // reader.err is what the body's reader returns from now on
}

// Answered reports whether an authentic response's header was read: the server
// has accepted the request. It is a client's to ask.
func (c *Conn) Answered() bool { return c.answered.Load() }

// MarksBreaks reports whether the server would say that the destination broke off,
// or ends the stream in order then: if the carrier breaks off it is the path, or
// the server. It is a client's to ask.
func (c *Conn) MarksBreaks() bool { return c.marksBreaks.Load() }

// MarkBroken implements [transport.BreakMarker] on a server.
func (c *Conn) MarkBroken() (understood bool) {
	c.write.Lock()
	defer c.write.Unlock()
	if !c.marksBreaks.Load() || c.closing {
		return false
	}
	c.closing = true
	_ = c.carrier.SetWriteDeadline(time.Now().Add(time.Second))
	return c.send(c.writer.chunks.sealBreak(append(make([]byte, 0, 512), c.pending...))) == nil
}

// Ended reports whether the end mark went out, or is about to: a V2Ray server
// then gives up an answer that is silent for a second (section 14).
func (c *Conn) Ended() bool { return c.endedAt.Load() != nil }

// givenUp reports whether a V2Ray that ends an answer without data now does so
// because of the end mark, and not because the destination ended.
func (c *Conn) givenUp() bool {
	at := c.endedAt.Load()
	return at != nil && time.Since(*at) >= downlinkOnly
}

// Carrier returns what the stream travels in.
func (c *Conn) Carrier() transport.StreamConn { return c.carrier }

// WaitRead implements transport.ReadWaiter. What stands before the body does
// not count: it may come long before it.
func (c *Conn) WaitRead() error {
	err := c.reader.waitRead()
	if c.prologue != nil && err == nil {
		_ = c.readPrologue()
		return c.reader.waitRead()
	}
	return err
}

// Write implements net.Conn. A Write of no bytes sends a request that is still
// held back, alone.
func (c *Conn) Write(p []byte) (int, error) {
	c.write.Lock()
	defer c.write.Unlock()
	if c.closing {
		return 0, errEnded
	}
	total := 0
	for len(p) > 0 || c.pending != nil {
		n, err := c.writeOnce(p)
		total += n
		p = p[n:]
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// writeOnce sends as much of p as one buffer takes, and the header before it.
func (c *Conn) writeOnce(p []byte) (int, error) {
	buf := transport.GetBuffer()
	defer buf.Release()
	out := append(buf[:0], c.head()...)
	n := min(len(p), c.writer.fit(len(buf)-len(out)))
	if err := c.send(c.writer.seal(out, p[:n])); err != nil {
		return 0, err
	}
	return n, nil
}

// head returns the header that is still to be sent, as it is to be sent now.
func (c *Conn) head() []byte {
	if c.pending != nil && c.plain != nil {
		c.plain.refresh(c.pending)
	}
	return c.pending
}

// sent forgets the header.
func (c *Conn) sent() {
	c.pending = nil
	if c.plain != nil {
		c.plain.plain = nil
	}
}

// Signed returns how the request vouches for its user: the mode, and the offset
// of the time that it was sealed with last. It is a client's to ask, and not
// while somebody writes.
func (c *Conn) Signed() (Mode, time.Duration) { return c.plain.mode, c.plain.offset }

// send writes sealed bytes with the header, if it was held back, before them.
func (c *Conn) send(out []byte) error {
	if c.writeErr != nil {
		return c.writeErr
	}
	c.sent()
	_, c.writeErr = c.carrier.Write(out)
	return c.writeErr
}

// CloseWrite implements transport.StreamConn. Where the body has no end marks
// ("zero"), the end can only be told by closing the carrier: a client does so
// when the answer has ended, a server at once.
func (c *Conn) CloseWrite() error {
	held := c.delayedEnd != nil && c.delayedEnd.wait(c)
	c.write.Lock()
	defer c.write.Unlock()
	c.closing = true
	switch {
	case !held:
		return c.end()
	case c.pending != nil:
		// A request that was held back must not be held back with the end mark.
		return c.send(c.head())
	}
	return nil
}

// sendEnd sends the end mark, once.
func (c *Conn) sendEnd() error {
	c.write.Lock()
	defer c.write.Unlock()
	return c.end()
}

// end is sendEnd for who holds the lock.
func (c *Conn) end() error {
	if now := time.Now(); !c.endedAt.CompareAndSwap(nil, &now) {
		return nil
	}
	c.closing = true
	if h := c.delayedEnd; h != nil && !h.halfCloseSafe.Load() {
		// V2Ray and others may stop reading then.
		if t, ok := c.carrier.(interface{ NothingFollows() }); ok {
			t.NothingFollows()
		}
	}
	if out := c.writer.sealEnd(append(make([]byte, 0, 512), c.head()...)); len(out) > 0 {
		if err := c.send(out); err != nil {
			return err
		}
	}
	if !c.writer.marks {
		return c.closeCarrier()
	}
	return nil
}

// WaitPeerClose implements transport.PeerWaiter: it reads the carrier to its
// end.
func (c *Conn) WaitPeerClose() (gone bool) {
	c.reader.drop()
	if w, ok := c.carrier.(transport.PeerWaiter); ok {
		return w.WaitPeerClose()
	}
	var sink [256]byte
	for {
		if _, err := c.carrier.Read(sink[:]); err != nil {
			return true
		}
	}
}

// Close closes the carrier, without an end mark that was not sent yet: an end
// that CloseWrite held back is sent first.
func (c *Conn) Close() error {
	if c.delayedEnd != nil && c.delayedEnd.stop() && c.writer.marks && !c.closed.Load() {
		_ = c.carrier.SetWriteDeadline(time.Now().Add(time.Second))
		_ = c.sendEnd() // which may be under way
	}
	return c.closeCarrier()
}

// closeCarrier closes the carrier, once.
func (c *Conn) closeCarrier() error {
	if c.closed.Swap(true) {
		return nil
	}
	return c.carrier.Close()
}

// Reset implements transport.Resetter: the far end sees no end mark.
func (c *Conn) Reset() error {
	if c.delayedEnd != nil {
		c.delayedEnd.stop()
	}
	c.closed.Store(true)
	return transport.Reset(c.carrier)
}

// NetConn returns the carrier ([transport.As]).
func (c *Conn) NetConn() net.Conn { return c.carrier }

// NearNonceLimit implements transport.NonceLimiter: 32,768 chunks were sealed or
// opened in a direction. A stream goes on beyond 65,536, as every peer's does, but
// whoever is on the way can then have an old chunk opened once more.
func (c *Conn) NearNonceLimit() bool { return c.halfUsed.Load() }

// countNonces makes NearNonceLimit hear of a direction's chunks.
func (c *Conn) countNonces(chunks *chunker) {
	if chunks != nil {
		chunks.halfUsed = &c.halfUsed
	}
}

// LocalAddr implements net.Conn by the carrier's.
func (c *Conn) LocalAddr() net.Addr { return c.carrier.LocalAddr() }

// RemoteAddr implements net.Conn by the carrier's.
func (c *Conn) RemoteAddr() net.Addr { return c.carrier.RemoteAddr() }

// SetDeadline implements net.Conn by the carrier's; a passed deadline ends its
// direction for good, for part of a chunk may have gone through.
func (c *Conn) SetDeadline(t time.Time) error { return c.carrier.SetDeadline(t) }

// SetReadDeadline implements net.Conn by the carrier's; a passed deadline ends
// reading for good.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.carrier.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn by the carrier's; a passed deadline
// ends writing for good.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.carrier.SetWriteDeadline(t) }

// An delayedEnd decides when a client's end mark goes out.
type delayedEnd struct {
	patience      time.Duration
	halfCloseSafe atomic.Bool // the server lets directions end apart
	holding       atomic.Bool

	mu      sync.Mutex
	over    bool // the answer has ended
	stopped bool
	last    time.Time // the answer's last sign of life while holding
	timer   *time.Timer
}

// wait reports whether the end mark must wait, and sees to it that it is sent
// later.
func (h *delayedEnd) wait(c *Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.holding.Load() {
		return true
	}
	if h.over || h.stopped || h.halfCloseSafe.Load() && c.writer.marks {
		return false
	}
	h.last = time.Now()
	h.holding.Store(true)
	if !c.writer.marks {
		return true // nothing but the carrier's end can tell: Close sends that
	}
	h.timer = time.AfterFunc(h.patience, func() { h.check(c) })
	return true
}

func (h *delayedEnd) check(c *Conn) {
	h.mu.Lock()
	if h.stopped {
		h.mu.Unlock()
		return
	}
	if left := h.patience - time.Since(h.last); left > 0 && !h.over && !h.halfCloseSafe.Load() {
		h.timer.Reset(left)
		h.mu.Unlock()
		return
	}
	h.stopped = true
	h.mu.Unlock()
	_ = c.sendEnd() // an error here is the next Read's too
}

// onRead takes note of the answer going on (err nil) or being over.
func (h *delayedEnd) onRead(c *Conn, err error) {
	if err == nil && !h.holding.Load() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = time.Now()
	if err != nil {
		h.over = true
		if h.timer != nil && !h.stopped {
			h.timer.Reset(0) // by the timer's goroutine: the reader never waits for a writer
		}
	}
}

// serverKind takes note of whether the server lets directions end apart: then a
// held-back end mark goes at once.
func (h *delayedEnd) serverKind(apart bool) {
	h.halfCloseSafe.Store(apart)
	if !apart {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil && !h.stopped {
		h.timer.Reset(0)
	}
}

// stop ends the waiting and reports whether an end mark was ever held back; it
// may be on its way.
func (h *delayedEnd) stop() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	if h.timer != nil {
		h.timer.Stop()
	}
	return h.holding.Load()
}

// noAnswer turns the end of a carrier that gave no byte of an answer into
// ErrNoAnswer, which wraps how it ended.
func noAnswer(in *inbuf, err error) error {
	if in.total == 0 && ends(err) {
		return fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ErrNoAnswer is returned by reads when the server closed the connection
// without any answer: it refused the request, or could not reach the
// destination and is of the kind that does not say so (section 15). The error
// is io.EOF too when the carrier ended in order, as refusals do, and
// io.ErrUnexpectedEOF when it just broke off.
var ErrNoAnswer = errors.New("the server closed the connection without an answer")
