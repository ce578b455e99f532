package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

const (
	// linger is how long a socket keeps its buffer, at most, after a datagram.
	linger = 250 * time.Millisecond
	// maxFaults bounds the reads of a socket that fail in a row.
	maxFaults = 64
	// maxDatagram is the most that UDP carries: over IPv4 20 bytes less than
	// over IPv6.
	maxDatagram4, maxDatagram6 = 65507, 65527
)

// An association is one client's UDP: a socket, and a lane to the server.
type association struct {
	server  *Server
	socket  *net.UDPConn
	raw     syscall.RawConn
	names   names
	lane    sender
	most    int // bytes of a datagram
	moved   Moved
	sending sending

	// last and seen are the destinations so far, for counting.
	last netaddr.Addr
	seen map[netaddr.Addr]struct{}

	// client is who may use it, and bound whether its first datagram has come.
	// Until then its port may be 0; the lane, which has nothing to do before,
	// sees it when it is set for good.
	client  netip.AddrPort
	bound   bool
	request *transport.Request
	idle    *time.Timer // of one that ends when it is idle; the server's retiring guards it
}

// associate runs an association to its end.
func (s *Server) associate(ctx context.Context, socket *net.UDPConn, control transport.StreamConn, r *transport.Request) {
	raw, err := socket.SyscallConn()
	if err != nil {
		_ = control.Close()
		return
	}
	a := &association{server: s, socket: socket, raw: raw, names: make(names), seen: make(map[netaddr.Addr]struct{}), client: expected(r), request: r, most: maxDatagram4}
	if r.Local.Addr().Unmap().Is6() {
		a.most = maxDatagram6
	}
	a.lane = sender{
		dialer:  s.Dialer,
		idle:    orDefault(s.Idle, DefaultIdle),
		within:  orDefault(s.DialTimeout, DefaultDialTimeout),
		queue:   newQueue(orDefault(s.QueuePackets, DefaultQueuePackets), orDefault(s.QueueBytes, DefaultQueueBytes), s.total()),
		tunnels: &s.Stats.Tunnels,
		sent:    a.sent,
		dropped: a.drop,
		deliver: a.deliver,
	}
	ctx, cut := context.WithCancel(ctx)
	defer cut()
	if s.Watcher != nil {
		defer s.Watcher.Begin(r, &a.moved, cut)()
	}
	s.retiring.enter(a, cut)
	defer s.retiring.leave(a)
	a.run(ctx, control)
}

func (a *association) sent(n int) {
	a.moved.Up.add(n)
	a.server.Stats.Up.add(n)
}

// expected is who may use the association that r asks for: the IP of the
// control connection, and the port that the client named. A port that came
// with another IP is the client's idea of a translated address.
func expected(r *transport.Request) netip.AddrPort {
	ip := r.Source.Addr().Unmap()
	if named := r.Destination.IP(); named.IsUnspecified() || named == ip.WithZone("") {
		return netip.AddrPortFrom(ip, r.Destination.Port())
	}
	return netip.AddrPortFrom(ip, 0)
}

func (a *association) run(ctx context.Context, control transport.StreamConn) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	context.AfterFunc(ctx, func() {
		_ = a.socket.Close()
		_ = control.Close()
	})
	var running sync.WaitGroup
	running.Go(func() {
		defer end()
		a.receive()
	})
	running.Go(func() { a.lane.run(ctx) })
	untilEnd(control)
	end()
	running.Wait()
}

// untilEnd returns when control has ended, in order or not. RFC 1928 knows
// nothing that a client could say on it.
func untilEnd(control transport.StreamConn) {
	said := make([]byte, 64)
	for {
		if _, err := control.Read(said); err != nil {
			return
		}
	}
}

func (a *association) drop(reason Drop, n int, cause error) {
	a.server.drop(a.client, reason, n, cause)
}

// receiveBursts is receive by package net alone.
func (a *association) receiveBursts() {
	for faults := 0; faults < maxFaults; {
		a.waitRead()
		n, err := a.readBurst()
		_ = a.socket.SetReadDeadline(time.Time{})
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case n > 0, errors.Is(err, os.ErrDeadlineExceeded):
			faults = 0
		default:
			faults++
		}
	}
}

// readBurst reads datagrams into a lent buffer for a while, and returns how
// many there were and what ended it.
func (a *association) readBurst() (count int, err error) {
	_ = a.socket.SetReadDeadline(time.Now().Add(linger))
	b := transport.GetBuffer()
	defer b.Release()
	for {
		n, from, err := a.socket.ReadFromUDPAddrPort(b[:])
		if err != nil {
			return count, err
		}
		count++
		a.take(b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
	}
}

// take queues a datagram. The first that is in order, and comes from a program
// of the client's user, binds the client's port.
func (a *association) take(datagram []byte, from netip.AddrPort) {
	if from.Addr() != a.client.Addr() || a.client.Port() != 0 && from.Port() != a.client.Port() {
		a.drop(DropForeign, 1, a.stranger(from))
		return
	}
	to, payload, err := a.names.parse(datagram)
	if err != nil {
		a.drop(dropOf(err), 1, nil)
		return
	}
	if !a.bound {
		if err := a.checkPeer(from); err != nil {
			a.drop(DropForeign, 1, err)
			return
		}
		a.client, a.bound = from, true
	}
	if to != a.last {
		a.count(to)
	}
	if !a.lane.offer(payload, to) {
		a.drop(DropQueueFull, 1, nil)
	}
}

// count counts a destination that was not seen before.
func (a *association) count(to netaddr.Addr) {
	a.last = to
	if _, ok := a.seen[to]; ok || len(a.seen) == MaxCountedDestinations {
		return
	}
	a.seen[to] = struct{}{}
	a.moved.Destinations.Add(1)
}

// deliver sends an answer to the client. It may be called by many goroutines.
func (a *association) deliver(b *transport.Buffer, payload []byte, from netaddr.Addr) {
	defer b.Release()
	switch {
	case len(payload) == 0 || !from.IsValid():
		a.drop(DropNothing, 1, nil)
		return
	case len(payload) > a.most:
		a.drop(DropTooLarge, 1, nil)
		return
	}
	var out packet
	defer func() { out.release() }()
	datagram := append(appendHeader(out.lend(maxHeader+len(payload)), from), payload...)
	if len(datagram) > a.most {
		a.drop(DropTooLarge, 1, nil)
		return
	}
	switch err := a.send(datagram, a.client); {
	case err == nil:
		a.moved.Down.add(len(payload))
		a.server.Stats.Down.add(len(payload))
	case !errors.Is(err, net.ErrClosed):
		a.drop(DropReply, 1, fmt.Errorf("send to the client: %w", err))
	}
}
