package wsconn

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"vmess-local/pkg/transport"
)

// maxMessage is the longest message written, as a single frame in a single
// write of the connection below.
const maxMessage = transport.BufferSize

// maxDropped is how much is read behind a stream's own end, where nobody has
// anything to say.
const maxDropped = 64 << 10

// writeBuffers lends gorilla the buffers of maxMessage bytes in which it
// builds frames, for the time of one Write.
var writeBuffers sync.Pool

// Handshake is what a client remembers of the upgrade, to measure the
// server's clock by.
type Handshake struct {
	Header   http.Header // of the answer: Date and Server only, where present
	Sent     time.Time   // when the request was written
	Received time.Time   // when the head of the answer was complete
}

// Date returns the server's clock between Sent and Received, if it told it.
func (h Handshake) Date() (time.Time, bool) { return headerDate(h.Header) }

// A Conn is a WebSocket as a byte stream. One goroutine may read (Read,
// WaitRead, WaitPeerClose) while others write; Close, Reset and the deadlines
// may be called by anyone. The caller must close it. Pings of the far end are
// answered while somebody reads.
type Conn struct {
	carrier frameConn
	ws      *websocket.Conn

	early   []byte    // early data not yet read
	message io.Reader // the message being read, or nil
	readErr error     // final; gorilla must not be read after it

	writing      sync.Mutex
	begun        atomic.Int64 // bytes of payload that a Write was given
	written      atomic.Int64 // of these, those that were written
	closed       atomic.Bool
	pingTimedOut atomic.Bool // closed by the pinger
	used         atomic.Bool // payload was received
	final        atomic.Bool // nothing more will be written: the far end may read no more
	pong         atomic.Pointer[string]
	ponging      atomic.Bool
	ping         *pinger // nil when off
	group        *Group  // nil without
	upgraded     Handshake
	ahead        bool // early data travelled in the upgrade
	echoed       bool
}

// Handshake returns what is remembered of the upgrade; it is zero on a
// server's Conn.
func (c *Conn) Handshake() Handshake { return c.upgraded }

// SentEarlyData reports whether the upgrade request carried early data.
func (c *Conn) SentEarlyData() bool { return c.ahead }

// EarlyDataEchoed reports whether the server echoed the early data in
// Sec-WebSocket-Protocol, which proves that it used it. A server that uses it
// may stay silent about it (docs/protocol.md 12).
func (c *Conn) EarlyDataEchoed() bool { return c.echoed }

// open starts the pings of a Conn that has its ws, and makes it one of a group
// where there is one.
func (c *Conn) open(ping time.Duration, group *Group) {
	c.ws.SetPingHandler(c.answerPing)
	if ping > 0 || group != nil {
		c.ping = startPinger(c, ping, group)
		c.ws.SetPongHandler(c.ping.pong)
		c.carrier.watch = c.ping
	}
	if c.group = group; group != nil {
		group.add(c)
	}
	if c.ping != nil && (c.begun.Load() > 0 || c.ahead) {
		c.ping.asks() // by the upgrade
	}
}

// Read reads payload of data messages, across their borders as far as it is
// at hand: it does not wait once it has something. All of p may be used as
// scratch space. It returns io.EOF after a close frame with code 1000, 1001
// or without one, [*CloseError] after others, [ErrNoClose] (which is
// io.ErrUnexpectedEOF) when the connection ended without one, and
// [ErrBadFrame] when the far end broke the protocol. Every error is final,
// that of a passed deadline (os.ErrDeadlineExceeded) too.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := c.readable(); err != nil {
		return 0, err
	}
	if len(c.early) > 0 {
		return c.readEarly(p), nil
	}
	c.carrier.lend(p)
	n := 0
	for n < len(p) && c.readErr == nil && (n == 0 || c.carrier.ready()) {
		m, err := c.readPayload(p[n:])
		n += m
		c.readErr = c.readEnd(err)
	}
	c.carrier.settle()
	if n > 0 {
		c.received()
		return n, nil
	}
	return 0, c.readErr
}

// received takes note that payload was received.
func (c *Conn) received() {
	if !c.used.Load() {
		c.used.Store(true)
	}
	c.ping.answered()
}

func (c *Conn) readEarly(p []byte) int {
	n := copy(p, c.early)
	if c.early = c.early[n:]; len(c.early) == 0 {
		c.early = nil
	}
	return n
}

// readable returns the reason why nothing can be read any more.
func (c *Conn) readable() error {
	if c.readErr == nil && c.closed.Load() {
		c.readErr = c.readEnd(net.ErrClosed)
	}
	return c.readErr
}

// readPayload reads from one frame, waiting for it when there is none.
func (c *Conn) readPayload(p []byte) (int, error) {
	for {
		if err := c.openMessage(); err != nil {
			return 0, err
		}
		c.carrier.want = len(p)
		n, err := c.message.Read(p)
		if err == io.EOF { // of the message
			c.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (c *Conn) openMessage() (err error) {
	if c.message == nil {
		_, c.message, err = c.ws.NextReader()
	}
	return err
}

// WaitRead implements [transport.ReadWaiter]: it waits for the next byte of
// payload, or the end, and answers what other frames come before. Read tells
// why it came back.
func (c *Conn) WaitRead() error {
	if err := c.readable(); err != nil || len(c.early) > 0 {
		return err
	}
	c.readErr = c.readEnd(c.waitPayload())
	c.carrier.settle()
	return c.readErr
}

func (c *Conn) waitPayload() error {
	for {
		if c.message == nil {
			c.carrier.awaitFrame()
		}
		if err := c.openMessage(); err != nil {
			return err
		}
		// Reading nothing makes gorilla go on to a frame with payload.
		_, err := c.message.Read(nil)
		if err == nil {
			c.carrier.await()
			return nil
		}
		if err != io.EOF {
			return err
		}
		c.message = nil
	}
}

// WaitPeerClose implements [transport.PeerWaiter]: it reads and discards what
// still comes until the stream ends, but not without bound. It belongs to the
// reader. A far end that ended without a close frame may have ended its
// direction alone: it is sent a ping then, where pings are on.
func (c *Conn) WaitPeerClose() (gone bool) {
	for dropped := 0; dropped < maxDropped && c.WaitRead() == nil; {
		b := transport.GetBuffer()
		n, _ := c.Read(b[:]) // its error comes again
		b.Release()
		dropped += n
	}
	if c.ping == nil || !errors.Is(c.readErr, ErrNoClose) {
		return true
	}
	c.ping.send(closeWait) // a failure shows by the connection's state
	return false
}

// readEnd turns an error of gorilla's into the stream's.
func (c *Conn) readEnd(err error) error {
	if err == nil {
		return nil
	}
	var closing *websocket.CloseError
	switch below := c.carrier.told; {
	case c.pingTimedOut.Load():
		err = ErrPingTimeout
	case c.closed.Load():
		err = net.ErrClosed
	case below == io.EOF || below == io.ErrUnexpectedEOF:
		err = ErrNoClose
	case below != nil:
		err = below // gorilla hides what it is
	case errors.As(err, &closing):
		if err = closeErrorOf(closing); err == io.EOF {
			return err
		}
	default:
		err = fmt.Errorf("%w: %w", ErrBadFrame, err)
	}
	return fmt.Errorf("websocket read: %w", err)
}

// Write writes p as one binary message, or several when it is longer than
// 66 KiB; nothing when p is empty. Calls from several goroutines follow one
// another. Every error is final, that of a passed deadline too; it is
// [transport.ErrPartSent] where a part of p may arrive.
func (c *Conn) Write(p []byte) (n int, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.begun.Add(int64(len(p)))
	if c.ping != nil {
		c.ping.asks()
	}
	for n < len(p) {
		part := p[n:min(len(p), n+maxMessage)]
		if err := c.ws.WriteMessage(websocket.BinaryMessage, part); err != nil {
			return n, c.writeEnd(n, err)
		}
		n += len(part)
		c.written.Add(int64(len(part)))
	}
	return n, nil
}

// writeEnd turns an error of gorilla's, after n bytes, into the stream's.
func (c *Conn) writeEnd(n int, err error) error {
	below := c.carrier.writeErr.Load()
	part := n > 0 || below != nil && errors.Is(*below, transport.ErrPartSent)
	switch {
	case c.pingTimedOut.Load():
		err = ErrPingTimeout
	case c.closed.Load():
		err = net.ErrClosed
	case below != nil:
		err = *below // gorilla hides what it is
	case errors.Is(err, websocket.ErrCloseSent):
		err = ErrEnded
	}
	if part && !errors.Is(err, transport.ErrPartSent) {
		err = fmt.Errorf("%w (%w)", err, transport.ErrPartSent)
	}
	return fmt.Errorf("websocket write: %w", err)
}

// CloseWrite returns an error that is errors.ErrUnsupported: a WebSocket has
// no half close.
func (c *Conn) CloseWrite() error {
	return fmt.Errorf("websocket half close: %w", errors.ErrUnsupported)
}

// NothingFollows says that nothing more will be written, and that the far end knows
// that: it may read no more and leave pings unanswered, so that a request that
// waits is not followed up.
func (c *Conn) NothingFollows() { c.final.Store(true) }

// Close sends a close frame with code 1000, unless a Write is under way or
// the far end's was answered before, and closes the connection below without
// waiting for the far end. It frees blocked Reads and Writes and takes at
// most about a second. Later calls do nothing.
func (c *Conn) Close() error {
	if !c.closed.CompareAndSwap(false, true) {
		return nil
	}
	c.ping.stop()
	c.group.remove(c)
	if c.writing.TryLock() {
		normal := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		_ = c.ws.WriteControl(websocket.CloseMessage, normal, time.Now().Add(closeWait))
		c.writing.Unlock()
	}
	return c.carrier.conn.Close()
}

// Reset implements [transport.Resetter]: it closes without a close frame, and
// with a reset where the connection below can do that.
func (c *Conn) Reset() error {
	again := c.closed.Swap(true)
	c.ping.stop()
	if err := c.abort(); !again {
		return err
	}
	return nil
}

func (c *Conn) abort() error {
	c.group.remove(c)
	if r, ok := c.carrier.conn.(transport.Resetter); ok {
		return r.Reset()
	}
	return c.carrier.conn.Close()
}

// NetConn returns the connection below ([transport.As]).
func (c *Conn) NetConn() net.Conn { return c.carrier.conn }

// sendBlocked reports whether an answer to pings may be late because the far end
// takes nothing at the moment of what was written before them: what lies in its
// system, or in ours while that of the far end is there to say so. So many
// bytes are not proven to have been read.
func (c *Conn) sendBlocked(unproven int64) bool {
	switch transport.SendStateOf(c.carrier.conn) {
	case transport.SendBlocked:
		return true
	case transport.SendAcked:
		return unproven >= muchWritten
	case transport.SendUnknown:
		if c.writing.TryLock() {
			c.writing.Unlock()
			return false
		}
		return true // the system will notice if it is gone, sooner or later
	case transport.SendTimedOut:
	}
	return false
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.carrier.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.carrier.RemoteAddr() }

// SetDeadline implements net.Conn; a passed deadline ends the direction for
// good.
func (c *Conn) SetDeadline(t time.Time) error { return c.carrier.conn.SetDeadline(t) }

// SetReadDeadline implements net.Conn; a passed deadline ends reading for good.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.carrier.conn.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn; a passed deadline ends writing for
// good, for part of a frame may have been written.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.carrier.conn.SetWriteDeadline(t) }

var (
	_ transport.StreamConn = (*Conn)(nil)
	_ transport.ReadWaiter = (*Conn)(nil)
	_ transport.Resetter   = (*Conn)(nil)
	_ transport.PeerWaiter = (*Conn)(nil)
)
