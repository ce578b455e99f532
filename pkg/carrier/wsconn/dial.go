package wsconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"vmess-local/pkg/transport"
)

var (
	errNoHost    = errors.New("no Host given")
	errExtension = errors.New("the server speaks an extension nobody asked for")
)

const (
	defaultTimeout = 10 * time.Second
	// defaultUserAgent is sent in place of Go's, which tells what we are.
	defaultUserAgent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"
	protocolHeader   = "Sec-Websocket-Protocol"
)

// A Dialer connects to a WebSocket server. It is immutable once in use and
// may be used by many goroutines.
type Dialer struct {
	// Endpoint connects to the server: TCP, or TLS for wss (with ALPN
	// http/1.1 only).
	Endpoint transport.StreamEndpoint
	// Host is the Host header as sent.
	Host string
	// Path is the request target with its query; "" is "/".
	Path string
	// Header holds more headers. Those of the WebSocket handshake itself are
	// refused; Host is ignored. Their values are cut out of what an answer
	// repeats of them.
	Header http.Header
	// EarlyData is how many of the first bytes may travel in the upgrade
	// request; 0: none.
	EarlyData int
	// EarlyDataHeader names the header they travel in, mostly
	// Sec-WebSocket-Protocol; "": they are appended to Path, behind its query
	// if it has one, as V2Ray does.
	EarlyDataHeader string
	// Ping is the silence after which a ping is sent; 0: none are. A
	// connection that leaves two of them without an answer is ended, in a Group
	// only if one was answered on any of its connections before.
	Ping time.Duration
	// Group, if set, gets the connections for as long as they are open.
	Group *Group
	// Timeout bounds the upgrade once Endpoint has connected; 0: 10 s.
	Timeout time.Duration
	// Silent, if set, is asked once an upgrade has been without an answer for
	// 2 s whether there is no point in waiting for one. Until it says so the
	// upgrade goes on.
	Silent func(ctx context.Context) (hopeless bool)
}

// silentAfter is when Silent is asked.
const silentAfter = 2 * time.Second

// ConnectStream implements [transport.StreamEndpoint]; the connection is a
// [*Conn]. What of first does not travel as early data is the first message.
// Errors of Endpoint are returned as they are. Others are [*HandshakeError],
// [*ProtocolError], [*TimeoutError], [ErrClosedEarly] or the ctx's cause; they
// are [transport.ErrPartSent], too, where a part of that message may arrive.
func (d *Dialer) ConnectStream(ctx context.Context, first []byte) (transport.StreamConn, error) {
	if _, err := d.request(nil); err != nil {
		return nil, fmt.Errorf("websocket upgrade: %w", err)
	}
	below, err := d.Endpoint.ConnectStream(ctx, nil)
	if err != nil {
		return nil, err
	}
	if d.EarlyData > 0 {
		transport.Refresh(ctx)
	}
	req, err := d.request(first)
	if err != nil {
		_ = below.Close()
		return nil, fmt.Errorf("websocket upgrade: %w", err)
	}
	c, err := d.upgrade(ctx, below, req)
	if err != nil {
		_ = below.Close()
		return nil, d.secrets().redactError(err)
	}
	return c, nil
}

// An upgradeRequest is what gorilla wants to know, and what comes after it.
type upgradeRequest struct {
	url    string // of which only the path and query count
	header http.Header
	early  bool   // it carries early data
	echo   string // the Sec-WebSocket-Protocol that holds early data, or ""
	rest   []byte // the first message
}

func (d *Dialer) request(first []byte) (*upgradeRequest, error) {
	if d.Host == "" {
		return nil, errNoHost
	}
	header := make(http.Header, len(d.Header)+3)
	for k, v := range d.Header {
		header[http.CanonicalHeaderKey(k)] = v
	}
	header["Host"] = []string{d.Host}
	if header.Get("User-Agent") == "" {
		header.Set("User-Agent", defaultUserAgent)
	}
	early := first[:min(len(first), max(d.EarlyData, 0))]
	req := &upgradeRequest{header: header, early: len(early) > 0, rest: first[len(early):]}
	target := "/" + strings.TrimPrefix(d.Path, "/")
	switch {
	case len(early) == 0:
	case d.EarlyDataHeader == "":
		target += encodeEarlyData(early)
	default:
		header.Set(d.EarlyDataHeader, encodeEarlyData(early))
		if http.CanonicalHeaderKey(d.EarlyDataHeader) == protocolHeader {
			req.echo = header.Get(protocolHeader)
		}
	}
	req.url = "ws://host" + strings.ReplaceAll(target, "#", "%23")
	if _, err := url.Parse(req.url); err != nil {
		return nil, fmt.Errorf("path: %w", errors.Unwrap(err)) // without the path itself
	}
	return req, nil
}

// upgrade speaks the handshake on below and writes the first message. The
// caller closes below when it returns an error.
func (d *Dialer) upgrade(ctx context.Context, below net.Conn, req *upgradeRequest) (*Conn, error) {
	limited, cancel := context.WithTimeout(ctx, d.timeout())
	defer cancel()
	// gorilla does not listen to a cancelled context while it waits.
	disarm := context.AfterFunc(limited, func() {
		_ = below.SetDeadline(time.Now())
		_ = below.Close()
	})
	start := time.Now()
	if d.Silent != nil {
		defer time.AfterFunc(silentAfter, func() {
			if d.Silent(limited) {
				cancel()
			}
		}).Stop()
	}

	c := new(Conn)
	c.carrier.init(below)
	a := new(upgradeResponse)
	c.carrier.answer = a
	resp, err := c.handshake(req)
	upgraded := err == nil
	if upgraded {
		if !req.early {
			transport.Refresh(ctx)
		}
		_, err = c.Write(req.rest)
	}
	if disarm() && err == nil {
		c.remember(a, resp, d.secrets())
		c.ahead = req.early
		c.echoed = req.echo != "" && resp.Header.Get(protocolHeader) == req.echo
		c.open(d.Ping, d.Group)
		return c, nil
	}
	c.carrier.drained()
	part := upgraded && len(req.rest) > 0 && (err == nil || errors.Is(err, transport.ErrPartSent))
	var refused *HandshakeError
	switch {
	case errors.As(err, &refused):
		return nil, err
	case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("websocket upgrade: %w", context.Cause(ctx))
	case limited.Err() != nil:
		err = &TimeoutError{After: time.Since(start)}
	case upgraded: // but the first message could not be sent
		return nil, fmt.Errorf("websocket upgrade: %w", err)
	default:
		return nil, c.carrier.upgradeError(a, err)
	}
	if part {
		err = fmt.Errorf("%w (%w)", err, transport.ErrPartSent)
	}
	return nil, err
}

func (d *Dialer) timeout() time.Duration {
	if d.Timeout > 0 {
		return d.Timeout
	}
	return defaultTimeout
}

// handshake lets gorilla speak the handshake on the carrier. Its URL is
// always ws: encryption and proxies are Endpoint's.
func (c *Conn) handshake(req *upgradeRequest) (*http.Response, error) {
	gorilla := websocket.Dialer{
		NetDialContext: func(context.Context, string, string) (net.Conn, error) {
			return &c.carrier, nil
		},
		ReadBufferSize:  gorillaBuffer,
		WriteBufferSize: maxMessage,
		WriteBufferPool: &writeBuffers,
	}
	ws, resp, err := gorilla.DialContext(context.Background(), req.url, req.header)
	if err == nil && resp.Header.Get("Sec-Websocket-Extensions") != "" {
		err = errExtension
	}
	if err == nil {
		c.ws = ws
		return resp, nil
	}
	if resp == nil {
		return nil, err
	}
	body, _ := io.ReadAll(resp.Body) // at most 1 KiB that gorilla keeps
	return nil, &HandshakeError{Status: resp.StatusCode, Header: resp.Header.Clone(), Body: body, Err: err}
}

// upgradeError explains a failure that no HTTP status explains.
func (c *frameConn) upgradeError(a *upgradeResponse, err error) error {
	below := c.err
	if below == nil {
		if e := c.writeErr.Load(); e != nil {
			below = *e
		}
	}
	switch {
	case a.err != nil: // no HTTP
		return &ProtocolError{Seen: a.seen, Err: a.err}
	case below != nil:
		return fmt.Errorf("websocket upgrade: %w: %w", ErrClosedEarly, below)
	case a.seen != nil: // HTTP, but gorilla does not understand it
		return &ProtocolError{Seen: a.seen, Err: errBadHead}
	}
	return fmt.Errorf("websocket upgrade: %w", err)
}

// remember keeps what a later look at the upgrade needs, and nothing that
// would keep the whole response in memory.
func (c *Conn) remember(a *upgradeResponse, resp *http.Response, hidden secrets) {
	c.upgraded = Handshake{Sent: a.sent, Received: a.received}
	for _, name := range [...]string{"Date", "Server"} {
		if v := resp.Header.Get(name); v != "" {
			if c.upgraded.Header == nil {
				c.upgraded.Header = make(http.Header, 2)
			}
			c.upgraded.Header.Set(name, strings.Clone(hidden.redact(v)))
		}
	}
}

var _ transport.StreamEndpoint = (*Dialer)(nil)
