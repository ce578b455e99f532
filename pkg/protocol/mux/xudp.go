package mux

import (
	"context"
	"crypto/rand"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// An XUDP opens full-cone UDP associations of a tunnel each (docs/protocol.md
// 11): datagrams go anywhere and come with their true source. Names are
// resolved by the server. V2Ray's own server sends every datagram to the first
// destination: do not use it there.
//
// Where the server lets it, an association has a global id, by which it moves to
// another tunnel, with its socket, once the first has used up half of its nonces
// ([transport.NonceLimiter]).
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
	// Moves reports whether the server is known to let associations move by their
	// global ids; nil means that it does not. Xray does, and this package's Server
	// with [Mappings]. It is called concurrently.
	Moves func() bool
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
	a := &association{XUDP: x, conn: conn, reads: conn, in: NewReader(conn)}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a, nil
}

const (
	// moveDial bounds the dial of a tunnel that an association moves to, and
	// movePause is how long the next waits when it failed.
	moveDial  = 10 * time.Second
	movePause = 30 * time.Second
	// moveGrace is how long the old tunnel is still read: the server ends it.
	moveGrace = time.Second
)

// An association is one XUDP association: session 0 of a tunnel of its own.
// It has no goroutine: what is not read waits in the tunnel. Its errors are
// *[TunnelError]; io.EOF is the far end's orderly end.
type association struct {
	*XUDP
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	reads transport.StreamConn // the tunnel that is read; the reader's
	in    *Reader
	first atomic.Pointer[netaddr.Addr] // where the first datagram went
	coned atomic.Bool                  // a datagram came with its source
	err   error                        // final, of reads

	write    sync.Mutex
	writeErr error
	opened   bool    // the New is out on conn
	named    bool    // with an id
	id       [8]byte // that
	// The tunnel that is written to; tunnels guards it, and the old one until
	// that is closed, for who does not write.
	tunnels   sync.Mutex
	conn, old transport.StreamConn
	next      transport.StreamConn // one to move to; nil: none
	dialling  bool
	rest      time.Time // no further dial before
}

var (
	_ transport.PacketConn         = (*association)(nil)
	_ transport.PooledPacketReader = (*association)(nil)
	_ transport.PacketTrier        = (*association)(nil)
)

// ReadPacket implements transport.PacketConn: from is the datagram's true
// source.
func (a *association) ReadPacket(p []byte) (int, netaddr.Addr, error) {
	for {
		from, err := a.nextPacket()
		if err == nil {
			var n int
			if n, err = a.in.readFull(p); err == nil {
				return n, from, nil
			}
		}
		if !a.follow() {
			return 0, netaddr.Addr{}, a.ended(err)
		}
	}
}

// ReadPacketPooled implements transport.LazyPacketReader.
func (a *association) ReadPacketPooled() (*transport.Buffer, []byte, netaddr.Addr, error) {
	for {
		from, err := a.nextPacket()
		if err == nil {
			b := transport.GetBuffer()
			var n int
			if n, err = a.in.readFull(b[:]); err == nil {
				return b, b[:n], from, nil
			}
			b.Release()
		}
		if !a.follow() {
			return nil, nil, netaddr.Addr{}, a.ended(err)
		}
	}
}

// nextPacket reads up to the next datagram's data.
func (a *association) nextPacket() (from netaddr.Addr, err error) {
	if a.err != nil {
		return from, a.err
	}
	for {
		f, err := a.in.Next()
		switch {
		case err != nil:
			return from, err
		case f.Status == StatusKeep && a.in.left > 0 && f.Network == NetworkUDP:
			a.coned.Store(true)
			return f.Address, nil
		case f.Status == StatusKeep && a.in.left > 0:
			return a.target(), nil
		case f.Status == StatusEnd && f.Error:
			return from, ErrFailed
		case f.Status == StatusEnd:
			return from, io.EOF
		}
	}
}

// follow turns from a tunnel that has ended to the one that the association has
// moved to, if it has.
func (a *association) follow() bool {
	a.tunnels.Lock()
	conn, old := a.conn, a.old
	a.old = nil
	a.tunnels.Unlock()
	if conn == a.reads || a.err != nil {
		return false
	}
	a.in.release()
	leave(old)
	a.reads, a.in = conn, NewReader(conn)
	return true
}

// leave closes a tunnel in order.
func leave(conn transport.StreamConn) {
	if conn != nil {
		_ = conn.SetWriteDeadline(time.Now().Add(drainLimit))
		_ = conn.CloseWrite()
		_ = conn.Close()
	}
}

// FullCone reports whether a datagram came with its true source, which proves
// that the server understands XUDP. It may be called by anyone.
func (a *association) FullCone() bool { return a.coned.Load() }

// ended makes err the end of reading.
func (a *association) ended(err error) error {
	if a.err == nil {
		if err != io.EOF && err != ErrFailed {
			err = &TunnelError{err, a.Owner}
		}
		a.err = err
		a.in.release()
	}
	return a.err
}

// target is where datagrams come from whose frames say nothing of it.
func (a *association) target() (first netaddr.Addr) {
	if p := a.first.Load(); p != nil {
		first = *p
	}
	return first
}

func (a *association) mostPayload() int {
	if a.MaxPayload != nil {
		if n := a.MaxPayload(); n > 0 {
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
	a.move()
	f := Frame{Status: StatusKeep, Network: NetworkUDP, Address: to, HasData: true}
	if !a.opened {
		f.Status, a.opened = StatusNew, true
		if a.first.Load() == nil {
			first := to // on the heap, once
			a.first.Store(&first)
			if a.named = a.Moves != nil && a.Moves(); a.named {
				_, _ = rand.Read(a.id[:]) // never fails
			}
		}
		f.GlobalID, f.HasGlobalID = a.id, a.named
	}
	buf := transport.GetBuffer()
	defer buf.Release()
	if _, err := a.conn.Write(f.Append(buf[:0], p)); err != nil {
		a.writeErr = &TunnelError{err, a.Owner} // part of the frame may be out
	}
	return a.writeErr
}

// move turns to another tunnel before the nonces of this one come again, where
// the server lets the association's socket come with it. It is called with the
// lock held.
func (a *association) move() {
	if !a.named || !a.opened || !transport.NearNonceLimit(a.conn) {
		return
	}
	a.tunnels.Lock()
	defer a.tunnels.Unlock()
	switch {
	case a.next != nil && a.old == nil:
		_ = a.conn.SetReadDeadline(time.Now().Add(moveGrace))
		a.old, a.conn, a.next, a.opened = a.conn, a.next, nil, false
	case a.next == nil && !a.dialling && a.coned.Load() && a.Moves() && !time.Now().Before(a.rest):
		a.dialling = true
		go a.dialNext()
	}
}

// dialNext dials the tunnel to move to.
func (a *association) dialNext() {
	ctx, cancel := context.WithTimeout(a.ctx, moveDial)
	defer cancel()
	conn, err := a.Dial(ctx, nil)
	a.tunnels.Lock()
	defer a.tunnels.Unlock()
	a.dialling = false
	switch {
	case err != nil:
		a.rest = time.Now().Add(movePause)
	case a.ctx.Err() != nil:
		_ = conn.Close()
	default:
		a.next = conn
	}
}

// Close implements transport.PacketConn.
func (a *association) Close() error {
	a.cancel()
	a.tunnels.Lock()
	_ = a.conn.SetWriteDeadline(time.Now().Add(drainLimit))
	a.tunnels.Unlock()
	a.write.Lock()
	defer a.write.Unlock()
	if a.writeErr == nil {
		a.writeErr = errClosed
		if a.named {
			_, _ = a.conn.Write(Frame{Status: StatusEnd}.Append(nil, nil)) // nobody comes again
		}
		if a.first.Load() != nil {
			_ = a.conn.CloseWrite()
		}
	}
	a.tunnels.Lock()
	defer a.tunnels.Unlock()
	for _, other := range []transport.StreamConn{a.old, a.next} {
		if other != nil {
			_ = other.Close()
		}
	}
	return a.conn.Close()
}
