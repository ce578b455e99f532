package udp

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"
)

// reportEvery is the least time between two reports of one cause.
const reportEvery = time.Minute

// Why datagrams are dropped, besides those of RFC 1928. [Server.Report] gets
// them wrapped.
var (
	// ErrForeign: it does not come from the client of the association.
	ErrForeign = errors.New("datagram from another than the client of the association")
	// ErrQueueFull: the way to the server is slower than the client.
	ErrQueueFull = errors.New("the queue to the server is full")
	// ErrTooLarge: it has more bytes than the server, or UDP, takes.
	ErrTooLarge = errors.New("datagram too large")
	// ErrRefused: the way to the server cannot carry it, as packetaddr cannot
	// carry names, or its address is not allowed.
	ErrRefused = errors.New("datagram refused")
	// ErrNoTunnel: there is no way to the server now.
	ErrNoTunnel = errors.New("no tunnel for UDP")
	// ErrReply: it could not be handed to the client.
	ErrReply = errors.New("reply not delivered to the client")
)

// A Drop is a reason for which datagrams are dropped.
type Drop int

// The reasons. Each has the error of the same name.
const (
	DropMalformed Drop = iota
	DropFragment
	DropNothing
	DropForeign
	DropQueueFull
	DropTooLarge
	DropRefused
	DropNoTunnel
	DropReply
	DropTooMany
	drops // how many there are
)

// cause is the error of the same name.
func (d Drop) cause() error {
	return [drops]error{
		ErrMalformed, ErrFragment, ErrNothing, ErrForeign, ErrQueueFull,
		ErrTooLarge, ErrRefused, ErrNoTunnel, ErrReply, ErrTooMany,
	}[d]
}

// String names the reason as a label of a counter.
func (d Drop) String() string {
	return [drops]string{
		"malformed", "fragment", "nothing", "foreign", "queue-full",
		"too-large", "refused", "no-tunnel", "reply", "too-many",
	}[d]
}

// dropOf is the reason whose error err of a datagram of the client is.
func dropOf(err error) Drop {
	switch err {
	case ErrFragment:
		return DropFragment
	case ErrNothing:
		return DropNothing
	default:
		return DropMalformed
	}
}

// Traffic counts datagrams of one direction and the bytes of their payloads.
type Traffic struct{ Packets, Bytes atomic.Int64 }

func (t *Traffic) add(n int) {
	t.Packets.Add(1)
	t.Bytes.Add(int64(n))
}

// Moved counts what one association has moved. It may be read at any time.
type Moved struct {
	Up, Down Traffic // as in Stats
	// Destinations is how many were written to; those beyond
	// [MaxCountedDestinations] are not told apart.
	Destinations atomic.Int64
}

// MaxCountedDestinations is the most that Moved counts of them.
const MaxCountedDestinations = 1024

// Stats counts what a [Server] does. It may be read at any time.
type Stats struct {
	Open    atomic.Int64 // associations now
	Opened  atomic.Int64 // associations ever
	Refused atomic.Int64 // associations over the bound or without a socket
	Tunnels atomic.Int64 // associations with a PacketConn now
	Up      Traffic      // handed to the PacketConn
	Down    Traffic      // handed to the client
	Dropped Drops
}

// Drops counts dropped datagrams by reason.
type Drops [drops]atomic.Int64

// Each calls f with every reason and how many datagrams it cost.
func (d *Drops) Each(f func(reason Drop, n int64)) {
	for i := range d {
		f(Drop(i), d[i].Load())
	}
}

// A throttle lets one report pass in reportEvery.
type throttle struct {
	next atomic.Int64 // Unix nanoseconds
	told atomic.Int64 // the count at the last report
}

// pass returns how many of total came since the last report, if one is due.
func (t *throttle) pass(total int64) (since int64, ok bool) {
	now, next := time.Now(), t.next.Load()
	if now.UnixNano() < next || !t.next.CompareAndSwap(next, now.Add(reportEvery).UnixNano()) {
		return 0, false
	}
	return total - t.told.Swap(total), true
}

// Drop counts n dropped datagrams and reports them, at most once a minute for
// each reason; cause may be nil. It is for dialers that drop what they were
// handed before: see [PerDestination]. It may be called by anyone.
func (s *Server) Drop(reason Drop, n int, cause error) {
	s.drop(netip.AddrPort{}, reason, n, cause)
}

func (s *Server) drop(source netip.AddrPort, reason Drop, n int, cause error) {
	if n == 0 {
		return
	}
	total := s.Stats.Dropped[reason].Add(int64(n))
	if s.Report == nil {
		return
	}
	since, ok := s.throttles[reason].pass(total)
	if !ok {
		return
	}
	err := fmt.Errorf("%w: %d dropped", reason.cause(), since)
	if cause != nil {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	s.Report(err, source)
}
