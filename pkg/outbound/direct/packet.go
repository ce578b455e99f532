package direct

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"vmess-local/pkg/host/errno"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

var _ transport.PacketDialer = (*Dialer)(nil)

// DialPacket implements transport.PacketDialer. With a destination, datagrams
// go to it whatever address WritePacket is given, and only what comes from it
// is read, as from dst. Without one (the zero Addr) the association is a full
// cone: one socket, so one source port, whatever the destination, and datagrams
// from anywhere are read (RFC 4787: endpoint-independent mapping and
// filtering); each destination is checked, after resolution when it is a name.
// Names are resolved aside: the first few datagrams to one wait for that.
func (d *Dialer) DialPacket(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	if dst.IsValid() {
		return d.dialBound(ctx, dst)
	}
	c, err := net.ListenUDP("udp", nil) // both families where the system has both
	if err != nil {
		return nil, fmt.Errorf("open a socket: %w", err)
	}
	return newCone(d, c)
}

// A socket is a UDP socket that can wait without a buffer.
type socket struct {
	*net.UDPConn
	raw  syscall.RawConn
	poll func(fd uintptr) bool // readable, made once
}

func newSocket(c *net.UDPConn) (socket, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		_ = c.Close()
		return socket{}, fmt.Errorf("open a socket: %w", err)
	}
	return socket{UDPConn: c, raw: raw, poll: readable}, nil
}

// WaitRead implements transport.ReadWaiter.
func (s *socket) WaitRead() error { return s.raw.Read(s.poll) }

// readFrom reads one datagram. What a destination's host or the network said
// of an earlier one (ICMP) ends nothing.
func (s *socket) readFrom(p []byte) (int, netip.AddrPort, error) {
	for {
		n, from, err := s.ReadFromUDPAddrPort(p)
		switch {
		case err == nil, truncated(err):
			return n, from, nil
		case errors.Is(err, net.ErrClosed), !errno.IsTransientDatagram(err):
			return 0, netip.AddrPort{}, fmt.Errorf("receive: %w", err)
		}
	}
}

// sendError says of an error of sending whether the association goes on: all
// but the socket's end concern the datagram and its destination.
func sendError(err error) error {
	switch {
	case errors.Is(err, net.ErrClosed):
		return fmt.Errorf("send: %w", err)
	case errno.IsMessageSize(err):
		return fmt.Errorf("%w: %w", transport.ErrPacketTooLarge, err)
	}
	return fmt.Errorf("%w: %w", transport.ErrPacketDropped, err)
}

// connectedConn is an association with one destination.
type connectedConn struct {
	socket
	dst netaddr.Addr
}

func (d *Dialer) dialBound(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout())
	defer cancel()
	if err := noSuchName(dst.Host()); err != nil {
		return nil, fmt.Errorf("reach the destination: %w", err)
	}
	dialer := net.Dialer{Resolver: d.Resolver, ControlContext: d.check}
	c, err := dialer.DialContext(ctx, "udp", dst.String())
	if err != nil {
		return nil, fmt.Errorf("reach the destination: %w", err)
	}
	s, err := newSocket(c.(*net.UDPConn))
	if err != nil {
		return nil, err
	}
	return &connectedConn{socket: s, dst: dst}, nil
}

// ReadPacket implements transport.PacketConn.
func (b *connectedConn) ReadPacket(p []byte) (int, netaddr.Addr, error) {
	n, _, err := b.readFrom(p)
	return n, b.dst, err
}

// WritePacket implements transport.PacketConn. A refusal (ICMP) that the
// system reports for an earlier datagram does not cost this one.
func (b *connectedConn) WritePacket(p []byte, _ netaddr.Addr) error {
	_, err := b.Write(p)
	if err != nil && errno.IsTransientDatagram(err) && !errors.Is(err, net.ErrClosed) {
		_, err = b.Write(p)
	}
	if err != nil {
		return sendError(err)
	}
	return nil
}

// A fullConeConn is an association with any destination.
type fullConeConn struct {
	socket
	dialer *Dialer
	names  pendingLookups
	lost   atomic.Int64
}

func newCone(d *Dialer, c *net.UDPConn) (*fullConeConn, error) {
	s, err := newSocket(c)
	if err != nil {
		return nil, err
	}
	n := &fullConeConn{socket: s, dialer: d}
	n.names.init(n)
	return n, nil
}

// ReadPacket implements transport.PacketConn: from is the true source.
func (c *fullConeConn) ReadPacket(p []byte) (int, netaddr.Addr, error) {
	n, from, err := c.readFrom(p)
	return n, netaddr.FromAddrPort(from), err
}

// WritePacket implements transport.PacketConn. It does not wait for the
// resolver: a datagram that turns out to have no destination later is counted
// by Lost.
func (c *fullConeConn) WritePacket(p []byte, to netaddr.Addr) error {
	if to.IsName() {
		return c.names.write(p, to)
	}
	return c.send(p, to.AddrPort())
}

// send sends a datagram to an address that passes the rules.
func (c *fullConeConn) send(p []byte, to netip.AddrPort) error {
	if !to.Addr().IsValid() || to.Port() == 0 {
		return fmt.Errorf("%w: no destination", transport.ErrPacketDropped)
	}
	if err := c.dialer.allow(to.Addr()); err != nil {
		return err
	}
	if _, err := c.WriteToUDPAddrPort(p, to); err != nil {
		return sendError(err)
	}
	return nil
}

// Lost returns how many datagrams were lost after WritePacket took them,
// because their name led nowhere.
func (c *fullConeConn) Lost() int64 { return c.lost.Load() }

// Close implements transport.PacketConn.
func (c *fullConeConn) Close() error {
	c.names.stop()
	return c.UDPConn.Close()
}
