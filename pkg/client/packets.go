package client

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/config"
	"vmess-local/pkg/inbound/udp"
	"vmess-local/pkg/protocol/mux"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// A packetEncoding is how datagrams travel to the server (docs/protocol.md 9, 11).
type packetEncoding uint32

const (
	packetsUnknown packetEncoding = iota
	packetsPlain                  // a request for each destination
	packetsAddr                   // packetaddr: one request, addresses in the datagrams
	packetsXUDP                   // one Mux.Cool tunnel, addresses in the frames
)

func (f packetEncoding) String() string {
	return [...]string{"a form not known yet", "plain VMess", "packetaddr", "XUDP"}[f]
}

// natBehavior says what the form means for the user.
func (f packetEncoding) natBehavior() string {
	switch f {
	case packetsAddr, packetsXUDP:
		return "full cone: every program that knows your port can reach you, as calls and games need"
	case packetsPlain:
		return "each destination sees a port of its own, and only it can answer: calls and games that connect people directly may fail"
	}
	return "found out with the first answers"
}

const (
	// askPause is how long a question of our own rests that found no full cone.
	askPause = 10 * time.Minute
	// ownPayload is the largest datagram between our own ends.
	ownPayload = 65497
)

// packetDialer opens the UDP associations of one server.
type packetDialer struct {
	guard    *guard
	log      *slog.Logger
	sessions *mux.Client // TCP, too, goes over it; nil without mux
	plain    *udp.PerDestination
	fixed    packetEncoding // configured; packetsUnknown for auto

	asking sync.WaitGroup // questions of our own

	mu       sync.Mutex
	found    packetEncoding // what a question of our own proved
	said     packetEncoding
	nextAsk  time.Time // the earliest
	isClosed bool
}

var _ transport.PacketDialer = (*packetDialer)(nil)

func newPacketDialer(g *guard, cfg *config.Client, log *slog.Logger) *packetDialer {
	p := &packetDialer{guard: g, log: log}
	p.fixed = map[string]packetEncoding{"plain": packetsPlain, "packetaddr": packetsAddr, "xudp": packetsXUDP}[cfg.UDP.Mode]
	var single transport.PacketDialer = plainPackets{g}
	if cfg.Mux.Enabled {
		p.sessions = &mux.Client{Dial: g.tunnelFor, Concurrency: cfg.Mux.Concurrency, Owner: g}
		single = p.sessions
	}
	p.plain = &udp.PerDestination{Dialer: observer{p, single}, Idle: time.Duration(cfg.UDP.Idle), DialTimeout: g.dialTime}
	return p
}

// close ends what runs by itself. The guard's context must have ended.
func (p *packetDialer) close() {
	if p.sessions != nil {
		_ = p.sessions.Close()
	}
	p.mu.Lock()
	p.isClosed = true
	p.mu.Unlock()
	p.asking.Wait()
}

// plainPackets opens a request for one destination.
type plainPackets struct{ guard *guard }

// DialPacket implements transport.PacketDialer.
func (d plainPackets) DialPacket(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	return d.guard.openPackets(ctx, func(ctx context.Context) (transport.PacketConn, error) {
		return d.guard.dialer.DialPacket(ctx, dst)
	})
}

// form returns the form for a new association; packetsUnknown, which goes by
// the plain form, before the server's first answer.
func (p *packetDialer) form() packetEncoding {
	if f := p.decided(); f != packetsUnknown {
		return f
	}
	if p.guard.account.ServerKind() == vmess.KindUnknown {
		return packetsUnknown
	}
	return packetsPlain
}

// decided returns the form that is configured, that the kind of server
// understands or that was found out; packetsUnknown while there may be a better
// one than the plain form. One whose kind shows may be followed by another
// behind the same address: nothing is remembered of it.
func (p *packetDialer) decided() packetEncoding {
	if p.fixed != packetsUnknown {
		return p.fixed
	}
	switch p.guard.account.ServerKind() {
	case vmess.KindNative, vmess.KindSingBox:
		return packetsXUDP
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.found
}

// DialPacket implements transport.PacketDialer.
func (p *packetDialer) DialPacket(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	form := p.form()
	if form != packetsUnknown {
		p.say(form, false)
	}
	switch form {
	case packetsXUDP:
		return p.xudp(p.guard.packetTunnel).DialPacket(ctx, dst)
	case packetsAddr:
		return p.addressed(ctx, dst)
	}
	return p.plain.DialPacket(ctx, dst)
}

func (p *packetDialer) xudp(dial func(ctx context.Context, first []byte) (transport.StreamConn, error)) *mux.XUDP {
	return &mux.XUDP{Dial: dial, MaxPayload: p.xudpPayload, Moves: p.xudpMoves, Owner: p.guard}
}

// xudpMoves reports whether the server lets associations move to other tunnels:
// of those that understand XUDP, sing-box and mihomo do not.
func (p *packetDialer) xudpMoves() bool {
	kind := p.guard.account.ServerKind()
	return kind == vmess.KindNative || kind == vmess.KindV2Ray
}

// xudpPayload is the largest datagram that the server is known to take by
// XUDP; 0 as long as it may be any.
func (p *packetDialer) xudpPayload() int {
	if p.guard.account.ServerKind() == vmess.KindNative {
		return ownPayload
	}
	return 0
}

// addressed is packetaddr for addresses, and the plain form for names, which
// packetaddr cannot carry.
func (p *packetDialer) addressed(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	main, err := p.guard.openPackets(ctx, p.guard.dialer.DialPacketAddr)
	if err != nil {
		return nil, err
	}
	names, err := p.plain.DialPacket(ctx, dst)
	if err != nil {
		_ = main.Close()
		return nil, err
	}
	return newJoint(main, names, netaddr.Addr.IsName), nil
}

// An observer opens plain requests. While a better form than that is not
// excluded, their first answers are noticed: they show the kind of server.
type observer struct {
	packets *packetDialer
	transport.PacketDialer
}

// DialPacket implements transport.PacketDialer.
func (d observer) DialPacket(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	conn, err := d.PacketDialer.DialPacket(ctx, dst)
	if err != nil || d.packets.decided() != packetsUnknown {
		return conn, err
	}
	return &observed{PacketConn: conn, answered: func() { d.packets.answered(dst) }}, nil
}

// An observed is a plain request whose first answer is noticed.
type observed struct {
	transport.PacketConn
	answered func() // nil once it was called; the reader's
}

var (
	_ transport.PooledPacketReader = (*observed)(nil)
	_ transport.PacketTrier        = (*observed)(nil)
)

// ReadPacketPooled implements transport.LazyPacketReader.
func (o *observed) ReadPacketPooled() (*transport.Buffer, []byte, netaddr.Addr, error) {
	b, p, from, err := transport.ReadPacketPooled(o.PacketConn)
	if err == nil && o.answered != nil {
		o.answered()
		o.answered = nil
	}
	return b, p, from, err
}

// TryWritePacket implements transport.PacketTrier.
func (o *observed) TryWritePacket(p []byte, to netaddr.Addr) (ok bool, err error) {
	if t, ok := o.PacketConn.(transport.PacketTrier); ok {
		return t.TryWritePacket(p, to)
	}
	return false, nil
}

// answered is called when a destination has answered by the plain form. Which
// forms V2Ray 5 and Xray understand, their answers do not show: that takes a
// question of our own, which goes only where the user's datagrams go anyway and
// such questions are usual.
func (p *packetDialer) answered(dst netaddr.Addr) {
	switch form := p.form(); form {
	case packetsUnknown:
	case packetsPlain:
		p.say(form, false)
		if dst.Port() == portDNS {
			p.askResolver(dst)
		}
	default:
		p.say(form, true)
	}
}

// askResolver begins to find out which forms the server understands by a
// question to a resolver, unless that was done a while ago.
func (p *packetDialer) askResolver(resolver netaddr.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.isClosed || now.Before(p.nextAsk) {
		return
	}
	p.nextAsk = now.Add(askPause)
	p.asking.Go(func() {
		form := p.formAnswered(resolver)
		if form == packetsUnknown {
			return
		}
		p.mu.Lock()
		p.found = form
		p.mu.Unlock()
		p.say(p.form(), true)
	})
}

// formAnswered asks a resolver by XUDP and, where its answer comes without its
// source or not at all, by packetaddr.
func (p *packetDialer) formAnswered(resolver netaddr.Addr) packetEncoding {
	if _, full := p.ask(p.guard.ctx, packetsXUDP, resolver); full {
		return packetsXUDP
	}
	if resolver.IsName() {
		return packetsUnknown
	}
	if answered, _ := p.ask(p.guard.ctx, packetsAddr, resolver); answered {
		return packetsAddr
	}
	return packetsUnknown
}

// ask asks a target that answers questions by a form. full reports that its
// answer came with its true source, as far as the form shows it. It bypasses
// the guard: that a server refuses a form is no failure.
func (p *packetDialer) ask(ctx context.Context, f packetEncoding, target netaddr.Addr) (answered, full bool) {
	conn, err := p.unguardedBy(ctx, f, target)
	if err != nil {
		return false, false
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		stop()
		_ = conn.Close()
	}()
	question := packetQuestion(target)
	if conn.WritePacket(question, target) != nil {
		return false, false
	}
	again := time.AfterFunc(questionAgain, func() { _ = conn.WritePacket(question, target) })
	defer again.Stop()
	bound := time.AfterFunc(checkAnswer, func() { _ = conn.Close() })
	defer bound.Stop()
	b, data, _, err := transport.ReadPacketPooled(conn)
	if err != nil {
		return false, false
	}
	defer b.Release()
	x, ok := conn.(interface{ FullCone() bool })
	return len(data) > 0, ok && x.FullCone()
}

// unguardedBy opens one request of a form; a plain one is bound to dst.
func (p *packetDialer) unguardedBy(ctx context.Context, f packetEncoding, dst netaddr.Addr) (transport.PacketConn, error) {
	d := p.guard.dialer
	switch f {
	case packetsXUDP:
		return p.xudp(func(ctx context.Context, first []byte) (transport.StreamConn, error) {
			conn, err := d.DialMux(ctx, first)
			if err != nil {
				return nil, err
			}
			return conn, nil
		}).DialPacket(ctx, dst)
	case packetsAddr:
		return d.DialPacketAddr(ctx)
	}
	return d.DialPacket(ctx, dst)
}

// say logs the NAT behaviour when it is first known, and when it changes; next
// says that open associations do not have it yet.
func (p *packetDialer) say(f packetEncoding, next bool) {
	p.mu.Lock()
	news := p.said != f
	p.said = f
	p.mu.Unlock()
	if !news {
		return
	}
	from, hint := "", ""
	if next {
		from = " from the next association on"
	}
	if f == packetsPlain && p.fixed == packetsUnknown {
		hint = `; for one port to all of them set "udp.mode" to "xudp" if the server is Xray, to "packetaddr" if it is V2Ray 5`
	}
	p.log.Info("UDP", logging.Text("UDP by %s%s: %s%s", f, from, f.natBehavior(), hint), "form", f.String(), "server", p.guard.Name())
}
