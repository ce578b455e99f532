package diagnose

import "strings"

// A Cause is the stable id of what is wrong.
type Cause string

// The causes. [Causes] says what each means.
const (
	ConfigSyntax     Cause = "config.syntax"
	ConfigUnknownKey Cause = "config.unknown-key"
	ConfigValue      Cause = "config.value"
	ConfigMissing    Cause = "config.missing"
	ConfigUnreadable Cause = "config.unreadable"

	ListenInUse     Cause = "listen.in-use"
	ListenDenied    Cause = "listen.denied"
	ListenNeedsAuth Cause = "listen.needs-auth"

	DNSNotFound Cause = "dns.not-found"
	DNSTimeout  Cause = "dns.timeout"
	DNSFailed   Cause = "dns.failed"

	TCPRefused     Cause = "tcp.refused"
	TCPTimeout     Cause = "tcp.timeout"
	TCPUnreachable Cause = "tcp.unreachable"
	TCPReset       Cause = "tcp.reset"

	UpstreamRefused Cause = "upstream.refused"
	UpstreamAuth    Cause = "upstream.auth"
	UpstreamFailed  Cause = "upstream.failed"
	UpstreamLoop    Cause = "upstream.loop"

	TLSNotTLS          Cause = "tls.not-tls"
	TLSUnknownIssuer   Cause = "tls.unknown-issuer"
	TLSIncompleteChain Cause = "tls.incomplete-chain"
	TLSExpired         Cause = "tls.expired"
	TLSWrongName       Cause = "tls.wrong-name"
	TLSPinMismatch     Cause = "tls.pin-mismatch"
	TLSRefused         Cause = "tls.refused"

	WSNeedsTLS         Cause = "ws.needs-tls"
	WSNotFound         Cause = "ws.not-found"
	WSBadRequest       Cause = "ws.bad-request"
	WSForbidden        Cause = "ws.forbidden"
	WSBadGateway       Cause = "ws.bad-gateway"
	WSRedirect         Cause = "ws.redirect"
	WSNotWebSocket     Cause = "ws.not-websocket"
	WSUnexpectedStatus Cause = "ws.unexpected-status"
	WSSilent           Cause = "ws.silent"
	WSReset            Cause = "ws.reset"
	WSNotHTTP          Cause = "ws.not-http"
	WSEarlyDataRefused Cause = "ws.early-data-refused"

	VMessClockSkew       Cause = "vmess.clock-skew"
	VMessAEADRequired    Cause = "vmess.aead-required"
	VMessAEADUnsupported Cause = "vmess.aead-unsupported"
	VMessUnknownUser     Cause = "vmess.unknown-user"
	VMessRefused         Cause = "vmess.refused"
	VMessBadResponse     Cause = "vmess.bad-response"

	TunnelIdleCut    Cause = "tunnel.idle-cut"
	TunnelReset      Cause = "tunnel.reset"
	TunnelServerGone Cause = "tunnel.server-gone"

	DestinationRefused      Cause = "destination.refused"
	DestinationUnresolvable Cause = "destination.unresolvable"
	DestinationNoAnswer     Cause = "destination.no-answer"
	DestinationReset        Cause = "destination.reset"
	DestinationStalled      Cause = "destination.stalled"

	LimitConnections  Cause = "limit.connections"
	LocalBadHandshake Cause = "local.bad-handshake"
	LocalBadAuth      Cause = "local.bad-auth"
	LocalNeedsNoAuth  Cause = "local.needs-no-auth"
	LocalBadRequest   Cause = "local.bad-request"
	LocalStalled      Cause = "local.stalled"
)

// ownSide reports whether c is something this program sees for itself, so that
// there is nothing to be more or less sure of.
func (c Cause) ownSide() bool {
	switch kind, _, _ := strings.Cut(string(c), "."); kind {
	case "config", "listen", "limit", "local":
		return true
	}
	return false
}

// A CauseInfo explains a cause to people, in Markdown.
type CauseInfo struct {
	Cause Cause
	Means string // what is wrong
	Signs string // how it is recognised
	Fix   string // what to do
}

// OfPath reports whether the cause lies on the path to the server, or in its
// absence, and not in the request or on the local side.
func (c Cause) OfPath() bool {
	for _, prefix := range [...]string{"dns.", "tcp.", "upstream.", "tls.", "ws.", "tunnel.server-gone"} {
		if strings.HasPrefix(string(c), prefix) {
			return true
		}
	}
	return false
}

// OfDestination reports whether the cause lies beyond the server, which has no part
// in it.
func (c Cause) OfDestination() bool {
	return strings.HasPrefix(string(c), "destination.") || c == LocalStalled // which concerns one connection, too
}

// Causes returns all causes in the order of the path: configuration, local
// port, the steps to the server, the account, the tunnel, the destination.
func Causes() []CauseInfo {
	return []CauseInfo{
		{
			ConfigSyntax, "The configuration is not JSON with comments and trailing commas.",
			"The parser stops at the line and column shown.",
			"Correct that place: usually a comma, quotation mark or brace is missing just before it.",
		},
		{
			ConfigUnknownKey, "The configuration has a key that does not exist.",
			"There is no key of that name at that place; a similar one is suggested.",
			"Correct the key's name, or remove the line. `config.example.json` lists every key.",
		},
		{
			ConfigValue, "A key has an invalid value, or is given twice.",
			"The type, range or format of the value.",
			"Write what the message asks for at the place shown.",
		},
		{
			ConfigMissing, "A required key is missing.",
			"`server.address`, `server.port` and `server.id` have no default; some keys require each other.",
			"Add the key. `vmess-local link import LINK` writes a whole configuration from a share link.",
		},
		{
			ConfigUnreadable, "The configuration file cannot be read.",
			"The system's error when the file is opened: it does not exist, you may not read it, or it is a directory.",
			"Pass the right file with `-c`, make it readable for you, or create one with `vmess-local link import LINK -o config.json`.",
		},
		{
			ListenInUse, "Another program already listens on the local port.",
			"The system reports that the address is in use. On Linux the process is identified.",
			"Stop that program, or set `listen` to the free port that is suggested.",
		},
		{
			ListenDenied, "The system does not allow this program to listen on that address.",
			"The system's error: a port below 1024 without the privilege for it, a range reserved by Windows (Hyper-V, WSL), or an address this computer does not have.",
			"Set `listen` to a port above 1023 on `127.0.0.1`. On Windows `netsh int ipv4 show excludedportrange protocol=tcp` lists the reserved ranges.",
		},
		{
			ListenNeedsAuth, "Others could use the proxy: `listen` is not a loopback address and there is no password.",
			"`listen` and `auth` in the configuration.",
			"Set `auth.username` and `auth.password`, or set `listen` to a loopback address.",
		},
		{
			DNSNotFound, "The server's name does not exist.",
			"The resolver reports that there is no such name.",
			"Correct `server.address`. If the name is right, ask another resolver: some networks block names.",
		},
		{
			DNSTimeout, "The resolver does not answer.",
			"No answer from the resolver within the connect timeout (`limits.dial`).",
			"Check that this computer is online and which resolver it uses. An IP address in `server.address` needs none (then set `tls.serverName` and `ws.host` to the name).",
		},
		{
			DNSFailed, "The resolver returns an error.",
			"SERVFAIL, REFUSED or similar.",
			"Try again or use another resolver. An IP address in `server.address` needs none (then set `tls.serverName` and `ws.host` to the name).",
		},
		{
			TCPRefused, "Nothing is listening on the server's port.",
			"The server's operating system refuses the connection immediately.",
			"Check `server.port`, and that the service is running on the server.",
		},
		{
			TCPTimeout, "No answer from the server's address.",
			"The connection attempt gets no answer at all: a firewall drops it, the address is wrong or the server is down.",
			"Check `server.address`, the server's firewall and whether this computer is online.",
		},
		{
			TCPUnreachable, "There is no route to the server's address.",
			"The system or a router reports the network or host as unreachable, or this computer's own rules forbid the connection.",
			"Check that this computer is online; an IPv6 address requires a network with IPv6.",
		},
		{
			TCPReset, "The connection is reset before any data is exchanged.",
			"A TCP reset while connecting or during the TLS handshake: a wrong port, or something on the path.",
			"Check `server.port`; try from another network. If it works there, something on the path blocks this server or its name.",
		},
		{
			UpstreamRefused, "The company proxy refuses to connect to this server.",
			"It answers CONNECT with 403 or another refusal, or SOCKS with \"not allowed\".",
			"Ask for the server to be allowed, or use a port the proxy allows, usually 443.",
		},
		{
			UpstreamAuth, "The company proxy requires a username and password, or rejected these.",
			"It answers 407, or no SOCKS authentication method is accepted.",
			"Put the right username and password into `upstream`: `http://USER:PASSWORD@HOST:PORT`. Only Basic authentication is supported: for NTLM or Negotiate run a helper such as cntlm or px and use it as `upstream`.",
		},
		{
			UpstreamFailed, "The company proxy cannot be reached, or it cannot reach the server. In `vmess-server check`: the outbound proxy cannot be reached.",
			"Resolving or connecting to the proxy fails, it speaks another protocol, or it answers 502, 503, 504 or a SOCKS failure.",
			"Check `upstream`, then `server.address` and `server.port`; on a server, `egress.dial`.",
		},
		{
			UpstreamLoop, "`upstream` leads to this program itself.",
			"The proxy's address, under whatever name, is this program's own port. Each request would loop endlessly, so it fails before it is sent.",
			"Set `upstream` to your network's proxy, or leave it empty if there is none. With `\"env\"` check `HTTP_PROXY` and `HTTPS_PROXY`.",
		},
		{
			TLSNotTLS, "The port does not speak TLS.",
			"The answer to the ClientHello is not a TLS record but usually plain HTTP.",
			"Set `tls.enabled` to false, or `server.port` to the TLS port (usually 443).",
		},
		{
			TLSUnknownIssuer, "The certificate is not signed by an authority this computer trusts.",
			"There is no chain from the certificate to a trusted authority: it is self-signed, from a private authority, or from a program on the path that intercepts TLS.",
			"If it is your server's own certificate: write its SHA-256, which is shown, to `tls.pin`. For a private authority set `tls.caFile` to its file.",
		},
		{
			TLSIncompleteChain, "The server does not send the intermediate certificate.",
			"The issuer is unknown, was not sent, and is a public authority or states where to fetch its certificate.",
			"Configure the server to send the full chain (`fullchain.pem` instead of `cert.pem`); until then pin the certificate with `tls.pin`.",
		},
		{
			TLSExpired, "The certificate has expired, or is not valid yet.",
			"Its dates against this computer's clock, when the server's `Date` does not show that the clock is wrong.",
			"In both cases check this computer's date first. Expired: renew the certificate on the server. Not valid yet: usually this computer's clock is behind.",
		},
		{
			TLSWrongName, "The certificate is for other names.",
			"The requested name is not in the certificate; the names that are in it are listed.",
			"Set `tls.serverName` to a name of the certificate if this is your server.",
		},
		{
			TLSPinMismatch, "The certificate is not the pinned one.",
			"Its SHA-256 is not in `tls.pin`.",
			"If you renewed the certificate: write the shown SHA-256 to `tls.pin`. If not: someone else is answering, do not connect.",
		},
		{
			TLSRefused, "The server rejects the TLS handshake.",
			"A TLS alert, which is shown (only TLS servers send one, so the port's answer to plain HTTP does not count), or the connection is closed during the handshake.",
			"Alert 112, and often 40: correct `tls.serverName`. 70: enable TLS 1.2 or 1.3 on the server. 116 and alerts about certificates: the server requires a client certificate, which is not supported. 120: the port is HTTP/2 only. Closed: check `server.port`, and whether the port expects the PROXY protocol.",
		},
		{
			WSNeedsTLS, "The port requires TLS, and plain WebSocket was used.",
			"A TLS record in answer to HTTP, a 400 with that message, or no answer to HTTP where a ClientHello is answered.",
			"Set `tls.enabled` to true.",
		},
		{
			WSNotFound, "The path does not exist on the server.",
			"Status 404 or 410. An empty body comes from the VMess server itself, with a `Server` header through a web server that forwarded the request; a page comes from the web server.",
			"Check `ws.path` (exactly) and `ws.host` against the server's configuration: a server may accept one host only. Behind nginx write `proxy_pass http://ADDRESS:PORT;` without a trailing slash: with one, a different path reaches V2Ray.",
		},
		{
			WSBadRequest, "The server does not recognise the request as a WebSocket upgrade.",
			"Status 400 or 426. With `Sec-Websocket-Version` in the answer the `Upgrade` header was removed on the path. Go's bare \"400 Bad Request\" without it: Host arrives twice, or V2Ray expects the PROXY protocol. Otherwise TLS is on twice, or the web server's own page gives the reason.",
			"In nginx: `proxy_http_version 1.1`, `proxy_set_header Upgrade $http_upgrade`, `proxy_set_header Connection \"upgrade\"`, and `proxy_set_header Host` once. In V2Ray turn `acceptProxyProtocol` off unless the reverse proxy sends it.",
		},
		{
			WSForbidden, "The request is forbidden.",
			"Status 401 or 403; from a CDN: its bot rules, or WebSockets are off. Or nginx's page \"No required SSL certificate was sent\".",
			"Check `ws.host`; at the CDN turn WebSockets on and exempt the path from bot rules. If a client certificate is required: turn `ssl_verify_client` off, or connect through the CDN that has one.",
		},
		{
			WSBadGateway, "The reverse proxy cannot reach its V2Ray backend.",
			"Status 502, 503, 504, or 520 to 530 of Cloudflare.",
			"On the server: start V2Ray, and check that the address and port in the web server's configuration are V2Ray's.",
		},
		{
			WSRedirect, "The server redirects us.",
			"Status 301, 302, 303, 307 or 308; the target is shown.",
			"To https: set `tls.enabled` to true and `server.port` to 443. To the same path with or without a trailing slash: write nginx's `location` like V2Ray's path. Elsewhere: check `ws.host` and `ws.path`.",
		},
		{
			WSNotWebSocket, "Something other than a WebSocket answers: a website, or VMess over another transport.",
			"Status 200 or similar with a page, or a 101 with wrong headers. Another transport: a VMess request sent without WebSocket is accepted (certain), or the answer looks like that of V2Ray's TCP transport with an HTTP header, HTTP/2 or HTTPUpgrade (likely).",
			"A website: check `ws.path` and `ws.host`. Another transport: set `\"network\": \"ws\"` in the server's inbound; only WebSocket is supported.",
		},
		{
			WSUnexpectedStatus, "The server answers with an unexpected HTTP status.",
			"Any other HTTP status.",
			"Check the log of the program that answered, which is named, and `ws.path` and `ws.host`.",
		},
		{
			WSSilent, "The server accepts the connection and then sends nothing.",
			"No answer to the TLS handshake or the upgrade request in time.",
			"Check `server.port` and `tls.enabled`; if both are right the server is overloaded or hangs.",
		},
		{
			WSReset, "The server closes the connection instead of answering.",
			"The connection is closed or reset before an answer to the upgrade request.",
			"Check `server.port` and `tls.enabled`. If it works from another network, something on the path blocks it.",
		},
		{
			WSNotHTTP, "Something other than a web server answers.",
			"The answer to the upgrade request is not HTTP/1.1: another service, or HTTP/2; or there is no answer, but the server answers HTTP/2.",
			"Check `server.port`; with HTTP/2: configure the server to accept HTTP/1.1 on this port.",
		},
		{
			WSEarlyDataRefused, "The server is not configured for early data.",
			"The same connection works without early data.",
			"Set `ws.earlyData` to 0, or set the same value on the server.",
		},
		{
			VMessClockSkew, "This computer's clock (or the server's) is wrong: VMess tolerates two minutes.",
			"The server's `Date` differs by more than 90 s, and a request signed with the server's time is accepted. Without `Date`: a V2Ray server reacts as only one that knows the id can, and still rejects the request.",
			"Set the clock: turn on automatic time. With `heal.clock` the client meanwhile signs with the server's time.",
		},
		{
			VMessAEADRequired, "The server rejects MD5 authentication; it requires VMessAEAD.",
			"A probe with VMessAEAD is accepted, one with MD5 is not. With an `alterId` above 0 it is only *likely*: a server that accepts MD5 but has another `alterId` for the user looks the same, and the fix is the same.",
			"Set `alterId` to 0 and unset `V2RAY_VMESS_AEAD_DISABLED`.",
		},
		{
			VMessAEADUnsupported, "The server supports only MD5 authentication.",
			"A probe with MD5 is accepted, one with VMessAEAD is not.",
			"Update the server (V2Ray 4.28.1 or later). Until then `V2RAY_VMESS_AEAD_DISABLED=true` switches to MD5, which is weaker: recorded requests can be replayed and tampered with.",
		},
		{
			VMessUnknownUser, "The server does not know this id.",
			"Rejected with both VMessAEAD and MD5 while the clock is right. A deleted user looks the same.",
			"Compare `server.id` (and `alterId`) with the server's configuration, or ask whoever gave you the link for a new one.",
		},
		{
			VMessRefused, "The server rejects us, and the reason cannot be determined.",
			"Rejected or no answer, and without the server's time or further probes the id, clock and mode cannot be told apart.",
			"Check this computer's clock first, then `server.id`, then `alterId` (0 for any server since 2022).",
		},
		{
			VMessBadResponse, "The answer cannot be decrypted.",
			"The bytes that come back are not what a server that decoded our request would send.",
			"Check that `ws.path` leads to a VMess inbound of V2Ray 4.28.1 or later and that nothing on the path changes the data.",
		},
		{
			TunnelIdleCut, "Something on the path closes idle connections.",
			"The connection ends abruptly after being idle: a known time after the last byte (60 s nginx, 100 s CDN, 300 or 600 s V2Ray), or the same time as before with another destination.",
			"Set `ws.ping` to \"30s\"; in nginx raise `proxy_read_timeout`, in V2Ray the policy's `connIdle`.",
		},
		{
			TunnelReset, "A connection was cut while in use.",
			"A reset, an end without close frame and end mark, or corrupted data. If a server also resets a connection when the destination does (sing-box; V2Ray and Xray during an upload), a single case is not reported.",
			"If it happens once, retry. If often, check the server's log and middleboxes on the path (CDN, antivirus, router).",
		},
		{
			TunnelServerGone, "The server went down.",
			"All connections end at the same moment, pings go unanswered while requests wait, or the server now refuses new connections.",
			"Wait for it to restart, or start it; it is reconnected automatically.",
		},
		{
			DestinationRefused, "The server works; the destination refused the connection, or the server does not allow it.",
			"The server accepts the request and ends it without data.",
			"Check the destination's name and port; servers usually do not allow private addresses.",
		},
		{
			DestinationUnresolvable, "The server works but cannot resolve the destination's name.",
			"The request ends without data, and the name is one that only a local network can resolve.",
			"Exempt local names from the proxy in your browser or system, or use a public name.",
		},
		{
			DestinationNoAnswer, "The server works; the destination does not answer.",
			"The server accepts the request, and nothing comes back.",
			"Try another destination. If none answers, check the server's own internet connection.",
		},
		{
			DestinationReset, "The server works; the destination reset a connection.",
			"vmess-server marks it in its answer, and with Mux most servers end the session with an error. Otherwise it shows as a connection that is cut.",
			"Try again. Some destinations close idle connections like this; a destination that resets connections in use is faulty, or forbids the request.",
		},
		{
			DestinationStalled, "With Mux: the destination did not accept the data sent to it.",
			"The other connections of its Mux tunnel had to wait, so after 10 s vmess-server closed the one that blocked them.",
			"Set `mux.enabled` to false if you send much to slow destinations: then each connection has its own tunnel.",
		},
		{
			LimitConnections, "Too many connections are open.",
			"`limits.connections` or the system's limit on open files is reached.",
			"Close connections that are not needed, raise `limits.connections`, or raise the limit on open files (`ulimit -n`).",
		},
		{
			LocalBadHandshake, "A local program does not speak SOCKS or HTTP proxy, or asks for something that is not supported.",
			"The first bytes of its connection.",
			"Set the program to SOCKS5 or HTTP proxy with this address, not to HTTPS proxy or a web address. For one that asks for UDP, set `udp.mode` to `auto`.",
		},
		{
			LocalBadAuth, "A local program sends a wrong username or password.",
			"It differs from `auth`, or is missing.",
			"Enter the username and password of `auth` in that program. If it has none for SOCKS, like browsers, set it to HTTP proxy on the same port.",
		},
		{
			LocalNeedsNoAuth, "A local program insists on a username and password, but the proxy has none.",
			"It offers only that method in its SOCKS5 greeting, as some programs do once credentials are entered.",
			"Remove the username and password from that program's proxy settings, or set the same ones in `auth`.",
		},
		{
			LocalBadRequest, "A local program asks for an invalid destination, or its request is malformed.",
			"The program speaks SOCKS or HTTP proxy, but the port is 0, the host name has invalid characters, or the request violates its protocol.",
			"Correct the host name and port that program connects to. If they are right, update that program, or switch it between SOCKS5 and HTTP proxy.",
		},
		{
			LocalStalled, "With Mux: a program did not read what it had asked for.",
			"It paused a download or a video, and the other connections of the Mux tunnel had to wait, so after 10 s the one that held them up was ended.",
			"Set `mux.enabled` to false if your programs pause downloads or videos: then each connection has a tunnel of its own.",
		},
	}
}
