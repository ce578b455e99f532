// Package tlsconn carries TLS over a connection with few system calls and
// little memory. It puts two layers around a TLS implementation (crypto/tls,
// or one that shares its design): below it a net.Conn that follows the records
// ([RFC 8446 section 5]), reads many at a time into buffers that are held only
// while there is something in them, and sends those of one Write together;
// above it a [Conn] that reads on while whole records are at hand and can wait
// without a buffer. What is in the records is the TLS implementation's alone.
//
// [RFC 8446 section 5]: https://www.rfc-editor.org/rfc/rfc8446#section-5
package tlsconn

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/tcpconn"
)

// corkedText is the most that is sealed before it is sent: five full records,
// as the largest WebSocket message needs.
const corkedText = 5 * maxPlaintext

// A Secure is a TLS implementation's connection over the net.Conn it was given.
// As that of crypto/tls it must take up where it stopped after an error of
// reading that is Temporary, and never write through another way. Its records
// should be full from the start (tls.Config.DynamicRecordSizingDisabled).
type Secure interface {
	net.Conn
	CloseWrite() error // sends close_notify
	HandshakeContext(ctx context.Context) error
}

// A Conn is a TLS connection as a stream. One goroutine may read (Read,
// WaitRead, ReadLazy) while others write; HandshakeContext, Close, Reset and
// the deadlines may be called by anyone. The caller must close it.
type Conn struct {
	secure  Secure
	records records
	timeout time.Duration            // of a handshake that Read or Write begins; 0: none
	failed  func(c *Conn, err error) // told of its failure; may be nil

	shaken atomic.Bool // the handshake is over and went well
	broken atomic.Bool // it failed, and that was told

	rest    bool  // the TLS implementation may hold more of the last record
	peeked  bool  // WaitRead has read peek
	readErr error // final
	peek    [1]byte

	writing sync.Mutex
	closed  atomic.Bool
}

// New puts the TLS implementation that over makes between a Conn and raw, which
// the Conn owns from then on. It reads raw as a [transport.LazyReader] or
// [transport.ReadWaiter] where it is one. The handshake is made by
// HandshakeContext, or else by the first Read or Write.
func New(raw net.Conn, over func(below net.Conn) Secure) *Conn {
	if tcp, ok := raw.(*net.TCPConn); ok {
		raw = tcpconn.New(tcp)
	}
	c := new(Conn)
	c.records.init(raw)
	c.secure = over(&c.records)
	return c
}

var (
	_ transport.StreamConn   = (*Conn)(nil)
	_ transport.ReadWaiter   = (*Conn)(nil)
	_ transport.PooledReader = (*Conn)(nil)
	_ transport.Resetter     = (*Conn)(nil)
)

// HandshakeContext makes the handshake unless it was made. ctx ending closes
// the connection; afterwards it is left alone.
func (c *Conn) HandshakeContext(ctx context.Context) error {
	if c.shaken.Load() {
		return nil
	}
	err := c.secure.HandshakeContext(ctx)
	c.shaken.Store(err == nil)
	return err
}

// begin makes the handshake of a Conn that is used without one.
func (c *Conn) begin() error {
	if c.shaken.Load() {
		return nil
	}
	ctx := context.Background()
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	err := c.HandshakeContext(ctx)
	if err != nil && c.failed != nil && !c.broken.Swap(true) {
		c.failed(c, err)
	}
	return err
}

// Read reads across the borders of records as far as whole ones are at hand:
// it does not wait once it has something. It returns io.EOF after close_notify
// and, as crypto/tls does, at an end without one between records. A deadline
// that has passed can be moved and reading goes on.
func (c *Conn) Read(p []byte) (int, error) {
	if err := c.begin(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	c.records.want(len(p))
	if c.peeked {
		p[0], c.peeked = c.peek[0], false
		return 1 + c.join(p[1:]), nil
	}
	n, err := c.readRecord(p)
	if err != nil || n == 0 {
		return n, err
	}
	return n + c.join(p[n:]), nil
}

// readRecord reads the rest of the last record or of the next with payload.
// Any error but that of a deadline is final.
func (c *Conn) readRecord(p []byte) (int, error) {
	if c.readErr != nil {
		return 0, c.readErr
	}
	n, err := c.secure.Read(p)
	c.rest = n == len(p)
	if err != nil && err != errNoRecord && isFinal(err) {
		c.readErr = err
	}
	return n, err
}

// join reads on while there is something at hand. The next Read tells an error.
func (c *Conn) join(p []byte) (n int) {
	c.records.impatient = true
	for n < len(p) && c.readErr == nil && (c.rest || c.records.complete()) {
		m, _ := c.readRecord(p[n:])
		n += m
	}
	c.records.impatient = false
	return n
}

// WaitRead implements [transport.ReadWaiter]: it waits for the next byte of
// payload, or the end, and lets the TLS implementation deal with the messages
// of its own that come before. Read tells why it came back.
func (c *Conn) WaitRead() error {
	if err := c.begin(); err != nil {
		return err
	}
	if c.peeked || c.readErr != nil {
		return c.readErr
	}
	n, err := c.readRecord(c.peek[:])
	c.peeked = n > 0
	return err
}

// ReadPooled implements [transport.LazyReader].
func (c *Conn) ReadPooled(head, most int) (*transport.Buffer, int, error) {
	if err := c.begin(); err != nil {
		return nil, 0, err
	}
	if most == 0 {
		return nil, 0, nil
	}
	c.records.want(most)
	for {
		if !c.peeked && !c.rest && c.readErr == nil {
			_ = c.records.await()
		}
		b := transport.GetBuffer()
		n, err := c.readReady(b[head : head+most])
		if n > 0 {
			return b, n, err
		}
		b.Release()
		if err != errNoRecord {
			return nil, 0, err
		}
	}
}

// readReady is Read for when something is at hand. When that is none of the
// payload it returns errNoRecord.
func (c *Conn) readReady(p []byte) (int, error) {
	c.records.impatient = c.rest || c.records.complete()
	n, err := c.Read(p)
	c.records.impatient = false
	return n, err
}

// Write seals p in full records and sends them with one system call for every
// five. Calls from several goroutines follow one another. Every error is
// final, that of a passed deadline too.
func (c *Conn) Write(p []byte) (n int, err error) {
	if err := c.begin(); err != nil {
		return 0, err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	for len(p)-n > maxPlaintext {
		part := p[n:min(len(p), n+corkedText)]
		m, err := c.writeTogether(part)
		n += m
		if err != nil {
			return n, err
		}
	}
	if n > 0 && n == len(p) {
		return n, nil
	}
	m, err := c.secure.Write(p[n:])
	return n + m, err
}

// writeTogether writes p; of what did not go out as a whole, n is the most that
// may have.
func (c *Conn) writeTogether(p []byte) (n int, err error) {
	c.records.collect()
	_, err = c.secure.Write(p)
	sent, lost := c.records.release()
	if err == nil {
		err = lost
	}
	if err != nil {
		return min(sent, len(p)), err
	}
	return len(p), nil
}

// CloseWrite sends close_notify. TCP's direction stays open.
func (c *Conn) CloseWrite() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.secure.CloseWrite()
}

// Close sends close_notify, unless a Write is under way, and closes the
// connection. It frees blocked Reads and Writes. Later calls return
// net.ErrClosed.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	if !c.writing.TryLock() {
		return c.records.Close()
	}
	defer c.writing.Unlock()
	return c.secure.Close()
}

// Reset implements [transport.Resetter]: it closes without close_notify, so
// that the far end cannot take it for an orderly end, and with a reset where
// the connection below can do that.
func (c *Conn) Reset() error {
	c.closed.Store(true)
	if r, ok := c.records.conn.(transport.Resetter); ok {
		return r.Reset()
	}
	return c.records.Close()
}

// NetConn returns the connection below ([transport.As]).
func (c *Conn) NetConn() net.Conn { return c.records.conn }

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.records.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.records.RemoteAddr() }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.records.SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.records.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn; a passed deadline ends writing for
// good, for part of a record may have been written.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.records.SetWriteDeadline(t) }
