package client

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// Dial opens a stream to address, a "host:port", through the server in use: what
// the local port does for a program, without the port. network must be "tcp".
// Names are resolved by the server. VMess does not say whether the destination was
// reached: that shows at the first Read. Dial may be called from New until Run has
// returned or Close was called, concurrently; ctx bounds the dial only. The caller
// closes the connection, which is also open to CloseWrite() error.
// Errors are *[VerdictError] where the cause is known.
func (c *Client) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" {
		return nil, net.UnknownNetworkError(network)
	}
	dst, err := netaddr.Parse(address)
	if err == nil && dst.Port() == 0 {
		err = errors.New("the port is 0")
	}
	if err != nil {
		return nil, &net.AddrError{Err: err.Error(), Addr: address}
	}
	c.mu.Lock()
	g, over := c.now, c.over
	c.mu.Unlock()
	if over {
		return nil, ErrNotRunning
	}
	conn, err := g.dispatch.Dial(ctx, "dial", dst, nil)
	if err != nil {
		return nil, err
	}
	return &dialedConn{StreamConn: conn, written: make(chan struct{})}, nil
}

// A dialedConn sends its request with the program's first bytes, or alone when the
// program waits for the destination to speak first.
type dialedConn struct {
	transport.StreamConn
	wrote   atomic.Bool
	written chan struct{} // closed by the first Write
	request sync.Once
}

// Read implements net.Conn.
func (c *dialedConn) Read(p []byte) (int, error) {
	c.request.Do(c.send)
	return c.StreamConn.Read(p)
}

// send sends the request alone unless a Write takes it along in a moment.
func (c *dialedConn) send() {
	t := time.NewTimer(firstWait)
	defer t.Stop()
	select {
	case <-c.written:
	case <-t.C:
		_, _ = c.StreamConn.Write(nil) // its error is the Read's too
	}
}

// Write implements net.Conn.
func (c *dialedConn) Write(p []byte) (int, error) {
	if !c.wrote.Load() && !c.wrote.Swap(true) {
		defer close(c.written)
	}
	return c.StreamConn.Write(p)
}
