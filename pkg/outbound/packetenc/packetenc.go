// Package packetenc chooses how datagrams are encoded on the path to a server:
// plain VMess, packetaddr or XUDP.
//
// The configuration may fix the encoding. If it does not, the kind of server
// decides, which shows in its first answer. V2Ray 5 and Xray look alike there:
// which of the better encodings they understand only a datagram that is answered
// shows. The user's are not tried out on them: a [Dialer] sends a question of its
// own, to a resolver that the user's programs ask.
package packetenc

import (
	"context"
	"sync"
	"time"

	"vmess-local/pkg/inbound/udp"
	"vmess-local/pkg/protocol/mux"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// An Encoding is how datagrams travel to the server (docs/protocol.md 9, 11).
type Encoding uint32

// The encodings; a larger one is better.
const (
	Unknown    Encoding = iota // not chosen yet
	Plain                      // a request for each destination
	PacketAddr                 // one request, addresses in the datagrams
	XUDP                       // one Mux.Cool tunnel, addresses in the frames
)

func (e Encoding) String() string {
	return [...]string{"a form not known yet", "plain VMess", "packetaddr", "XUDP"}[e]
}

// NATBehavior returns what the encoding means for the user.
func (e Encoding) NATBehavior() string {
	switch e {
	case PacketAddr, XUDP:
		return "full cone: every program that knows your port can reach you, as calls and games need"
	case Plain:
		return "each destination sees a port of its own, and only it can answer: calls and games that connect people directly may fail"
	}
	return "found out with the first answers"
}

// maxNativeDatagram is the largest datagram that vmess-server takes by XUDP.
const maxNativeDatagram = 65497

// A Server opens requests for datagrams to one server, of each encoding. It must
// be safe for concurrent use.
type Server interface {
	// DialPacket opens a plain request, which is bound to dst.
	transport.PacketDialer
	// DialPacketAddr opens a packetaddr request.
	DialPacketAddr(ctx context.Context) (transport.PacketConn, error)
	// DialMux opens a Mux.Cool tunnel; first are its first frames.
	DialMux(ctx context.Context, first []byte) (transport.StreamConn, error)
}

// Options are what a [Dialer] is made of. All but Owner and the times are
// required.
type Options struct {
	// Server opens the requests of the user's associations.
	Server Server
	// Prober opens those of the Dialer's own questions: that the server rejects
	// an encoding is not a failure.
	Prober Server
	// Kind returns the kind of server as far as its answers have shown it.
	Kind func() vmess.ServerKind
	// Configured is the encoding that is always used; Unknown chooses the best
	// that the server is known to understand.
	Configured Encoding
	// Changed is called with a line to log when the NAT behaviour is first known,
	// and when it changes.
	Changed func(e Encoding, line string)
	// Owner is handed on in the *[mux.TunnelError] of XUDP tunnels.
	Owner any
	// DialTimeout bounds the dial of a request, and Idle is how long a plain one
	// may be silent. 0: the defaults of [udp.PerDestination].
	DialTimeout, Idle time.Duration
}

// A Dialer opens the UDP associations of one server. It may be used concurrently.
type Dialer struct {
	opt Options
	// plain carries associations by one plain request for each destination.
	plain *udp.PerDestination

	ctx     context.Context // of the questions; ends with Close
	cancel  context.CancelFunc
	probing sync.WaitGroup

	mu        sync.Mutex
	probed    Encoding // what a question of our own proved
	logged    Encoding
	nextProbe time.Time // the earliest
	closed    bool
}

var _ transport.PacketDialer = (*Dialer)(nil)

// New returns a Dialer, to be closed.
func New(opt Options) *Dialer {
	d := &Dialer{opt: opt}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.plain = &udp.PerDestination{Dialer: observer{d}, Idle: opt.Idle, DialTimeout: opt.DialTimeout}
	return d
}

// Plain returns what carries associations in plain requests, so that its fields
// can be set before the first DialPacket.
func (d *Dialer) Plain() *udp.PerDestination { return d.plain }

// Close ends the questions that are under way. Associations stay.
func (d *Dialer) Close() {
	d.cancel()
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.probing.Wait()
}

// Encoding returns the encoding of the next association; Unknown, which is sent
// as Plain, before the server's first answer.
func (d *Dialer) Encoding() Encoding {
	if e := d.Decided(); e != Unknown {
		return e
	}
	if d.opt.Kind() == vmess.KindUnknown {
		return Unknown
	}
	return Plain
}

// Decided returns the encoding that is configured, that the kind of server
// understands or that was found out; Unknown while there may be a better one than
// Plain. A server whose kind shows may be followed by another at the same
// address: nothing is remembered of it.
func (d *Dialer) Decided() Encoding {
	if d.opt.Configured != Unknown {
		return d.opt.Configured
	}
	switch d.opt.Kind() {
	case vmess.KindNative, vmess.KindSingBox:
		return XUDP
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.probed
}

// DialPacket implements transport.PacketDialer.
func (d *Dialer) DialPacket(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	e := d.Encoding()
	if e != Unknown {
		d.log(e, false)
	}
	switch e {
	case XUDP:
		return d.xudp(d.opt.Server).DialPacket(ctx, dst)
	case PacketAddr:
		return d.dialPacketAddr(ctx, dst)
	}
	return d.plain.DialPacket(ctx, dst)
}

func (d *Dialer) xudp(s Server) *mux.XUDP {
	return &mux.XUDP{Dial: s.DialMux, MaxPayload: d.maxPayload, Moves: d.moves, Owner: d.opt.Owner}
}

// moves reports whether the server lets associations move to other tunnels: of
// those that understand XUDP, sing-box and mihomo do not.
func (d *Dialer) moves() bool {
	kind := d.opt.Kind()
	return kind == vmess.KindNative || kind == vmess.KindV2Ray
}

// maxPayload is the largest datagram that the server is known to take by XUDP; 0
// as long as that is not known.
func (d *Dialer) maxPayload() int {
	if d.opt.Kind() == vmess.KindNative {
		return maxNativeDatagram
	}
	return 0
}

// dialPacketAddr is packetaddr for addresses, and plain for names, which
// packetaddr cannot carry.
func (d *Dialer) dialPacketAddr(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	main, err := d.opt.Server.DialPacketAddr(ctx)
	if err != nil {
		return nil, err
	}
	names, err := d.plain.DialPacket(ctx, dst)
	if err != nil {
		_ = main.Close()
		return nil, err
	}
	return newMergedConn(main, names, netaddr.Addr.IsName), nil
}

// log logs the NAT behaviour when it is first known, and when it changes; next
// says that open associations do not have it yet.
func (d *Dialer) log(e Encoding, next bool) {
	d.mu.Lock()
	news := d.logged != e
	d.logged = e
	d.mu.Unlock()
	if !news {
		return
	}
	from, hint := "", ""
	if next {
		from = " from the next association on"
	}
	if e == Plain && d.opt.Configured == Unknown {
		hint = `; for one port to all of them set "udp.mode" to "xudp" if the server is Xray, to "packetaddr" if it is V2Ray 5`
	}
	d.opt.Changed(e, "UDP by "+e.String()+from+": "+e.NATBehavior()+hint)
}
