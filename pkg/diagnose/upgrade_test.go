package diagnose_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"vmess-local/pkg/carrier/wsconn"
	"vmess-local/pkg/diagnose"
)

func upgradeCases(t *testing.T) []judged {
	const (
		likely  = diagnose.Likely
		certain = diagnose.Certain
	)
	wss, ws := fixture(t, 0, true), fixture(t, 0, false)
	early := ws
	early.EarlyData = 2048
	none := diagnose.ConnectFacts{}
	other := diagnose.ConnectFacts{OtherTLS: diagnose.Yes}
	var cases []judged
	add := func(name string, err error, s diagnose.ServerContext, f diagnose.ConnectFacts, c diagnose.Cause, sure diagnose.Confidence) {
		v, _ := diagnose.Connect(wrapped(err), s, f)
		cases = append(cases, judged{"upgrade: " + name, c, sure, v})
	}
	status := func(code int, server, body string, header ...string) error {
		h := http.Header{}
		if server != "" {
			h.Set("Server", server)
		}
		for i := 0; i < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		return &wsconn.HandshakeError{Status: code, Header: h, Body: []byte(body), Err: errors.New("bad handshake")}
	}
	answered := func(name string, err error, s diagnose.ServerContext, c diagnose.Cause, sure diagnose.Confidence) {
		add(name, err, s, none, c, sure)
	}

	answered("404 of the core", status(404, "", ""), wss, diagnose.WSNotFound, certain)
	answered("404 of mihomo", status(404, "", "404 page not found\n"), wss, diagnose.WSNotFound, certain)
	answered("404 of nginx", status(404, "nginx/1.22.1", "<html>404</html>"), wss, diagnose.WSNotFound, certain)
	answered("404 of V2Ray behind nginx", status(404, "nginx/1.22.1", "", "Content-Length", "0"), wss, diagnose.WSNotFound, likely)
	answered("404 of a web server, empty", status(404, "nginx", "", "Content-Length", "0", "Content-Type", "text/html"), wss, diagnose.WSNotFound, certain)
	answered("404 of a web server, its body late", status(404, "nginx", "", "Content-Length", "153"), wss, diagnose.WSNotFound, certain)
	answered("404 of TCP with a header", status(404, "", "", "Content-Length", "0", "Cache-Control", "private"), ws, diagnose.WSNotWebSocket, likely)
	answered("410", status(410, "Apache", "gone"), wss, diagnose.WSNotFound, certain)
	answered("404 of a hostile server", status(404, "\x1b[31mevil\r\n"+"very long name that goes on and on", "x"), wss, diagnose.WSNotFound, certain)
	answered("400 of Go: HTTPS port", status(400, "", "Client sent an HTTP request to an HTTPS server.\n"), ws, diagnose.WSNeedsTLS, certain)
	answered("400 of nginx: HTTPS port", status(400, "nginx", "<center>The plain HTTP request was sent to HTTPS port</center>"), ws, diagnose.WSNeedsTLS, certain)
	answered("400: TLS wanted twice", status(400, "nginx", "Client sent an HTTP request to an HTTPS server."), wss, diagnose.WSBadRequest, certain)
	answered("400 of sing-box: Upgrade dropped", status(400, "", `handshake error: bad "Upgrade" header`), wss, diagnose.WSBadRequest, certain)
	answered("400 of V2Ray", status(400, "", "Bad Request\n", "Sec-Websocket-Version", "13"), wss, diagnose.WSBadRequest, certain)
	answered("400 of V2Ray behind nginx", status(400, "nginx/1.22.1", "Bad Request\n", "Sec-Websocket-Version", "13"), wss, diagnose.WSBadRequest, certain)
	answered("400 of a core", status(400, "", "Bad Request\n"), wss, diagnose.WSBadRequest, likely)
	answered("400 of Go", status(400, "", "400 Bad Request", "Content-Type", "text/plain; charset=utf-8"), ws, diagnose.WSBadRequest, likely)
	answered("400 of Go behind nginx", status(400, "nginx/1.22.1", "400 Bad Request", "Content-Type", "text/plain; charset=utf-8"), wss, diagnose.WSBadRequest, likely)
	answered("400 of Go: Host", status(400, "nginx/1.22.1", "400 Bad Request: malformed Host header"), wss, diagnose.WSBadRequest, certain)
	answered("400 of nginx: client certificate", status(400, "nginx", "<title>400 No required SSL certificate was sent</title>"), wss, diagnose.WSForbidden, certain)
	answered("400 of nginx: large headers", status(400, "nginx", "<title>400 Request Header Or Cookie Too Large</title>"), wss, diagnose.WSBadRequest, certain)
	answered("400 of nginx", status(400, "nginx", "<html>400 Bad Request</html>"), wss, diagnose.WSBadRequest, likely)
	answered("400 of Cloudflare", status(400, "cloudflare", ""), ws, diagnose.WSBadRequest, likely)
	answered("426", status(426, "nginx", ""), wss, diagnose.WSBadRequest, certain)
	answered("403 of nginx", status(403, "nginx", "x"), wss, diagnose.WSForbidden, likely)
	answered("403 of Cloudflare", status(403, "cloudflare", "x"), wss, diagnose.WSForbidden, likely)
	answered("401", status(401, "", "x"), wss, diagnose.WSForbidden, likely)
	answered("502", status(502, "nginx/1.22.1", "x"), wss, diagnose.WSBadGateway, likely)
	answered("503", status(503, "nginx", "x"), wss, diagnose.WSBadGateway, likely)
	answered("504", status(504, "nginx", "x"), wss, diagnose.WSBadGateway, likely)
	answered("521 of Cloudflare", status(521, "cloudflare", "x"), wss, diagnose.WSBadGateway, certain)
	answered("301 to https", status(301, "nginx", "", "Location", "https://"+secretUser+":"+secretPassword+"@cdn.example.com/ray?"+secretQuery), ws, diagnose.WSRedirect, certain)
	link := ws
	link.File, link.Place = "", nil
	answered("301 to https, by a link", status(301, "nginx", "", "Location", "https://cdn.example.com/ray"), link, diagnose.WSRedirect, certain)
	answered("308 to https on a port", status(308, "Caddy", "", "Location", "https://cdn.example.com:8443/ray"), ws, diagnose.WSRedirect, certain)
	answered("302 elsewhere", status(302, "nginx", "", "Location", "/login?"+secretQuery), wss, diagnose.WSRedirect, certain)
	answered("302 nowhere", status(302, "nginx", "", "Location", "http://%zz"), wss, diagnose.WSRedirect, certain)
	answered("301 that adds a slash", status(301, "nginx", "", "Location", "http://CDN.example.com:47502/ray/"), ws, diagnose.WSRedirect, certain)
	answered("301 that drops a slash", status(301, "nginx", "", "Location", "/ray"), withPath(ws, "/ray/?ed=2048"), diagnose.WSRedirect, certain)
	answered("301 that adds a slash elsewhere", status(301, "nginx", "", "Location", "http://other.example.com/ray/"), ws, diagnose.WSRedirect, certain)
	answered("200 of HTTP/2", status(200, "", "", "Cache-Control", "no-store"), ws, diagnose.WSNotWebSocket, likely)
	answered("200 with a page", status(200, "nginx", "<html>", "Content-Type", "text/html; charset=utf-8"), wss, diagnose.WSNotWebSocket, certain)
	answered("200 with JSON", status(200, "", "{}", "Content-Type", "application/json"), wss, diagnose.WSNotWebSocket, certain)
	answered("101 with wrong headers", status(101, "nginx", "", "Sec-WebSocket-Accept", "x"), wss, diagnose.WSNotWebSocket, certain)
	answered("101 of HTTPUpgrade", status(101, "", "", "Connection", "Upgrade", "Upgrade", "websocket"), wss, diagnose.WSNotWebSocket, likely)
	answered("500", status(500, "nginx", "x"), wss, diagnose.WSUnexpectedStatus, certain)
	answered("407", status(407, "squid", "x"), ws, diagnose.WSUnexpectedStatus, certain)
	answered("421", status(421, "nginx", "x"), wss, diagnose.WSUnexpectedStatus, certain)
	answered("429", status(429, "cloudflare", "x"), wss, diagnose.WSUnexpectedStatus, certain)
	answered("999", status(999, "", "x"), wss, diagnose.WSUnexpectedStatus, certain)

	// Early data: only a working attempt without it makes it the culprit.
	without := diagnose.ConnectFacts{WithoutEarlyData: diagnose.Yes}
	add("400 with early data, fine without", status(400, "", ""), early, without, diagnose.WSEarlyDataRefused, certain)
	add("400 with early data, the same without", status(400, "", ""), early, diagnose.ConnectFacts{WithoutEarlyData: diagnose.No}, diagnose.WSBadRequest, likely)
	add("404 with early data, not tried without", status(404, "", ""), early, none, diagnose.WSNotFound, certain)
	add("404, no early data configured", status(404, "", ""), ws, without, diagnose.WSNotFound, certain)

	garbled := func(seen string) error {
		return &wsconn.ProtocolError{Seen: []byte(seen), Err: errors.New("it does not begin with HTTP/")}
	}
	answered("TLS alert in answer to HTTP", garbled("\x15\x03\x01\x00\x02\x02\x46"), ws, diagnose.WSNeedsTLS, certain)
	answered("TLS in answer to HTTP within TLS", garbled("\x15\x03\x01\x00\x02\x02\x46"), wss, diagnose.WSNotHTTP, certain)
	answered("HTTP/2", garbled("\x00\x00\x12\x04\x00\x00\x00\x00\x00"), wss, diagnose.WSNotHTTP, certain)
	answered("SSH", garbled("SSH-2.0-OpenSSH_9.2"), ws, diagnose.WSNotHTTP, certain)
	answered("noise", garbled("\x05\xff\x1b[31m\n"), ws, diagnose.WSNotHTTP, certain)
	answered("broken HTTP", garbled("HTTP/1.1 abc"), ws, diagnose.WSNotHTTP, certain)

	silent := &wsconn.TimeoutError{After: 10 * time.Second}
	add("silent, TLS answered", silent, ws, other, diagnose.WSNeedsTLS, certain)
	// The handshake went well, whatever the port answers to plain HTTP.
	add("silent within TLS, HTTP answered", silent, wss, other, diagnose.WSSilent, certain)
	add("silent, VMess accepted", silent, ws, diagnose.ConnectFacts{VMessBelow: diagnose.Yes, OtherTLS: diagnose.No}, diagnose.WSNotWebSocket, certain)
	add("silent", silent, wss, diagnose.ConnectFacts{OtherTLS: diagnose.No}, diagnose.WSSilent, certain)
	add("silent, worked a moment ago", silent, ws, diagnose.ConnectFacts{Worked: true}, diagnose.WSSilent, certain)
	add("silent, TLS not tried", silent, ws, none, diagnose.WSSilent, certain)
	add("silent, not TLS either", silent, ws, diagnose.ConnectFacts{OtherTLS: diagnose.No}, diagnose.WSSilent, certain)

	cut := func(err error) error { return fmt.Errorf("websocket upgrade: %w: %w", wsconn.ErrClosedEarly, err) }
	add("closed", cut(io.EOF), ws, diagnose.ConnectFacts{OtherTLS: diagnose.No}, diagnose.WSReset, certain)
	add("closed, TLS answered", cut(io.EOF), ws, other, diagnose.WSNeedsTLS, certain)
	add("closed, VMess accepted", cut(io.EOF), wss, diagnose.ConnectFacts{VMessBelow: diagnose.Yes}, diagnose.WSNotWebSocket, certain)
	add("closed, HTTP/2 answered", cut(io.EOF), wss, diagnose.ConnectFacts{HTTP2: diagnose.Yes}, diagnose.WSNotHTTP, likely)
	add("closed by an alert", cut(tls.AlertError(116)), wss, none, diagnose.TLSRefused, certain)
	add("reset", cut(os.NewSyscallError("read", syscall.ECONNRESET)), wss, none, diagnose.WSReset, certain)
	return cases
}

func withPath(s diagnose.ServerContext, path string) diagnose.ServerContext {
	s.Path = path
	return s
}

// FuzzUpgrade: whatever a stranger answers, the words stay one short line.
func FuzzUpgrade(f *testing.F) {
	f.Add(404, "nginx", "text/html", "https://a/", []byte("body"), true)
	f.Add(301, "\x1b[31m\u202e", "\r\n", "https://u:p@h:\"1\"/?q", []byte("Client sent an HTTP request to an HTTPS server"), false)
	f.Add(0, "", "", "", []byte{0x15, 3, 1}, false)
	f.Fuzz(func(t *testing.T, status int, server, kind, location string, body []byte, secure bool) {
		s := diagnose.ServerContext{Address: "a", Port: 1, Path: "/", Host: "a", ServerName: "a", TLS: secure}
		header := http.Header{"Server": {server}, "Content-Type": {kind}, "Location": {location}}
		for _, err := range []error{
			&wsconn.HandshakeError{Status: status, Header: header, Body: body, Err: io.EOF},
			&wsconn.ProtocolError{Seen: body[:min(len(body), 64)], Err: io.EOF},
			errors.New(server),
		} {
			v, ok := diagnose.Connect(err, s, diagnose.ConnectFacts{})
			if !ok || v.Fix == "" || utf8.RuneCountInString(v.Line()) > 260 {
				t.Fatalf("%v: %+v", ok, v)
			}
			for _, text := range append(v.Evidence, v.Line(), v.FixLine()) {
				if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) }) {
					t.Fatalf("%q", text)
				}
			}
		}
	})
}
