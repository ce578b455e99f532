package wsconn

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"vmess-local/pkg/transport"
)

func TestUpgradeRequestBytes(t *testing.T) {
	for _, c := range []struct {
		name   string
		dialer Dialer
		want   string // without the key's value
	}{
		{
			"plain",
			Dialer{Host: "example.com:8080", Path: "/ray?ed=1"},
			"GET /ray?ed=1 HTTP/1.1\r\nHost: example.com:8080\r\nUser-Agent: " + defaultUserAgent + "\r\n" +
				"Connection: Upgrade\r\nSec-WebSocket-Key: \r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n\r\n",
		},
		{
			"empty path, headers",
			Dialer{
				Host:   "[2001:db8::1]",
				Header: http.Header{"user-agent": {"me"}, "X-A": {"1", "2"}, "Host": {"other"}},
			},
			"GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\nUser-Agent: me\r\n" +
				"Connection: Upgrade\r\nSec-WebSocket-Key: \r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\nX-A: 1\r\nX-A: 2\r\n\r\n",
		},
		{
			"no leading slash, fragment",
			Dialer{Host: "h", Path: "a%20b#c"},
			"GET /a%20b%23c HTTP/1.1\r\nHost: h\r\nUser-Agent: " + defaultUserAgent + "\r\n" +
				"Connection: Upgrade\r\nSec-WebSocket-Key: \r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n\r\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := make(chan string, 1)
			c.dialer.Endpoint = upgraded(t, func(p *rawPeer) {
				got <- strings.Replace(string(p.head), p.req.Header.Get("Sec-WebSocket-Key"), "", 1)
			})
			dialWith(t, &c.dialer, nil)
			if s := <-got; s != c.want {
				t.Errorf("sent\n%s\nwant\n%s", s, c.want)
			}
		})
	}
}

func TestDialerRefusesBeforeConnecting(t *testing.T) {
	endpoint := transport.EndpointFunc(func(context.Context, []byte) (transport.StreamConn, error) {
		t.Error("connected")
		return nil, io.EOF
	})
	for _, d := range []Dialer{
		{Host: "", Path: "/"},
		{Host: "h", Path: "/secret%zz"},
		{Host: "h", Path: "/secret\x01"},
	} {
		d.Endpoint = endpoint
		_, err := d.ConnectStream(context.Background(), nil)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", d, err)
		}
	}
	var closed closeCounter
	d := Dialer{Host: "h", Header: http.Header{"Upgrade": {"h2c"}}, Endpoint: &closed}
	if _, err := d.ConnectStream(context.Background(), nil); err == nil || closed.n == 0 {
		t.Errorf("a handshake header: %v, closed %d times", err, closed.n)
	}
}

// A closeCounter counts how often the connection it hands out is closed.
type closeCounter struct {
	net.Conn
	n int
}

func (c *closeCounter) ConnectStream(context.Context, []byte) (transport.StreamConn, error) {
	c.Conn, _ = net.Pipe()
	return c, nil
}
func (c *closeCounter) CloseWrite() error { return nil }
func (c *closeCounter) Close() error      { c.n++; return c.Conn.Close() }

func TestEarlyData(t *testing.T) {
	const limit = 64
	for _, header := range []string{"Sec-WebSocket-Protocol", "X-Early", ""} {
		for _, n := range []int{0, 1, limit - 1, limit, limit + 1, 3 * limit} {
			first := pattern(n)
			type seen struct {
				early string
				rest  []byte
			}
			got := make(chan seen, 1)
			endpoint := overTCP(t, func(p *rawPeer) {
				if p.accept() != nil {
					return
				}
				s := seen{early: p.req.Header.Get(header)}
				more := ""
				if header == "" {
					s.early = strings.TrimPrefix(p.req.RequestURI, "/ray?x=1")
				} else if header != "X-Early" && s.early != "" {
					more = "Sec-WebSocket-Protocol: " + s.early + "\r\n"
				}
				_, _ = p.Write(p.switching(more))
				if n > limit {
					_, s.rest, _ = readFrame(p.br)
				}
				got <- s
			})
			d := &Dialer{Endpoint: endpoint, Host: "h", Path: "/ray?x=1", EarlyData: limit, EarlyDataHeader: header}
			c := dialWith(t, d, first)
			s := <-got
			early, err := base64.RawURLEncoding.DecodeString(s.early)
			if err != nil || !bytes.Equal(append(early, s.rest...), first) || len(early) != min(n, limit) {
				t.Errorf("header %q, %d bytes: the server saw %q and %d more, %v", header, n, s.early, len(s.rest), err)
			}
			if want := header == "Sec-WebSocket-Protocol" && n > 0; c.EarlyDataEchoed() != want {
				t.Errorf("header %q, %d bytes: echoed is %v", header, n, !want)
			}
		}
	}
}

func TestUpgradeFails(t *testing.T) {
	status := func(code int) func(*testing.T, error) {
		return func(t *testing.T, err error) {
			var e *HandshakeError
			if !errors.As(err, &e) || e.Status != code || !errors.Is(err, websocket.ErrBadHandshake) {
				t.Errorf("got %v", err)
			}
		}
	}
	noHTTP := func(seen string) func(*testing.T, error) {
		return func(t *testing.T, err error) {
			var e *ProtocolError
			if !errors.As(err, &e) || string(e.Seen) != seen {
				t.Errorf("got %v, %+v", err, e)
			}
		}
	}
	early := func(t *testing.T, err error) {
		var e *ProtocolError
		if !errors.Is(err, ErrClosedEarly) || errors.As(err, &e) {
			t.Errorf("got %v", err)
		}
	}
	for _, c := range []struct {
		name   string
		answer func(p *rawPeer) string
		check  func(*testing.T, error)
	}{
		{"404", say("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nServer: nginx\r\nDate: Mon, 02 Nov 2026 03:04:05 GMT\r\n\r\n"), func(t *testing.T, err error) {
			status(404)(t, err)
			var e *HandshakeError
			errors.As(err, &e)
			date, ok := e.Date()
			if e.Server() != "nginx" || !ok || !date.Equal(time.Date(2026, 11, 2, 3, 4, 5, 0, time.UTC)) || len(e.Body) != 0 {
				t.Errorf("got %+v", e)
			}
			if e.Error() != "websocket upgrade: the server answered 404 Not Found" {
				t.Error(e)
			}
		}},
		{"redirect", say("HTTP/1.1 301 Moved\r\nLocation: https://elsewhere/\r\nContent-Length: 2\r\n\r\nhi"), func(t *testing.T, err error) {
			status(301)(t, err)
			var e *HandshakeError
			if errors.As(err, &e); e.Location() != "https://elsewhere/" || string(e.Body) != "hi" {
				t.Errorf("got %+v", e)
			}
		}},
		{"TLS port", say("HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"), func(t *testing.T, err error) {
			status(400)(t, err)
			var e *HandshakeError
			if errors.As(err, &e); string(e.Body) != "Client sent an HTTP request to an HTTPS server.\n" {
				t.Errorf("body %q", e.Body)
			}
		}},
		{"long body", say("HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", 5000)), func(t *testing.T, err error) {
			status(200)(t, err)
			var e *HandshakeError
			if errors.As(err, &e); len(e.Body) != 1024 {
				t.Errorf("%d bytes of body", len(e.Body))
			}
		}},
		{"endless body", func(p *rawPeer) string {
			_, _ = io.WriteString(p, "HTTP/1.1 403 Forbidden\r\n\r\nno")
			_, _ = io.Copy(io.Discard, p.br) // until the client has had enough
			return ""
		}, func(t *testing.T, err error) {
			status(403)(t, err)
			var e *HandshakeError
			if errors.As(err, &e); string(e.Body) != "no" {
				t.Errorf("body %q", e.Body)
			}
		}},
		{"wrong accept", say("HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"), status(101)},
		{"extension", func(p *rawPeer) string {
			return string(p.switching("Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n"))
		}, func(t *testing.T, err error) {
			var e *HandshakeError
			if !errors.As(err, &e) || e.Status != 101 || !errors.Is(err, errExtension) {
				t.Errorf("got %v", err)
			}
		}},
		{"TLS alert", say("\x15\x03\x01\x00\x02\x02\x46"), noHTTP("\x15\x03\x01\x00\x02\x02\x46")},
		{"long rubbish", say(strings.Repeat("SSH-2.0-", 20)), noHTTP(strings.Repeat("SSH-2.0-", 8))},
		{"bad status line", say("HTTP/1.1 abc\r\n\r\n"), noHTTP("HTTP/1.1 abc\r\n\r\n")},
		{"bad header", say("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), noHTTP("HTTP/1.1 200 OK\r\nno colon\r\n\r\n")},
		{"nothing", say(""), early},
		{"half a head", say("HTTP/1.1 101 Swi"), early},
		{"reset", func(p *rawPeer) string {
			_ = p.Conn.(*net.TCPConn).SetLinger(0)
			return ""
		}, early},
		{"informational for ever", func(p *rawPeer) string {
			for {
				if _, err := io.WriteString(p, "HTTP/1.1 102 Processing\r\n\r\n"); err != nil {
					return ""
				}
			}
		}, noHTTPStart},
		{"endless line", say("HTTP/1.1 101 OK\r\nA: " + strings.Repeat("b", 1<<20)), noHTTPStart},
		{"endless headers", say("HTTP/1.1 101 OK\r\n" + strings.Repeat("A: b\r\n", 1<<16)), noHTTPStart},
		{"long head", say("HTTP/1.1 101 OK\r\n" + strings.Repeat("A: b\r\n", maxHead/6) + "\r\n"), noHTTPStart},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			endpoint := overTCP(t, func(p *rawPeer) {
				if p.accept() == nil {
					_, _ = io.WriteString(p, c.answer(p))
				}
			})
			d := &Dialer{Endpoint: endpoint, Host: "h"}
			_, err := d.ConnectStream(context.Background(), nil)
			if err == nil {
				t.Fatal("upgraded")
			}
			c.check(t, err)
		})
	}
}

func say(s string) func(*rawPeer) string { return func(*rawPeer) string { return s } }

func noHTTPStart(t *testing.T, err error) {
	var e *ProtocolError
	if !errors.As(err, &e) || !errors.Is(err, errLongHead) || len(e.Seen) == 0 || len(e.Seen) > maxSeen {
		t.Errorf("got %v", err)
	}
}

// A server may answer and close before it has read the request: Go's TLS
// ports do. The answer counts, not the failed write.
func TestAnswerBeforeRequest(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.0 400 Bad Request\r\n\r\n")
		_ = conn.(*net.TCPConn).CloseWrite()
		_ = conn.Close()
	}()
	endpoint := transport.EndpointFunc(func(ctx context.Context, first []byte) (transport.StreamConn, error) {
		c, err := tcpEndpoint(l.Addr().String()).ConnectStream(ctx, first)
		if err == nil {
			<-answered
			_ = c.CloseWrite() // so that writing fails
		}
		return c, err
	})
	var e *HandshakeError
	if _, err := (&Dialer{Endpoint: endpoint, Host: "h"}).ConnectStream(context.Background(), pattern(9)); !errors.As(err, &e) || e.Status != 400 {
		t.Errorf("got %v", err)
	}
}

func TestUpgradeAfterInformationalAnswers(t *testing.T) {
	c := dial(t, overTCP(t, func(p *rawPeer) {
		if p.accept() != nil {
			return
		}
		_, _ = p.Write(append([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
			append(p.switching("Date: Mon, 02 Nov 2026 03:04:05 GMT\r\nServer: x\r\nVia: y\r\n"), frame(0x82, []byte("hello"))...)...))
	}))
	b := make([]byte, 100)
	if n, err := c.Read(b); string(b[:n]) != "hello" || err != nil {
		t.Errorf("read %q, %v", b[:n], err)
	}
	h := c.Handshake()
	date, ok := h.Date()
	if !ok || date.Unix() != 1793588645 || h.Header.Get("Server") != "x" || len(h.Header) != 2 {
		t.Errorf("remembered %+v", h)
	}
	if h.Sent.IsZero() || h.Received.Before(h.Sent) || time.Since(h.Sent) > patience {
		t.Errorf("sent %v, received %v", h.Sent, h.Received)
	}
}

func TestUpgradeIsBounded(t *testing.T) {
	silent := func(t *testing.T) (transport.StreamEndpoint, chan struct{}) {
		asked := make(chan struct{})
		return overTCP(t, func(p *rawPeer) {
			_ = p.accept()
			close(asked)
			_, _ = io.Copy(io.Discard, p.br)
		}), asked
	}
	deadline := func(t *testing.T, err error) {
		var e *TimeoutError
		var ne net.Error
		if !errors.As(err, &e) || !errors.Is(err, os.ErrDeadlineExceeded) || !errors.Is(err, context.DeadlineExceeded) ||
			!errors.As(err, &ne) || !ne.Timeout() || errors.Is(err, io.EOF) {
			t.Errorf("got %v", err)
		}
	}
	t.Run("timeout", func(t *testing.T) {
		endpoint, _ := silent(t)
		_, err := (&Dialer{Endpoint: endpoint, Host: "h", Timeout: 30 * time.Millisecond}).ConnectStream(context.Background(), nil)
		deadline(t, err)
	})
	t.Run("deadline", func(t *testing.T) {
		endpoint, _ := silent(t)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
		defer cancel()
		_, err := (&Dialer{Endpoint: endpoint, Host: "h"}).ConnectStream(ctx, nil)
		deadline(t, err)
	})
	t.Run("cancel", func(t *testing.T) {
		endpoint, asked := silent(t)
		cause := errors.New("nobody wants it")
		ctx, cancel := context.WithCancelCause(context.Background())
		go func() { <-asked; cancel(cause) }()
		if _, err := (&Dialer{Endpoint: endpoint, Host: "h"}).ConnectStream(ctx, nil); !errors.Is(err, cause) {
			t.Errorf("got %v", err)
		}
	})
	if s := (&TimeoutError{After: 10*time.Second + 3*time.Millisecond}).Error(); s != "websocket upgrade: no answer within 10 s" {
		t.Error(s)
	}
	if s := (&TimeoutError{After: 250 * time.Millisecond}).Error(); s != "websocket upgrade: no answer within 250 ms" {
		t.Error(s)
	}
}

// Cancelling the dial's ctx afterwards is not the connection's business.
func TestContextEndsWithTheDial(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	d := &Dialer{Host: "h", Endpoint: upgraded(t, func(p *rawPeer) {
		if _, b, err := readFrame(p.br); err == nil {
			_, _ = p.Write(frame(0x82, b))
		}
	})}
	c, err := d.ConnectStream(ctx, nil)
	cancel()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "ping" {
		t.Errorf("read %q, %v", b, err)
	}
}
