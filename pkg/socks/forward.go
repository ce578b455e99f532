package socks

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/netaddr"
	"vmess-local/pkg/transport"
)

const (
	originIdle     = 30 * time.Second // unused connections to origins
	maxOriginIdle  = 4                // of one client connection
	maxOriginHead  = 256 << 10
	continueTime   = 2 * time.Second // for an origin's 100 before the body goes anyway
	forwardBufSize = 32 << 10
)

// forward carries one plain request (RFC 9112 section 3.2.2, absolute-form).
func (s *Server) forward(w http.ResponseWriter, r *http.Request, h *httpConn, proxy http.Handler) {
	host := r.URL.Host
	if r.URL.Port() == "" {
		host = strings.TrimSuffix(host, ":") + ":80"
	}
	dst, err := parseDestination(host)
	switch {
	case err != nil:
		s.report(badDestination(protocolHTTP, err), h.source)
		writeText(w, http.StatusBadRequest, "The address cannot be used: "+err.Error()+"\n")
		return
	case h.isUs(dst):
		s.report(ErrLoop, h.source)
		writeText(w, http.StatusForbidden, textLoop)
		return
	}
	if h.origins == nil {
		h.origins = s.newOrigins()
	}
	body := newRequestBody(r, h, s.idle())
	ctx := context.WithValue(r.Context(), errandKey{}, errand{r.Context(), dst, body})
	r = r.WithContext(ctx)
	if r.Body != http.NoBody {
		r.Body = body
	}
	h.patience.Store(int64(s.idle()))
	h.moves.Store(true)
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // an answer need not wait for the body
	// Lengths or chunks tell a client where the answer ends, but for one that may
	// be told that by nothing but the end of its connection. An answer that breaks
	// off panics, and what was upgraded is closed by the proxy without CloseWrite,
	// if the origin did not end it.
	frail := !r.ProtoAtLeast(1, 1) || r.Header.Get("Upgrade") != ""
	if frail {
		h.frail(true)
	}
	whole := false
	defer func() {
		if !whole {
			h.lost.Store(true)
		}
	}()
	proxy.ServeHTTP(bareWriter{w}, r)
	bodied := r.Body != http.NoBody
	switch {
	case h.hijacked || !frail && !bodied:
		whole = true
	case control.Flush() == nil:
		if frail {
			h.frail(false)
		}
		whole = !bodied || body.finish(s.handshake())
	default:
		whole = !bodied
	}
}

// A requestBody is a request's body on its way to an origin. Its client may
// take its time as long as something moves.
type requestBody struct {
	io.ReadCloser
	conn  *httpConn
	idle  time.Duration
	asked bool // its client wants a 100 first

	mu       sync.Mutex
	read     sync.Cond // told when reading has become false
	deadline time.Time
	reading  bool
	finished bool // no longer for an origin
	over     bool // read to its end
	silent   bool // nothing came for too long
}

func newRequestBody(r *http.Request, conn *httpConn, idle time.Duration) *requestBody {
	b := &requestBody{ReadCloser: r.Body, conn: conn, idle: idle}
	b.asked = r.ProtoAtLeast(1, 1) && r.Header.Get("Expect") != ""
	b.read.L = &b.mu
	return b
}

// Read is called by http.Transport, which may outlive the request.
func (b *requestBody) Read(p []byte) (int, error) {
	if !b.begin() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.ReadCloser.Read(p)
	b.end(err)
	return n, err
}

// begin moves the deadline, now and then.
func (b *requestBody) begin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.finished {
		return false
	}
	if now := time.Now(); b.deadline.Sub(now) < b.idle {
		b.deadline = now.Add(b.idle + b.idle/8)
		_ = b.conn.SetReadDeadline(b.deadline)
	}
	b.reading = true
	return true
}

func (b *requestBody) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading = false
	b.read.Broadcast()
	switch {
	case isTimeout(err):
		b.silent = true
	case err == io.EOF && !b.over:
		b.over = true
		_ = b.conn.SetReadDeadline(time.Time{}) // the answer may take longer
	}
}

// wasSilent reports whether nothing came for too long. That ends ctx, which may
// be known before the Read returns.
func (b *requestBody) wasSilent(ctx context.Context) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.reading && ctx.Err() != nil {
		b.read.Wait()
	}
	return b.silent
}

// finish takes what is left of a body whose request was answered, for so long
// at most. It reports whether that was all, or net/http ends the connection and
// takes the rest itself: where that is too much, and where the client wanted a 100.
// Such a client may be waiting for the answer's end in its place, which is sent
// when the handler has returned.
func (b *requestBody) finish(within time.Duration) bool {
	b.mu.Lock()
	b.finished = true
	if !b.over && !b.silent {
		_ = b.conn.SetReadDeadline(time.Now().Add(within))
	}
	if b.asked && !b.over {
		defer b.mu.Unlock()
		return !b.reading // net/http frees who reads, and takes the deadline off
	}
	for b.reading {
		b.read.Wait()
	}
	over, silent := b.over, b.silent
	b.mu.Unlock()
	return over || !silent && b.ReadCloser.Close() == nil
}

// An errand is what a dial must know of the request it is for: http.Transport
// detaches a dial's context from the request's and keeps its values only.
type errand struct {
	ctx  context.Context
	dst  netaddr.Addr
	body *requestBody
}

type errandKey struct{}

// newOrigins makes the connections to the origins of one client connection.
// Not one pool for all: logins that hold for a connection (NTLM, Negotiate)
// may not be shared, and origins see the connection end with the client's.
func (s *Server) newOrigins() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext:            s.dialOrigin,
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConns:           maxOriginIdle,
		MaxIdleConnsPerHost:    1, // requests of one client come one by one
		IdleConnTimeout:        originIdle,
		ExpectContinueTimeout:  continueTime,
		MaxResponseHeaderBytes: maxOriginHead,
	}
}

func (h *httpConn) closeOrigins() {
	if h.origins != nil {
		h.origins.CloseIdleConnections() // and those that become idle
	}
}

func (s *Server) dialOrigin(ctx context.Context, _, _ string) (net.Conn, error) {
	e := ctx.Value(errandKey{}).(errand)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	give, err := s.originRoom(ctx.Value(httpConnKey{}).(*httpConn))
	if err != nil {
		return nil, err
	}
	conn, err := s.Dialer.DialStream(ctx, e.dst, nil)
	if err != nil {
		give()
		return nil, err
	}
	return newIdleConn(conn, s.idle(), give), nil
}

// originRoom counts a client's connection to an origin in, and gives up those
// that are kept if there is no room for both. The first has its room with the
// client.
func (s *Server) originRoom(h *httpConn) (give func(), err error) {
	leave := func() { h.held.Add(-1) }
	if h.held.Add(1) == 1 || s.OriginRoom == nil {
		return leave, nil
	}
	if !s.OriginRoom.Take() {
		h.origins.CloseIdleConnections()
		if h.held.Load() == 1 {
			return leave, nil
		}
		if !s.OriginRoom.Take() {
			leave()
			return nil, ErrTooMany
		}
	}
	return func() { leave(); s.OriginRoom.Give() }, nil
}

func (s *Server) newForwarder() http.Handler {
	return &httputil.ReverseProxy{
		Rewrite:       rewrite,
		Transport:     originsOfClient{},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		BufferPool:    new(bufferPool),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			status, text := statusOf(err), publicText(err)
			if r.Context().Value(errandKey{}).(errand).body.wasSilent(r.Context()) {
				status, text = http.StatusRequestTimeout, textSilent
			}
			clear(w.Header()) // of an answer that could not be passed on
			writeText(w, status, text)
		},
	}
}

// originsOfClient sends each request over its client's own connections.
type originsOfClient struct{}

func (originsOfClient) RoundTrip(r *http.Request) (*http.Response, error) {
	return httpConnOf(r).origins.RoundTrip(r)
}

// rewrite makes the request that goes out. ReverseProxy has taken out the
// hop-by-hop fields; what it changes besides is put back, for a client's proxy
// passes on what the client wrote.
func rewrite(p *httputil.ProxyRequest) {
	for name := range p.Out.Header {
		if strings.HasPrefix(name, "Proxy-") {
			delete(p.Out.Header, name)
		}
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values, ok := p.In.Header[name]; ok {
			p.Out.Header[name] = values
		}
	}
	p.Out.URL.User = nil
	p.Out.URL.RawQuery = p.In.URL.RawQuery
	// RFC 9110 section 7.7 wants the path as it came. A path that starts with
	// "//" would be taken for a host here and is left to net/url.
	if path := pathOf(p.In.RequestURI); !strings.HasPrefix(path, "//") {
		p.Out.URL.Opaque = path
	}
}

// pathOf cuts the path out of an absolute http URI; it is "/" when absent.
func pathOf(uri string) string {
	_, rest, _ := strings.Cut(uri, "://")
	rest, _, _ = strings.Cut(rest, "?")
	i := strings.IndexByte(rest, '/')
	if i < 0 {
		return "/"
	}
	return rest[i:]
}

// A bareWriter keeps net/http from adding fields to an origin's answer. It
// drops the origin's 100: net/http sends its own when the body is called for,
// which is when the origin's has come.
type bareWriter struct{ http.ResponseWriter }

func (w bareWriter) WriteHeader(status int) {
	switch {
	case status == http.StatusContinue:
		return
	case status >= http.StatusOK:
		for _, name := range []string{"Content-Type", "Date"} {
			if _, ok := w.Header()[name]; !ok {
				w.Header()[name] = nil
			}
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w bareWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type bufferPool struct{ pool sync.Pool }

func (b *bufferPool) Get() []byte {
	if buf, ok := b.pool.Get().(*[forwardBufSize]byte); ok {
		return buf[:]
	}
	return make([]byte, forwardBufSize)
}

func (b *bufferPool) Put(buf []byte) { b.pool.Put((*[forwardBufSize]byte)(buf)) }

// An idleConn closes itself when it moved no byte for a while. A timer looks
// from time to time, so that reads and writes cost nothing.
type idleConn struct {
	transport.StreamConn
	limit time.Duration
	moved atomic.Bool
	timer *time.Timer
	once  sync.Once
	gone  func()
}

// newIdleConn makes an idleConn; gone is called when it is closed.
func newIdleConn(conn transport.StreamConn, limit time.Duration, gone func()) *idleConn {
	c := &idleConn{StreamConn: conn, limit: limit, gone: gone}
	c.timer = time.AfterFunc(1<<63-1, c.look)
	c.timer.Reset(limit) // look reads timer
	return c
}

func (c *idleConn) look() {
	if c.moved.Swap(false) {
		c.timer.Reset(c.limit)
		return
	}
	_ = c.close()
}

func (c *idleConn) Read(p []byte) (int, error) {
	n, err := c.StreamConn.Read(p)
	if n > 0 {
		c.moved.Store(true)
	}
	return n, err
}

func (c *idleConn) Write(p []byte) (int, error) {
	n, err := c.StreamConn.Write(p)
	if n > 0 {
		c.moved.Store(true)
	}
	return n, err
}

func (c *idleConn) Close() error {
	c.timer.Stop()
	return c.close()
}

func (c *idleConn) close() error {
	err := c.StreamConn.Close()
	c.once.Do(c.gone)
	return err
}
