package packetenc

import (
	"context"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// An observer opens plain requests. While a better encoding is not excluded,
// their first answers are noticed: they show the kind of server.
type observer struct{ dialer *Dialer }

// DialPacket implements transport.PacketDialer.
func (o observer) DialPacket(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	conn, err := o.dialer.opt.Server.DialPacket(ctx, dst)
	if err != nil || o.dialer.Decided() != Unknown {
		return conn, err
	}
	return &observedConn{PacketConn: conn, answered: func() { o.dialer.answered(dst) }}, nil
}

// An observedConn is a plain request whose first answer is noticed.
type observedConn struct {
	transport.PacketConn
	answered func() // nil once it was called; the reader's
}

var (
	_ transport.PooledPacketReader = (*observedConn)(nil)
	_ transport.PacketTrier        = (*observedConn)(nil)
)

// ReadPacketPooled implements transport.PooledPacketReader.
func (c *observedConn) ReadPacketPooled() (*transport.Buffer, []byte, netaddr.Addr, error) {
	b, p, from, err := transport.ReadPacketPooled(c.PacketConn)
	if err == nil && c.answered != nil {
		c.answered()
		c.answered = nil
	}
	return b, p, from, err
}

// TryWritePacket implements transport.PacketTrier.
func (c *observedConn) TryWritePacket(p []byte, to netaddr.Addr) (ok bool, err error) {
	if t, ok := c.PacketConn.(transport.PacketTrier); ok {
		return t.TryWritePacket(p, to)
	}
	return false, nil
}

// answered is called when a destination has answered a plain request. Which
// encodings V2Ray 5 and Xray understand, their answers do not show: that takes a
// question of our own, which goes only where the user's datagrams go anyway and
// where such questions are usual.
func (d *Dialer) answered(dst netaddr.Addr) {
	switch e := d.Encoding(); e {
	case Unknown:
	case Plain:
		d.log(e, false)
		if dst.Port() == portDNS {
			d.probeResolver(dst)
		}
	default:
		d.log(e, true)
	}
}
