// Package udp is the local half of UDP: the associations of SOCKS5 (RFC 1928
// sections 4, 6 and 7). Each has a UDP socket of its own, takes datagrams from
// its one client only, on Linux also by whose program it is, and carries them over a [transport.PacketConn] that is
// dialled when there is something to send and closed when there was nothing
// for long. Queues are bounded and drop the newest, order is kept, names are
// handed on unresolved, and no datagram costs a goroutine or an allocation.
//
// The PacketConn decides what the NAT is like. One that reaches every
// destination (packetaddr, XUDP) makes a full cone: one mapping an
// association, and whoever knows it can answer. [PerDestination] makes do with
// a dialer that is bound to one destination: see there.
package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"vmess-local/pkg/transport"
)

// The defaults of a Server.
const (
	DefaultIdle            = 2 * time.Minute
	DefaultDialTimeout     = 10 * time.Second
	DefaultMaxAssociations = 1024
	DefaultQueuePackets    = 256
	DefaultQueueBytes      = 1 << 20
	DefaultTotalBytes      = 32 << 20
)

// Why an association is refused. Their code is transport.CodeGeneral.
var (
	// ErrTooMany: there is no room for one more. Datagrams to one destination
	// too many are dropped with it.
	ErrTooMany = errors.New("too many UDP associations or destinations")
	// ErrNoAddress: the control connection did not come by IP.
	ErrNoAddress = errors.New("a UDP association needs a client that came by IP")
)

// A Watcher sees associations while they run.
type Watcher interface {
	// Begin is told of an association: of the request for it, of what it has
	// moved so far, and how to end it. end is called at its end. It is called
	// concurrently.
	Begin(r *transport.Request, moved *Moved, cut func()) (end func())
}

// A Semaphore counts what is open at one time, here and wherever else it is used. It
// is used concurrently.
type Semaphore interface {
	// Acquire counts one in if there is room.
	Acquire() bool
	// Release counts one out.
	Release()
}

// A Server serves UDP associations. Its fields may not be changed once it is
// in use; it may not be copied. It is a socks.Associator.
type Server struct {
	// Dialer opens the way to the server. Its PacketConns must take any
	// destination; the one that it is handed is that of the first datagram. It
	// is required.
	Dialer transport.PacketDialer
	// Idle closes the PacketConn of an association that moved no datagram for
	// so long, or up to a quarter more; the next datagram dials again.
	// 0: DefaultIdle.
	Idle time.Duration
	// DialTimeout bounds a dial. 0: DefaultDialTimeout.
	DialTimeout time.Duration
	// MaxAssociations bounds the associations, each of which has one socket.
	// 0: DefaultMaxAssociations.
	MaxAssociations int
	// Room bounds them together with what else it is used for; nil: it does not.
	Room Semaphore
	// QueuePackets and QueueBytes bound what one association has queued for
	// its PacketConn, TotalBytes what all have. Bytes are memory: 2 KiB for a
	// datagram up to that size, 66 KiB for a larger one. What comes when a
	// bound is reached is dropped. 0: the defaults.
	QueuePackets, QueueBytes, TotalBytes int
	// Report, if set, is told what goes wrong: the errors of this package,
	// wrapped with how often and with what caused them, once a minute at most
	// for each. source is a client concerned; it may be zero. It is called from
	// many goroutines.
	Report func(err error, source netip.AddrPort)

	// Watcher may be nil.
	Watcher Watcher

	// Stats may be read at any time.
	Stats Stats

	system *users // of a test; nil is the system's

	throttles [drops]throttle
	refusals  throttle
	start     sync.Once
	budget    budget
	retiring  retiring
}

// HandleAssociate serves the association that r asks for and returns when it
// is over: when its control connection has ended in whatever way, when ctx is
// done, or when its socket fails. r.Destination is where the client says it
// will send from; only a port with the client's own IP or none is believed.
func (s *Server) HandleAssociate(ctx context.Context, r *transport.Request) {
	if s.Stats.Open.Add(1) > int64(orDefault(s.MaxAssociations, DefaultMaxAssociations)) {
		s.refuse(r, fmt.Errorf("%w: %d are open", ErrTooMany, s.Stats.Open.Load()-1))
		return
	}
	if s.Room != nil {
		if !s.Room.Acquire() {
			s.refuse(r, ErrTooMany)
			return
		}
		defer s.Room.Release()
	}
	socket, err := listen(r.Local.Addr())
	if err != nil {
		s.refuse(r, err)
		return
	}
	defer s.Stats.Open.Add(-1)
	defer socket.Close()
	s.Stats.Opened.Add(1)
	control, err := r.Pending.Proceed(socket.LocalAddr().(*net.UDPAddr).AddrPort())
	if err != nil {
		return
	}
	s.associate(ctx, socket, control, r)
}

func (s *Server) refuse(r *transport.Request, err error) {
	s.Stats.Open.Add(-1)
	n, ok := s.refusals.pass(s.Stats.Refused.Add(1))
	if ok && s.Report != nil {
		s.Report(fmt.Errorf("%w: %d refused", err, n), r.Source)
	}
	_ = r.Pending.Abort(err)
}

// socketBuffer is what the system may keep for a socket. Some give so little
// by themselves that a datagram of 64 KiB does not fit.
const socketBuffer = 512 << 10

// listen opens a socket at a port of its own on ip, so that nobody who cannot
// reach the proxy can reach it.
func listen(ip netip.Addr) (*net.UDPConn, error) {
	network := "udp6"
	switch ip = ip.Unmap(); {
	case !ip.IsValid():
		return nil, ErrNoAddress
	case ip.Is4():
		network = "udp4"
	}
	socket, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	if err != nil {
		return nil, fmt.Errorf("open a UDP socket: %w", err)
	}
	_ = socket.SetReadBuffer(socketBuffer)
	_ = socket.SetWriteBuffer(socketBuffer)
	return socket, nil
}

func (s *Server) total() *budget {
	s.start.Do(func() { s.budget.most = int64(orDefault(s.TotalBytes, DefaultTotalBytes)) })
	return &s.budget
}

func orDefault[T int | time.Duration](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}
