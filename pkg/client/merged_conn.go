package client

import (
	"context"
	"errors"
	"sync"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// jointQueue bounds the datagrams of a joint that wait for its reader.
const jointQueue = 64

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

var errJointClosed = errors.New("the association is closed")

// newJoint joins main and other, by which datagrams go where byOther says so.
func newJoint(main, other transport.PacketConn, byOther func(to netaddr.Addr) bool) *mergedConn {
	j := &mergedConn{main: main, other: other, byOther: byOther, arrived: make(chan arrival, jointQueue)}
	j.ctx, j.cancel = context.WithCancelCause(context.Background())
	j.reading.Go(func() { j.cancel(j.read(main)) })
	j.reading.Go(func() { _ = j.read(other) })
	return j
}

func (j *mergedConn) read(conn transport.PacketConn) error {
	for {
		b, p, from, err := transport.ReadPacketPooled(conn)
		if err != nil {
			return err
		}
		select {
		case j.arrived <- arrival{b, p, from}:
		case <-j.ctx.Done():
			b.Release()
			return errJointClosed
		}
	}
}

// ReadPacketPooled implements transport.LazyPacketReader.
func (j *mergedConn) ReadPacketPooled() (*transport.Buffer, []byte, netaddr.Addr, error) {
	select {
	case a := <-j.arrived:
		return a.buf, a.p, a.from, nil
	case <-j.ctx.Done():
		return nil, nil, netaddr.Addr{}, context.Cause(j.ctx)
	}
}

// ReadPacket implements transport.PacketConn.
func (j *mergedConn) ReadPacket(p []byte) (int, netaddr.Addr, error) {
	b, got, from, err := j.ReadPacketPooled()
	if err != nil {
		return 0, from, err
	}
	defer b.Release()
	return copy(p, got), from, nil
}

// WritePacket implements transport.PacketConn.
func (j *mergedConn) WritePacket(p []byte, to netaddr.Addr) error {
	if j.byOther(to) {
		return j.other.WritePacket(p, to)
	}
	return j.main.WritePacket(p, to)
}

// Close implements transport.PacketConn.
func (j *mergedConn) Close() error {
	j.cancel(errJointClosed)
	_ = j.main.Close()
	_ = j.other.Close()
	j.reading.Wait()
	for {
		select {
		case a := <-j.arrived:
			a.buf.Release()
		default:
			return nil
		}
	}
}
