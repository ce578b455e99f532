// Package server assembles vmess-server: VMess in WebSocket on a listener,
// destinations dialled directly. The data's way is wsconn, vmess, dispatch,
// direct.
//
// Other programs can embed it: [New] with a configuration of theirs and
// [Options] for a listener, a logger and a way out of their own, then
// [Server.Run]. It touches nothing of the process: no signals, no standard
// streams, no default logger.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/carrier/tlsconn"
	"vmess-local/pkg/carrier/wsconn"
	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/dispatch"
	"vmess-local/pkg/host/errno"
	"vmess-local/pkg/host/fdlimit"
	"vmess-local/pkg/host/listen"
	"vmess-local/pkg/protocol/mux"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/status"
	"vmess-local/pkg/status/stats"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/tcpconn"
)

// Options are what a configuration file does not hold.
type Options struct {
	// Log gets the server's talk; nil discards it.
	Log *slog.Logger
	// LookupEnv looks up environment variables; nil means os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// Listener is served instead of one on the configured address. Run closes
	// it. TLS is still the configuration's.
	Listener net.Listener
	// Dialer is the way out instead of the configured one, whose rules
	// ("egress") do not apply to it then.
	Dialer transport.StreamDialer
	// PacketDialer is the way out for datagrams. Where there is a Dialer and no
	// PacketDialer, UDP is refused: it must not go round the Dialer.
	PacketDialer transport.PacketDialer
	// Resolver resolves destinations' names for the configured way out; nil
	// means the system's.
	Resolver *net.Resolver
	// Now is the clock that requests are held against; nil means time.Now.
	Now func() time.Time
	// Load, if set, is called with 1 when a request begins and with -1 when it has
	// ended, concurrently.
	Load func(by int)
}

// pingAfter is the silence after which a ping is sent: shorter than the 60 s
// after which nginx, and the 100 s after which CDNs, take a tunnel for dead.
const pingAfter = 30 * time.Second

// A Server is an assembled vmess-server. Its port is bound from New on.
type Server struct {
	log      *slog.Logger
	listener net.Listener
	tls      *tls.Config // nil for plain WebSocket
	account  *vmess.Server
	dispatch *dispatch.Dispatcher
	ws       wsconn.Server
	limits   config.Limits
	max      int
	hello    slog.Attr
	mistake  string // in the environment; empty when there is none
	proxies  trusted
	board    *stats.Registry // nil without the page
	page     *status.Page

	reloading sync.Mutex
	cfg       *config.Server

	open          atomic.Int64 // connections
	full          logLimiter   // to say that they are too many
	short         logLimiter   // to say that there are no more files
	refusals      *refusals
	outboundSlots semaphore    // ways out to destinations
	mappings      mux.Mappings // UDP associations that move between tunnels

	mu      sync.Mutex
	closed  bool           // no new streams
	streams sync.WaitGroup // upgraded connections
}

// New assembles a server and binds its port. cfg must come from the package
// config's parser, or have passed [config.Server.Normalize], and not change
// afterwards. A server that is not run must be
// closed.
func New(cfg *config.Server, opt Options) (*Server, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.LookupEnv == nil {
		opt.LookupEnv = os.LookupEnv
	}
	s := &Server{log: opt.Log, cfg: cfg, limits: cfg.Limits, max: connections(cfg), refusals: newRefusals(opt.Log)}
	s.outboundSlots.max = int64(s.max)
	if err := s.accounts(cfg, opt); err != nil {
		return nil, err
	}
	if cfg.TLS.CertFile != "" {
		cert, err := newCertificate(cfg.TLS, opt.Log)
		if err != nil {
			return nil, err
		}
		// h2 must not be chosen: an upgrade needs HTTP/1.1.
		s.tls = &tls.Config{
			GetCertificate: cert.get, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12,
			DynamicRecordSizingDisabled: true,
		}
	}
	s.dispatch = s.outboundSlot(cfg, opt)
	s.ws = wsconn.Server{Path: cfg.WS.Path, Host: cfg.WS.Host, Ping: pingAfter}
	pages, err := newFallback(cfg.Fallback)
	if err != nil {
		return nil, err
	}
	if pages != nil {
		s.ws.NotFound = s.gated(pages)
	}
	if s.proxies, err = newTrusted(cfg.TrustedProxies); err != nil {
		return nil, err
	}
	if s.listener = opt.Listener; s.listener == nil {
		ln, err := listen.TCP(cfg.Listen)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", cfg.Listen, err)
		}
		s.listener = ln
	}
	if s.page, err = s.newPage(cfg.Status); err != nil {
		_ = s.listener.Close()
		return nil, err
	}
	return s, nil
}

// connections is how many there may be: each has its own file and one more, of
// a way out or of a page.
func connections(cfg *config.Server) int {
	files, _ := shares(cfg)
	return fdlimit.Connections(cfg.Limits.Connections, files, 2)
}

// shares splits the files that the process may open: for connections, and for
// the status page.
func shares(cfg *config.Server) (files, page int) {
	if cfg.Status.Enabled {
		page = status.MaxConns
	}
	return fdlimit.Files(page)
}

func (s *Server) accounts(cfg *config.Server, opt Options) error {
	users, err := usersOf(cfg)
	if err != nil {
		return err
	}
	forced, byEnv := vmess.AEADForced(opt.LookupEnv, cfg.AEADForced)
	s.hello, s.mistake = accepted(forced, byEnv), vmess.AEADForcedMistake(opt.LookupEnv)
	s.account, err = vmess.NewServer(vmess.ServerConfig{Users: users, AEADForced: forced, Refused: s.refused, Now: opt.Now})
	if err != nil {
		return fmt.Errorf("users: %w", err)
	}
	return nil
}

// accepted says which requests are accepted, and why.
func accepted(forced, byEnv bool) slog.Attr {
	by := "\"aeadForced\""
	if byEnv {
		by = "V2RAY_VMESS_AEAD_FORCED"
	}
	if forced {
		return logging.Text("VMessAEAD is enforced by %s: legacy MD5 clients are refused", by)
	}
	return logging.Text("legacy MD5 clients are accepted besides VMessAEAD, by %s", by)
}

// Addr returns the address served, with the real port.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close gives the ports back. It is for a server that was not run.
func (s *Server) Close() error {
	err := s.listener.Close()
	if s.page != nil {
		err = errors.Join(err, s.page.Close())
	}
	return err
}

// Run serves until ctx is done. Then it takes no request any more: tunnels
// without one are closed at once, and requests that run may go on for up to the
// configured time. It returns nil then, and otherwise why it could not go on.
func (s *Server) Run(ctx context.Context) error {
	s.log.Info("authentication", s.hello)
	if s.mistake != "" {
		s.log.Warn("environment", logging.Text("%s", s.mistake))
	}
	if warning := fdlimit.Warning(s.limits.Connections, s.max, ""); warning != "" {
		s.log.Warn("limits", logging.Text("%s", warning), "connections", s.max)
	}
	s.log.Info("ready", logging.Text("ready: VMess over WebSocket on %s", s.Addr()), "listen", s.Addr().String())

	streams, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	if s.page != nil {
		s.log.Info(logging.Status, logging.Text("status: %s", s.page.URL()), "url", s.page.URL())
		paged := make(chan error, 1)
		go func() { paged <- s.page.Run(streams) }()
		defer func() { cut(); <-paged }()
	}
	accepting, refuse := context.WithCancel(ctx)
	defer refuse()
	s.ws.Context = streams
	s.ws.Serve = func(ctx context.Context, c *wsconn.Conn, r *http.Request) { s.serveStream(ctx, accepting, c, r) }
	handshake := time.Duration(s.limits.Handshake)
	h := &http.Server{
		Handler: &s.ws,
		// With the body, which nobody wants; upgrading takes all deadlines off.
		ReadTimeout:    handshake,
		WriteTimeout:   2 * handshake, // from the head on: the body may be waited for; the fallback has its own
		IdleTimeout:    handshake,
		MaxHeaderBytes: 32 << 10, // early data included
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		Protocols:      new(http.Protocols),
	}
	h.Protocols.SetHTTP1(true)
	stop := context.AfterFunc(ctx, func() { _ = h.Close() })
	defer stop()
	var ln net.Listener = &bounded{Listener: s.listener, server: s}
	if s.tls != nil {
		ln = &tlsconn.Listener{Listener: ln, Config: s.tls, Timeout: handshake, Failed: s.tlsFailed}
	}
	err := h.Serve(ln)
	if errors.Is(err, http.ErrServerClosed) && ctx.Err() != nil {
		err = nil
	}
	refuse()
	if s.drainStreams(cut) && err == nil {
		s.log.Info("stopped", logging.Text("stopped: connections that were still open after %v were cut", time.Duration(s.limits.Drain)))
	}
	s.refusals.close()
	return err
}

func (s *Server) tlsFailed(from net.Addr, err error) {
	s.log.Debug("tls handshake", "from", from.String(), "err", err)
}

// begin counts a stream in, unless the server is about to end.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.streams.Add(1)
	}
	return !s.closed
}

// drainStreams lets streams go on for the configured time, then cuts them, and
// reports whether requests were among them.
func (s *Server) drainStreams(cut context.CancelFunc) (running bool) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { s.streams.Wait(); close(done) }()
	timer := time.NewTimer(time.Duration(s.limits.Drain))
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		running = s.outboundSlots.open.Load() > 0
		cut()
		<-done
	}
	return running
}

// serveStream serves one upgraded connection until it is over. No request is
// taken from it once accepting is done.
func (s *Server) serveStream(ctx, accepting context.Context, c *wsconn.Conn, r *http.Request) {
	defer c.Close()
	if !s.begin() {
		return
	}
	defer s.streams.Done()
	peer, _ := netip.ParseAddrPort(c.RemoteAddr().String())
	source := s.proxies.visitor(peer, r.Header)
	in, err := s.account.Accept(accepting, realAddrConn{c, source})
	if err != nil {
		if errors.Is(err, vmess.ErrNoRequest) {
			s.log.Debug("no request", "from", source.String(), "err", err)
		}
		return
	}
	s.serveRequest(ctx, accepting, in, source)
}

// realAddrConn is a stream whose far end is the visitor, not the proxy before us.
type realAddrConn struct {
	*wsconn.Conn
	source netip.AddrPort
}

// RemoteAddr implements net.Conn.
func (v realAddrConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(v.source) }

// refused is told of a request that is refused.
func (s *Server) refused(c transport.StreamConn, err error) { s.refusals.tell(c.RemoteAddr(), err) }

// bounded closes connections that come while too many are open.
type bounded struct {
	net.Listener
	server *Server
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			b.server.shortage(err)
			return nil, errno.AcceptError(err)
		}
		if b.server.open.Add(1) <= int64(b.server.max) {
			return b.server.count(c), nil
		}
		b.server.open.Add(-1)
		if b.server.full.has(fullPause) {
			b.server.log.Warn("too many connections", logging.Text("too many connections: the limit is %d; new ones are refused", b.server.max))
		}
		_ = c.Close()
	}
}

// shortage tells that the system allows no more open files, for which net/http
// waits.
func (s *Server) shortage(err error) {
	if !diagnose.OutOfFiles(err) || !s.short.has(fullPause) {
		return
	}
	v := diagnose.Local(diagnose.FaultFiles, diagnose.LocalFacts{})
	msg, attrs := v.Record()
	s.log.Error(msg, append(attrs, logging.Text("%s\n%s", v.Line(), v.FixLine()))...)
}

// count wraps c so that its close is counted, and so that it can wait without
// a buffer and be reset.
func (s *Server) count(c net.Conn) net.Conn {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return &counted{StreamConn: noHalfClose{c}, open: &s.open}
	}
	var stream transport.StreamConn = tcpconn.New(t)
	if peer, ok := t.RemoteAddr().(*net.TCPAddr); ok && s.proxies.has(peer.AddrPort().Addr()) {
		stream = &proxied{StreamConn: stream, patience: time.Duration(s.limits.Handshake)}
	}
	return &counted{StreamConn: stream, open: &s.open}
}

// counted is one open connection.
type counted struct {
	transport.StreamConn
	open   *atomic.Int64
	closed atomic.Bool
}

// Close implements net.Conn.
func (c *counted) Close() error {
	if !c.closed.Swap(true) {
		c.open.Add(-1)
	}
	return c.StreamConn.Close()
}

// WaitRead implements transport.ReadWaiter.
func (c *counted) WaitRead() error {
	if w, ok := c.StreamConn.(transport.ReadWaiter); ok {
		return w.WaitRead()
	}
	return nil
}

// ReadPooled implements transport.LazyReader.
func (c *counted) ReadPooled(head, most int) (*transport.Buffer, int, error) {
	return transport.ReadPooled(c.StreamConn, head, most)
}

// Reset implements transport.Resetter.
func (c *counted) Reset() error {
	if !c.closed.Swap(true) {
		c.open.Add(-1)
	}
	return transport.Reset(c.StreamConn)
}

// NetConn returns the connection below ([transport.As]).
func (c *counted) NetConn() net.Conn { return c.StreamConn }

// noHalfClose is a connection that cannot end one direction.
type noHalfClose struct{ net.Conn }

// CloseWrite implements transport.StreamConn.
func (noHalfClose) CloseWrite() error { return errors.ErrUnsupported }
