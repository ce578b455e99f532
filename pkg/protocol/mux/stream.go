package mux

import (
	"errors"
	"net"
	"time"

	"vmess-local/pkg/transport"
)

// A stream is a TCP session as a transport.StreamConn, on either side.
//
// Mux.Cool ends both directions of a session at once. So a client's CloseWrite
// holds the End back until the answer is over, in which case none is needed,
// or has been silent for its patience; then reads return [ErrSilent]. A
// server's CloseWrite sends the End at once: the answer is whole, and what of
// the client's has not arrived by then is lost, as everywhere with Mux.Cool.
// Otherwise io.EOF is an End without error, and only that.
// Close sends an End, Reset one with the error bit.
type stream struct{ *session }

var (
	_ transport.StreamConn = stream{}
	_ transport.ReadWaiter = stream{}
	_ transport.Resetter   = stream{}
	_ transport.PeerWaiter = stream{}
)

// Read implements net.Conn.
func (c stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return c.read(p)
}

// WaitRead implements transport.ReadWaiter.
func (c stream) WaitRead() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.await()
}

// Write implements net.Conn. It returns when the bytes are queued in the
// tunnel. The first sends the New, a Write of no bytes alone.
func (c stream) Write(p []byte) (int, error) { return c.write(p) }

// CloseWrite implements transport.StreamConn.
func (c stream) CloseWrite() error {
	err := c.seal()
	if errors.Is(err, ErrEnded) || errors.Is(err, errSealed) {
		return nil
	}
	return err
}

// WaitPeerClose implements transport.PeerWaiter: the end that was read was
// that of both directions. A server's handler has some time left all the same,
// for what it read to arrive; its context tells when that is over.
func (c stream) WaitPeerClose() (gone bool) {
	if c.cancel == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.readErr != errClosed {
		c.arrived.Wait()
	}
	return true
}

// Close implements net.Conn.
func (c stream) Close() error { c.close(false); return nil }

// Reset implements transport.Resetter.
func (c stream) Reset() error { c.close(true); return nil }

// LocalAddr implements net.Conn by the tunnel's.
func (c stream) LocalAddr() net.Addr { return c.tunnel.conn.LocalAddr() }

// RemoteAddr implements net.Conn by the tunnel's.
func (c stream) RemoteAddr() net.Addr { return c.tunnel.conn.RemoteAddr() }

// SetDeadline implements net.Conn.
func (c stream) SetDeadline(t time.Time) error {
	c.setReadDeadline(t)
	c.setWriteDeadline(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c stream) SetReadDeadline(t time.Time) error { c.setReadDeadline(t); return nil }

// SetWriteDeadline implements net.Conn.
func (c stream) SetWriteDeadline(t time.Time) error { c.setWriteDeadline(t); return nil }
