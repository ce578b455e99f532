// Package transport is where the layers meet. It holds the interfaces by
// which an inbound (SOCKS, HTTP, a VMess server) hands a request to an
// outbound (VMess in WebSocket, a direct dial) without either knowing the
// other, and the buffers they share. The package relay carries the bytes between
// them.
//
// A [StreamEndpoint] connects to one fixed far end (TCP, TLS, WebSocket); a
// [StreamDialer] reaches any destination (VMess, a direct dial). They nest: a
// dialer speaks its protocol over an endpoint, an endpoint wraps another.
// The first payload travels with the dial, so that a protocol's header and
// the application's first bytes leave in one write. A [Pending] answer lets
// an inbound's reply wait for the outbound's result.
package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"vmess-local/pkg/transport/netaddr"
)

// A StreamConn is a two-way byte stream whose directions end separately.
// One goroutine may read while another writes; Close and the deadlines may be
// called at any time by anyone.
type StreamConn interface {
	net.Conn
	// CloseWrite says that nothing more will be written; the other side reads
	// io.EOF after what was written before. A stream that cannot end one
	// direction alone returns an error that is errors.ErrUnsupported.
	CloseWrite() error
}

// ErrPartSent is wrapped by the error of a first Write, or of a dial, that failed
// when a part of what it was given had gone out: that may have arrived, and been
// acted upon, so nothing of it may be sent in another stream.
var ErrPartSent = errors.New("a part was sent")

// A BreakMarker can say inside a stream that what the stream leads to broke off.
// MarkBroken reports whether the far end will understand that: it closes the
// stream then. Nothing may be written afterwards.
type BreakMarker interface{ MarkBroken() (understood bool) }

// An AmbiguousEnd is the reset of a stream whose far end does not mark its ends,
// or by the destination itself, at a point where everything may have been sent: only
// the application can know.
// Some servers end one answer in fifty like this (docs/diagnosis.md 3 j).
type AmbiguousEnd struct{ Err error }

// Error implements error.
func (e *AmbiguousEnd) Error() string { return e.Err.Error() }

// Unwrap returns the reset.
func (e *AmbiguousEnd) Unwrap() error { return e.Err }

// behindLastByte is how soon behind its last byte a reset follows that ends a
// whole answer.
const behindLastByte = time.Second

// EndsAnswer reports whether err, met so long after a stream's last byte, is that
// of a far end which ends a whole answer by a reset. The application is to see
// the reset, and nothing has failed.
func EndsAnswer(err error, quiet time.Duration) bool {
	var end *AmbiguousEnd
	return quiet < behindLastByte && errors.As(err, &end)
}

// A ReadWaiter can wait without a buffer: WaitRead blocks until a Read would
// return something (bytes or an error) at once. Idle connections hold no
// buffers because callers get theirs after WaitRead. Whatever it returns, the
// caller goes on to Read, which tells the error in its own words. It counts as
// the reader: it may not run beside Read.
type ReadWaiter interface{ WaitRead() error }

// A PooledReader is a ReadWaiter that waits and reads in one go, into a buffer
// that is lent only when there is something to read.
type PooledReader interface {
	// ReadPooled reads up to most bytes to behind the first head bytes of the
	// returned Buffer, which is then the caller's to release; it is nil when n
	// is 0. head and most fit a Buffer together. It counts as the reader.
	ReadPooled(head, most int) (b *Buffer, n int, err error)
}

// ReadPooled reads from c as a LazyReader does, as far as c lets it.
func ReadPooled(c StreamConn, head, most int) (b *Buffer, n int, err error) {
	if l, ok := c.(PooledReader); ok {
		return l.ReadPooled(head, most)
	}
	if w, ok := c.(ReadWaiter); ok {
		_ = w.WaitRead()
	}
	b = GetBuffer()
	if n, err = c.Read(b[head : head+most]); n == 0 {
		b.Release()
		b = nil
	}
	return b, n, err
}

// A Resetter can end a stream so that the far end sees an error instead of an
// orderly end (TCP: RST). Reset also closes.
type Resetter interface{ Reset() error }

// Reset ends a stream as an error for its far end where it can ([Resetter]),
// and closes it otherwise.
func Reset(c StreamConn) error {
	if r, ok := c.(Resetter); ok {
		return r.Reset()
	}
	return c.Close()
}

// wrapping is a stream that wraps another.
type wrapping interface{ NetConn() net.Conn }

// As returns c itself where it is a T, and otherwise the first that is one of
// those that it wraps: a stream that wraps another says so by a method NetConn, as
// that of crypto/tls does. Layers need not forward what the system knows of the
// connection below all of them; one that knows better has the method itself.
func As[T any](c any) (t T, ok bool) {
	for {
		switch x := c.(type) {
		case T:
			return x, true
		case wrapping:
			c = x.NetConn()
		default:
			return t, false
		}
	}
}

// An AbortResetter can make a stream end in order by its CloseWrite and Close only:
// whatever else ends it, the death of the process too, is an error for the far
// end (TCP: RST). It is for far ends to which nothing but that end tells that
// all has come. ResetOnAbort is called before the stream is used.
type AbortResetter interface{ ResetOnAbort() }

// ResetOnAbort has a stream reset its far end like that, where it or what it wraps
// can.
func ResetOnAbort(c StreamConn) {
	if r, ok := As[AbortResetter](c); ok {
		r.ResetOnAbort()
	}
}

// A PeerResetter can tell without reading that the far end has broken off: nothing
// that is done for it can reach it any more. What was not read yet does not
// hide it, as it would from a reader. ResetByPeer may be called by anyone; where
// the system does not tell, it is false.
type PeerResetter interface{ ResetByPeer() bool }

// ResetByPeer asks c or what it wraps; it is false where neither knows.
func ResetByPeer(c any) bool {
	r, ok := As[PeerResetter](c)
	return ok && r.ResetByPeer()
}

// A WriteReadier knows whether a Write of up to [WriteReadyBytes] would be taken
// at once. WriteReady may be called by anyone; where the system does not tell, it
// is false.
type WriteReadier interface{ WriteReady() bool }

// WriteReadyBytes is how much a stream that is ready takes at once: a datagram of
// what networks carry, with what is put round it.
const WriteReadyBytes = 3 << 10

// WriteReady asks c or what it wraps; it is false where neither knows.
func WriteReady(c any) bool {
	for { // As, but half as dear: it is asked for each datagram
		switch x := c.(type) {
		case WriteReadier:
			return x.WriteReady()
		case wrapping:
			c = x.NetConn()
		default:
			return false
		}
	}
}

// A SendState is how what was sent on a connection stands, as far as the system
// of this end knows: of the next hop, which may be a proxy's.
type SendState uint8

// The states.
const (
	SendUnknown  SendState = iota // the system does not tell
	SendAcked                     // the other end's system has all of it; whether a program has is another question
	SendBlocked                   // it has not, and says so: it takes no more at the moment
	SendTimedOut                  // it does not answer
)

// A SendStater knows how what it sent stands. SendState may be called by anyone.
type SendStater interface{ SendState() SendState }

// SendStateOf asks c or what it wraps; it is SendUnknown where neither knows.
func SendStateOf(c any) SendState {
	if s, ok := As[SendStater](c); ok {
		return s.SendState()
	}
	return SendUnknown
}

// A PeerCloser can tell that the far end has closed the stream altogether, and not
// only ended its direction: what it said counts, but nobody reads what it is
// sent. PeerClosed may be called by anyone; where the system does not tell, it is
// false.
type PeerCloser interface{ PeerClosed() bool }

// PeerClosed asks c itself, and nothing that it wraps: that the next hop has closed
// the connection below a tunnel does not say that all was read that came through
// it.
func PeerClosed(c any) bool {
	p, ok := c.(PeerCloser)
	return ok && p.PeerClosed()
}

// A PeerWaiter knows when the far end is gone in both directions.
// WaitPeerClose may be called by the reader after Read returned io.EOF; it
// blocks, without a buffer, until the far end has left or the stream is closed.
// It returns false where the far end may yet read what is written: then
// [ResetByPeer] tells, for it has been sent something that it resets if it does not.
type PeerWaiter interface{ WaitPeerClose() (gone bool) }

// A NonceLimiter knows how far the nonces of its cipher are used up.
// NearNonceLimit reports that half of a direction's are: what can go over
// another stream should. It may be called by anyone.
type NonceLimiter interface{ NearNonceLimit() bool }

// NearNonceLimit asks a stream that wraps others, which may not know.
func NearNonceLimit(c any) bool {
	l, ok := c.(NonceLimiter)
	return ok && l.NearNonceLimit()
}

// A StreamEndpoint connects to one fixed far end.
type StreamEndpoint interface {
	// ConnectStream connects and delivers first, which may be empty, as the
	// stream's first bytes; it does not keep first, and reads it only after
	// Refresh. The caller closes the connection. Cancelling ctx ends the attempt,
	// not the connection.
	ConnectStream(ctx context.Context, first []byte) (StreamConn, error)
}

// WithRefresh returns a ctx for ConnectStream by which refresh is called when
// the connection is there and first about to leave, each time that is so. It may
// change first in place: what that says of the time would be old by then.
func WithRefresh(ctx context.Context, refresh func()) context.Context {
	return context.WithValue(ctx, refreshKey{}, refresh)
}

type refreshKey struct{}

// Refresh is what a StreamEndpoint calls right before first leaves.
func Refresh(ctx context.Context) {
	if refresh, ok := ctx.Value(refreshKey{}).(func()); ok {
		refresh()
	}
}

// A StreamDialer reaches any destination.
type StreamDialer interface {
	// DialStream connects to dst; first is delivered as the stream's first
	// bytes and not kept. When first is empty the dialer may hold back its own
	// request until the first Write so that both leave together: a Write of no
	// bytes sends it alone. The caller closes the connection. Cancelling ctx
	// ends the attempt, not the connection.
	DialStream(ctx context.Context, dst netaddr.Addr, first []byte) (StreamConn, error)
}

// A PacketConn carries datagrams with their far addresses. Reads and writes
// may run beside each other; Close may be called by anyone and frees both. One
// that is a [LazyPacketReader] or a [ReadWaiter] needs no buffer while idle.
type PacketConn interface {
	// ReadPacket reads one datagram into p; what does not fit is lost.
	ReadPacket(p []byte) (n int, from netaddr.Addr, err error)
	// WritePacket sends one datagram. It does not keep p. After an error that
	// is [PacketLost] the association goes on; after another it is of no use.
	WritePacket(p []byte, to netaddr.Addr) error
	Close() error
}

// A PacketDialer opens a datagram association. A dialer that can reach one
// destination per association only is bound to dst.
type PacketDialer interface {
	DialPacket(ctx context.Context, dst netaddr.Addr) (PacketConn, error)
}

// EndpointFunc makes a StreamEndpoint of a function.
type EndpointFunc func(ctx context.Context, first []byte) (StreamConn, error)

// ConnectStream calls f.
func (f EndpointFunc) ConnectStream(ctx context.Context, first []byte) (StreamConn, error) {
	return f(ctx, first)
}

// DialerFunc makes a StreamDialer of a function.
type DialerFunc func(ctx context.Context, dst netaddr.Addr, first []byte) (StreamConn, error)

// DialStream calls f.
func (f DialerFunc) DialStream(ctx context.Context, dst netaddr.Addr, first []byte) (StreamConn, error) {
	return f(ctx, dst, first)
}

// A Request is one connection that an inbound was asked for.
type Request struct {
	Destination netaddr.Addr   // where to
	First       []byte         // payload already received; may be empty
	User        string         // who asks, for accounting; "" without authentication
	Source      netip.AddrPort // who asks, by address; may be zero
	Local       netip.AddrPort // where Source reached us; may be zero
	Inbound     string         // "socks5", "http", "vmess", …: for the log
	Pending     Pending        // the answer that is still owed
}

// A Pending is the answer an inbound still owes its client. Exactly one of
// its methods must be called, once.
type Pending interface {
	// Proceed answers success and returns the client's stream, which the
	// caller closes. bound is the local address of the way out; it may be zero.
	Proceed(bound netip.AddrPort) (StreamConn, error)
	// Abort answers that the request failed because of cause, in the words of
	// the inbound's protocol ([CodeOf]), and closes the client's connection.
	Abort(cause error) error
}

// A DisconnectWaiter is a [Pending] that can tell whether its client still waits for
// the answer: WaitGone waits until the client went away, and reports that. It
// returns false when ctx ends and when it cannot tell. It must have returned
// before the answer is given.
type DisconnectWaiter interface {
	WaitDisconnect(ctx context.Context) bool
}
