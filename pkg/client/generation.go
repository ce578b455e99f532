package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/dispatch"
	"vmess-local/pkg/inbound/socks"
	"vmess-local/pkg/inbound/udp"
)

// A generation is all that one configuration makes: the front door, the
// dispatcher and the servers. A reload replaces it as a whole.
type generation struct {
	cfg   *config.Client
	opt   Options
	hello []startupRecord
	front *socks.Server
	// dispatch serves the requests of front and of [Client.Dial].
	dispatch *dispatch.Dispatcher
	fleet    serverGroup
	local    string // the address of the front door
	again    bool   // it came of a reload
	// associations are those of UDP; nil when it is off.
	associations *udp.Server

	cancel context.CancelFunc // ends serving
	served chan struct{}      // closed when serving has ended
}

func newGeneration(cfg *config.Client, opt Options) (*generation, error) {
	g := &generation{cfg: cfg, opt: opt}
	guards, err := g.guards()
	if err != nil {
		return nil, err
	}
	g.fleet = newServerGroup(opt.Log, guards, time.Duration(cfg.Limits.Dial))
	d := &dispatch.Dispatcher{
		Load:      opt.Load,
		Dialer:    g.fleet,
		FirstWait: firstWait,
		Healthy:   g.fleet.healthy,
		Idle:      time.Duration(cfg.Limits.Idle),
		Reporter:  &reporter{log: opt.Log},
		Watcher:   opt.board,
	}
	g.dispatch = d
	g.front = &socks.Server{
		Handler:   d,
		Dialer:    httpErrorDialer{d},
		Handshake: time.Duration(cfg.Limits.Handshake),
		Idle:      time.Duration(cfg.Limits.Idle),
		Report:    g.localFault,
		Room:      opt.room.conns, OriginRoom: opt.room.files,
	}
	if cfg.UDP.Mode != "off" {
		g.associations = &udp.Server{
			Dialer:      g.fleet,
			Idle:        time.Duration(cfg.UDP.Idle),
			DialTimeout: time.Duration(cfg.Limits.Dial),
			Report:      g.packetFault,
			Watcher:     datagramWatcher{opt.board},
			Room:        opt.room.udpTunnels,
		}
		for _, one := range guards {
			plain := one.packets.Plain()
			plain.Dropped, plain.Room = g.associations.Drop, opt.room.udpDestinations
		}
		g.front.Associator = g.associations
	}
	if g.asks() {
		g.front.Auth = &socks.Auth{Username: string(cfg.Auth.Username), Password: string(cfg.Auth.Password)}
	}
	return g, nil
}

// asks reports whether programs must present a password.
func (g *generation) asks() bool { return g.cfg.Auth.Username != "" }

// A remote is a configured server, and the path in the file where it stands.
type remote struct {
	section string
	*config.Remote
}

// remotes returns the configured servers in their order.
func remotes(cfg *config.Client) []remote {
	if len(cfg.Servers) == 0 {
		return []remote{{"server", &cfg.Server}}
	}
	all := make([]remote, len(cfg.Servers))
	for i := range cfg.Servers {
		all[i] = remote{fmt.Sprintf("servers[%d]", i), &cfg.Servers[i]}
	}
	return all
}

// ServerNames returns what the servers of a configuration are called to people,
// in their order. There is at least one.
func ServerNames(cfg *config.Client) []string {
	var names []string
	for _, r := range remotes(cfg) {
		names = append(names, nameOf(r.Remote))
	}
	return names
}

// guards makes the guards of the configured servers, in their order.
func (g *generation) guards() ([]*guard, error) {
	var guards []*guard
	for _, r := range remotes(g.cfg) {
		account, hello, err := newAccount(g.cfg, r.section, r.Remote, g.opt)
		if err == nil {
			var one *guard
			if one, err = newGuard(g.cfg, r.section, r.Remote, g.opt, account); err == nil {
				guards = append(guards, one)
			}
		}
		if err != nil {
			for _, made := range guards {
				made.close()
			}
			return nil, err
		}
		g.hello = append(g.hello, hello...)
	}
	return guards, nil
}

func (g *generation) logStartup() {
	for _, l := range append(g.hello, g.opt.room.hello(g.cfg)...) {
		g.opt.Log.Log(context.Background(), l.level, l.msg, l.attrs...)
	}
}

// serve accepts connections until stop.
func (g *generation) serve(run *running, ln net.Listener) {
	ctx, cancel := context.WithCancel(run.ctx)
	g.cancel, g.served = cancel, make(chan struct{})
	go func() {
		defer close(g.served)
		if err := g.front.Serve(ctx, ln); err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
			run.fail(err)
		}
	}()
}

// stop ends serving; open connections go on.
func (g *generation) stop() {
	g.cancel()
	<-g.served
}

// retire waits for open connections and for UDP associations, which end when
// they are idle, and cuts them when ctx is done.
func (g *generation) retire(ctx context.Context) error {
	if g.associations != nil {
		g.associations.Retire()
	}
	return g.front.Retire(ctx)
}

// drain waits for open connections, and cuts them when ctx is done. UDP
// associations end at once.
func (g *generation) drain(ctx context.Context) error { return g.front.Drain(ctx) }

// resent counts the requests that were sent again.
func (g *generation) resent() (n int64) {
	for _, m := range g.fleet.all() {
		n += m.resent.Load()
	}
	return n
}

// localFault names what went wrong between an application and the proxy.
func (g *generation) localFault(err error, source netip.AddrPort) {
	faults := []struct {
		err   error
		fault diagnose.LocalFault
		key   string
	}{
		{socks.ErrTLS, diagnose.FaultTLS, ""},
		{socks.ErrHandshakeTimeout, diagnose.FaultSilence, ""},
		{socks.ErrBadAuth, diagnose.FaultAuth, "auth"},
		{socks.ErrNeedsNoAuth, diagnose.FaultNeedsNoAuth, "auth"},
		{socks.ErrBadRequest, diagnose.FaultRequest, ""},
		{socks.ErrCommand, diagnose.FaultCommand, ""},
		{socks.ErrNoUDP, diagnose.FaultUDP, "udp.mode"},
		{socks.ErrLoop, diagnose.FaultLoop, ""},
		{socks.ErrBadHandshake, diagnose.FaultNoise, ""},
	}
	for _, f := range faults {
		if errors.Is(err, f.err) {
			g.sayLocal(f.fault, f.key, source, err)
			return
		}
	}
	switch {
	case errors.Is(err, socks.ErrTooMany) && g.opt.room.conns.Full():
		g.sayLocal(diagnose.FaultTooMany, "limits.connections", source, err)
	case errors.Is(err, socks.ErrTooMany), diagnose.OutOfFiles(err):
		g.sayLocal(diagnose.FaultFiles, "limits.connections", source, err)
	case errors.Is(err, socks.ErrBadAnswer):
		g.opt.Log.Warn("invalid answer to a plain HTTP request", "err", err)
	default:
		g.opt.Log.Warn("local side", "err", err)
	}
}

func (g *generation) sayLocal(fault diagnose.LocalFault, key string, source netip.AddrPort, err error) {
	facts := diagnose.LocalFacts{Listen: g.local, Limit: g.opt.room.conns.Limit()}
	if bad, ok := errors.AsType[*socks.RequestError](err); ok {
		facts.Protocol, facts.BadDestination, facts.Wrong = bad.Protocol, bad.Destination, bad.Err.Error()
	}
	if source.IsValid() {
		facts.Client = source.Addr().String()
	}
	if key != "" {
		facts.Place = strings.TrimPrefix(place(g.cfg, key), " at ")
	}
	g.fleet.current().failures.Report(diagnose.Local(fault, facts))
}

// packetFault logs which datagrams are dropped. What is wrong with the way to
// the server has been told in its own words.
func (g *generation) packetFault(err error, source netip.AddrPort) {
	level := slog.LevelWarn
	switch {
	case errors.Is(err, udp.ErrTooMany), diagnose.OutOfFiles(err):
		g.sayLocal(diagnose.FaultFiles, "limits.connections", source, err)
		return
	case errors.Is(err, udp.ErrForeign) && !errors.Is(err, udp.ErrOtherUser) && !errors.Is(err, udp.ErrLocalSender), errors.Is(err, udp.ErrNoTunnel), errors.Is(err, udp.ErrReply):
		level = slog.LevelDebug
	}
	g.opt.Log.Log(context.Background(), level, "UDP datagrams dropped", "err", err)
}

// A sharedListener lets one server after another accept from a listener.
type sharedListener struct {
	net.Listener

	mu  sync.Mutex
	now *lease
}

// A lease is the listener as one server has it: Close gives the accepting up
// and leaves the port open.
type lease struct{ *sharedListener }

// A deadliner can free who waits in Accept without being closed.
type deadliner interface{ SetDeadline(t time.Time) error }

// movable reports whether accepting can be given up and taken again.
func (h *sharedListener) movable() bool {
	_, ok := h.Listener.(deadliner)
	return ok
}

// acquire makes the lane of the next server.
func (h *sharedListener) acquire() *lease {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = &lease{h}
	if d, ok := h.Listener.(deadliner); ok {
		_ = d.SetDeadline(time.Time{})
	}
	return h.now
}

func (l *lease) open() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now == l
}

// Accept implements net.Listener.
func (l *lease) Accept() (net.Conn, error) {
	if !l.open() {
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil && !l.open() {
		err = net.ErrClosed
	}
	return c, err
}

// Close implements net.Listener. It may be called again, also after the next
// server has taken over.
func (l *lease) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now != l {
		return nil
	}
	l.now = nil
	if d, ok := l.Listener.(deadliner); ok {
		return d.SetDeadline(time.Unix(1, 0))
	}
	return l.Listener.Close()
}
