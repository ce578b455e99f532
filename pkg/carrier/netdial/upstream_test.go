package netdial_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

const secret = "hunter2:/@"

func upstream(scheme string, user *url.Userinfo, host netaddr.Addr) *url.URL {
	return &url.URL{Scheme: scheme, User: user, Host: host.String()}
}

// answerConnect reads one request head and writes text.
func answerConnect(t *testing.T, c net.Conn, text string) (*http.Request, *bufio.Reader) {
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil {
		t.Errorf("the proxy read: %v", err)
		return nil, nil
	}
	_, _ = io.WriteString(c, text)
	return req, r
}

func TestConnect(t *testing.T) {
	requests := make(chan *http.Request, 1)
	proxy := serve(t, func(c net.Conn) {
		req, rest := answerConnect(t, c, "HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nright behind ")
		requests <- req
		_, _ = io.Copy(c, rest)
	})
	seen := new(steps)
	d := &netdial.Dialer{
		Server:   addr(t, "server.example:443"),
		Upstream: upstream("http", url.UserPassword("joe", secret), proxy),
		Resolver: refuseNames(t),
		OnStep:   seen.add,
	}
	conn, err := d.ConnectStream(t.Context(), []byte("first "))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.(transport.ReadWaiter).WaitRead(); err != nil {
		t.Error(err)
	}
	roundTrip(t, conn, "right behind first ", "and more")

	req := <-requests
	user, password, ok := (&http.Request{Header: http.Header{"Authorization": req.Header["Proxy-Authorization"]}}).BasicAuth()
	if req.Method != "CONNECT" || req.RequestURI != "server.example:443" || req.Host != "server.example:443" || !ok || user != "joe" || password != secret {
		t.Errorf("the proxy was asked %s %s, host %s, for %q %q", req.Method, req.RequestURI, req.Host, user, password)
	}
	if len(req.Header) != 1 {
		t.Errorf("more headers than needed: %v", req.Header)
	}
	if got := seen.words(); got != "tcp… tcp upstream… upstream" {
		t.Errorf("steps %s", got)
	}
	if p := seen.ended(t, netdial.StepTCP); !p.Upstream || p.Addr != proxy.String() {
		t.Errorf("reported %+v", p)
	}
}

func TestConnectRefused(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		want         netdial.UpstreamError
	}{
		{"password", "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Negotiate\r\nproxy-authenticate: Basic realm=\"x\"\r\nContent-Length: 3\r\n\r\nno!", netdial.UpstreamError{
			Status: 407, Text: "Proxy Authentication Required", Auth: true, Schemes: []string{"Negotiate", "Basic"},
		}},
		{"password, echoed", "HTTP/1.1 407 denied for " + secret + "\r\nProxy-Authenticate: " + secret + "\r\nProxy-Authenticate: digest\r\nProxy-Authenticate: x\r\n\r\n", netdial.UpstreamError{
			Status: 407, Text: "Proxy Authentication Required", Auth: true, Schemes: []string{"another", "Digest"},
		}},
		{"password, no reason", "HTTP/1.1 407\r\n\r\n", netdial.UpstreamError{Status: 407, Text: "Proxy Authentication Required", Auth: true}},
		{"forbidden", "HTTP/1.0 403 no way, joe:hunter2:/@\n\n", netdial.UpstreamError{Status: 403, Text: "Forbidden"}},
		{"bad gateway", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 502 Bad Gateway\r\n\r\n", netdial.UpstreamError{Status: 502, Text: "Bad Gateway"}},
		{"redirect", "HTTP/1.1 302 Found\r\nLocation: x\r\n\r\n", netdial.UpstreamError{Status: 302, Text: "Found"}},
		{"switching", "HTTP/1.1 101 Switching\r\n\r\n", netdial.UpstreamError{Status: 101, Text: "Switching Protocols"}},
		{"garbage", "SSH-2.0-x\r\n", netdial.UpstreamError{Text: "without HTTP: its first byte is 0x53"}},
		{"TLS alert", "\x15\x03\x01\x00\x02\x02\x46", netdial.UpstreamError{Text: "without HTTP: its first byte is 0x15"}},
		{"broken status", "HTTP/1.1 two hundred\r\n\r\n", netdial.UpstreamError{Text: "with a broken status line"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			left := make(chan struct{})
			proxy := serve(t, func(conn net.Conn) {
				answerConnect(t, conn, c.answer)
				drain(conn)
				close(left)
			})
			d := &netdial.Dialer{Server: addr(t, "server.example:443"), Upstream: upstream("http", url.UserPassword("joe", secret), proxy)}
			e := failed(t, t.Context(), d, netdial.StepUpstream)
			var got *netdial.UpstreamError
			if !errors.As(e, &got) || got.Status != c.want.Status || got.Text != c.want.Text || got.Auth != c.want.Auth || !slices.Equal(got.Schemes, c.want.Schemes) {
				t.Errorf("got %#v, want %#v", e.Err, c.want)
			}
			if !e.Upstream || e.Addr != proxy.String() || e.Timeout() {
				t.Errorf("got %+v", e)
			}
			select {
			case <-left:
			case <-time.After(5 * time.Second):
				t.Error("the connection stays open")
			}
			if strings.Contains(e.Error(), "hunter2") {
				t.Errorf("the password shows: %v", e)
			}
		})
	}
}

func TestConnectNeverEnding(t *testing.T) {
	proxy := serve(t, func(c net.Conn) {
		answerConnect(t, c, "HTTP/1.1 200 OK\r\n")
		for {
			if _, err := io.WriteString(c, "X-Filler: and more of it\r\n"); err != nil {
				return
			}
		}
	})
	d := &netdial.Dialer{Server: addr(t, "server.example:443"), Upstream: upstream("http", nil, proxy)}
	if e := failed(t, t.Context(), d, netdial.StepUpstream); !errors.Is(e, netdial.ErrLongHead) {
		t.Errorf("got %v", e)
	}
}

func TestConnectCutShort(t *testing.T) {
	proxy := serve(t, func(c net.Conn) { answerConnect(t, c, "HTTP/1.1 200 OK\r\n") })
	d := &netdial.Dialer{Server: addr(t, "server.example:443"), Upstream: upstream("http", nil, proxy)}
	if e := failed(t, t.Context(), d, netdial.StepUpstream); !errors.Is(e, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", e)
	}
}

func TestResetBehindAnswer(t *testing.T) {
	got := make(chan error, 1)
	proxy := serve(t, func(c net.Conn) {
		_, rest := answerConnect(t, c, "HTTP/1.1 200 OK\r\n\r\nx")
		_, err := io.Copy(io.Discard, rest)
		got <- err
	})
	d := &netdial.Dialer{Server: addr(t, "server.example:443"), Upstream: upstream("http", nil, proxy)}
	conn, err := d.ConnectStream(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.(transport.Resetter).Reset(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the proxy read %v, want a reset", err)
	}
}

// oneByteConn delivers a byte at a time.
type oneByteConn struct{ net.Conn }

func (c oneByteConn) Read(p []byte) (int, error) { return iotest.OneByteReader(c.Conn).Read(p) }

func TestConnectByteByByte(t *testing.T) {
	proxy := serve(t, func(c net.Conn) {
		_, rest := answerConnect(t, c, "HTTP/1.1 200\r\n\r\nx")
		_, _ = io.Copy(c, rest)
	})
	d := &netdial.Dialer{Server: addr(t, "server.example:443"), Upstream: upstream("http", nil, proxy)}
	d.DialTCP = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		return oneByteConn{c}, err
	}
	conn, err := d.ConnectStream(t.Context(), []byte("y"))
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 2)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "xy" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := conn.CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("CloseWrite of a connection that cannot: %v", err)
	}
	if err := conn.(transport.Resetter).Reset(); err != nil {
		t.Errorf("Reset: %v", err)
	}
}

func TestUpstreamHop(t *testing.T) {
	for _, c := range []struct {
		name, url string
		step      netdial.Step
		host      string // resolved
		is        error
	}{
		{"default HTTP port", "http://proxy.example", netdial.StepTCP, "proxy.example", syscall.ECONNREFUSED},
		{"default SOCKS port", "socks5://joe:hunter2@proxy.example", netdial.StepTCP, "proxy.example", syscall.ECONNREFUSED},
		{"scheme", "https://joe:hunter2@proxy.example", netdial.StepUpstream, "", netdial.ErrUpstreamScheme},
		{"no host", "http://:3128", netdial.StepUpstream, "", netdial.ErrUpstreamHost},
		{"bad port", "http://joe:hunter2@proxy.example:99999", netdial.StepUpstream, "", netaddr.ErrBadPort},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u, err := url.Parse(c.url)
				if err != nil {
					t.Fatal(err)
				}
				var asked string
				resolver := resolverFunc(func(_ context.Context, host string) ([]netip.Addr, error) {
					asked += host
					return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
				})
				network := newNet(map[string]fate{"192.0.2.1": {err: syscall.ECONNREFUSED}})
				d := &netdial.Dialer{Server: addr(t, "server.example:443"), Upstream: u, Resolver: resolver, DialTCP: network.dial}
				e := failed(t, t.Context(), d, c.step)
				if !errors.Is(e, c.is) || !e.Upstream || asked != c.host {
					t.Errorf("got %v after asking for %q", e, asked)
				}
				if strings.Contains(e.Error(), "hunter2") {
					t.Errorf("the password shows: %v", e)
				}
				if c.step == netdial.StepTCP && e.Addr != u.Host+map[string]string{"http": ":80", "socks5": ":1080"}[u.Scheme] {
					t.Errorf("dialled %s", e.Addr)
				}
			})
		})
	}
}

func TestUpstreamSilent(t *testing.T) {
	for _, scheme := range []string{"http", "socks5"} {
		t.Run(scheme, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newNet(map[string]fate{"192.0.2.1": {after: time.Second}})
				d := &netdial.Dialer{
					Server:   addr(t, "server.example:443"),
					Upstream: upstream(scheme, nil, addr(t, "192.0.2.1:3128")),
					DialTCP:  network.dial,
					Timeout:  4 * time.Second,
				}
				e := failed(t, t.Context(), d, netdial.StepUpstream)
				if !errors.Is(e, context.DeadlineExceeded) || e.Took != 3*time.Second {
					t.Errorf("got %v after %v", e, e.Took)
				}
				if left := network.left(); len(left) != 0 {
					t.Errorf("still open: %v", left)
				}
			})
		})
	}
}

// TestPrefixedStream holds the stream behind an answer that came with more to
// the contract of streams.
func TestPrefixedStream(t *testing.T) {
	transporttest.TestStream(t, func(t *testing.T) (a, b transport.StreamConn) {
		near, far := transporttest.Pipe(1 << 16)
		go func() {
			answerConnect(t, far, "HTTP/1.1 200 OK\r\n\r\nx")
		}()
		d := &netdial.Dialer{Server: addr(t, "server.example:443"), Upstream: upstream("http", nil, addr(t, "192.0.2.1:1"))}
		d.DialTCP = func(context.Context, string, string) (net.Conn, error) { return near, nil }
		conn, err := d.ConnectStream(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return conn, far
	})
}
