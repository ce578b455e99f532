package wsconn

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"vmess-local/pkg/transport/tcpconn"
)

// upgradeWait is how long writing the answer to an upgrade may take.
const upgradeWait = 10 * time.Second

// A Server is an http.Handler that upgrades requests to its path and hands
// the streams to Serve. It understands early data in both forms: in
// Sec-WebSocket-Protocol, which is then echoed, and appended to the path.
// It must not be changed while in use.
type Server struct {
	// Path is the path to serve, compared exactly, the query excluded; "" is
	// "/".
	Path string
	// Host, when not empty, is the only Host header served; ports and case
	// are ignored.
	Host string
	// NotFound answers all other requests; nil: 404 with an empty body. A
	// request for the path that is no upgrade is answered 400.
	NotFound http.Handler
	// Ping is the silence after which a ping is sent, as in [Dialer].
	Ping time.Duration
	// Context is the parent of every stream's ctx; nil: context.Background().
	// A request's own context is of no use: net/http cancels it when the
	// handler returns and keeps the request's memory with it.
	Context context.Context
	// Serve gets each stream in a goroutine of its own and must close it. It
	// outlives the request, for which net/http would otherwise keep its
	// buffers, and is unknown to http.Server's Shutdown and Close: whoever
	// needs to wait for streams must count them. A panic in it is not
	// recovered. Of r only headers and addresses are left: there is no body
	// and its context is done.
	Serve func(ctx context.Context, c *Conn, r *http.Request)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.Host != "" && !strings.EqualFold(withoutPort(r.Host), withoutPort(s.Host)) {
		s.notFound(w, r)
		return
	}
	early, ok := s.matchPath(r.URL.Path)
	if !ok {
		s.notFound(w, r)
		return
	}
	var answer http.Header
	if offered := r.Header.Get(protocolHeader); offered != "" {
		b, err := decodeHeaderEarlyData(offered)
		if err != nil {
			http.Error(w, http.StatusText(http.StatusBadRequest), http.StatusBadRequest)
			return
		}
		if len(b) > 0 {
			early = append(early, b...)
			answer = http.Header{protocolHeader: {offered}}
		}
	}
	c, err := s.upgrade(w, r, answer)
	if err != nil {
		return // gorilla has answered
	}
	c.early = early
	go s.Serve(s.context(), c, r)
}

func (s *Server) context() context.Context {
	if s.Context != nil {
		return s.Context
	}
	return context.Background()
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	if s.NotFound != nil {
		s.NotFound.ServeHTTP(w, r)
		return
	}
	w.WriteHeader(http.StatusNotFound)
}

// matchPath reports whether path is ours, and the early data behind it.
func (s *Server) matchPath(path string) (early []byte, ok bool) {
	rest, ok := strings.CutPrefix(path, "/"+strings.TrimPrefix(s.Path, "/"))
	if !ok || rest == "" {
		return nil, ok
	}
	early = decodePathEarlyData(rest)
	return early, early != nil
}

// withoutPort returns the host of a Host header, IPv6 without brackets.
func withoutPort(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// upgrade answers the request; on an error gorilla has done so.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request, answer http.Header) (*Conn, error) {
	gorilla := websocket.Upgrader{
		ReadBufferSize:  gorillaBuffer,
		WriteBufferSize: maxMessage,
		WriteBufferPool: &writeBuffers,
		CheckOrigin:     func(*http.Request) bool { return true },
	}
	c := new(Conn)
	ws, err := gorilla.Upgrade(&hijacker{ResponseWriter: w, carrier: &c.carrier}, r, answer)
	if err != nil {
		return nil, err
	}
	if err := c.SetWriteDeadline(time.Time{}); err != nil {
		_ = ws.Close()
		return nil, err
	}
	c.ws = ws
	c.open(s.Ping, nil)
	return c, nil
}

// A hijacker puts a carrier between gorilla and the connection that it
// hijacks.
type hijacker struct {
	http.ResponseWriter
	carrier *frameConn
}

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		conn = tcpconn.New(tcp)
	}
	_ = conn.SetWriteDeadline(time.Now().Add(upgradeWait)) // an error is the write's too
	h.carrier.init(conn)
	return h.carrier, rw, nil
}
