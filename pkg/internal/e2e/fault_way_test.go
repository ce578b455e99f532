package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// The faults of the way to the server: each is named with its fix, the
// application gets RFC 1928's reply code, and right beside it stands what is
// no fault and not blamed.

// Reply codes of RFC 1928 section 6.
const (
	replyGeneral     = 1
	replyNotAllowed  = 2
	replyNetwork     = 3
	replyHost        = 4
	replyConnRefused = 5
)

// A wayFault is a client that cannot reach its server, and what must come of
// it.
type wayFault struct {
	name   string
	remote config.Remote
	change func(*config.Client) // may be nil
	setup  labSetup             // the rest
	code   int
	want   expected
}

// shortDial bounds the way where a test waits for its end.
const shortDial = time.Second

// lookTime is what a second look at a failed way may take (pkg/diagnose).
const lookTime = 2500 * time.Millisecond

func shortly(c *config.Client) { c.Limits.Dial = config.Duration(shortDial) }

// run makes two requests that must fail alike, of which one is told, in two
// lines.
func (f wayFault) run(t *testing.T) {
	t.Parallel()
	f.setup.remote, f.setup.change = f.remote, f.change
	l := newLab(t, f.setup)
	f.want.since = time.Now()
	if f.want.within == 0 {
		f.want.within = time.Second
	}
	r := l.ask("somewhere.example:80", "", 0)
	r.wantCode(t, f.code)
	if r.coded > f.want.within+slowness {
		t.Errorf("the reply took %v, want it within %v", r.coded, f.want.within)
	}
	l.expect(t, f.want)
	l.ask("somewhere.example:80", "", 0).wantCode(t, f.code)
	status, page := getVia(t, l.addr, "http://somewhere.example/")
	if status < 500 || !strings.Contains(page, f.want.cause+": ") {
		t.Errorf("a browser reads %d %q, want the cause", status, page)
	}
	for what, value := range f.configured() {
		if strings.Contains(page, value) {
			t.Errorf("a page reads %s, %q, in %q", what, value, page)
		}
	}
	l.wantFailures(t, 1)
}

// configured are the values of a configuration that are no page's business: a
// browser takes the proxy's answer for one of the page's own origin.
func (f wayFault) configured() map[string]string {
	c := clientConfig(f.remote)
	if f.change != nil {
		f.change(c)
	}
	r := &c.Server
	all := map[string]string{
		"the address": r.Address, "the port": strconv.Itoa(r.Port), "the path": r.WS.Path,
		"the Host": r.WS.Host, "the TLS name": r.TLS.ServerName, "the file's name": "config.json",
	}
	if proxy, err := url.Parse(string(c.Upstream)); err == nil {
		all["the proxy"], all["the proxy's port"] = proxy.Hostname(), proxy.Port()
	}
	maps.DeleteFunc(all, func(_, value string) bool { return value == "" })
	return all
}

// wantFine wants that a configuration works, without a word.
func wantFine(t *testing.T, s labSetup, origin string) {
	t.Helper()
	l := newLab(t, s)
	l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
	l.wantQuiet(t)
}

func with(r config.Remote, change func(*config.Remote)) config.Remote {
	change(&r)
	return r
}

func otherPath(r *config.Remote) { r.WS.Path = "/other" }
func withTLS(r *config.Remote)   { r.TLS.Enabled = true }

// rawAnswer answers every HTTP request with the same bytes and closes.
func rawAnswer(t testing.TB, answer string) string {
	t.Helper()
	return serveOrigin(t, func(c *net.TCPConn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, answer)
		}
	})
}

// token is a header's value that is nobody's business.
const token = "5ec2e7 token/of;edge=5ec2e7edge"

func withToken(r *config.Remote) { r.WS.Headers = map[string]string{"X-Edge": token} }

// webPage is an HTTP answer.
func webPage(status, server, body string) string {
	return fmt.Sprintf("HTTP/1.1 %s\r\nServer: %s\r\nContent-Type: text/html\r\nDate: %s\r\nContent-Length: %d\r\n\r\n%s",
		status, server, time.Now().UTC().Format(http.TimeFormat), len(body), body)
}

// TestFaultUpgrade is about servers that answer the upgrade with something
// else.
func TestFaultUpgrade(t *testing.T) {
	t.Parallel()
	origin := echoOrigin(t)
	ours := inProcessServer(t, serverConfig(), inProcess{}).addr
	hosted := serverConfig()
	hosted.WS.Host = "right.example"
	ourHost := inProcessServer(t, hosted, inProcess{}).addr

	for _, f := range []wayFault{
		{
			name: "wrong path, our server", remote: with(remoteAt(t, ours), otherPath), code: replyGeneral,
			want: expected{cause: "ws.not-found", sentence: "the VMess server returned 404: its path is not /other", fix: `correct "ws.path" at config.json:`, confidence: "certain"},
		},
		{
			name: "wrong Host, our server", remote: with(remoteAt(t, ourHost), func(r *config.Remote) { r.WS.Host = "wrong.example" }), code: replyGeneral,
			want: expected{cause: "ws.not-found", fix: `correct "ws.path" at config.json:`},
		},
		{
			name: "403 of Cloudflare", remote: remoteAt(t, rawAnswer(t, webPage("403 Forbidden", "cloudflare", "<html>no"))), code: replyGeneral,
			want: expected{cause: "ws.forbidden", sentence: "Cloudflare returned 403", fix: "at the CDN: turn WebSockets on", confidence: "likely"},
		},
		{
			name: "400 of a web server", remote: remoteAt(t, rawAnswer(t, webPage("400 Bad Request", "Apache", "<html>no"))), code: replyGeneral,
			want: expected{cause: "ws.bad-request", sentence: "Apache returned 400", fix: `check "ws.host"`},
		},
		{
			name: "521 of Cloudflare", remote: remoteAt(t, rawAnswer(t, webPage("521 ", "cloudflare", "<html>no"))), code: replyGeneral,
			want: expected{cause: "ws.bad-gateway", sentence: "the server refuses its connection", fix: "at the CDN: check the DNS record", confidence: "certain"},
		},
		{
			name: "429", remote: remoteAt(t, rawAnswer(t, webPage("429 Too Many Requests", "nginx", ""))), code: replyGeneral,
			want: expected{cause: "ws.unexpected-status", sentence: "429 Too Many Requests", fix: "wait a while", confidence: "certain"},
		},
		// The laboratory's audit searches what these bring about for the token.
		{
			name: "a Server that echoes", remote: with(remoteAt(t, rawAnswer(t, webPage("403 Forbidden", "edge "+token, "<html>no"))), withToken), code: replyGeneral,
			want: expected{cause: "ws.forbidden", sentence: "edge … returned 403"},
		},
		{
			name: "a Location that echoes", remote: with(remoteAt(t, rawAnswer(t, "HTTP/1.1 302 Found\r\nLocation: http://edge.example/5EC2E7edge/"+url.PathEscape(token)+"\r\nContent-Length: 0\r\n\r\n")), withToken), code: replyGeneral,
			want: expected{cause: "ws.redirect", sentence: "redirects to http://edge.example/"},
		},
		{
			name: "a broken line that echoes", remote: with(remoteAt(t, rawAnswer(t, "HTTP/1.1 403 Forbidden\r\n"+token+"\r\n\r\n")), withToken), code: replyGeneral,
			want: expected{cause: "ws.not-http", sentence: "malformed HTTP"},
		},
		{
			name: "no HTTP, and echoes", remote: with(remoteAt(t, rawAnswer(t, token+"\r\n")), withToken), code: replyGeneral,
			want: expected{cause: "ws.not-http", sentence: "answers the WebSocket upgrade with unknown bytes"},
		},
		{
			name: "SSH", remote: remoteAt(t, serveOrigin(t, func(c *net.TCPConn) {
				_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n")
				_, _ = io.Copy(io.Discard, c)
			})), code: replyGeneral,
			want: expected{cause: "ws.not-http", sentence: "answers the WebSocket upgrade with SSH", fix: `check "port" at config.json:`, confidence: "certain", within: lookTime + time.Second},
		},
	} {
		t.Run(f.name, f.run)
	}
	t.Run("fine", func(t *testing.T) {
		t.Parallel()
		wantFine(t, labSetup{remote: remoteAt(t, ours)}, origin)
		wantFine(t, labSetup{remote: with(remoteAt(t, ourHost), func(r *config.Remote) { r.WS.Host = "RIGHT.example:8443" })}, origin)
		// A page that does not exist is an answer like any other.
		gone := rawAnswer(t, webPage("404 Not Found", "nginx", "gone"))
		l := newLab(t, labSetup{remote: remoteAt(t, ours)})
		if status, body := getVia(t, l.addr, "http://"+gone+"/"); status != http.StatusNotFound || body != "gone" {
			t.Errorf("%d %q", status, body)
		}
		l.wantQuiet(t)
	})
}

// TestFaultUpgradeV2ray is about real V2Ray and real nginx in front of it.
func TestFaultUpgradeV2ray(t *testing.T) {
	t.Parallel()
	origin := echoOrigin(t)
	v2ray := labV2ray(t).addr
	// Each fault is a port of one nginx.
	front, bare, dead, closed, moved, site := freePort(t), freePort(t), freePort(t), freePort(t), freePort(t), freePort(t)
	runNginx(t, front, strings.NewReplacer(
		"FRONT", front, "BARE", bare, "DEAD", dead, "CLOSED", closed, "MOVED", moved, "SITE", site,
		"V2RAY", v2ray, "NOBODY", freePort(t), "PATH", wsPath,
	).Replace(nginxFaults))
	hostOf := func(name string) func(*config.Remote) {
		return func(r *config.Remote) { r.WS.Host = name }
	}

	for _, f := range []wayFault{
		{
			name: "wrong path, V2Ray", remote: with(remoteAt(t, v2ray), otherPath), code: replyGeneral,
			want: expected{cause: "ws.not-found", sentence: "the VMess server returned 404: its path is not /other", fix: `correct "ws.path" at config.json:`, confidence: "certain"},
		},
		{
			name: "wrong path, nginx", remote: with(remoteAt(t, front), func(r *config.Remote) { otherPath(r); hostOf("right.example")(r) }), code: replyGeneral,
			want: expected{cause: "ws.not-found", sentence: "returned 404: nothing is configured at /other for host right.example", fix: `correct "ws.path" at config.json:`, confidence: "certain"},
		},
		{
			name: "wrong Host, nginx", remote: with(remoteAt(t, front), hostOf("wrong.example")), code: replyGeneral,
			want: expected{cause: "ws.not-found", sentence: "nothing is configured at " + wsPath + " for host wrong.example", fix: `or "ws.host" at config.json:`},
		},
		{
			name: "upgrade headers dropped by nginx", remote: remoteAt(t, bare), code: replyGeneral,
			want: expected{cause: "ws.bad-request", sentence: "removed the Upgrade header", fix: "proxy_set_header Upgrade $http_upgrade", confidence: "certain"},
		},
		{
			name: "502", remote: remoteAt(t, dead), code: replyGeneral,
			want: expected{cause: "ws.bad-gateway", sentence: "returned 502: it cannot reach its V2Ray backend", fix: "on the server: start V2Ray, and check that proxy_pass"},
		},
		{
			name: "503", remote: remoteAt(t, closed), code: replyGeneral,
			want: expected{cause: "ws.bad-gateway", sentence: "returned 503", fix: "start V2Ray"},
		},
		{
			name: "301 to https", remote: remoteAt(t, moved), code: replyGeneral,
			want: expected{cause: "ws.redirect", sentence: "returned 301 and redirects to https://", fix: `set "tls.enabled": true at config.json:`, confidence: "certain"},
		},
		{
			name: "200 with a page", remote: remoteAt(t, site), code: replyGeneral,
			want: expected{cause: "ws.not-websocket", sentence: "returned 200 with a web page at " + wsPath, fix: `correct "ws.path" at config.json:`, confidence: "certain"},
		},
	} {
		t.Run(f.name, f.run)
	}
	t.Run("fine", func(t *testing.T) {
		t.Parallel()
		wantFine(t, labSetup{remote: remoteAt(t, v2ray)}, origin)
		wantFine(t, labSetup{remote: with(remoteAt(t, front), hostOf("right.example"))}, origin)
	})
}

const nginxFaults = `
  server {
    listen FRONT;
    server_name right.example;
    location PATH {
      proxy_pass http://V2RAY;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
    }
  }
  server { listen FRONT default_server; return 404; }
  server { listen BARE; location / { proxy_pass http://V2RAY; } }
  server { listen DEAD; location / { proxy_pass http://NOBODY; } }
  server { listen CLOSED; return 503; }
  server { listen MOVED; return 301 https://$host$request_uri; }
  server { listen SITE; default_type text/html; return 200 "<html>welcome</html>"; }
`

// TestFaultTLSOrNot speaks ws to ports of TLS and wss to ports without.
func TestFaultTLSOrNot(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t)
	origin := echoOrigin(t)
	secure := serverConfig()
	secure.TLS = config.ServerTLS{CertFile: certs.certFile, KeyFile: certs.keyFile}
	ourTLS := inProcessServer(t, secure, inProcess{}).addr
	ours := inProcessServer(t, serverConfig(), inProcess{}).addr
	v2rayTLS := startV2rayServer(t, v2rayServer{tls: certs}).addr
	v2ray := labV2ray(t).addr
	nginxTLS := startNginx(t, v2ray, certs, 0).addr
	nginx := freePort(t)
	runNginx(t, nginx, "server { listen "+nginx+"; location / { proxy_pass http://"+v2ray+"; proxy_http_version 1.1;"+
		` proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; } }`)

	needsTLS := func(name, addr string) wayFault {
		return wayFault{
			name: "ws to TLS, " + name, remote: remoteAt(t, addr), code: replyGeneral,
			want: expected{cause: "ws.needs-tls", sentence: "the port requires TLS", fix: `set "tls.enabled": true at config.json:`, confidence: "certain"},
		}
	}
	notTLS := func(name, addr string) wayFault {
		return wayFault{
			name: "wss to plain, " + name, remote: with(remoteAt(t, addr), withTLS), code: replyGeneral,
			want: expected{cause: "tls.not-tls", sentence: "the port does not speak TLS", fix: `set "tls.enabled": false in "server" of config.json, or use the TLS port`, confidence: "certain", within: lookTime},
		}
	}
	silence := needsTLS("silence", silentToHTTP(t, certs))
	silence.code, silence.want.within = replyHost, 4*time.Second // however long limits.dial is
	tlsSilence := notTLS("silence", silentToTLS(t))
	tlsSilence.change, tlsSilence.code, tlsSilence.want.within = shortly, replyHost, shortDial+time.Second
	for _, f := range []wayFault{
		needsTLS("our server", ourTLS),
		needsTLS("V2Ray", v2rayTLS),
		needsTLS("nginx", nginxTLS),
		needsTLS("a TLS alert", rawAnswer(t, "\x15\x03\x01\x00\x02\x02\x46")),
		silence,
		notTLS("our server", ours),
		notTLS("V2Ray", v2ray),
		notTLS("nginx", nginx),
		tlsSilence,
	} {
		t.Run(f.name, f.run)
	}
	t.Run("fine", func(t *testing.T) {
		t.Parallel()
		for _, addr := range []string{ourTLS, v2rayTLS, nginxTLS} {
			wantFine(t, labSetup{remote: overTLS(remoteAt(t, addr), certs)}, origin)
		}
		for _, addr := range []string{ours, v2ray, nginx} {
			wantFine(t, labSetup{remote: remoteAt(t, addr)}, origin)
		}
	})
}

// silentToHTTP speaks TLS and says nothing to anything else, as sing-box does.
func silentToHTTP(t testing.TB, certs *certificates) string {
	t.Helper()
	return serveOrigin(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		if first, err := r.Peek(1); err == nil && first[0] == 0x16 {
			_ = tls.Server(readFrom{c, r}, &tls.Config{Certificates: []tls.Certificate{certs.cert}}).Handshake()
		}
		_, _ = io.Copy(io.Discard, r)
	})
}

// silentToTLS answers HTTP and says nothing to anything else.
func silentToTLS(t testing.TB) string {
	t.Helper()
	return serveOrigin(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		if first, err := r.Peek(1); err == nil && first[0] == 'G' {
			_, _ = io.WriteString(c, webPage("404 Not Found", "", ""))
		}
		_, _ = io.Copy(io.Discard, r)
	})
}

// readFrom is a connection some of whose bytes were read ahead.
type readFrom struct {
	net.Conn
	r io.Reader
}

func (c readFrom) Read(p []byte) (int, error) { return c.r.Read(p) }
