package netdial

import (
	"errors"
	"fmt"
	"net"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/tcpconn"
)

// streamOf returns conn as a stream: over TCP with all that TCP can do, over
// anything else with what it offers.
func streamOf(conn net.Conn) transport.StreamConn {
	switch c := conn.(type) {
	case *net.TCPConn:
		return tcpconn.New(c)
	case transport.StreamConn:
		return c
	default:
		return plainStream{conn}
	}
}

// A plainStream is a connection that may be unable to end one direction.
type plainStream struct{ net.Conn }

// CloseWrite reports that the connection cannot end one direction alone.
func (plainStream) CloseWrite() error {
	return fmt.Errorf("close one direction of this connection: %w", errors.ErrUnsupported)
}

// NetConn returns the connection below ([transport.As]).
func (s plainStream) NetConn() net.Conn { return s.Conn }

// Reset closes the connection, with a RST where it can.
func (s plainStream) Reset() error { return reset(s.Conn) }

// A prefixed is a stream of which some bytes have been read already. It embeds
// no more than the interface: a WriteTo of the stream would skip the prefix.
type prefixed struct {
	transport.StreamConn
	prefix []byte
}

// Read returns the prefix first.
func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.prefix) == 0 {
		return p.StreamConn.Read(b)
	}
	n := copy(b, p.prefix)
	if p.prefix = p.prefix[n:]; len(p.prefix) == 0 {
		p.prefix = nil
	}
	return n, nil
}

// WaitRead waits for the prefix or for bytes behind it, where the stream can
// wait; where it cannot, it returns at once and Read waits.
func (p *prefixed) WaitRead() error {
	if w, ok := p.StreamConn.(transport.ReadWaiter); ok && len(p.prefix) == 0 {
		return w.WaitRead()
	}
	return nil
}

// ReadPooled implements [transport.LazyReader] as far as the stream can.
func (p *prefixed) ReadPooled(head, most int) (*transport.Buffer, int, error) {
	if len(p.prefix) == 0 {
		return transport.ReadPooled(p.StreamConn, head, most)
	}
	b := transport.GetBuffer()
	n, err := p.Read(b[head : head+most])
	return b, n, err
}

// NetConn returns the stream below ([transport.As]).
func (p *prefixed) NetConn() net.Conn { return p.StreamConn }

// Reset closes the stream, with a RST where it can.
func (p *prefixed) Reset() error { return reset(p.StreamConn) }

// reset closes conn, with a RST where it can.
func reset(conn net.Conn) error {
	switch c := conn.(type) {
	case transport.Resetter:
		return c.Reset()
	case interface{ SetLinger(sec int) error }:
		return errors.Join(c.SetLinger(0), conn.Close())
	default:
		return conn.Close()
	}
}
