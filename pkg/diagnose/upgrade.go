package diagnose

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"vmess-local/pkg/carrier/wsconn"
)

// Texts by which servers say that TLS was expected (docs/diagnosis.md 3g).
var tlsWanted = [...]string{
	"client sent an http request to an https server", // Go: V2Ray, Xray
	"plain http request was sent to https port",      // nginx, Cloudflare
	"speaking plain http to an ssl-enabled server",   // Apache
}

func wantsTLS(body []byte) bool {
	text := strings.ToLower(string(body))
	for _, t := range tlsWanted {
		if strings.Contains(text, t) {
			return true
		}
	}
	return false
}

func needsTLS(s ServerContext, why string) Verdict {
	return Verdict{
		Cause: WSNeedsTLS, Confidence: Certain,
		Sentence: s.server() + " " + why + ": the port requires TLS",
		Fix:      s.set("tls.enabled", "true"),
	}
}

func earlyDataLost(s ServerContext) Verdict {
	return Verdict{
		Cause: WSEarlyDataRefused, Confidence: Certain,
		Sentence: s.server() + " works without early data and fails with it: it is not configured for early data",
		Fix:      s.set("ws.earlyData", "0"),
	}
}

// refusedUpgrade judges an HTTP answer that did not upgrade.
func refusedUpgrade(e *wsconn.HandshakeError, s ServerContext) Verdict {
	v := byStatus(e, s)
	v.Evidence = append(v.Evidence, fmt.Sprintf("status %d, Server %q, Content-Type %q, a body of %d bytes or more",
		e.Status, clean(e.Server(), 60), clean(e.Header.Get("Content-Type"), 60), len(e.Body)))
	return v
}

func byStatus(e *wsconn.HandshakeError, s ServerContext) Verdict {
	if v, ok := otherTransport(e); ok {
		return v
	}
	switch status := e.Status; {
	case status == http.StatusSwitchingProtocols:
		return Verdict{
			Cause: WSNotWebSocket, Confidence: Certain,
			Sentence: who(e) + " accepts the upgrade, but its headers are not those of a WebSocket",
			Fix:      "check " + s.at("ws.path") + " and the proxies in between: something changes the headers of the upgrade",
		}
	case status == http.StatusBadRequest, status == http.StatusUpgradeRequired:
		return badRequest(e, s)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return forbiddenUpgrade(e, s)
	case status == http.StatusNotFound, status == http.StatusGone:
		return notFound(e, s)
	case status >= 502 && status <= 504, status >= 520 && status <= 530:
		return badGateway(e, s)
	case status >= 301 && status <= 303, status == 307, status == 308:
		return redirect(e, s)
	case status >= 200 && status < 300:
		return webSite(e, s)
	}
	return unexpectedStatus(e, s)
}

// who names what answered.
func who(e *wsconn.HandshakeError) string {
	if name := clean(e.Server(), 30); name != "" {
		return name
	}
	return "the server"
}

// isCore reports whether the answer is the proxy core's own: V2Ray, Xray and
// sing-box send neither a body nor a Server header.
func isCore(e *wsconn.HandshakeError) bool { return e.Server() == "" && len(e.Body) == 0 }

// isPassedOn recognises a proxy core's own answer behind a web server: the
// pages of web servers are not empty.
func isPassedOn(e *wsconn.HandshakeError) bool {
	length := e.Header.Get("Content-Length")
	return e.Server() != "" && (length == "" || length == "0") && len(e.Body) == 0 && e.Header.Get("Content-Type") == ""
}

func isCDN(e *wsconn.HandshakeError) bool { return strings.EqualFold(e.Server(), "cloudflare") }

func (s ServerContext) showPath() string { return clean(s.Path, 40) }
func (s ServerContext) showHost() string { return clean(s.Host, 50) }

func notFound(e *wsconn.HandshakeError, s ServerContext) Verdict {
	v := Verdict{Cause: WSNotFound, Confidence: Certain}
	switch {
	case isCore(e), e.Server() == "" && strings.TrimSpace(string(e.Body)) == "404 page not found":
		v.Sentence = fmt.Sprintf("the VMess server returned %d: its path is not %s, or it does not accept the host %s", e.Status, s.showPath(), s.showHost())
		v.Fix = "correct " + s.at("ws.path") + ": it must match the server's exactly; otherwise correct " + s.at("ws.host") + ", which servers may also check"
	case isPassedOn(e):
		v.Confidence = Likely
		v.Sentence = fmt.Sprintf("%s forwards the request, but its backend returned %d: the path that reaches it is not its own", who(e), e.Status)
		v.Fix = `in nginx: "proxy_pass http://ADDRESS:PORT;" without a slash or path at its end; and ` + s.at("ws.path") + " must match V2Ray's path exactly"
	default:
		v.Sentence = fmt.Sprintf("%s returned %d: nothing is configured at %s for host %s", who(e), e.Status, s.showPath(), s.showHost())
		v.Fix = "correct " + s.at("ws.path") + " or " + s.at("ws.host") + ": the web server has no location that matches"
	}
	return v
}

func badRequest(e *wsconn.HandshakeError, s ServerContext) Verdict {
	v := Verdict{Cause: WSBadRequest, Confidence: Likely}
	body := strings.ToLower(string(e.Body))
	switch {
	case wantsTLS(e.Body) && !s.TLS:
		return needsTLS(s, "returned 400, a plain HTTP request was sent to its HTTPS port")
	case wantsTLS(e.Body):
		v.Confidence = Certain
		v.Sentence = "the reverse proxy terminates TLS and forwards plain HTTP, but the backend expects TLS"
		v.Fix = "on the server: turn TLS off in V2Ray behind the web server, or forward with https"
	case strings.Contains(body, "no required ssl certificate was sent"):
		v.Cause, v.Confidence = WSForbidden, Certain
		v.Sentence = fmt.Sprintf("%s returned %d: it requires a client certificate", who(e), e.Status)
		v.Fix = `in nginx: turn "ssl_verify_client" off for this host; if it is meant for a CDN (authenticated origin pulls), connect through the CDN`
	case strings.Contains(body, "request header or cookie too large"):
		v.Confidence = Certain
		v.Sentence = fmt.Sprintf("%s returned %d: the request headers are too large for it", who(e), e.Status)
		v.Fix = "lower " + s.at("ws.earlyData") + `, or raise "large_client_header_buffers" in nginx`
	case isCDN(e):
		v.Sentence = "Cloudflare returned 400: WebSockets are turned off, or the port is not one of its HTTP ports"
		v.Fix = "turn WebSockets on at the CDN, and check " + s.at("port") + " and " + s.at("ws.host")
	case e.Header.Get("Sec-Websocket-Version") != "", e.Status == http.StatusUpgradeRequired,
		strings.Contains(body, `bad "upgrade" header`), strings.Contains(body, `bad "connection" header`):
		v.Confidence = Certain
		v.Sentence = fmt.Sprintf("%s returned %d: something on the path removed the Upgrade header", who(e), e.Status)
		v.Fix = `in nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"`
	case isGos(body):
		return unreadable(e, body, s)
	case e.Server() == "":
		v.Sentence = "the VMess server returned 400: no WebSocket upgrade reached it"
		v.Fix = `forward the Upgrade and Connection headers in the reverse proxy; check that ` + s.at("ws.path") + " is exact"
	default:
		v.Sentence = fmt.Sprintf("%s returned 400 to the WebSocket upgrade of %s at %s", who(e), s.showPath(), s.showHost())
		v.Fix = "check " + s.at("ws.host") + " and " + s.at("ws.path") + ", and that the web server forwards Upgrade and Connection"
	}
	return v
}

// isGos recognises what Go's HTTP server, which V2Ray and Xray use, answers to
// bytes that are no request for it, before any WebSocket looks at them.
func isGos(body string) bool { return strings.HasPrefix(body, "400 bad request") }

// unreadable judges such an answer: our own requests are readable.
func unreadable(e *wsconn.HandshakeError, body string, s ServerContext) Verdict {
	v := Verdict{Cause: WSBadRequest, Confidence: Likely}
	setHost := `in the reverse proxy set Host once (nginx: one "proxy_set_header Host $host")`
	behind := "the program behind " + who(e)
	if e.Server() == "" {
		behind = "the VMess server"
	}
	switch {
	case strings.Contains(body, "host header"):
		v.Confidence = Certain
		v.Sentence = behind + " returned 400: the Host header that reaches it is wrong"
		v.Fix = setHost + ", and check " + s.at("ws.host")
	case e.Server() == "":
		v.Sentence = behind + " cannot read the request (400): it expects the PROXY protocol, or receives a header twice"
		v.Fix = `on the server: turn "acceptProxyProtocol" off, or make the reverse proxy send it; ` + setHost
	default:
		v.Sentence = behind + " cannot read the request (400): it receives Host twice, or expects the PROXY protocol"
		v.Fix = setHost + `; in V2Ray turn "acceptProxyProtocol" off`
	}
	return v
}

func forbiddenUpgrade(e *wsconn.HandshakeError, s ServerContext) Verdict {
	v := Verdict{
		Cause: WSForbidden, Confidence: Likely,
		Sentence: fmt.Sprintf("%s returned %d: %s is forbidden for host %s", who(e), e.Status, s.showPath(), s.showHost()),
		Fix:      "check " + s.at("ws.host") + " and " + s.at("ws.path") + ", and the access rules of the web server",
	}
	if isCDN(e) {
		v.Sentence = fmt.Sprintf("Cloudflare returned %d for host %s: its bot rules block us, or WebSockets are off", e.Status, s.showHost())
		v.Fix = "at the CDN: turn WebSockets on and exempt the path from bot and firewall rules; check " + s.at("ws.host")
	}
	return v
}

func badGateway(e *wsconn.HandshakeError, s ServerContext) Verdict {
	v := Verdict{
		Cause: WSBadGateway, Confidence: Likely,
		Sentence: fmt.Sprintf("%s returned %d: it cannot reach its V2Ray backend", who(e), e.Status),
		Fix:      "on the server: start V2Ray, and check that proxy_pass for " + s.showPath() + " points to its address and port",
	}
	cloudflare := map[int]string{
		520: "the server's answer to it is invalid", 521: "the server refuses its connection",
		522: "the server does not answer it", 523: "it cannot reach the server", 524: "the server answered it too late",
		525: "its TLS handshake with the server failed", 526: "the server's certificate is invalid", 530: "it cannot resolve the server's name",
	}[e.Status]
	if cloudflare != "" {
		v.Confidence = Certain
		v.Sentence = fmt.Sprintf("%s returned %d: %s", who(e), e.Status, cloudflare)
		v.Fix = "at the CDN: check the DNS record and SSL mode of " + s.showHost() + "; on the server: start the web server"
	}
	if e.Status == http.StatusServiceUnavailable {
		v.Sentence = fmt.Sprintf("%s returned 503: its V2Ray backend is down, or no site is configured for host %s", who(e), s.showHost())
		v.Fix = "check " + s.at("ws.host") + " and " + s.at("tls.serverName") + "; on the server: start V2Ray"
	}
	return v
}

func redirect(e *wsconn.HandshakeError, s ServerContext) Verdict {
	v := Verdict{
		Cause: WSRedirect, Confidence: Certain,
		Sentence: fmt.Sprintf("%s returned %d and redirects to %s", who(e), e.Status, location(e.Location())),
		Fix:      "check " + s.at("ws.host") + " and " + s.at("ws.path") + ": they lead to a website, not to V2Ray",
	}
	to, err := url.Parse(e.Location())
	switch {
	case err != nil:
	case strings.EqualFold(to.Scheme, "https") && !s.TLS:
		port := first(to.Port(), "443")
		if !plainName(port) {
			port = "443"
		}
		v.Fix = s.setBoth("tls.enabled", "true", "port", port)
	case onlySlash(to, s):
		path, _, _ := strings.Cut(s.Path, "?")
		v.Sentence = fmt.Sprintf("%s redirects %s to %s because of how its location is written", who(e), clean(path, 40), clean(to.Path, 40))
		v.Fix = "on the server: write \"location " + clean(path, 40) + "\", like V2Ray's path; or, if V2Ray uses the other one, " +
			s.set("ws.path", strconv.Quote(to.Path))
	}
	return v
}

// onlySlash reports whether a redirect leads to the same host and path, but
// for a slash at the end.
func onlySlash(to *url.URL, s ServerContext) bool {
	path, _, _ := strings.Cut(s.Path, "?")
	host := s.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return (to.Host == "" || strings.EqualFold(to.Hostname(), strings.Trim(host, "[]"))) &&
		to.Path != path && strings.TrimSuffix(to.Path, "/") == strings.TrimSuffix(path, "/")
}

// location shows where a redirect leads, without what may be private in it.
func location(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || raw == "" {
		return "nowhere"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return clean(u.String(), 60)
}

func webSite(e *wsconn.HandshakeError, s ServerContext) Verdict {
	what := "something other than a WebSocket"
	if strings.Contains(e.Header.Get("Content-Type"), "html") {
		what = "a web page"
	}
	return Verdict{
		Cause: WSNotWebSocket, Confidence: Certain,
		Sentence: fmt.Sprintf("%s returned %d with %s at %s for host %s", who(e), e.Status, what, s.showPath(), s.showHost()),
		Fix:      "correct " + s.at("ws.path") + " or " + s.at("ws.host") + ": a website answers there, not V2Ray",
	}
}

func unexpectedStatus(e *wsconn.HandshakeError, s ServerContext) Verdict {
	v := Verdict{
		Cause: WSUnexpectedStatus, Confidence: Certain,
		Sentence: clean(fmt.Sprintf("%s returned %d %s to the WebSocket upgrade", who(e), e.Status, http.StatusText(e.Status)), 150),
		Fix:      "check " + s.at("ws.path") + " and " + s.at("ws.host") + ", and the web server's log",
	}
	switch e.Status {
	case http.StatusProxyAuthRequired:
		v.Fix = "a proxy on the path requires a password: configure it in " + s.at("/upstream")
	case http.StatusMisdirectedRequest:
		v.Fix = "make " + s.at("tls.serverName") + " and " + s.at("ws.host") + " the same name"
	case http.StatusTooManyRequests:
		v.Fix = "wait a while: the web server limits the request rate of this address"
	}
	return v
}

// garbledUpgrade judges an answer that is no HTTP/1.1.
func garbledUpgrade(e *wsconn.ProtocolError, s ServerContext) Verdict {
	what := protocolOf(e.Seen)
	v := Verdict{
		Cause: WSNotHTTP, Confidence: Certain,
		Sentence: fmt.Sprintf("%s answers the WebSocket upgrade with %s", s.server(), what),
		Fix:      "check " + s.at("port") + ": neither a web server nor V2Ray answers there",
	}
	switch {
	case isTLSRecord(e.Seen) && !s.TLS:
		return needsTLS(s, "answers HTTP with a TLS record")
	case isTLSRecord(e.Seen):
		v.Fix = "on the server: TLS is on twice, in the reverse proxy and in the backend; turn one off"
	case isHTTP2(e.Seen):
		return onlyHTTP2(s, "answers the WebSocket upgrade with HTTP/2", Certain)
	case strings.HasPrefix(string(e.Seen), "HTTP/"):
		v.Sentence = s.server() + " answers the WebSocket upgrade with malformed HTTP"
		v.Fix = "check the proxies in between: something corrupts the answer; also check " + s.at("port")
	}
	return v
}

// hangs is what to do about a server that worked a moment ago and is silent.
const hangs = "restart the service on the server, or wait: it worked a moment ago and now hangs or is overloaded"

func silentUpgrade(after time.Duration, s ServerContext, f ConnectFacts) Verdict {
	if f.OtherTLS == Yes && !s.TLS {
		return needsTLS(s, "does not answer plain HTTP but answers TLS")
	}
	within := "in time"
	if after > 0 {
		within = "within " + spoken(after)
	}
	v := Verdict{
		Cause: WSSilent, Confidence: Certain,
		Sentence: s.server() + " accepts the connection but does not answer the WebSocket upgrade " + within,
		Fix: "check " + s.at("port") + " and " + s.at("tls.enabled") + `, and that the inbound has "network": "ws"; ` +
			"if all are right, check the server: it hangs or is overloaded",
	}
	switch {
	case f.Worked:
		v.Fix = hangs
	case !s.TLS && f.OtherTLS == Unknown:
		v.Fix = "if the server uses TLS: " + s.set("tls.enabled", "true") + "; otherwise check " + s.at("port") + `, and that the inbound has "network": "ws"`
	}
	return v
}

func cutUpgrade(err error, s ServerContext, f ConnectFacts) Verdict {
	if f.OtherTLS == Yes && !s.TLS {
		return needsTLS(s, "hangs up on plain HTTP and answers TLS")
	}
	how := "closed"
	if isReset(err) {
		how = "reset"
	}
	return Verdict{
		Cause: WSReset, Confidence: Certain,
		Sentence: fmt.Sprintf("the connection to %s was %s before it answered the WebSocket upgrade", s.server(), how),
		Fix: "check " + s.at("port") + " and " + s.at("tls.enabled") + "; a port that expects the PROXY protocol also hangs up; " +
			"if it works from another network, something on the path blocks it",
	}
}

// serveWebSocket says what an inbound of another transport needs.
const serveWebSocket = `on the server: set "network": "ws" in the inbound's streamSettings, or use an inbound that has it: only WebSocket is supported`

// vmessBelow is for a port that accepted a request without a WebSocket.
func vmessBelow(s ServerContext) Verdict {
	return Verdict{
		Cause: WSNotWebSocket, Confidence: Certain,
		Sentence: s.server() + ` speaks VMess without WebSocket ("network": "tcp"), and accepts this id`,
		Fix:      serveWebSocket,
	}
}

// otherTransport recognises V2Ray's and Xray's own answers by transports that
// look like HTTP.
func otherTransport(e *wsconn.HandshakeError) (v Verdict, ok bool) {
	var does string
	cache := strings.ToLower(e.Header.Get("Cache-Control"))
	switch bare := isCore(e) && e.Header.Get("Content-Type") == ""; {
	case e.Status == http.StatusSwitchingProtocols && e.Header.Get("Sec-Websocket-Accept") == "":
		does = "accepts an upgrade without WebSocket headers, like HTTPUpgrade transports"
	case bare && e.Status == http.StatusNotFound && cache == "private":
		does = `returned 404 like V2Ray's TCP transport with an HTTP header ("header": {"type": "http"}), which is not WebSocket`
	case bare && e.Status == http.StatusOK && cache == "no-store":
		does = `returned 200 like V2Ray's HTTP/2 transport ("network": "h2"), which is not WebSocket`
	default:
		return Verdict{}, false
	}
	return Verdict{Cause: WSNotWebSocket, Confidence: Likely, Sentence: who(e) + " " + does, Fix: serveWebSocket}, true
}

// onlyHTTP2 is for a port that answers HTTP/2 and not HTTP/1.1.
func onlyHTTP2(s ServerContext, does string, sure Confidence) Verdict {
	return Verdict{
		Cause: WSNotHTTP, Confidence: sure,
		Sentence: s.server() + " " + does,
		Fix:      "configure the server to accept HTTP/1.1 on this port: a WebSocket upgrade needs it; for V2Ray behind it: " + `"network": "ws", not h2 or gRPC`,
	}
}
