// Package server assembles vmess-server: VMess in WebSocket on a listener,
// destinations dialled directly. The data's way is wsconn, vmess, dispatch,
// direct.
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

	"vmess-local/pkg/config"
	"vmess-local/pkg/direct"
	"vmess-local/pkg/dispatch"
	"vmess-local/pkg/limit"
	"vmess-local/pkg/logline"
	"vmess-local/pkg/mux"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/vmess"
	"vmess-local/pkg/wsconn"
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
	// Dialer is the way out instead of the configured one.
	Dialer transport.StreamDialer
	// Now is the clock that requests are held against; nil means time.Now.
	Now func() time.Time
}

// pingAfter is the silence after which a ping is sent: shorter than the 60 s
// after which nginx, and the 100 s after which CDNs, take a tunnel for dead.
const pingAfter = 30 * time.Second

// muxPatience bounds a Mux request, none of whose sessions is served.
const muxPatience = 10 * time.Second

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

	open atomic.Int64 // connections
	full atomic.Int64 // when a refusal for too many was last said, Unix seconds

	mu      sync.Mutex
	closed  bool           // no new streams
	streams sync.WaitGroup // upgraded connections
}

// New assembles a server and binds its port. cfg must come from the package
// config's parser and not change afterwards. A server that is not run must be
// closed.
func New(cfg *config.Server, opt Options) (*Server, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.LookupEnv == nil {
		opt.LookupEnv = os.LookupEnv
	}
	s := &Server{log: opt.Log, limits: cfg.Limits, max: limit.Connections(cfg.Limits.Connections, 2)}
	if err := s.accounts(cfg, opt); err != nil {
		return nil, err
	}
	if cfg.TLS.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(cfg.TLS.CertFile, cfg.TLS.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		// h2 must not be chosen: an upgrade needs HTTP/1.1.
		s.tls = &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}
	}
	dialer := opt.Dialer
	if dialer == nil {
		dialer = &direct.Dialer{AllowPrivate: cfg.Egress.AllowPrivate, Timeout: time.Duration(cfg.Limits.Dial)}
	}
	s.dispatch = &dispatch.Dispatcher{Dialer: dialer, Idle: time.Duration(cfg.Limits.Idle), Reporter: reporter{log: opt.Log, told: new(atomic.Int64)}}
	s.ws = wsconn.Server{Path: cfg.WS.Path, Host: cfg.WS.Host, Ping: pingAfter, Serve: s.serveStream}
	if s.listener = opt.Listener; s.listener == nil {
		ln, err := net.Listen("tcp", cfg.Listen)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", cfg.Listen, err)
		}
		s.listener = ln
	}
	return s, nil
}

func (s *Server) accounts(cfg *config.Server, opt Options) error {
	users := make([]vmess.User, 0, len(cfg.Users))
	for i, u := range cfg.Users {
		id, err := vmess.ParseID(string(u.ID))
		if err != nil {
			return fmt.Errorf("users[%d].id: %w", i, err)
		}
		name := u.Name
		if name == "" {
			name = fmt.Sprintf("user %d", i+1)
		}
		users = append(users, vmess.User{ID: id, AlterID: u.AlterID, Name: name})
	}
	forced, byEnv := vmess.AEADForced(opt.LookupEnv, cfg.AEADForced)
	s.hello = accepted(forced, byEnv)
	var err error
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
		return logline.Text("VMessAEAD is enforced by %s: legacy MD5 clients are refused", by)
	}
	return logline.Text("legacy MD5 clients are accepted besides VMessAEAD, by %s", by)
}

// Addr returns the address served, with the real port.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close gives the port back. It is for a server that was not run.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves until ctx is done, and then lets streams go on for up to the
// configured time. It returns nil then, and otherwise why it could not go on.
func (s *Server) Run(ctx context.Context) error {
	s.log.Info("authentication", s.hello)
	s.log.Info("ready", logline.Text("ready: VMess over WebSocket on %s", s.Addr()), "listen", s.Addr().String())

	streams, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	s.ws.Context = streams
	handshake := time.Duration(s.limits.Handshake)
	h := &http.Server{
		Handler:           &s.ws,
		ReadHeaderTimeout: handshake,
		IdleTimeout:       handshake,
		MaxHeaderBytes:    32 << 10, // early data included
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
	}
	h.Protocols.SetHTTP1(true)
	stop := context.AfterFunc(ctx, func() { _ = h.Close() })
	defer stop()
	var ln net.Listener = &bounded{Listener: s.listener, server: s}
	if s.tls != nil {
		ln = tls.NewListener(ln, s.tls)
	}
	err := h.Serve(ln)
	if errors.Is(err, http.ErrServerClosed) && ctx.Err() != nil {
		err = nil
	}
	s.drainStreams(cut)
	return err
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

// drainStreams lets streams go on for the configured time, then cuts them.
func (s *Server) drainStreams(cut context.CancelFunc) {
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
		cut()
		<-done
	}
}

// serveStream serves one upgraded connection until it is over.
func (s *Server) serveStream(ctx context.Context, c *wsconn.Conn, _ *http.Request) {
	defer c.Close()
	if !s.begin() {
		return
	}
	defer s.streams.Done()
	in, err := s.account.Accept(ctx, c)
	if err != nil {
		if errors.Is(err, vmess.ErrNoRequest) {
			s.log.Debug("no request", "from", c.RemoteAddr().String(), "err", err)
		}
		return
	}
	switch in.Command {
	case vmess.CommandTCP:
	case vmess.CommandMux:
		s.endSessions(in)
		return
	default:
		s.log.Warn("request not served", logline.Text("%s asks for UDP, which this version does not serve", in.User), "user", in.User)
		_ = in.Abort(errors.ErrUnsupported)
		return
	}
	source, _ := netip.ParseAddrPort(c.RemoteAddr().String())
	s.dispatch.HandleStream(ctx, &transport.Request{
		Destination: in.Destination, User: in.User, Source: source, Inbound: "vmess", Pending: in,
	})
}

// endSessions answers a Mux request: every session is ended as soon as it is
// opened. A client that only asks whether it is accepted has its answer then.
func (s *Server) endSessions(in *vmess.Incoming) {
	conn, err := in.Proceed(netip.AddrPort{})
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(muxPatience))
	if err := mux.EndAll(conn); err != nil {
		s.log.Debug("mux", "user", in.User, "err", err)
		return
	}
	_ = conn.CloseWrite()
}

// refused logs a refusal at once, in the words that V2Ray's users know. The
// peer is still held then.
func (s *Server) refused(c transport.StreamConn, err error) {
	s.log.Warn("rejected", logline.Text("rejected a connection from %s: %v", c.RemoteAddr(), err), "from", c.RemoteAddr().String(), "err", err)
}

// bounded closes connections that come while too many are open.
type bounded struct {
	net.Listener
	server *Server
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if b.server.open.Add(1) <= int64(b.server.max) {
			return b.server.count(c), nil
		}
		b.server.open.Add(-1)
		if now, last := time.Now().Unix(), b.server.full.Load(); now-last >= 10 && b.server.full.CompareAndSwap(last, now) {
			b.server.log.Warn("too many connections", logline.Text("too many connections: the limit is %d; new ones are refused", b.server.max))
		}
		_ = c.Close()
	}
}

// count wraps c so that its close is counted, and so that it can wait without
// a buffer and be reset.
func (s *Server) count(c net.Conn) net.Conn {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return &counted{StreamConn: halfless{c}, open: &s.open}
	}
	return &counted{StreamConn: transport.NewTCP(t), open: &s.open}
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

// ReadLazy implements transport.LazyReader.
func (c *counted) ReadLazy(head, most int) (*transport.Buffer, int, error) {
	return transport.ReadLazy(c.StreamConn, head, most)
}

// Reset implements transport.Resetter.
func (c *counted) Reset() error {
	if !c.closed.Swap(true) {
		c.open.Add(-1)
	}
	return transport.Reset(c.StreamConn)
}

// halfless is a connection that cannot end one direction.
type halfless struct{ net.Conn }

// CloseWrite implements transport.StreamConn.
func (halfless) CloseWrite() error { return errors.ErrUnsupported }

// reporter writes one line for each request at debug level. What failed beyond
// the server is the user's own affair, and is told to the client as far as
// VMess can; that something is forbidden here is told to the owner, now and
// then.
type reporter struct {
	log  *slog.Logger
	told *atomic.Int64 // when the last refusal was told, Unix seconds
}

// refusalPause is how often refused destinations are told of, in seconds.
const refusalPause = 60

// Report implements dispatch.Reporter.
func (r reporter) Report(p dispatch.Report) {
	if errors.Is(p.Err, transport.ErrNotAllowed) {
		if now, last := time.Now().Unix(), r.told.Load(); now-last >= refusalPause && r.told.CompareAndSwap(last, now) {
			r.log.Warn("private destination refused", logline.Text("%s asked for a private destination, which \"egress.allowPrivate\" forbids", p.Request.User), "user", p.Request.User)
		}
	}
	r.log.Debug("connection", "user", p.Request.User, "to", p.Request.Destination.String(),
		"up", p.Up, "down", p.Down, "took", p.Duration.String(), "err", p.Err)
}
