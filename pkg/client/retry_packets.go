package client

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// A retryPacketConn is one request for datagrams. Like a guarded stream it can
// be sent again, with the datagrams so far, until the server has answered; what
// its destinations do is not judged, for many never answer.
type retryPacketConn struct {
	request
	open packetOpener
	conn atomic.Pointer[vmess.PacketConn]

	sent []datagram // so far; with mu locked, as is kept
	kept int        // bytes in sent
}

// A packetOpener opens a request for datagrams.
type packetOpener func(ctx context.Context) (transport.PacketConn, error)

// A datagram is a copy of one.
type datagram struct {
	payload []byte
	to      netaddr.Addr
}

var (
	_ transport.PacketConn         = (*retryPacketConn)(nil)
	_ transport.PooledPacketReader = (*retryPacketConn)(nil)
	_ transport.PacketTrier        = (*retryPacketConn)(nil)
)

// openPackets opens a request for datagrams and guards it.
func (g *guard) openPackets(ctx context.Context, open packetOpener) (transport.PacketConn, error) {
	x := &retryPacketConn{open: open, request: request{guard: g, start: g.now()}}
	if v, ok := g.breaker.reject(x.start, g.account.LastAnswer()); ok {
		return nil, g.refuses(v, vmess.ErrNoAnswer).err
	}
	c, f, err := x.dial(ctx)
	if err != nil {
		return nil, err
	}
	x.impl, x.flight = x, f
	x.conn.Store(c)
	return x, nil
}

// dial connects; the request is sent with the first datagram.
func (x *retryPacketConn) dial(ctx context.Context) (*vmess.PacketConn, transmission, error) {
	f := transmission{signed: x.guard.signature()}
	c, err := x.open(ctx)
	if err != nil {
		return nil, f, x.guard.wayFailed(ctx, err)
	}
	return c.(*vmess.PacketConn), f, nil
}

// ReadPacketPooled implements transport.LazyPacketReader.
func (x *retryPacketConn) ReadPacketPooled() (*transport.Buffer, []byte, netaddr.Addr, error) {
	for {
		c := x.conn.Load()
		b, p, from, err := c.ReadPacketPooled()
		switch {
		case x.settled.Load() && x.conn.Load() == c:
			return b, p, from, x.verdict(err)
		case err == nil || c.Answered():
			x.settle()
			return b, p, from, err
		}
		if err := x.judge(c, err); err != nil {
			return nil, nil, netaddr.Addr{}, err
		}
	}
}

// ReadPacket implements transport.PacketConn.
func (x *retryPacketConn) ReadPacket(p []byte) (int, netaddr.Addr, error) {
	b, data, from, err := x.ReadPacketPooled()
	if err != nil {
		return 0, from, err
	}
	defer b.Release()
	return copy(p, data), from, nil
}

// WritePacket implements transport.PacketConn. Before the first answer a
// connection that broke is the reader's affair: it may yet be replaced.
func (x *retryPacketConn) WritePacket(p []byte, to netaddr.Addr) error {
	if x.settled.Load() {
		return x.verdict(x.conn.Load().WritePacket(p, to))
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.fatal != nil {
		return x.fatal
	}
	x.speaks()
	err := x.conn.Load().WritePacket(p, to)
	if x.closed.Load() || x.settled.Load() || transport.PacketLost(err) {
		return err
	}
	x.keep(p, to)
	if x.timer == nil && !x.guard.fresh() {
		x.timer = time.AfterFunc(silence, x.silent)
	}
	if x.lost {
		return err
	}
	return nil
}

// TryWritePacket implements transport.PacketTrier: before the first answer a
// write may wait for another connection.
func (x *retryPacketConn) TryWritePacket(p []byte, to netaddr.Addr) (ok bool, err error) {
	if !x.settled.Load() {
		return false, nil
	}
	ok, err = x.conn.Load().TryWritePacket(p, to)
	return ok, x.verdict(err)
}

// keep remembers a datagram until the first answer. It is called with the lock
// held.
func (x *retryPacketConn) keep(p []byte, to netaddr.Addr) {
	if x.lost = x.lost || x.kept+len(p) > maxKept; x.lost {
		x.sent = nil
		return
	}
	x.sent = append(x.sent, datagram{append([]byte(nil), p...), to})
	x.kept += max(len(p), maxKept/64) // so that many small ones have a bound, too
}

// current implements sender.
func (x *retryPacketConn) current() any { return x.conn.Load() }

// over implements sender: the end mark is sent by Close.
func (x *retryPacketConn) over() bool { return false }

// forget implements sender.
func (x *retryPacketConn) forget() { x.sent = nil }

// cut implements sender.
func (x *retryPacketConn) cut() { _ = x.conn.Load().Close() }

// resend implements sender.
func (x *retryPacketConn) resend() error {
	ctx, cancel := context.WithTimeout(x.guard.ctx, x.guard.dialTime)
	defer cancel()
	x.redial.Store(&cancel)
	_ = x.conn.Load().Close() // frees a writer that holds the lock
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.closed.Load(): // who closes from now on cancels ctx
		return net.ErrClosed
	case x.lost:
		return errNotKept
	}
	c, f, err := x.dial(ctx)
	if err != nil {
		return err
	}
	if len(x.sent) > 0 {
		f.at = x.guard.now()
	}
	for _, d := range x.sent {
		if err := c.WritePacket(d.payload, d.to); err != nil {
			_ = c.Close()
			return err
		}
	}
	x.tries, x.flight = x.tries+1, f
	x.conn.Store(c)
	if x.timer != nil {
		x.timer.Reset(silence)
	}
	return nil
}

// Close implements transport.PacketConn: it closes the connection, and the one
// that may be about to replace it.
func (x *retryPacketConn) Close() error {
	x.closed.Store(true)
	if cancel := x.redial.Load(); cancel != nil {
		(*cancel)()
	}
	c := x.conn.Load()
	err := c.Close() // frees a writer that holds the lock
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.timer != nil {
		x.timer.Stop()
	}
	if fresh := x.conn.Load(); fresh != c {
		err = fresh.Close()
	}
	return err
}
