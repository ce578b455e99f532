package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// What stands in front of V2Ray, or is set there in place of a WebSocket, by
// real nginx and V2Ray where they show it.

// TestFaultFront is about web servers that pass the upgrade on to V2Ray in a
// way that it does not understand.
func TestFaultFront(t *testing.T) {
	t.Parallel()
	origin := echoOrigin(t)
	certs := newCertificates(t)
	v2ray := labV2ray(t).addr
	proxied := wsStream()
	proxied["wsSettings"].(object)["acceptProxyProtocol"] = true
	proxiedV2ray := labV2rayOver(t, proxied).addr
	twice, mapped, slash, asked, broken := freePort(t), freePort(t), freePort(t), freePort(t), freePort(t)
	runNginx(t, twice, strings.NewReplacer(
		"TWICE", twice, "MAPPED", mapped, "SLASH", slash, "ASKED", asked, "BROKEN", broken,
		"V2RAY", v2ray, "PATH", wsPath, "CERT", certs.certFile, "KEY", certs.keyFile, "CA", certs.caFile,
	).Replace(nginxFronts))

	for _, f := range []wayFault{
		{
			name: "Host set twice", remote: remoteAt(t, twice), code: replyGeneral,
			want: expected{cause: "ws.bad-request", sentence: "the program behind nginx", fix: "proxy_set_header Host", confidence: "likely"},
		},
		{
			name: "a broken Host", remote: remoteAt(t, broken), code: replyGeneral,
			want: expected{cause: "ws.bad-request", sentence: "the Host header", fix: "proxy_set_header Host", confidence: "certain"},
		},
		{
			name: "PROXY protocol expected", remote: remoteAt(t, proxiedV2ray), code: replyGeneral,
			want: expected{cause: "ws.bad-request", sentence: "PROXY protocol", fix: `"acceptProxyProtocol"`, confidence: "likely"},
		},
		{
			name: "proxy_pass with a slash", remote: remoteAt(t, mapped), code: replyGeneral,
			want: expected{cause: "ws.not-found", sentence: "forwards the request, but its backend returned 404", fix: "proxy_pass", confidence: "likely"},
		},
		{
			name: "a location with a slash", remote: remoteAt(t, slash), code: replyGeneral,
			want: expected{cause: "ws.redirect", sentence: "redirects " + wsPath + " to " + wsPath + "/", fix: `set "ws.path": "` + wsPath + `/" at config.json:`, confidence: "certain"},
		},
		{
			name: "a client certificate wanted", remote: overTLS(remoteAt(t, asked), certs), code: replyGeneral,
			want: expected{cause: "ws.forbidden", sentence: "requires a client certificate", fix: "ssl_verify_client", confidence: "certain"},
		},
	} {
		t.Run(f.name, f.run)
	}
	t.Run("fine", func(t *testing.T) {
		t.Parallel()
		// The path is right for nginx and V2Ray when it is V2Ray's below "/".
		wantFine(t, labSetup{remote: with(remoteAt(t, mapped), func(r *config.Remote) { r.WS.Path = wsPath + wsPath })}, origin)
	})
}

const nginxFronts = `
  proxy_http_version 1.1;
  server {
    listen TWICE;
    location / {
      proxy_pass http://V2RAY;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
      proxy_set_header Host $http_host; proxy_set_header Host $host;
    }
  }
  server {
    listen BROKEN;
    location / {
      proxy_pass http://V2RAY;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; proxy_set_header Host "a b";
    }
  }
  server {
    listen MAPPED;
    location PATH { proxy_pass http://V2RAY/; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; }
    location PATHPATH { proxy_pass http://V2RAYPATH; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; }
  }
  server {
    listen SLASH;
    location PATH/ { proxy_pass http://V2RAY; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; }
  }
  server {
    listen ASKED ssl; ssl_certificate CERT; ssl_certificate_key KEY;
    ssl_verify_client on; ssl_client_certificate CA;
    location / { proxy_pass http://V2RAY; }
  }
`

// TestFaultTransport is about V2Ray that serves VMess by another transport than
// WebSocket.
func TestFaultTransport(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t)
	overTCP := labV2rayOver(t, object{"network": "tcp"}).addr
	overTCPAndTLS := labV2rayOver(t, object{
		"network": "tcp", "security": "tls",
		"tlsSettings": object{"certificates": []object{{"certificateFile": certs.certFile, "keyFile": certs.keyFile}}},
	}).addr
	withHeader := labV2rayOver(t, object{"network": "tcp", "tcpSettings": object{"header": object{"type": "http"}}}).addr
	overHTTP2 := labV2rayOver(t, object{"network": "http", "httpSettings": object{"path": wsPath, "host": []string{"h2.example"}}}).addr

	tcp := func(name string, r config.Remote) wayFault {
		return wayFault{
			name: name, remote: r, change: shortly, code: replyHost,
			want: expected{cause: "ws.not-websocket", sentence: "speaks VMess without WebSocket", fix: `"network": "ws"`, confidence: "certain", within: shortDial + lookTime},
		}
	}
	for _, f := range []wayFault{
		tcp("TCP", remoteAt(t, overTCP)),
		tcp("TCP and TLS", overTLS(remoteAt(t, overTCPAndTLS), certs)),
		{
			name: "TCP with an HTTP header", remote: remoteAt(t, withHeader), code: replyGeneral,
			want: expected{cause: "ws.not-websocket", sentence: "TCP transport with an HTTP header", fix: `"network": "ws"`, confidence: "likely"},
		},
		{
			name: "HTTP/2", remote: with(remoteAt(t, overHTTP2), func(r *config.Remote) { r.WS.Host = "h2.example" }), code: replyGeneral,
			want: expected{cause: "ws.not-websocket", sentence: "V2Ray's HTTP/2 transport", fix: `"network": "ws"`, confidence: "likely"},
		},
		{
			name: "HTTPUpgrade", remote: remoteAt(t, rawAnswer(t, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")), code: replyGeneral,
			want: expected{cause: "ws.not-websocket", sentence: "like HTTPUpgrade transports", fix: `"network": "ws"`, confidence: "likely"},
		},
	} {
		t.Run(f.name, f.run)
	}
	t.Run("another id", func(t *testing.T) {
		// Without an answer that only VMess can write nothing is claimed.
		wayFault{
			remote: with(remoteAt(t, overTCP), func(r *config.Remote) { r.ID = "00000000-0000-4000-8000-0000005ec2e7" }), change: shortly, code: replyHost,
			want: expected{cause: "ws.silent", fix: `"network"`, confidence: "certain", within: shortDial + lookTime},
		}.run(t)
	})
}

// TestFaultHTTP2Only is about ports that understand HTTP/2 and nothing else.
func TestFaultHTTP2Only(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t)
	nginx := freePort(t)
	runNginx(t, nginx, "server { listen "+nginx+" http2; return 404; }")
	h2 := func(name, sure string, r config.Remote) wayFault {
		return wayFault{
			name: name, remote: r, code: replyGeneral,
			want: expected{cause: "ws.not-http", sentence: "HTTP/2", fix: "HTTP/1.1", confidence: sure, within: lookTime},
		}
	}
	for _, f := range []wayFault{
		h2("nginx", "certain", remoteAt(t, nginx)),
		h2("hangs up", "likely", remoteAt(t, serveOrigin(t, func(c *net.TCPConn) { onlyHTTP2(c) }))),
		h2("hangs up within TLS", "likely", overTLS(remoteAt(t, serveOrigin(t, func(c *net.TCPConn) {
			secure := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certs.cert}})
			if secure.Handshake() == nil {
				onlyHTTP2(secure)
			}
		})), certs)),
		{
			name: "by ALPN", remote: overTLS(remoteAt(t, alertTo(t, 120)), certs), code: replyGeneral,
			want: expected{cause: "tls.refused", sentence: "alert 120", fix: "HTTP/1.1", confidence: "certain"},
		},
	} {
		t.Run(f.name, f.run)
	}
}

// onlyHTTP2 answers HTTP/2's preface by SETTINGS (RFC 9113 section 3.4) and
// nothing to anything else.
func onlyHTTP2(c io.ReadWriter) {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	head := make([]byte, len(preface))
	if _, err := io.ReadFull(c, head); err != nil || string(head) != preface {
		return
	}
	_, _ = c.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0})
	_, _ = io.Copy(io.Discard, c)
}

// TestFaultTLSAlert is about TLS servers that refuse the handshake by an alert.
// That they answer plain HTTP, too, does not make their ports plain ones.
func TestFaultTLSAlert(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t)
	unknown, old, ciphers := freePort(t), freePort(t), freePort(t)
	runNginx(t, unknown, strings.NewReplacer("UNKNOWN", unknown, "OLD", old, "CIPHERS", ciphers, "CERT", certs.certFile, "KEY", certs.keyFile).Replace(`
  ssl_certificate CERT; ssl_certificate_key KEY;
  server { listen UNKNOWN ssl; ssl_reject_handshake on; }
  server { listen OLD ssl; ssl_protocols TLSv1 TLSv1.1; }
  server { listen CIPHERS ssl; ssl_protocols TLSv1.2; ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256; }
`))
	alert := func(name, addr string, code int, fix string) wayFault {
		return wayFault{
			name: name, remote: overTLS(remoteAt(t, addr), certs), code: replyGeneral,
			want: expected{cause: "tls.refused", sentence: fmt.Sprintf("alert %d, ", code), fix: fix, confidence: "certain"},
		}
	}
	mutual := &tls.Config{Certificates: []tls.Certificate{certs.cert}, ClientAuth: tls.RequireAnyClientCert, ClientCAs: x509.NewCertPool()}
	older := mutual.Clone()
	older.MaxVersion = tls.VersionTLS12
	for _, f := range []wayFault{
		alert("nginx, name", unknown, 112, `correct "tls.serverName"`),
		alert("nginx, version", old, 70, "TLS 1.2 or 1.3"),
		alert("nginx, ciphers", ciphers, 40, `"tls.serverName"`),
		alert("Cloudflare, name", alertTo(t, 112), 112, `correct "tls.serverName"`),
		alert("Cloudflare, version", alertTo(t, 70), 70, "TLS 1.2 or 1.3"),
		alert("Cloudflare, handshake", alertTo(t, 40), 40, `"tls.serverName"`),
		alert("a client certificate, TLS 1.3", tlsOrigin(t, mutual), 116, "client certificate"),
		alert("a client certificate, TLS 1.2", tlsOrigin(t, older), 40, "client certificate"),
	} {
		t.Run(f.name, f.run)
	}
}

// alertTo answers a ClientHello by a fatal alert and plain HTTP by the page that
// nginx and Cloudflare have for it.
func alertTo(t testing.TB, code byte) string {
	t.Helper()
	page := webPage("400 Bad Request", "nginx", "<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>\r\n")
	return serveOrigin(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		switch first, err := r.Peek(1); {
		case err != nil:
		case first[0] == 0x16:
			var head [5]byte
			_, _ = io.ReadFull(r, head[:])
			_, _ = io.CopyN(io.Discard, r, int64(head[3])<<8|int64(head[4]))
			_, _ = c.Write([]byte{0x15, 3, 3, 0, 2, 2, code})
		default:
			if _, err := http.ReadRequest(r); err == nil {
				_, _ = io.WriteString(c, page)
			}
		}
	})
}

// tlsOrigin makes handshakes, and waits for what follows.
func tlsOrigin(t testing.TB, c *tls.Config) string {
	t.Helper()
	return serveOrigin(t, func(raw *net.TCPConn) {
		secure := tls.Server(raw, c)
		_ = secure.SetDeadline(time.Now().Add(labPatience))
		if secure.Handshake() == nil {
			_, _ = io.Copy(io.Discard, secure)
		}
		_ = raw.CloseWrite() // so that the alert is not lost by a reset
		_, _ = io.Copy(io.Discard, raw)
	})
}
