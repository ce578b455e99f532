package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/config"
	"vmess-local/pkg/dispatch"
	"vmess-local/pkg/outbound/direct"
	"vmess-local/pkg/protocol/mux"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
)

// packetIdle is the silence after which a UDP association ends: what RFC 4787
// recommends (REQ-5).
const packetIdle = 5 * time.Minute

// How often what may happen all the time is said.
const (
	fullPause    = 10 * time.Second
	refusalPause = time.Minute
)

// An logLimiter to say something comes again only after a pause.
type logLimiter struct{ last atomic.Int64 } // Unix nanoseconds

// has reports whether there is one, and takes it.
func (o *logLimiter) has(pause time.Duration) bool {
	now, last := time.Now().UnixNano(), o.last.Load()
	return now-last >= int64(pause) && o.last.CompareAndSwap(last, now)
}

// A semaphore lets so many in at one time.
type semaphore struct {
	max  int64
	open atomic.Int64
	full logLimiter
}

func (g *semaphore) acquire() bool {
	if g.open.Add(1) <= g.max {
		return true
	}
	g.release()
	return false
}

func (g *semaphore) release() { g.open.Add(-1) }

// errTooMany refuses a request when too many are served.
var errTooMany = errors.New("too many ways out at one time")

// outboundSlot assembles what carries requests to their destinations.
func (s *Server) outboundSlot(cfg *config.Server, opt Options) *dispatch.Dispatcher {
	out := &direct.Dialer{AllowPrivate: cfg.Egress.AllowPrivate, Timeout: time.Duration(cfg.Limits.Dial), Resolver: opt.Resolver}
	r := &reporter{log: opt.Log}
	d := &dispatch.Dispatcher{
		Load:   opt.Load,
		Dialer: out, Idle: time.Duration(cfg.Limits.Idle), Reporter: r,
		Packets: out, PacketIdle: packetIdle, PacketRefused: r.notAllowed,
	}
	if cfg.Egress.Dial != "" {
		d.Dialer, d.Packets = newEgress(cfg, out), noPackets(`"egress.dial" carries no UDP`)
	}
	if opt.Dialer != nil {
		d.Dialer, d.Packets = opt.Dialer, noPackets("there is no way out for UDP")
	}
	if opt.PacketDialer != nil {
		d.Packets = opt.PacketDialer
	}
	if d.Idle > 0 {
		d.PacketIdle = min(d.PacketIdle, d.Idle)
	}
	return d
}

// serveRequest serves one request until it is over. Of a Mux.Cool request no
// session is taken once accepting is done.
func (s *Server) serveRequest(ctx, accepting context.Context, in *vmess.Incoming, source netip.AddrPort) {
	switch in.Command {
	case vmess.CommandMux:
		s.serveMux(ctx, accepting, in, source)
	case vmess.CommandUDP:
		r := &transport.Request{User: in.User, Source: source, Inbound: "vmess"}
		if !in.AnyPeer() {
			r.Destination = in.Destination
		}
		s.servePackets(ctx, r, in.Packets())
	default:
		s.handleStream(ctx, &transport.Request{
			Destination: in.Destination, User: in.User, Source: source, Inbound: "vmess", Pending: in,
		})
	}
}

// serveMux serves the sessions of a Mux.Cool request.
func (s *Server) serveMux(ctx, accepting context.Context, in *vmess.Incoming, source netip.AddrPort) {
	conn, err := in.Proceed(netip.AddrPort{})
	if err != nil {
		return
	}
	sessions := mux.Server{
		HandleStream: s.handleStream, HandlePackets: s.handleSession, Accepting: accepting, Mappings: &s.mappings, Own: in.Own,
	}
	if err := sessions.Serve(ctx, conn, in.User, source); err != nil {
		s.log.Debug("mux", "user", in.User, "err", err)
	}
}

// handleSession serves a UDP session of a Mux.Cool request: to one destination,
// or to any when the client learns where datagrams come from (XUDP).
func (s *Server) handleSession(ctx context.Context, p *mux.PacketRequest) {
	if !s.begin() { // it may outlive its tunnel
		_ = p.Conn.Close()
		return
	}
	defer s.streams.Done()
	r := &transport.Request{User: p.User, Source: p.Source, Inbound: "mux"}
	if !p.FullCone {
		r.Destination = p.Destination
	}
	s.servePackets(ctx, r, p.Conn)
}

// servePackets serves a UDP association if there is a way out left.
func (s *Server) servePackets(ctx context.Context, r *transport.Request, near transport.PacketConn) {
	if !s.admit(r) {
		_ = near.Close()
		return
	}
	defer s.outboundSlots.release()
	s.dispatch.HandlePackets(ctx, r, near)
}

// handleStream serves a stream if there is a way out left.
func (s *Server) handleStream(ctx context.Context, r *transport.Request) {
	if !s.admit(r) {
		_ = r.Pending.Abort(errTooMany)
		return
	}
	defer s.outboundSlots.release()
	s.dispatch.HandleStream(ctx, r)
}

// admit counts a request in, of which one tunnel may bring many: each has a
// socket, and the system allows so many.
func (s *Server) admit(r *transport.Request) bool {
	if s.outboundSlots.acquire() {
		return true
	}
	if s.outboundSlots.full.has(fullPause) {
		s.log.Warn("too many ways out", logging.Text("too many outbound connections (limit %d); rejecting requests from %s", s.outboundSlots.max, userLabel(r.User)), "user", r.User)
	}
	return false
}

// gated serves pages as long as there is a file for them: ways out take all but
// one of a connection.
func (s *Server) gated(pages http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.outboundSlots.acquire() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		defer s.outboundSlots.release()
		pages.ServeHTTP(w, r)
	})
}

// reporter writes one line for each request at debug level. What failed beyond
// the server is the user's own affair, and is told to the client as far as
// VMess can; that something is forbidden here is told to the owner, now and
// then.
type reporter struct {
	log  *slog.Logger
	told logLimiter
}

// Report implements dispatch.Reporter.
func (r *reporter) Report(p dispatch.Report) {
	if errors.Is(p.Err, transport.ErrNotAllowed) {
		r.notAllowed(p.Request)
	}
	to := p.Request.Destination.String()
	if to == "" {
		to = "any"
	}
	r.log.Debug("connection", "inbound", p.Request.Inbound, "user", p.Request.User, "to", to,
		"up", p.Up, "down", p.Down, "dropped", p.Dropped, "took", p.Duration.String(), "err", p.Err)
}

// userLabel is a user in a sentence: one who is named "first" must not read as an
// adverb. Those without a name are "user 2" already.
func userLabel(user string) string {
	if strings.HasPrefix(user, "user ") {
		return user
	}
	return fmt.Sprintf("user %q", user)
}

// notAllowed tells of a destination that the rules forbid.
func (r *reporter) notAllowed(q *transport.Request) {
	if r.told.has(refusalPause) {
		r.log.Warn("private destination refused", logging.Text("%s asked for a private destination, which \"egress.allowPrivate\" forbids", userLabel(q.User)), "user", q.User)
	}
}
