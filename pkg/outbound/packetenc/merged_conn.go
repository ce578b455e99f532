package packetenc

import (
	"context"
	"errors"
	"sync"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// mergedQueue bounds the datagrams of a mergedConn that wait for its reader.
const mergedQueue = 64

// A mergedConn is two PacketConns as one. The end of the main one is its own.
type mergedConn struct {
	main, other transport.PacketConn
	byOther     func(to netaddr.Addr) bool

	ctx     context.Context
	cancel  context.CancelCauseFunc
	arrived chan arrival
	reading sync.WaitGroup
}

type arrival struct {
	buf  *transport.Buffer
	p    []byte
	from netaddr.Addr
}

var (
	_ transport.PacketConn         = (*mergedConn)(nil)
	_ transport.PooledPacketReader = (*mergedConn)(nil)
)

var errMergedClosed = errors.New("the association is closed")

// newMergedConn merges main and other, which takes the datagrams that byOther
// selects.
func newMergedConn(main, other transport.PacketConn, byOther func(to netaddr.Addr) bool) *mergedConn {
	c := &mergedConn{main: main, other: other, byOther: byOther, arrived: make(chan arrival, mergedQueue)}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.reading.Go(func() { c.cancel(c.read(main)) })
	c.reading.Go(func() { _ = c.read(other) })
	return c
}

func (c *mergedConn) read(conn transport.PacketConn) error {
	for {
		b, p, from, err := transport.ReadPacketPooled(conn)
		if err != nil {
			return err
		}
		select {
		case c.arrived <- arrival{b, p, from}:
		case <-c.ctx.Done():
			b.Release()
			return errMergedClosed
		}
	}
}

// ReadPacketPooled implements transport.PooledPacketReader.
func (c *mergedConn) ReadPacketPooled() (*transport.Buffer, []byte, netaddr.Addr, error) {
	select {
	case a := <-c.arrived:
		return a.buf, a.p, a.from, nil
	case <-c.ctx.Done():
		return nil, nil, netaddr.Addr{}, context.Cause(c.ctx)
	}
}

// ReadPacket implements transport.PacketConn.
func (c *mergedConn) ReadPacket(p []byte) (int, netaddr.Addr, error) {
	b, got, from, err := c.ReadPacketPooled()
	if err != nil {
		return 0, from, err
	}
	defer b.Release()
	return copy(p, got), from, nil
}

// WritePacket implements transport.PacketConn.
func (c *mergedConn) WritePacket(p []byte, to netaddr.Addr) error {
	if c.byOther(to) {
		return c.other.WritePacket(p, to)
	}
	return c.main.WritePacket(p, to)
}

// Close implements transport.PacketConn.
func (c *mergedConn) Close() error {
	c.cancel(errMergedClosed)
	_ = c.main.Close()
	_ = c.other.Close()
	c.reading.Wait()
	for {
		select {
		case a := <-c.arrived:
			a.buf.Release()
		default:
			return nil
		}
	}
}
