package socks

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/tcpconn"
)

const (
	lingerTime  = time.Second // for a last answer to arrive
	lingerBytes = 64 << 10    // what a client may have sent meanwhile
)

// A client is one accepted connection, from accept to its end. It is a
// transport.StreamConn in which the byte that peek took is still to be read.
type client struct {
	net.Conn
	source netip.AddrPort
	self   [2]netip.AddrPort // where the client reached us: the listener, the connection
	cancel context.CancelFunc

	endless atomic.Bool // silent so far: nothing to wait for
	spoke   atomic.Bool // its first byte was read
	// association: it stands for one of UDP, which ends by being idle.
	association atomic.Bool
	first       byte
	unread      bool // first is still to be read
}

func newClient(conn net.Conn, ln net.Listener, cancel context.CancelFunc) *client {
	c := &client{
		Conn:   conn,
		source: addrPort(conn.RemoteAddr()),
		self:   [2]netip.AddrPort{addrPort(ln.Addr()), addrPort(conn.LocalAddr())},
		cancel: cancel,
	}
	c.endless.Store(true)
	return c
}

// peek waits for the first byte and returns it without taking it.
func (c *client) peek() (byte, error) {
	var b [1]byte
	if _, err := io.ReadFull(c.Conn, b[:]); err != nil {
		return 0, err
	}
	c.spoke.Store(true)
	c.endless.Store(false)
	c.first, c.unread = b[0], true
	return c.first, nil
}

// Read reads the peeked byte again, then exactly what is asked for.
func (c *client) Read(p []byte) (int, error) {
	if c.unread && len(p) > 0 {
		c.unread = false
		p[0] = c.first
		return 1, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite implements transport.StreamConn as far as the connection can.
func (c *client) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}

// frail makes every end of the connection a reset, that of the process too, so
// that nobody takes it for the end of what is being sent; false takes it back.
func (c *client) frail(on bool) {
	if tcp, ok := c.Conn.(interface{ SetLinger(sec int) error }); ok {
		sec := -1
		if on {
			sec = 0
		}
		_ = tcp.SetLinger(sec) // fails only when already closed
	}
}

var _ transport.StreamConn = (*client)(nil)

// stream returns the client's connection for the time after the handshake. It is
// frail ([transport.Frail]) where it can be.
func (c *client) stream() transport.StreamConn {
	s := c.view()
	transport.ResetOnAbort(s)
	return s
}

// view returns the client's connection as something that can be asked about its
// other end.
func (c *client) view() transport.StreamConn {
	switch conn := c.Conn.(type) {
	case *net.TCPConn:
		return tcpconn.New(conn)
	case transport.StreamConn:
		return conn
	}
	return c
}

// isSelf reports whether dst is the listener that the client is connected to.
func (c *client) isSelf(dst netaddr.Addr) bool {
	return leadsTo(c.self[0], dst) || leadsTo(c.self[1], dst)
}

// closeWith sends a last answer, which may be empty, and closes in a way that lets it arrive:
// closing with received bytes unread would reset the connection and take the
// answer with it.
func (c *client) closeWith(answer []byte) error {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(lingerTime))
	if len(answer) > 0 {
		if _, err := c.Conn.Write(answer); err != nil {
			return err
		}
	}
	if err := c.CloseWrite(); err == nil {
		_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
	}
	return nil
}
