package e2e

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// named is a server that is known by a name.
func named(r config.Remote) config.Remote {
	return with(r, func(r *config.Remote) { r.Address = "vps.example" })
}

// A resolverFunc is a resolver of the laboratory: no test asks a real one.
type resolverFunc func(ctx context.Context) ([]netip.Addr, error)

// LookupNetIP implements netdial.Resolver.
func (f resolverFunc) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	return f(ctx)
}

// answers is a resolver that knows one answer.
func answers(err error, addrs ...string) resolverFunc {
	var all []netip.Addr
	for _, a := range addrs {
		all = append(all, netip.MustParseAddr(a))
	}
	return func(context.Context) ([]netip.Addr, error) { return all, err }
}

// TestFaultDNS is about a server's name that does not resolve.
func TestFaultDNS(t *testing.T) {
	t.Parallel()
	ours := remoteAt(t, inProcessServer(t, serverConfig(), inProcess{}).addr)
	noSuch := &net.DNSError{Err: "no such host", Name: "vps.example", Server: "192.0.2.53:53", IsNotFound: true}
	servfail := &net.DNSError{Err: "server misbehaving", Name: "vps.example", Server: "192.0.2.53:53", IsTemporary: true}
	down := resolverFunc(func(ctx context.Context) ([]netip.Addr, error) {
		<-ctx.Done()
		return nil, &net.DNSError{Err: "i/o timeout", Name: "vps.example", Server: "192.0.2.53:53", IsTimeout: true}
	})
	for _, f := range []wayFault{
		{
			name: "not found", remote: named(ours), setup: labSetup{resolver: answers(noSuch)}, code: replyHost,
			want: expected{cause: "dns.not-found", sentence: "192.0.2.53:53 reports that the name vps.example does not exist", fix: `correct "address" at config.json:`, confidence: "certain"},
		},
		{
			name: "SERVFAIL", remote: named(ours), setup: labSetup{resolver: answers(servfail)}, code: replyHost,
			want: expected{cause: "dns.failed", sentence: "192.0.2.53:53 cannot resolve vps.example", fix: "try again, or use another resolver", confidence: "certain"},
		},
		{
			name: "resolver down", remote: named(ours), setup: labSetup{resolver: down}, change: shortly, code: replyHost,
			want: expected{cause: "dns.timeout", sentence: "192.0.2.53:53 did not answer the query for vps.example", fix: "check that this computer is online", confidence: "certain", within: shortDial},
		},
	} {
		t.Run(f.name, f.run)
	}
	t.Run("fine", func(t *testing.T) {
		t.Parallel()
		wantFine(t, labSetup{remote: named(ours), resolver: answers(nil, "127.0.0.1")}, echoOrigin(t))
		// One dead address of two is nobody's business.
		wantFine(t, labSetup{remote: named(ours), resolver: answers(nil, "::1", "127.0.0.1")}, echoOrigin(t))
	})
}

// TestFaultTCP is about a server that cannot be connected to, or says nothing.
func TestFaultTCP(t *testing.T) {
	t.Parallel()
	silent := silentOrigin(t)
	resets := serveOrigin(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.SetLinger(0)
	})
	closes := serveOrigin(t, func(c *net.TCPConn) { _, _ = http.ReadRequest(bufio.NewReader(c)) })
	for _, f := range []wayFault{
		{
			name: "refused", remote: remoteAt(t, freePort(t)), code: replyConnRefused,
			want: expected{cause: "tcp.refused", sentence: "refuses the connection: nothing is listening on that port", fix: `check "port" at config.json:`, confidence: "certain"},
		},
		{
			name: "reset before the answer", remote: remoteAt(t, resets), code: replyGeneral,
			want: expected{cause: "ws.reset", sentence: "was reset before it answered", fix: `check "port" at config.json:`, within: lookTime},
		},
		{
			name: "closed before the answer", remote: remoteAt(t, closes), code: replyGeneral,
			want: expected{cause: "ws.reset", sentence: "was closed before it answered", fix: `check "port" at config.json:`, within: lookTime},
		},
		{
			name: "reset in the TLS handshake", remote: with(remoteAt(t, resets), withTLS), code: replyGeneral,
			want: expected{cause: "tcp.reset", sentence: "was reset during the TLS handshake", fix: `check "port" at config.json:`, within: lookTime},
		},
		{
			name: "silent", remote: remoteAt(t, silent), change: shortly, code: replyHost,
			want: expected{cause: "ws.silent", sentence: "accepts the connection but does not answer the WebSocket upgrade", fix: `check "port" at config.json:`, within: shortDial + lookTime},
		},
		{
			name: "silent to TLS", remote: with(remoteAt(t, silent), withTLS), change: shortly, code: replyHost,
			want: expected{cause: "ws.silent", sentence: "does not answer the TLS handshake within 1 s", fix: `check "port" at config.json:`, within: shortDial + lookTime},
		},
	} {
		t.Run(f.name, f.run)
	}
	t.Run("fine", func(t *testing.T) {
		t.Parallel()
		// A server far away is slow, not silent.
		far := newRoad(t, inProcessServer(t, serverConfig(), inProcess{}).addr, 200*time.Millisecond, 100*time.Millisecond)
		wantFine(t, labSetup{remote: remoteAt(t, far.addr), change: shortly}, echoOrigin(t))
	})
	t.Run("refused, and then there", func(t *testing.T) {
		t.Parallel()
		cfg := serverConfig()
		cfg.Listen = freePort(t)
		l := newLab(t, labSetup{remote: remoteAt(t, cfg.Listen)})
		l.ask("somewhere.example:80", "", 0).wantCode(t, replyConnRefused)
		l.expect(t, expected{cause: "tcp.refused", since: time.Now(), within: time.Second})
		inProcessServer(t, cfg, inProcess{})
		l.ask(echoOrigin(t), "hello\n", 6).wantData(t, "hello\n")
		l.wantFailures(t, 1)
	})
}

// connectProxy is an HTTP proxy that answers CONNECT with answer, or carries
// it out if there is none.
func connectProxy(t testing.TB, answer string) string {
	t.Helper()
	return serveOrigin(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if answer != "" {
			_, _ = io.WriteString(c, answer)
			return
		}
		far, err := net.DialTimeout("tcp", req.Host, 5*time.Second)
		if err != nil {
			_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
			return
		}
		defer far.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(far, r)
			_ = far.Close()
		}()
		_, _ = io.Copy(c, far)
		_ = c.Close()
	})
}

// echoProxy is an HTTP proxy that refuses with answer, in which CREDENTIALS
// and BASIC are what it was sent, with the header's name and without.
func echoProxy(t testing.TB, answer string) string {
	t.Helper()
	return serveOrigin(t, func(c *net.TCPConn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		sent := req.Header.Get("Proxy-Authorization")
		basic := strings.TrimPrefix(sent, "Basic ")
		_, _ = io.WriteString(c, strings.NewReplacer("CREDENTIALS", "Proxy-Authorization: "+sent, "BASIC", basic).Replace(answer))
	})
}

// TestFaultUpstream is about the company proxy.
func TestFaultUpstream(t *testing.T) {
	t.Parallel()
	ours := remoteAt(t, inProcessServer(t, serverConfig(), inProcess{}).addr)
	via := func(addr string) func(*config.Client) {
		return func(c *config.Client) { c.Upstream = config.Secret("http://5ec2e7user:5ec2e7word@" + addr) }
	}
	for _, f := range []wayFault{
		{
			name: "not there", remote: ours, change: via(freePort(t)), code: replyConnRefused,
			want: expected{cause: "upstream.failed", sentence: "is not running: its port refuses the connection", fix: `check "upstream" at config.json:`, confidence: "certain"},
		},
		{
			name: "407", remote: ours, change: via(connectProxy(t, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n")), code: replyGeneral,
			want: expected{cause: "upstream.auth", sentence: "requires a username and password (or rejected these)", fix: `write them into "upstream" at config.json:`, confidence: "certain"},
		},
		{
			name: "407 of a kind not spoken", remote: ours, change: via(connectProxy(t, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n")), code: replyGeneral,
			want: expected{cause: "upstream.auth", sentence: "unsupported authentication scheme", fix: "run a helper that supports it"},
		},
		{
			name: "403", remote: ours, change: via(connectProxy(t, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")), code: replyGeneral,
			want: expected{cause: "upstream.refused", sentence: "403 Forbidden", fix: "ask for the server to be allowed there", confidence: "certain"},
		},
		{
			name: "the server behind it is not there", remote: remoteAt(t, freePort(t)), change: via(connectProxy(t, "")), code: replyGeneral,
			want: expected{cause: "upstream.failed", sentence: "502 Bad Gateway", fix: `check "address" at config.json:`},
		},
		// The laboratory's audit searches what these bring about for what they echo.
		{
			name: "407 that echoes", remote: ours, change: via(echoProxy(t, "HTTP/1.1 407 denied for CREDENTIALS\r\nProxy-Authenticate: BASIC\r\nContent-Length: 0\r\n\r\n")), code: replyGeneral,
			want: expected{cause: "upstream.auth", sentence: "unsupported authentication scheme (it offers another)"},
		},
		{
			name: "403 that echoes", remote: ours, change: via(echoProxy(t, "HTTP/1.1 403 BASIC\r\nContent-Length: 0\r\n\r\n")), code: replyGeneral,
			want: expected{cause: "upstream.refused", sentence: ": 403 Forbidden"},
		},
		{
			name: "no HTTP, and echoes", remote: ours, change: via(echoProxy(t, "BASIC\r\n")), code: replyGeneral,
			want: expected{cause: "upstream.failed", sentence: "sent an unexpected answer"},
		},
		{
			name: "broken HTTP that echoes", remote: ours, change: via(echoProxy(t, "HTTP/1.1 BASIC\r\n\r\n")), code: replyGeneral,
			want: expected{cause: "upstream.failed", sentence: "sent an unexpected answer"},
		},
	} {
		t.Run(f.name, func(t *testing.T) {
			f.run(t)
		})
	}
	t.Run("fine", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, labSetup{remote: ours, change: via(connectProxy(t, ""))})
		l.ask(echoOrigin(t), "hello\n", 6).wantData(t, "hello\n")
		l.wantQuiet(t)
		if strings.Contains(l.json.String()+l.text.String(), "5ec2e7") {
			t.Error("the proxy's password is shown")
		}
	})
}
