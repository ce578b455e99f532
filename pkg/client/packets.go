package client

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/config"
	"vmess-local/pkg/logline"
	"vmess-local/pkg/mux"
	"vmess-local/pkg/netaddr"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/udp"
	"vmess-local/pkg/vmess"
)

// A packetForm is how datagrams travel to the server (docs/protocol.md 9, 11).
type packetForm uint32

const (
	packetsUnknown packetForm = iota
	packetsPlain              // a request for each destination
	packetsAddr               // packetaddr: one request, addresses in the datagrams
	packetsXUDP               // one Mux.Cool tunnel, addresses in the frames
)

func (f packetForm) String() string {
	return [...]string{"a form not known yet", "plain VMess", "packetaddr", "XUDP"}[f]
}

// nat says what the form means for the user.
func (f packetForm) nat() string {
	switch f {
	case packetsAddr, packetsXUDP:
		return "full cone: every program that knows your port can reach you, as calls and games need"
	case packetsPlain:
		return "each destination sees a port of its own, and only it can answer: calls and games that connect people directly may fail"
	}
	return "found out with the first datagrams"
}

const (
	// trialTries is how many associations find out what the server
	// understands, until plain is taken for the answer.
	trialTries = 4
	// trialPause is how long that stands.
	trialPause = 10 * time.Minute
	// trialAnswer is how long after the plain answer another may come.
	trialAnswer = 2 * time.Second
	// ownPayload is the largest datagram between our own ends.
	ownPayload = 65497
)

// packets opens the UDP associations of one server.
type packets struct {
	guard    *guard
	sessions *mux.Client // TCP, too, goes over it; nil without mux
	plain    *udp.PerDestination
	fixed    packetForm // configured; packetsUnknown for auto

	found atomic.Uint32 // the form found out

	mu    sync.Mutex
	said  packetForm
	tries int       // that only the plain way answered
	rest  time.Time // plain is taken for the answer until then
}

var _ transport.PacketDialer = (*packets)(nil)

func newPackets(g *guard, cfg *config.Client) *packets {
	p := &packets{guard: g}
	p.fixed = map[string]packetForm{"plain": packetsPlain, "packetaddr": packetsAddr, "xudp": packetsXUDP}[cfg.UDP.Mode]
	p.plain = &udp.PerDestination{Dialer: plainPackets{g}, Idle: time.Duration(cfg.UDP.Idle), DialTimeout: g.dialTime}
	if cfg.Mux.Enabled {
		p.sessions = &mux.Client{Dial: g.tunnelFor, Concurrency: cfg.Mux.Concurrency}
		p.plain.Dialer = p.sessions
	}
	return p
}

func (p *packets) close() {
	if p.sessions != nil {
		_ = p.sessions.Close()
	}
}

// plainPackets opens a request for one destination.
type plainPackets struct{ guard *guard }

// DialPacket implements transport.PacketDialer.
func (d plainPackets) DialPacket(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	return d.guard.openPackets(ctx, func(ctx context.Context) (transport.PacketConn, error) {
		return d.guard.dialer.DialPacket(ctx, dst)
	})
}

// form returns the form for a new association.
func (p *packets) form() packetForm {
	if p.fixed != packetsUnknown {
		return p.fixed
	}
	switch p.guard.account.Kind() {
	case vmess.KindOwn, vmess.KindSing:
		return packetsXUDP
	}
	if f := packetForm(p.found.Load()); f != packetsUnknown {
		return f
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Now().Before(p.rest) {
		return packetsPlain
	}
	return packetsUnknown
}

// DialPacket implements transport.PacketDialer.
func (p *packets) DialPacket(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	form := p.form()
	if form != packetsUnknown {
		p.say(form)
	}
	switch form {
	case packetsXUDP:
		return p.xudp(p.guard.packetTunnel).DialPacket(ctx, dst)
	case packetsAddr:
		return p.addressed(ctx, dst)
	case packetsPlain:
		return p.plain.DialPacket(ctx, dst)
	}
	return p.trial(ctx, dst)
}

func (p *packets) xudp(dial func(ctx context.Context, first []byte) (transport.StreamConn, error)) *mux.XUDP {
	return &mux.XUDP{Dial: dial, MaxPayload: p.xudpPayload}
}

// xudpPayload is the largest datagram that the server is known to take by
// XUDP; 0 as long as it may be any.
func (p *packets) xudpPayload() int {
	if p.guard.account.Kind() == vmess.KindOwn {
		return ownPayload
	}
	return 0
}

// addressed is packetaddr for addresses, and the plain form for names, which
// packetaddr cannot carry.
func (p *packets) addressed(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	main, err := p.guard.openPackets(ctx, p.guard.dialer.DialPacketAddr)
	if err != nil {
		return nil, err
	}
	names, err := p.plain.DialPacket(ctx, dst)
	if err != nil {
		_ = main.Close()
		return nil, err
	}
	j := newJoint()
	j.add(main, nil)
	j.add(names, nil)
	j.route = func(b []byte, to netaddr.Addr) error {
		if to.IsName() {
			return names.WritePacket(b, to)
		}
		return main.WritePacket(b, to)
	}
	return j, nil
}

// trial is an association in the plain form, which every server understands.
// A copy of its first datagram goes by the other forms: the one that is
// answered is the one for the next associations.
func (p *packets) trial(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	plain, err := p.plain.DialPacket(ctx, dst)
	if err != nil {
		return nil, err
	}
	j := newJoint()
	t := &trial{packets: p, joint: j}
	j.add(plain, t.plainAnswered)
	j.route = func(b []byte, to netaddr.Addr) error {
		t.first.Do(func() { t.start(append([]byte(nil), b...), to) })
		return plain.WritePacket(b, to)
	}
	return j, nil
}

// A trial finds out what a server understands. It goes round the guard: that a
// server refuses a form is no failure, and the plain form names all others.
type trial struct {
	packets *packets
	joint   *joint
	first   sync.Once
	doubt   sync.Once
	done    atomic.Bool
}

// start sends a copy of the first datagram by the other forms.
func (t *trial) start(first []byte, to netaddr.Addr) {
	t.try(packetsXUDP, first, to, func(conn transport.PacketConn) {
		if c, ok := conn.(interface{ FullCone() bool }); ok && c.FullCone() {
			t.settle(packetsXUDP)
		}
	})
	if !to.IsName() {
		t.try(packetsAddr, first, to, func(transport.PacketConn) { t.settle(packetsAddr) })
	}
}

// try sends a datagram by a form, and calls answered for each answer, which
// the user has got by the plain form already.
func (t *trial) try(f packetForm, first []byte, to netaddr.Addr, answered func(transport.PacketConn)) {
	t.joint.background(func(ctx context.Context) {
		conn, err := t.packets.unguardedBy(ctx, f, to)
		if err != nil {
			return
		}
		if conn.WritePacket(first, to) != nil {
			_ = conn.Close()
			return
		}
		t.joint.add(conn, func() bool { answered(conn); return false })
	})
}

// unguardedBy opens one request of a form; a plain one is bound to dst.
func (p *packets) unguardedBy(ctx context.Context, f packetForm, dst netaddr.Addr) (transport.PacketConn, error) {
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

// settle is called with a form that was answered. No server whose kind its
// answers do not tell understands two of them. One whose kind they tell may be
// followed by another behind the same address: nothing is remembered of it.
func (t *trial) settle(f packetForm) {
	if t.done.Swap(true) {
		return
	}
	p := t.packets
	if p.form() != packetsXUDP {
		p.found.Store(uint32(f))
	}
	p.say(p.form())
}

// plainAnswered is called for each datagram of the plain form: when no other
// form answers soon, that counts as a sign.
func (t *trial) plainAnswered() bool {
	t.doubt.Do(func() {
		t.joint.after(trialAnswer, func() {
			if !t.done.Load() {
				t.packets.onlyPlain()
			}
		})
	})
	return true
}

func (p *packets) onlyPlain() {
	p.mu.Lock()
	p.tries++
	settled := p.tries >= trialTries
	if settled {
		p.tries, p.rest = 0, time.Now().Add(trialPause)
	}
	p.mu.Unlock()
	if settled {
		p.say(packetsPlain)
	}
}

// say tells the NAT behaviour when it is first known, and when it changes.
func (p *packets) say(f packetForm) {
	p.mu.Lock()
	news := p.said != f
	p.said = f
	p.mu.Unlock()
	if news {
		p.guard.voice.log.Info("UDP", logline.Text("UDP by %s: %s", f, f.nat()), "form", f.String(), "server", p.guard.voice.server)
	}
}

// jointQueue bounds the datagrams of a joint that wait for its reader.
const jointQueue = 64

// A joint is several PacketConns read as one.
type joint struct {
	route func(b []byte, to netaddr.Addr) error // set before use

	ctx     context.Context
	cancel  context.CancelFunc
	arrived chan arrival
	running sync.WaitGroup

	mu     sync.Mutex
	conns  []transport.PacketConn
	timers []*time.Timer
	closed bool
	err    error // why the first conn ended
}

type arrival struct {
	buf  *transport.Buffer
	p    []byte
	from netaddr.Addr
}

var (
	_ transport.PacketConn       = (*joint)(nil)
	_ transport.LazyPacketReader = (*joint)(nil)
)

func newJoint() *joint {
	j := &joint{arrived: make(chan arrival, jointQueue)}
	j.ctx, j.cancel = context.WithCancel(context.Background())
	return j
}

// add reads from conn, too, which is closed with the joint. each, if not nil,
// is called for each datagram and tells whether it counts. The end of the
// first conn is the joint's.
func (j *joint) add(conn transport.PacketConn, each func() bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		_ = conn.Close()
		return
	}
	main := len(j.conns) == 0
	j.conns = append(j.conns, conn)
	j.running.Go(func() {
		err := j.read(conn, each)
		if main {
			j.mu.Lock()
			j.err = err
			j.mu.Unlock()
			j.cancel()
		}
	})
}

func (j *joint) read(conn transport.PacketConn, each func() bool) error {
	for {
		b, p, from, err := transport.ReadPacketLazy(conn)
		if err != nil {
			return err
		}
		if each != nil && !each() {
			b.Release()
			continue
		}
		select {
		case j.arrived <- arrival{b, p, from}:
		case <-j.ctx.Done():
			b.Release()
			return context.Cause(j.ctx)
		}
	}
}

// background runs f until the joint is closed.
func (j *joint) background(f func(ctx context.Context)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.closed {
		j.running.Go(func() { f(j.ctx) })
	}
}

// after calls f after d, unless the joint is closed before.
func (j *joint) after(d time.Duration, f func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.closed {
		j.timers = append(j.timers, time.AfterFunc(d, f))
	}
}

// ReadPacketLazy implements transport.LazyPacketReader.
func (j *joint) ReadPacketLazy() (*transport.Buffer, []byte, netaddr.Addr, error) {
	select {
	case a := <-j.arrived:
		return a.buf, a.p, a.from, nil
	case <-j.ctx.Done():
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return nil, nil, netaddr.Addr{}, j.err
	}
	return nil, nil, netaddr.Addr{}, errJointClosed
}

var errJointClosed = errors.New("the association is closed")

// ReadPacket implements transport.PacketConn.
func (j *joint) ReadPacket(p []byte) (int, netaddr.Addr, error) {
	b, got, from, err := j.ReadPacketLazy()
	if err != nil {
		return 0, from, err
	}
	defer b.Release()
	return copy(p, got), from, nil
}

// WritePacket implements transport.PacketConn.
func (j *joint) WritePacket(p []byte, to netaddr.Addr) error { return j.route(p, to) }

// Close implements transport.PacketConn.
func (j *joint) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	j.cancel()
	conns := j.conns
	for _, t := range j.timers {
		t.Stop()
	}
	j.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
	j.running.Wait()
	for {
		select {
		case a := <-j.arrived:
			a.buf.Release()
		default:
			return nil
		}
	}
}
