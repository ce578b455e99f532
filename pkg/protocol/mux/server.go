package mux

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// DefaultSessions is how many sessions of one tunnel a Server serves at once:
// twice what clients open in a tunnel's life, for handlers outlive sessions.
const DefaultSessions = 2 * maxSessions

// DefaultPatience is how long a Server keeps a tunnel without sessions: longer
// than clients do.
const DefaultPatience = time.Minute

// A PacketRequest is one UDP session that a client opened.
type PacketRequest struct {
	Destination netaddr.Addr   // of the first datagram, which is in Conn
	User        string         // who asks
	Source      netip.AddrPort // who asks, by address; may be zero
	// FullCone tells that the client learns where datagrams came from (XUDP).
	// If not, it takes them all for Destination's.
	FullCone bool
	// Conn is the client's side: ReadPacket tells where each datagram is to go,
	// WritePacket where it came from. The largest that may be written are 2,048
	// bytes for plain sessions, 8,192 for Xray's and 65,497 for others; larger
	// ones are transport.ErrPacketTooLarge. The handler closes it.
	Conn transport.PacketConn
}

// A Server serves the sessions of tunnels. It may be used concurrently; its
// fields must not change then.
//
// Each session has a goroutine that runs its handler. The handler's context
// ends with the tunnel, and 5 s after a TCP session's client ended it: until
// then reads return what had arrived, then io.EOF, and writes wait. When the
// handler returns, its session is over.
type Server struct {
	// HandleStream serves a TCP session. First is empty: what came with the
	// New is the stream's first data. Pending.Abort ends the session with the
	// error bit.
	HandleStream func(ctx context.Context, r *transport.Request)
	// HandlePackets serves a UDP session; nil refuses them.
	HandlePackets func(ctx context.Context, r *PacketRequest)
	// Sessions is how many handlers run for one tunnel at once; 0 means
	// DefaultSessions. Further sessions are ended as they are opened.
	Sessions int
	// Patience is how long a tunnel may be without sessions; 0 means
	// DefaultPatience.
	Patience time.Duration
	// Dropped, when not nil, counts the datagrams that arrived while their
	// session's queue was full.
	Dropped *atomic.Int64
	// Accepting, when not nil, is for how long sessions are taken. Once it is
	// done, clients are told so, further sessions are ended as they are opened,
	// as such that were not taken, and a tunnel ends in order with its last one:
	// at once where it has none.
	Accepting context.Context
	// Mappings, when not nil, lets UDP sessions with global ids go on over other
	// tunnels. Their handlers' contexts are of ctx, not of the tunnel.
	Mappings *Mappings
	// Own is set for a client of this package: it takes datagrams of any size,
	// and comes again for an association at once, or not at all.
	Own bool
}

// Serve serves a tunnel until it is over and all handlers have returned, and
// closes it. user and source are who its sessions' requests come from. The
// error is nil when the client ended the tunnel in order, or left it without
// sessions.
func (v *Server) Serve(ctx context.Context, conn transport.StreamConn, user string, source netip.AddrPort) error {
	// Handlers hear of a cancelled ctx after the tunnel has ended by it.
	handlers, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	t := &serverTunnel{server: v, outer: ctx, ctx: handlers, user: user, source: source}
	t.tunnel = newTunnel(t, new(sync.WaitGroup), v.Dropped)
	if err := t.start(conn); err != nil {
		return err
	}
	t.idle.Reset(t.idleLimit())
	stop := context.AfterFunc(ctx, func() {
		t.end(context.Cause(ctx), false)
		cancel(context.Cause(ctx))
	})
	defer stop()
	if v.Accepting != nil {
		defer context.AfterFunc(v.Accepting, t.retire)()
	}
	t.readLoop()
	t.handlers.Wait()
	t.loops.Wait()
	if t.clean {
		return nil
	}
	return t.err
}

// A serverTunnel is a tunnel that a Server serves.
type serverTunnel struct {
	*tunnel
	server   *Server
	outer    context.Context // of Serve
	ctx      context.Context // of the handlers
	user     string
	source   netip.AddrPort
	handlers sync.WaitGroup
	running  atomic.Int64
}

// retired reports whether no more sessions are taken.
func (t *serverTunnel) retired() bool {
	return t.server.Accepting != nil && t.server.Accepting.Err() != nil
}

// retire tells the client that no more sessions are taken, and ends a tunnel that
// has none.
func (t *serverTunnel) retire() {
	t.mu.Lock()
	err := t.sendControl(Frame{Status: StatusKeepAlive, Draining: true})
	t.mu.Unlock()
	if err == nil { // else the tunnel ends anyway
		t.expire()
	}
}

// opened implements side.
func (t *serverTunnel) opened(f Frame) error {
	ctx, s, err := t.admit(f)
	if s == nil {
		return err
	}
	switch {
	case f.Network != NetworkUDP || t.server.Mappings == nil || f.GlobalID == [8]byte{}:
		t.handlers.Go(func() { t.handle(ctx, s, f) })
	default:
		t.join(s, f)
	}
	return t.deliver(s, f)
}

// join makes a UDP session that of a mapping.
func (t *serverTunnel) join(s *session, f Frame) {
	linger := mappingLinger
	if t.server.Own {
		linger = ownLinger
	}
	conn := &packets{session: s, max: t.largest(f)}
	if m := t.server.Mappings.join(mappingKey{t.user, f.GlobalID}, conn, linger); m != nil {
		go t.handleMapping(m, f)
	} else {
		t.running.Add(-1)
	}
}

// largest is the largest datagram that the client of a UDP session takes.
func (t *serverTunnel) largest(f Frame) int {
	switch {
	case f.HasGlobalID && !t.server.Own:
		return maxXrayPacket
	case f.Session == 0:
		return maxPacket
	}
	return maxPlainPacket
}

// admit makes the session of a New; none when it is refused.
func (t *serverTunnel) admit(f Frame) (context.Context, *session, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.err != nil:
		return nil, nil, t.err
	case t.sessions[f.Session] != nil:
		return nil, nil, errReused
	case t.retired():
		return nil, nil, t.sendControl(Frame{Session: f.Session, Status: StatusEnd, Error: true, Draining: true})
	case t.refuses(f):
		return nil, nil, t.sendEnd(f.Session, true)
	}
	t.running.Add(1)
	s := newSession(t.tunnel, f.Session, f.Network, f.Address)
	s.known = true
	s.cone.Store(f.Network == NetworkUDP && (f.Session == 0 || f.HasGlobalID))
	ctx, cancel := context.WithCancelCause(t.ctx)
	s.cancel = cancel
	t.add(s)
	return ctx, s, nil
}

func (t *serverTunnel) refuses(f Frame) bool {
	most := int64(t.server.Sessions)
	if most == 0 {
		most = DefaultSessions
	}
	return t.running.Load() >= most || invalidDestination(f.Address) || f.Network == NetworkUDP && t.server.HandlePackets == nil
}

// invalidDestination reports whether an address is known to lead nowhere (RFC 6761
// section 6.4). Clients that only ask whether they are accepted open sessions
// to such, and have their answer at once.
func invalidDestination(a netaddr.Addr) bool {
	name := strings.ToLower(strings.TrimSuffix(a.Host(), "."))
	return name == "invalid" || strings.HasSuffix(name, ".invalid")
}

// handle runs a session's handler.
func (t *serverTunnel) handle(ctx context.Context, s *session, f Frame) {
	defer t.running.Add(-1)
	defer s.cancel(nil)
	defer s.close(true)
	if f.Network == NetworkTCP {
		t.server.HandleStream(ctx, &transport.Request{
			Destination: s.dst, User: t.user, Source: t.source, Inbound: "mux", Pending: pending{s},
		})
		return
	}
	t.server.HandlePackets(ctx, &PacketRequest{
		Destination: s.dst, User: t.user, Source: t.source,
		FullCone: s.cone.Load(), Conn: &packets{session: s, max: t.largest(f)},
	})
}

// idleLimit implements side.
func (t *serverTunnel) idleLimit() time.Duration {
	switch {
	case t.retired():
		return 0
	case t.server.Patience > 0:
		return t.server.Patience
	}
	return DefaultPatience
}

// ended implements side.
func (t *serverTunnel) ended() {}

// drains implements side: clients do not say so.
func (t *serverTunnel) drains() {}

// pending is the answer to a New: nothing, or an End.
type pending struct{ *session }

// Proceed implements transport.Pending.
func (p pending) Proceed(netip.AddrPort) (transport.StreamConn, error) { return stream(p), nil }

// Abort implements transport.Pending.
func (p pending) Abort(error) error { p.close(true); return nil }
