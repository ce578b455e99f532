package transport

import (
	"errors"

	"vmess-local/pkg/transport/netaddr"
)

// Why a [PacketConn] refuses a datagram and goes on.
var (
	// ErrPacketTooLarge: it has more bytes than the far end takes.
	ErrPacketTooLarge = errors.New("the datagram is too large for the association")
	// ErrPacketAddress: the association cannot carry an address of its kind, as
	// packetaddr cannot carry names.
	ErrPacketAddress = errors.New("the association does not carry addresses of this kind")
	// ErrPacketDropped: another reason, which the error that wraps it tells.
	ErrPacketDropped = errors.New("datagram dropped")
)

// PacketLost reports whether an error of WritePacket concerns the datagram
// alone, so that the association goes on.
func PacketLost(err error) bool {
	return errors.Is(err, ErrPacketTooLarge) || errors.Is(err, ErrPacketAddress) ||
		errors.Is(err, ErrNotAllowed) || errors.Is(err, ErrPacketDropped)
}

// A PooledPacketReader is a [PacketConn] that lends a buffer for a datagram only
// once there is one, so that an idle association holds none.
type PooledPacketReader interface {
	// ReadPacketPooled reads one datagram, p, which lies in b. b is the caller's
	// to release; it is nil when err is not. It counts as the reader.
	ReadPacketPooled() (b *Buffer, p []byte, from netaddr.Addr, err error)
}

// A PacketTrier is a [PacketConn] that can tell whether a write would wait.
type PacketTrier interface {
	// TryWritePacket is WritePacket where that takes no waiting. Where it
	// might, ok is false and nothing was written.
	TryWritePacket(p []byte, to netaddr.Addr) (ok bool, err error)
}

// RoomForPacket reports whether a datagram of n bytes, with all that is put
// round it, can be written to c without waiting.
func RoomForPacket(c StreamConn, n int) bool { return n <= writeReadyPacket && WriteReady(c) }

// writeReadyPacket leaves a third of RoomyWrite to what is put round a datagram.
const writeReadyPacket = WriteReadyBytes * 2 / 3

// ReadPacketPooled reads from c as a LazyPacketReader does, as far as c lets it
// by that or as a [ReadWaiter].
func ReadPacketPooled(c PacketConn) (b *Buffer, p []byte, from netaddr.Addr, err error) {
	if l, ok := c.(PooledPacketReader); ok {
		return l.ReadPacketPooled()
	}
	if w, ok := c.(ReadWaiter); ok {
		_ = w.WaitRead()
	}
	b = GetBuffer()
	n, from, err := c.ReadPacket(b[:])
	if err != nil {
		b.Release()
		return nil, nil, from, err
	}
	return b, b[:n], from, nil
}
