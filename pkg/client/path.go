package client

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpproxy"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/carrier/wsconn"
	"vmess-local/pkg/config"
	"vmess-local/pkg/host/listen"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// A path is how the server is reached: WebSocket over TLS, where enabled, over
// TCP. limits.dial bounds all of it together.
type path struct {
	early        atomic.Bool  // early data is used
	earlyTaken   atomic.Bool  // and the server has answered some
	handshakeRTT atomic.Int64 // how long the last upgrade took, in nanoseconds

	tunnels          *wsconn.Group // all that are open
	plain, withEarly *wsconn.Dialer
	dial             time.Duration
	// unverified and other serve a second look at a way that failed: the
	// connection below the WebSocket with any certificate, and the same with
	// TLS the other way round.
	unverified, other *netdial.Dialer
	// wantsTLS is asked of a port that stays silent to plain HTTP; nil with TLS.
	wantsTLS *tlsLook
}

// tlsLookTime bounds a look whether a port speaks TLS.
const tlsLookTime = 2500 * time.Millisecond

// A tlsLook finds out whether a port speaks TLS, once for all that wait for it.
type tlsLook struct {
	ctx   context.Context // ends all
	dial  func(ctx context.Context) (transport.StreamConn, error)
	looks sync.WaitGroup

	mu     sync.Mutex
	closed bool
	under  chan struct{} // closed when the look under way is over; nil: none is
	at     time.Time     // when the last was over
	found  bool          // what it found
}

// speaks reports whether the port speaks TLS; false, too, when ctx ends before
// that is known.
func (l *tlsLook) speaks(ctx context.Context) bool {
	for {
		l.mu.Lock()
		if !l.at.IsZero() && time.Since(l.at) < lookPause || l.closed {
			defer l.mu.Unlock()
			return l.found
		}
		if l.under == nil {
			l.under = make(chan struct{})
			l.looks.Go(l.look)
		}
		under := l.under
		l.mu.Unlock()
		select {
		case <-under:
		case <-ctx.Done():
			return false
		}
	}
}

func (l *tlsLook) look() {
	ctx, cancel := context.WithTimeout(l.ctx, tlsLookTime)
	defer cancel()
	conn, err := l.dial(ctx)
	if err == nil {
		_ = conn.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.under)
	l.under, l.at, l.found = nil, time.Now(), err == nil
}

// close waits for the look under way. The context must have ended.
func (l *tlsLook) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.looks.Wait()
}

func newPath(cfg *config.Client, s *config.Remote, opt Options) (*path, error) {
	now := opt.Now
	server, err := netaddr.FromHost(s.Address, uint16(s.Port))
	if err != nil {
		return nil, fmt.Errorf("server.address: %w", err)
	}
	upstream, err := newUpstream(cfg, s, opt.LookupEnv)
	if err != nil {
		return nil, err
	}
	self := opt.self
	if self == nil { // nothing runs
		self = new(listen.Self)
		self.Set(cfg.Listen)
	}
	dial := dialTime(cfg)
	below := func(t *netdial.TLS) *netdial.Dialer {
		return &netdial.Dialer{
			Server: server, Timeout: dial, Upstream: upstream, IsSelf: self.Is, TLS: t,
			Resolver: opt.Resolver, DialTCP: opt.DialTCP, OnStep: rememberedNote(opt.Log),
		}
	}
	var checked, unchecked *netdial.TLS
	look, err := netdial.ParseFingerprint(s.TLS.Fingerprint)
	if err != nil {
		return nil, fmt.Errorf("server.tls.fingerprint: %w", err)
	}
	insecure := &netdial.TLS{ServerName: s.ServerName(), AllowInsecure: true, Fingerprint: look, Now: now}
	otherTLS := insecure
	if s.TLS.Enabled {
		if checked, err = newTLS(s, look, now); err != nil {
			return nil, err
		}
		unchecked, otherTLS = insecure, nil
	}
	header := http.Header{}
	for k, v := range s.WS.Headers {
		header.Set(k, v)
	}
	ws := wsconn.Dialer{
		Endpoint: below(checked),
		Host:     s.HostHeader(),
		Path:     s.WS.Path,
		Header:   header,
		Ping:     time.Duration(s.WS.Ping),
		Group:    new(wsconn.Group),
		Timeout:  dial,
	}
	var wantsTLS *tlsLook
	other := below(otherTLS)
	if !s.TLS.Enabled {
		wantsTLS = &tlsLook{ctx: context.Background(), dial: func(ctx context.Context) (transport.StreamConn, error) {
			return other.ConnectStream(ctx, nil)
		}}
		ws.Silent = wantsTLS.speaks
	}
	plain, withEarly := ws, ws
	withEarly.EarlyData, withEarly.EarlyDataHeader = s.WS.EarlyData, s.WS.EarlyDataHeader
	w := &path{
		tunnels: ws.Group, plain: &plain, withEarly: &withEarly, dial: dial,
		unverified: below(unchecked), other: other, wantsTLS: wantsTLS,
	}
	w.early.Store(s.WS.EarlyData > 0)
	return w, nil
}

// rememberedNote tells, at debug level, of names that the resolver fails to
// resolve. It is a failure only where the remembered addresses fail too.
func rememberedNote(log *slog.Logger) func(netdial.Progress) {
	return func(p netdial.Progress) {
		if p.Remembered {
			log.Debug("resolver", "server", p.Addr, "addresses", p.Addrs, "err", p.Err)
		}
	}
}

// forget drops what may be different on another network.
func (w *path) forget() {
	for _, below := range []transport.StreamEndpoint{w.plain.Endpoint, w.unverified, w.other} {
		if d, ok := below.(*netdial.Dialer); ok {
			d.Forget()
		}
	}
}

// newUpstream returns the proxy on the way to a server, nil for none. What the
// environment says is heard only where the configuration asks for it, and
// never leads to this very proxy.
func newUpstream(cfg *config.Client, s *config.Remote, lookup func(string) (string, bool)) (*url.URL, error) {
	if cfg.Upstream != "env" {
		if cfg.Upstream == "" {
			return nil, nil
		}
		u, err := url.Parse(string(cfg.Upstream))
		if err != nil {
			return nil, errors.New("upstream: not a URL") // the error itself would show the password
		}
		return u, nil
	}
	env := func(name string) string {
		if v, ok := lookup(name); ok && v != "" {
			return v
		}
		v, _ := lookup(strings.ToLower(name))
		return v
	}
	said := httpproxy.Config{HTTPProxy: env("HTTP_PROXY"), HTTPSProxy: env("HTTPS_PROXY"), NoProxy: env("NO_PROXY")}
	server := &url.URL{Scheme: "http", Host: net.JoinHostPort(s.Address, strconv.Itoa(s.Port))}
	if s.TLS.Enabled {
		server.Scheme = "https"
	}
	u, err := said.ProxyFunc()(server)
	switch {
	case err != nil:
		return nil, &config.Problems{All: []config.Problem{{
			Cause: config.CauseValue, Path: "upstream", Message: "the proxy that the environment names is no URL", // which may hold a password
			Want: "HTTP_PROXY and HTTPS_PROXY like http://proxy:3128",
		}}}
	case u == nil || u.Host == cfg.Listen:
		return nil, nil
	case u.Scheme != "http" && u.Scheme != "socks5":
		return nil, &config.Problems{All: []config.Problem{{
			Cause: config.CauseValue, Path: "upstream", Message: "the environment names a proxy of the kind " + strconv.Quote(u.Scheme),
			Want: "http:// or socks5://",
		}}}
	}
	return u, nil
}

// dialTime bounds the way to one server. Where there are others, none may hold
// a request for long.
func dialTime(cfg *config.Client) time.Duration {
	if len(cfg.Servers) > 1 {
		return min(time.Duration(cfg.Limits.Dial), severalDial)
	}
	return time.Duration(cfg.Limits.Dial)
}

// ConnectStream implements transport.StreamEndpoint.
func (w *path) ConnectStream(ctx context.Context, first []byte) (transport.StreamConn, error) {
	if w.early.Load() {
		return w.withDialTimeout(w.withEarly).ConnectStream(ctx, first)
	}
	return w.withDialTimeout(w.plain).ConnectStream(ctx, first)
}

// earlyDataUnproven reports whether c began as early data that the server may not have
// taken.
func (w *path) earlyDataUnproven(c *vmess.Conn) bool {
	ws, ok := c.Carrier().(*wsconn.Conn)
	return ok && ws.SentEarlyData() && !w.earlyTaken.Load() && !ws.EarlyDataEchoed()
}

// firstFlightSentAt returns when the first flight of c, whose dial had begun then, was
// written, or a little before: a tunnel that was ready takes it at once, a new
// one in the upgrade or behind it.
func (w *path) firstFlightSentAt(c *vmess.Conn, begun time.Time) time.Time {
	ws, ok := c.Carrier().(*wsconn.Conn)
	switch {
	case !ok:
		return begun
	case ws.SentEarlyData():
		return ws.Handshake().Sent
	}
	return ws.Handshake().Received
}

// withDialTimeout bounds a dialer by limits.dial.
func (w *path) withDialTimeout(ws *wsconn.Dialer) transport.StreamEndpoint {
	return transport.EndpointFunc(func(ctx context.Context, first []byte) (transport.StreamConn, error) {
		ctx, cancel := context.WithTimeout(ctx, w.dial)
		defer cancel()
		conn, err := ws.ConnectStream(ctx, first)
		if c, ok := conn.(*wsconn.Conn); ok && err == nil {
			h := c.Handshake()
			w.handshakeRTT.Store(int64(h.Received.Sub(h.Sent)))
		}
		return conn, err
	})
}

func newTLS(s *config.Remote, look netdial.Fingerprint, now func() time.Time) (*netdial.TLS, error) {
	t := &netdial.TLS{ServerName: s.ServerName(), AllowInsecure: s.TLS.AllowInsecure, Fingerprint: look, Now: now}
	for _, p := range s.TLS.Pin {
		pin, err := hex.DecodeString(p)
		if err != nil || len(pin) != 32 {
			return nil, fmt.Errorf("server.tls.pin: not the 64 hexadecimal digits of a SHA-256")
		}
		t.Pins = append(t.Pins, [32]byte(pin))
	}
	if s.TLS.CAFile != "" {
		pool, err := netdial.LoadCAFile(s.TLS.CAFile)
		if err != nil {
			return nil, &config.Problems{All: []config.Problem{{
				Cause: config.CauseValue, Path: "server.tls.caFile", Message: err.Error(),
				Want: "a file of certificates in PEM form", Err: err,
			}}}
		}
		t.RootCAs = pool
	}
	return t, nil
}
