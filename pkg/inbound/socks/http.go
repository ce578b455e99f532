package socks

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
)

const protocolHTTP = "HTTP"

const (
	maxHeader     = 64 << 10
	maxUnread     = 256 << 10             // of the body of a request that was answered before its end
	keepAliveTime = 60 * time.Second      // for the client's next request
	minGonePause  = 10 * time.Millisecond // between looks whether a half-closed client is still there
	maxGonePause  = time.Second
)

// What people read who use the port in a wrong way.
const (
	textOrigin = "This is a SOCKS5 and HTTP proxy, not a website.\n" +
		"Enter this address and port as the proxy in the settings of the browser or the system.\n"
	textScheme = "Only http:// can be requested from this proxy like this.\n" +
		"Clients use CONNECT for https://, and SOCKS5 for everything else.\n"
	textNoDialer = "This proxy accepts CONNECT requests only.\n"
	textAuth     = "This proxy requires a username and password.\n"
	textLoop     = "The requested address is this proxy itself.\n"
	textMore     = "For details see vmess-local's log or status page.\n"
	textSilent   = "The rest of the request never arrived.\n"
)

// An httpConn is a client that speaks HTTP. net/http's server is not used: it
// takes a half-closed client for one that has left, rejects targets that a
// proxy need not understand, and writes status lines of its own.
type httpConn struct {
	*client
	in *bufio.Reader // of the connection, by Read

	put      []byte // to be read before what comes from the connection
	headLeft int    // how much of a head may still be read; below 0: no limit
	tooLarge bool   // a head reached the limit
	readErr  error  // of the connection, within a head

	// patience is how long a write may take; moves: that is how long it may
	// stand still.
	patience time.Duration
	moves    bool

	watch   *watch          // whether the client is there, while it waits
	origins *http.Transport // made by the first plain request
	held    atomic.Int32    // connections to origins
}

func newHTTPConn(c *client) *httpConn {
	h := &httpConn{client: c, headLeft: -1}
	h.in = bufio.NewReader(h)
	return h
}

// Read is the source of h.in and called by nobody else.
func (h *httpConn) Read(p []byte) (int, error) {
	if len(h.put) > 0 {
		n := copy(p, h.put)
		h.put = h.put[n:]
		return n, nil
	}
	if h.headLeft == 0 {
		h.tooLarge = true
		return 0, io.EOF
	}
	if h.headLeft > 0 {
		p = p[:min(len(p), h.headLeft)]
	}
	n, err := h.client.Read(p)
	if h.headLeft > 0 {
		h.headLeft -= n
		h.readErr = err
	}
	return n, err
}

func (h *httpConn) Write(p []byte) (written int, err error) {
	for {
		_ = h.SetWriteDeadline(time.Now().Add(h.patience))
		n, err := h.client.Write(p[written:])
		if written += n; n == 0 || !isTimeout(err) || !h.moves {
			return written, err
		}
	}
}

// CloseWrite ends the direction to the client cleanly, as the origin ended it.
func (h *httpConn) CloseWrite() error {
	h.frail(false)
	return h.client.CloseWrite()
}

// takeEarly takes what was read ahead.
func (h *httpConn) takeEarly() []byte {
	early, _ := h.in.Peek(h.in.Buffered())
	early = append(bytes.Clone(early), h.put...)
	h.put = nil
	_, _ = h.in.Discard(h.in.Buffered())
	return early
}

// A watch waits for a client to leave while its request is under way.
type watch struct {
	stop, done chan struct{}
}

// startWatch calls left when the client leaves: when it breaks off or closes, not
// when it ends its direction. It is the reader until stopWatch has returned.
func (h *httpConn) startWatch(left func()) {
	w := &watch{make(chan struct{}), make(chan struct{})}
	h.watch = w
	go func() {
		defer close(w.done)
		_, err := h.in.Peek(1)
		switch {
		case err == nil || isTimeout(err): // the next request, or stopped
		case err != io.EOF || w.awaitGone(h.client.view()):
			left()
		}
	}()
}

// awaitGone reports that a client that ended its direction has left.
func (w *watch) awaitGone(conn transport.StreamConn) bool {
	for pause := minGonePause; !transport.ResetByPeer(conn) && !transport.PeerClosed(conn); pause = min(2*pause, maxGonePause) {
		again := time.NewTimer(pause)
		select {
		case <-w.stop:
			again.Stop()
			return false
		case <-again.C:
		}
	}
	return true
}

func (h *httpConn) stopWatch() {
	if h.watch == nil {
		return
	}
	close(h.watch.stop)
	_ = h.SetReadDeadline(time.Unix(1, 0))
	<-h.watch.done
	_ = h.SetReadDeadline(time.Time{})
	h.watch = nil
}

// serveHTTP serves the client's plain requests until it leaves, or up to a
// CONNECT, which it returns.
func (s *Server) serveHTTP(ctx context.Context, c *client) (*transport.Request, error) {
	h := newHTTPConn(c)
	defer func() { h.closeOrigins() }()
	_ = h.SetDeadline(time.Time{})
	for first := true; ; first = false {
		if !first && !s.awaitRequest(h) {
			return nil, nil
		}
		r, err := s.readHead(h)
		switch {
		case err != nil && !first && !errors.Is(err, ErrBadRequest):
			return nil, nil // a client may leave at any time
		case err != nil:
			return nil, err
		}
		tunnel, again := s.serveRequest(ctx, h, r)
		if !again {
			return tunnel, nil
		}
	}
}

// awaitRequest waits for the client's next request.
func (s *Server) awaitRequest(h *httpConn) bool {
	h.endless.Store(true)
	if s.isDraining() {
		return false
	}
	_ = h.SetReadDeadline(time.Now().Add(keepAliveTime))
	_, err := h.in.Peek(1)
	h.endless.Store(false)
	return err == nil
}

// serveRequest serves one request: by an answer, or by the tunnel that a CONNECT
// is for. again: the client may send another request.
func (s *Server) serveRequest(ctx context.Context, h *httpConn, r *httpRequest) (tunnel *transport.Request, again bool) {
	h.patience, h.moves = s.handshake(), false
	refuse := func(status int, text string, fields ...string) (*transport.Request, bool) {
		return nil, s.refuse(newRequestBody(r, h, s.idle()), status, text, fields...)
	}
	if r.Method != http.MethodConnect && r.target.authority == "" {
		// Before the password is asked for: a browser that takes us for a web
		// site shows nothing of a 407.
		return refuse(http.StatusBadRequest, textOrigin)
	}
	user, ok := s.authenticate(h, r)
	switch {
	case !ok:
		return refuse(http.StatusProxyAuthRequired, textAuth, `Proxy-Authenticate: Basic realm="vmess-local"`)
	case r.Method != http.MethodConnect && r.target.scheme != "http":
		return refuse(http.StatusBadRequest, textScheme)
	case r.Method != http.MethodConnect && s.Dialer == nil:
		return refuse(http.StatusNotImplemented, textNoDialer)
	}
	dst, err := r.target.destination(r.Method)
	switch {
	case err != nil:
		s.report(badDestination(protocolHTTP, err), h.source)
		return refuse(http.StatusBadRequest, "The address cannot be used: "+err.Error()+"\n")
	case h.isSelf(dst):
		s.report(ErrLoop, h.source)
		return refuse(http.StatusForbidden, textLoop)
	case r.Method == http.MethodConnect:
		tunnel = s.newRequest(h.client, "http", dst, user, httpReplies{})
		tunnel.First = h.takeEarly()
		return tunnel, false
	}
	return nil, s.forward(ctx, h, r, dst)
}

// authenticate is RFC 7617 on the proxy's header. Wrong credentials are
// reported, absent ones are a browser's first try.
func (s *Server) authenticate(h *httpConn, r *httpRequest) (user string, ok bool) {
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

// refuse answers a request with a text of ours and reads the rest of its body. It
// reports whether the client may send another.
func (s *Server) refuse(body *requestBody, status int, text string, fields ...string) (again bool) {
	h, r := body.conn, body.in
	closing := r.Close || s.isDraining() || status == http.StatusBadRequest || status == http.StatusRequestTimeout || body.awaits100()
	answer := httpText(r.ProtoMinor, status, text, closing, fields...)
	if r.Method == http.MethodHead {
		answer = answer[:len(answer)-len(text)]
	}
	if _, err := h.Write(answer); err != nil {
		return false
	}
	whole := body.finish(s.handshake())
	h.stopWatch()
	if !whole || closing {
		h.endInOrder()
		return false
	}
	return true
}

// endInOrder ends the connection so that what was sent arrives.
func (h *httpConn) endInOrder() { _ = h.closeWith(nil) }

// httpText is an answer of our own to an HTTP/1.minor request.
func httpText(minor, status int, text string, closing bool, fields ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.%d %d %s\r\n", minor, status, http.StatusText(status))
	for _, field := range fields {
		fmt.Fprintf(&b, "%s\r\n", field)
	}
	fmt.Fprintf(&b, "Content-Type: text/plain; charset=utf-8\r\n"+
		"X-Content-Type-Options: nosniff\r\n"+
		"Cache-Control: no-store\r\n"+
		"Content-Length: %d\r\n", len(text))
	b.WriteString(connectionField(minor, closing))
	fmt.Fprintf(&b, "\r\n%s", text)
	return b.Bytes()
}

// connectionField says whether the connection goes on, where a client of HTTP/1.minor
// would expect otherwise.
func connectionField(minor int, closing bool) string {
	switch {
	case closing:
		return "Connection: close\r\n"
	case minor == 0:
		return "Connection: keep-alive\r\n"
	default:
		return ""
	}
}

type httpReplies struct{}

func (httpReplies) success(netip.AddrPort) []byte {
	return []byte("HTTP/1.1 200 Connection established\r\n\r\n")
}

func (httpReplies) failure(cause error) []byte {
	return httpText(1, statusOf(cause), textOf(cause), true)
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
	return "vmess-local could not load this: " + cause.Error() + "\n"
}

// publicText words a failure for a page: a browser takes the answer to a plain
// request for one of the page's own origin, whose scripts may read it.
func publicText(cause error) string {
	text := "vmess-local could not load this.\n"
	if p, ok := errors.AsType[PublicError](cause); ok {
		text = "vmess-local could not load this: " + p.Public() + "\n"
	}
	return text + textMore
}
