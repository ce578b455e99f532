package mux

import (
	"fmt"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// packets is a UDP session as a transport.PacketConn, on either side. What is
// received waits for ReadPacket in a bounded queue; the newest are dropped when
// it is full. io.EOF is the session's end.
type packets struct {
	*session
	max int // the largest datagram that is sent
}

var (
	_ transport.PacketConn         = (*packets)(nil)
	_ transport.PooledPacketReader = (*packets)(nil)
)

// ReadPacket implements transport.PacketConn. On a server, from is where the
// datagram is to go.
func (c *packets) ReadPacket(p []byte) (n int, from netaddr.Addr, err error) {
	return c.readPacket(p)
}

// ReadPacketPooled implements transport.LazyPacketReader.
func (c *packets) ReadPacketPooled() (*transport.Buffer, []byte, netaddr.Addr, error) {
	return c.readPacketPooled()
}

// WritePacket implements transport.PacketConn. A client's session goes to its
// one destination, whatever addr says; on a server, addr is where the datagram
// came from, which the client learns if the session is full cone.
func (c *packets) WritePacket(p []byte, addr netaddr.Addr) error {
	if err := checkPacket(p, c.max); err != nil {
		return err
	}
	t := c.tunnel
	t.mu.Lock()
	defer t.mu.Unlock()
	f := c.frame(true)
	if c.cancel != nil && c.cone.Load() && addr.IsValid() {
		f.Network, f.Address = NetworkUDP, addr
	}
	if err := t.send(c.session, f, p); err != nil {
		return err
	}
	c.known = true
	return nil
}

// Close implements transport.PacketConn.
func (c *packets) Close() error { c.close(false); return nil }

func checkPacket(p []byte, most int) error {
	switch {
	case len(p) == 0:
		return errEmptyPacket
	case len(p) > most:
		return fmt.Errorf("%w: %d of at most %d bytes", transport.ErrPacketTooLarge, len(p), most)
	}
	return nil
}
