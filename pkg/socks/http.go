package socks

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
)

const protocolHTTP = "HTTP"

const (
	maxHeader     = 64 << 10
	keepAliveTime = 60 * time.Second // for the client's next request
)

// What people read who use the port in a wrong way.
const (
	textOrigin = "This is a SOCKS5 and HTTP proxy, not a web site.\n" +
		"Enter this address and port as the proxy in the settings of the browser or the system.\n"
	textScheme = "Only http:// can be requested from this proxy in this way.\n" +
		"Clients use CONNECT for https://, and SOCKS5 for all else.\n"
	textNoDialer = "This proxy takes CONNECT requests only.\n"
	textAuth     = "This proxy needs a user name and a password.\n"
	textLoop     = "The address asked for is this proxy itself.\n"
	textMore     = "More is in what vmess-local printed, and on its status page.\n"
	textSilent   = "The rest of the request did not come.\n"
)

// An httpConn is a client that speaks HTTP. net/http owns it until over is
// closed; then it is closed, or hijacked for a CONNECT whose request is in
// tunnel.
type httpConn struct {
	*client
	once sync.Once
	over chan struct{}
	// patience is how long a write may take, a time.Duration: net/http cannot
	// give it a deadline, as its WriteTimeout is that of a whole answer.
	patience atomic.Int64
	// moves: that is how long a write may stand still.
	moves atomic.Bool
	// lost: the rest of a body was not waited for, so that what comes next is
	// no request.
	lost atomic.Bool

	hijacked bool
	reached  bool  // a whole request arrived
	readErr  error // the last one
	tunnel   *transport.Request
	origins  *http.Transport // made by the first plain request
	held     atomic.Int32    // connections to origins
}

func (h *httpConn) Read(p []byte) (int, error) {
	if h.lost.Load() {
		return 0, net.ErrClosed
	}
	n, err := h.client.Read(p)
	if err != nil {
		h.readErr = err
	}
	return n, err
}

func (h *httpConn) Write(p []byte) (written int, err error) {
	for {
		_ = h.SetWriteDeadline(time.Now().Add(time.Duration(h.patience.Load())))
		n, err := h.client.Write(p[written:])
		if written += n; n == 0 || !isTimeout(err) || !h.moves.Load() {
			return written, err
		}
	}
}

// CloseWrite ends an upgraded connection's way down in order, as the origin did.
func (h *httpConn) CloseWrite() error {
	h.frail(false)
	return h.client.CloseWrite()
}

func (h *httpConn) finish() { h.once.Do(func() { close(h.over) }) }

// failure says why net/http gave up before a first request.
func (h *httpConn) failure(draining bool) error {
	switch {
	case h.readErr != nil:
		return readFailure(h.readErr, protocolHTTP, "head of the request")
	case draining: // it drops even whole requests then
		return errQuiet
	default:
		return fmt.Errorf("%w: malformed HTTP request", ErrBadHandshake)
	}
}

// A soleListener hands one connection to http.Server.Serve, which then
// returns and leaves the connection to its own goroutine.
type soleListener struct {
	ctx  context.Context // the connection's
	conn *httpConn       // nil once taken
}

func (l *soleListener) Accept() (net.Conn, error) {
	if l.conn == nil {
		return nil, io.EOF
	}
	c := l.conn
	l.conn = nil
	return c, nil
}

func (l *soleListener) Close() error   { return nil }
func (l *soleListener) Addr() net.Addr { return nil }

type httpConnKey struct{}

func httpConnOf(r *http.Request) *httpConn {
	return r.Context().Value(httpConnKey{}).(*httpConn)
}

// webServer returns the one http.Server of all HTTP clients.
func (s *Server) webServer() *http.Server {
	s.startWeb.Do(func() {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(true)
		proxy := s.newForwarder()
		s.web = &http.Server{
			Handler:                      http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serveRequest(w, r, proxy) }),
			Protocols:                    protocols,
			ReadHeaderTimeout:            s.handshake(),
			IdleTimeout:                  keepAliveTime,
			MaxHeaderBytes:               maxHeader,
			DisableGeneralOptionsHandler: true,
			ErrorLog:                     log.New(panicReporter{s}, "", 0),
			BaseContext: func(l net.Listener) context.Context {
				sole := l.(*soleListener)
				return context.WithValue(sole.ctx, httpConnKey{}, sole.conn)
			},
			ConnState: func(c net.Conn, state http.ConnState) {
				h := c.(*httpConn)
				switch state {
				case http.StateHijacked:
					h.hijacked = true
				case http.StateClosed:
					h.finish()
				}
			},
		}
	})
	return s.web
}

// panicReporter is net/http's log: it swallows panics, which may not go
// unnoticed; the rest are clients' errors.
type panicReporter struct{ server *Server }

func (p panicReporter) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("panic serving")) {
		p.server.report(fmt.Errorf("internal error: %s", line), netip.AddrPort{})
	}
	return len(line), nil
}

// serveHTTP serves the client's plain requests until it leaves, or up to a
// CONNECT, which it returns.
func (s *Server) serveHTTP(ctx context.Context, c *client) (*transport.Request, error) {
	h := &httpConn{client: c, over: make(chan struct{})}
	h.patience.Store(int64(lingerTime)) // for the answer to a broken head
	defer func() { h.closeOrigins() }()
	_ = c.SetDeadline(time.Time{}) // net/http sets its own
	sole := &soleListener{ctx: ctx, conn: h}
	_ = s.webServer().Serve(sole)
	if sole.conn != nil { // it is shut down
		return nil, errQuiet
	}
	<-h.over
	if !h.reached {
		return nil, h.failure(s.isDraining())
	}
	return h.tunnel, nil
}

func (s *Server) serveRequest(w http.ResponseWriter, r *http.Request, proxy http.Handler) {
	h := httpConnOf(r)
	h.reached = true
	h.patience.Store(int64(s.handshake()))
	h.moves.Store(false)
	if r.Body != http.NoBody {
		// net/http waits for the body of a request that is refused.
		_ = h.SetReadDeadline(time.Now().Add(s.handshake()))
	}
	defer func() {
		if h.hijacked {
			h.finish()
		}
	}()
	if r.Method != http.MethodConnect && r.URL.Host == "" {
		// Before the password is asked for: a browser that takes us for a web
		// site shows nothing of a 407.
		writeText(w, http.StatusBadRequest, textOrigin)
		return
	}
	user, ok := s.authenticate(h, r)
	switch {
	case !ok:
		w.Header().Set("Proxy-Authenticate", `Basic realm="vmess-local"`)
		writeText(w, http.StatusProxyAuthRequired, textAuth)
	case r.Method == http.MethodConnect:
		s.connect(w, r, h, user)
	case r.URL.Scheme != "http":
		writeText(w, http.StatusBadRequest, textScheme)
	case s.Dialer == nil:
		writeText(w, http.StatusNotImplemented, textNoDialer)
	default:
		s.forward(w, r, h, proxy)
	}
}

// authenticate is RFC 7617 on the proxy's header. Wrong credentials are
// reported, absent ones are a browser's first try.
func (s *Server) authenticate(h *httpConn, r *http.Request) (user string, ok bool) {
	if s.Auth == nil {
		return "", true
	}
	values := r.Header["Proxy-Authorization"]
	if len(values) == 0 {
		return "", false
	}
	// The syntax is that of Authorization, which the standard library reads.
	user, password, ok := (&http.Request{Header: http.Header{"Authorization": values}}).BasicAuth()
	if !ok || !s.Auth.match([]byte(user), []byte(password)) {
		s.report(ErrBadAuth, h.source)
		return "", false
	}
	return user, true
}

// connect takes the connection of a CONNECT request (RFC 9110 section 9.3.6)
// away from net/http, whose buffers are free then; serveHTTP returns it.
func (s *Server) connect(w http.ResponseWriter, r *http.Request, h *httpConn, user string) {
	dst, err := parseDestination(r.URL.Host)
	switch {
	case err != nil:
		s.report(badDestination(protocolHTTP, err), h.source)
		writeText(w, http.StatusBadRequest, "CONNECT needs host:port: "+err.Error()+"\n")
		return
	case h.isUs(dst):
		s.report(ErrLoop, h.source)
		writeText(w, http.StatusForbidden, textLoop)
		return
	}
	_, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // the connection is gone
	}
	h.tunnel = s.newRequest(h.client, "http", dst, user, httpReplies{})
	h.tunnel.First = takeBuffered(buffered.Reader)
}

// takeBuffered copies what arrived behind the head of a request.
func takeBuffered(r *bufio.Reader) []byte {
	early, _ := r.Peek(r.Buffered())
	return bytes.Clone(early)
}

type httpReplies struct{}

func (httpReplies) success(netip.AddrPort) []byte {
	return []byte("HTTP/1.1 200 Connection established\r\n\r\n")
}

func (httpReplies) failure(cause error) []byte {
	status, text := statusOf(cause), textOf(cause)
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\n"+
		"Content-Type: text/plain; charset=utf-8\r\n"+
		"X-Content-Type-Options: nosniff\r\n"+
		"Content-Length: %d\r\n"+
		"Connection: close\r\n\r\n%s", status, http.StatusText(status), len(text), text)
}

// statusOf puts a failure in HTTP's terms (RFC 9110 section 15).
func statusOf(cause error) int {
	switch transport.CodeOf(cause) {
	case transport.CodeNotAllowed:
		return http.StatusForbidden
	case transport.CodeNetworkUnreachable:
		return http.StatusServiceUnavailable
	case transport.CodeHostUnreachable:
		return http.StatusGatewayTimeout
	default:
		return http.StatusBadGateway
	}
}

// textOf words a failure for who asked for a tunnel. Browsers do not hand that
// to pages.
func textOf(cause error) string {
	if cause == nil {
		cause = errors.New("no reason was given")
	}
	return "The proxy could not do this: " + cause.Error() + "\n"
}

// publicText words a failure for a page: a browser takes the answer to a plain
// request for one of the page's own origin, whose scripts may read it.
func publicText(cause error) string {
	text := "The proxy could not do this.\n"
	if p, ok := errors.AsType[PublicError](cause); ok {
		text = "The proxy could not do this: " + p.Public() + "\n"
	}
	return text + textMore
}

func writeText(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	switch status {
	case http.StatusBadRequest, http.StatusRequestTimeout:
		h.Set("Connection", "close") // whoever asks like that has nothing better to ask
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}
