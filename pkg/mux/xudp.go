package mux

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/netaddr"
	"vmess-local/pkg/transport"
)

// An XUDP opens full-cone UDP associations of a tunnel each (docs/protocol.md
// 11): datagrams go anywhere and come with their true source. Names are
// resolved by the server. V2Ray's own server sends every datagram to the first
// destination: do not use it there.
//
// No global ids are sent. Xray would keep an association's socket for a minute
// after the tunnel's end, for one that comes again under the same id; none
// does.
type XUDP struct {
	// Dial opens a tunnel as [Client.Dial] does.
	Dial func(ctx context.Context, first []byte) (transport.StreamConn, error)
	// MaxPayload returns the largest datagram that may be sent now, for an
	// answer may tell what server it is; nil, or 0, means 8,192, beyond which
	// Xray gives up the tunnel. This package's Server takes 65,497, which is
	// the most. It is called concurrently.
	MaxPayload func() int
	// Owner is as a [Client]'s.
	Owner any
}

var _ transport.PacketDialer = (*XUDP)(nil)

// DialPacket implements transport.PacketDialer. dst is not bound: it is only
// where the first datagram is likely to go. The request travels with that
// where the tunnel's dialer lets it.
func (x *XUDP) DialPacket(ctx context.Context, _ netaddr.Addr) (transport.PacketConn, error) {
	conn, err := x.Dial(ctx, nil)
	if err != nil {
		return nil, err
	}
	return &association{conn: conn, in: NewReader(conn), max: x.MaxPayload, owner: x.Owner}, nil
}

// An association is one XUDP association: session 0 of a tunnel of its own.
// It has no goroutine: what is not read waits in the tunnel. Its errors are
// *[TunnelError]; io.EOF is the far end's orderly end.
type association struct {
	conn  transport.StreamConn
	max   func() int // nil, or of 0: maxXrayPacket
	owner any

	in    *Reader
	first atomic.Pointer[netaddr.Addr] // where the first datagram went
	coned atomic.Bool                  // a datagram came with its source
	err   error                        // final, of reads

	write    sync.Mutex
	writeErr error
}

var (
	_ transport.PacketConn       = (*association)(nil)
	_ transport.LazyPacketReader = (*association)(nil)
	_ transport.PacketTrier      = (*association)(nil)
)

// ReadPacket implements transport.PacketConn: from is the datagram's true
// source.
func (a *association) ReadPacket(p []byte) (int, netaddr.Addr, error) {
	from, err := a.next()
	if err != nil {
		return 0, netaddr.Addr{}, err
	}
	n, err := a.in.readFull(p)
	return n, from, a.ended(err)
}

// ReadPacketLazy implements transport.LazyPacketReader.
func (a *association) ReadPacketLazy() (*transport.Buffer, []byte, netaddr.Addr, error) {
	from, err := a.next()
	if err != nil {
		return nil, nil, netaddr.Addr{}, err
	}
	b := transport.GetBuffer()
	n, err := a.in.readFull(b[:])
	if err != nil {
		b.Release()
		return nil, nil, netaddr.Addr{}, a.ended(err)
	}
	return b, b[:n], from, nil
}

// next reads up to the next datagram's data.
func (a *association) next() (from netaddr.Addr, err error) {
	for a.err == nil {
		f, err := a.in.Next()
		switch {
		case err != nil:
			return from, a.ended(err)
		case f.Status == StatusKeep && a.in.left > 0 && f.Network == NetworkUDP:
			a.coned.Store(true)
			return f.Address, nil
		case f.Status == StatusKeep && a.in.left > 0:
			return a.target(), nil
		case f.Status == StatusEnd && f.Error:
			a.err = ErrFailed
		case f.Status == StatusEnd:
			a.err = io.EOF
		}
	}
	return from, a.err
}

// FullCone reports whether a datagram came with its true source, which proves
// that the server understands XUDP. It may be called by anyone.
func (a *association) FullCone() bool { return a.coned.Load() }

// ended makes err, if there is one, the end of reading.
func (a *association) ended(err error) error {
	if err != nil {
		if err != io.EOF {
			err = &TunnelError{err, a.owner}
		}
		a.err = err
		a.in.release()
	}
	return err
}

// target is where datagrams come from whose frames say nothing of it.
func (a *association) target() (first netaddr.Addr) {
	if p := a.first.Load(); p != nil {
		first = *p
	}
	return first
}

func (a *association) mostPayload() int {
	if a.max != nil {
		if n := a.max(); n > 0 {
			return min(n, maxPacket)
		}
	}
	return maxXrayPacket
}

// WritePacket implements transport.PacketConn; to may be a name.
func (a *association) WritePacket(p []byte, to netaddr.Addr) error {
	if err := a.check(p, to); err != nil {
		return err
	}
	a.write.Lock()
	defer a.write.Unlock()
	return a.send(p, to)
}

// TryWritePacket implements transport.PacketTrier.
func (a *association) TryWritePacket(p []byte, to netaddr.Addr) (ok bool, err error) {
	if err := a.check(p, to); err != nil {
		return true, err
	}
	if !a.write.TryLock() {
		return false, nil
	}
	defer a.write.Unlock()
	if !transport.RoomForPacket(a.conn, len(p)) {
		return false, nil
	}
	return true, a.send(p, to)
}

func (a *association) check(p []byte, to netaddr.Addr) error {
	if err := checkPacket(p, a.mostPayload()); err != nil {
		return err
	}
	if !to.IsValid() {
		return errNoTarget
	}
	return nil
}

// send writes the frame of a datagram. It is called with the lock held.
func (a *association) send(p []byte, to netaddr.Addr) error {
	if a.writeErr != nil {
		return a.writeErr
	}
	f := Frame{Status: StatusKeep, Network: NetworkUDP, Address: to, HasData: true}
	if a.first.Load() == nil {
		first := to // on the heap, once
		f.Status = StatusNew
		a.first.Store(&first)
	}
	buf := transport.GetBuffer()
	defer buf.Release()
	if _, err := a.conn.Write(f.Append(buf[:0], p)); err != nil {
		a.writeErr = &TunnelError{err, a.owner} // part of the frame may be out
	}
	return a.writeErr
}

// Close implements transport.PacketConn.
func (a *association) Close() error {
	_ = a.conn.SetWriteDeadline(time.Now().Add(drainLimit))
	a.write.Lock()
	if a.writeErr == nil {
		a.writeErr = errClosed
		if a.first.Load() != nil {
			_ = a.conn.CloseWrite()
		}
	}
	a.write.Unlock()
	return a.conn.Close()
}
