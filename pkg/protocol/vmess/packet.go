package vmess

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// ErrDatagramSize is wrapped by the errors of datagrams that are too large,
// which are transport.ErrPacketTooLarge, too, or empty: only packetaddr carries
// such. The association goes on.
var ErrDatagramSize = errors.New("a datagram has 1 to 65,497 bytes, and to 65,456 with padding")

var (
	errEmptyDatagram = fmt.Errorf("%w: this one is empty (%w)", ErrDatagramSize, transport.ErrPacketDropped)
	errLargeDatagram = fmt.Errorf("%w (%w)", ErrDatagramSize, transport.ErrPacketTooLarge)
)

// maxDatagram is the largest datagram that our own ends exchange: what UDP
// itself can carry is 10 bytes more.
const maxDatagram = 65497

// MaxDatagram returns the most bytes of a datagram that a server of the kind
// takes whole (section 9). V2Ray drops what it cannot write in one piece and
// cuts what it reads; before the first answer the server may be one of ours.
func (k ServerKind) MaxDatagram() int {
	switch k {
	case KindV2Ray:
		return 1900
	case KindSingBox:
		return 14900
	}
	return maxDatagram
}

// A PacketConn is a VMess request for datagrams: each is one chunk (section
// 9). All of them come from and go to the address of the request, or each
// carries its own in the form of packetaddr. It holds no buffer while it waits
// for a datagram. One goroutine may read while others write.
type PacketConn struct {
	conn *Conn
	peer netaddr.Addr      // none: every datagram carries its own address
	kind func() ServerKind // of the far end; nil on the server, who is not told
}

var (
	_ transport.PacketConn         = (*PacketConn)(nil)
	_ transport.PooledPacketReader = (*PacketConn)(nil)
	_ transport.PacketTrier        = (*PacketConn)(nil)
)

// DialPacket implements transport.PacketDialer: every datagram goes to dst,
// and the address of WritePacket is ignored.
func (d *Dialer) DialPacket(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	if !dst.IsValid() {
		return nil, errNoDestination
	}
	return d.dialPackets(ctx, dst, dst)
}

// dialPackets connects for a request to dst; it is held back until the first
// datagram.
func (d *Dialer) dialPackets(ctx context.Context, dst, peer netaddr.Addr) (transport.PacketConn, error) {
	conn := d.Client.request(CommandUDP, dst, 0)
	if err := d.connect(ctx, conn, nil); err != nil {
		return nil, err
	}
	return &PacketConn{conn: conn, peer: peer, kind: d.Client.ServerKind}, nil
}

// Packets returns the stream of a CommandUDP request as datagrams: with their
// own addresses if AnyPeer says so, and otherwise to and from Destination.
func (i *Incoming) Packets() *PacketConn {
	if i.AnyPeer() {
		return &PacketConn{conn: i.conn}
	}
	return &PacketConn{conn: i.conn, peer: i.Destination}
}

// ReadPacket implements transport.PacketConn.
func (c *PacketConn) ReadPacket(p []byte) (int, netaddr.Addr, error) {
	b, payload, from, err := c.ReadPacketPooled()
	if err != nil {
		return 0, from, err
	}
	defer b.Release()
	return copy(p, payload), from, nil
}

// ReadPacketPooled implements transport.LazyPacketReader. A datagram whose
// address the far end got wrong is skipped.
func (c *PacketConn) ReadPacketPooled() (*transport.Buffer, []byte, netaddr.Addr, error) {
	if err := c.conn.readPrologue(); err != nil {
		return nil, nil, netaddr.Addr{}, err
	}
	for {
		b, p, err := c.conn.reader.readPacket()
		if err != nil || c.peer.IsValid() {
			return b, p, c.peer, err
		}
		if from, payload, err := readPacketAddr(p); err == nil {
			return b, payload, from, nil
		}
		b.Release()
	}
}

// WritePacket implements transport.PacketConn. Errors that are
// [transport.PacketLost] concern the datagram alone; any other ends the
// association.
func (c *PacketConn) WritePacket(p []byte, to netaddr.Addr) error {
	_, err := c.write(p, to, true)
	return err
}

// TryWritePacket implements transport.PacketTrier.
func (c *PacketConn) TryWritePacket(p []byte, to netaddr.Addr) (ok bool, err error) {
	return c.write(p, to, false)
}

// write writes a datagram; ok is false where it would have to wait and must
// not.
func (c *PacketConn) write(p []byte, to netaddr.Addr, wait bool) (ok bool, err error) {
	var room [maxPacketAddr]byte
	head := room[:0]
	if !c.peer.IsValid() {
		if head, err = appendPacketAddr(head, to); err != nil {
			return true, err
		}
	}
	if len(head)+len(p) == 0 {
		return true, errEmptyDatagram // it would be the end mark
	}
	if wait {
		c.conn.write.Lock()
	} else if !c.conn.write.TryLock() {
		return false, nil
	}
	defer c.conn.write.Unlock()
	switch {
	case len(p) > c.mostPayload(len(head)):
		return true, errLargeDatagram
	case c.conn.closing:
		return true, errEnded
	case !wait && !transport.RoomForPacket(c.conn.carrier, len(p)):
		return false, nil
	}
	return true, c.send(head, p)
}

// mostPayload is the largest payload that goes into one chunk behind head
// bytes and that the far end takes.
func (c *PacketConn) mostPayload(head int) int {
	n := c.conn.writer.maxPacket(head)
	if c.kind != nil {
		n = min(n, c.kind().MaxDatagram())
	}
	return n
}

// send seals head and p as one chunk.
func (c *PacketConn) send(head, p []byte) error {
	buf := transport.GetBuffer()
	defer buf.Release()
	out := append(buf[:0], c.conn.head()...)
	if len(head) == 0 {
		return c.conn.send(c.conn.writer.sealPacket(out, p))
	}
	plain := transport.GetBuffer()
	defer plain.Release()
	return c.conn.send(c.conn.writer.sealPacket(out, append(append(plain[:0], head...), p...)))
}

// SetDeadline sets the deadlines of the carrier; a passed one ends its
// direction for good, for part of a chunk may have gone through.
func (c *PacketConn) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }

// SetReadDeadline is SetDeadline for reads.
func (c *PacketConn) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SetWriteDeadline is SetDeadline for writes.
func (c *PacketConn) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }

// Answered reports whether the server has accepted the request, as
// [Conn.Answered] does.
func (c *PacketConn) Answered() bool { return c.conn.Answered() }

// Close ends the association, with an end mark if it was ever begun.
func (c *PacketConn) Close() error {
	if !c.conn.closed.Load() {
		_ = c.conn.carrier.SetWriteDeadline(time.Now().Add(time.Second))
		c.conn.endPackets()
	}
	return c.conn.Close()
}

func (c *Conn) endPackets() {
	c.write.Lock()
	defer c.write.Unlock()
	if c.delayedEnd == nil || c.pending == nil { // not a request that was never sent
		_ = c.end()
	}
}
