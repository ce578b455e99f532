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
	Signs string // what it was told by
	Fix   string // what to do
}

// OfPath reports whether the cause lies on the way to the server, or in its
// absence, and not in what was asked of it or in the local side.
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

// Causes returns all causes in the order of the way: configuration, local
// port, the steps to the server, the account, the tunnel, the destination.
func Causes() []CauseInfo {
	return []CauseInfo{
		{
			ConfigSyntax, "The configuration is not JSON with comments and trailing commas.",
			"The parser stops at the line and column it names.",
			"Correct the place it names: mostly a missing comma, quotation mark or brace just before it.",
		},
		{
			ConfigUnknownKey, "The configuration has a key that does not exist.",
			"No key of that name at that place; a similar one is named.",
			"Write the key that was meant, or remove the line. `config.example.json` has every key.",
		},
		{
			ConfigValue, "A key has a value that cannot be right, or is given twice.",
			"The type, the range or the form of the value.",
			"Write what the message asks for at the place it names.",
		},
		{
			ConfigMissing, "A required key is not there.",
			"`server.address`, `server.port` and `server.id` have no default; some keys need each other.",
			"Add the key. `vmess-local link import LINK` writes a whole configuration from a share link.",
		},
		{
			ConfigUnreadable, "The configuration file cannot be read.",
			"The system's answer when the file is opened: it does not exist, is not yours to read, or is a directory.",
			"Name the right file with `-c`, make it readable for you, or write one with `vmess-local link import LINK -o config.json`.",
		},
		{
			ListenInUse, "Another program already listens on the local port.",
			"The system refuses the address as in use. On Linux the process is looked up.",
			"Stop that program, or set `listen` to the free port that is offered.",
		},
		{
			ListenDenied, "The system does not let this program listen there.",
			"The system's answer: a port below 1024 without the right to it, a range that Windows reserved (Hyper-V, WSL), or an address this computer does not have.",
			"Set `listen` to a port above 1023 on `127.0.0.1`. On Windows `netsh int ipv4 show excludedportrange protocol=tcp` lists the reserved ranges.",
		},
		{
			ListenNeedsAuth, "Others could use the proxy: `listen` is not a loopback address and there is no password.",
			"`listen` and `auth` in the configuration.",
			"Set `auth.username` and `auth.password`, or set `listen` to a loopback address.",
		},
		{
			DNSNotFound, "The server's name does not exist.",
			"The resolver answers that there is no such name.",
			"Correct `server.address`. If the name is right, ask another resolver: some networks hide names.",
		},
		{
			DNSTimeout, "The resolver does not answer.",
			"No answer of the resolver within the time for connecting (`limits.dial`).",
			"Check that this computer is online and which resolver it uses; an IP address in `server.address` needs none (then set `tls.serverName` and `ws.host` to the name).",
		},
		{
			DNSFailed, "The resolver answers with an error of its own.",
			"SERVFAIL, REFUSED or the like.",
			"Try again or use another resolver; an IP address in `server.address` needs none (then set `tls.serverName` and `ws.host` to the name).",
		},
		{
			TCPRefused, "Nothing listens on the server's port.",
			"The connection is refused at once by the server's system.",
			"Check `server.port`, and that the service runs on the server.",
		},
		{
			TCPTimeout, "No answer from the server's address.",
			"The connection attempt stays without any answer: a firewall drops it, the address is wrong or the server is down.",
			"Check `server.address`, the server's firewall and whether this computer is online.",
		},
		{
			TCPUnreachable, "There is no way to the server's address.",
			"The system or a router says that network or host are unreachable, or this computer's own rules forbid the connection.",
			"Check that this computer is online; an IPv6 address needs a network with IPv6.",
		},
		{
			TCPReset, "The connection is reset before anything could be said.",
			"A TCP reset while connecting or during the TLS handshake. Something on the way, or a wrong port.",
			"Check `server.port`; try from another network. If it works there, something on the way blocks this server or its name.",
		},
		{
			UpstreamRefused, "The company proxy does not connect to this server.",
			"It answers CONNECT with 403 or another refusal, or SOCKS with \"not allowed\".",
			"Ask for the server to be allowed, or use a port the proxy lets through, which is mostly 443.",
		},
		{
			UpstreamAuth, "The company proxy wants a user name and password, or others.",
			"It answers 407, or no SOCKS authentication method is accepted.",
			"Put the right user name and password into `upstream`: `http://USER:PASSWORD@HOST:PORT`. Only Basic is spoken: for NTLM or Negotiate run a helper such as cntlm or px and name that.",
		},
		{
			UpstreamFailed, "The company proxy cannot be reached, or it cannot reach the server. In `vmess-server check`: the proxy of the way out cannot be reached.",
			"Name, connection or protocol fail at the proxy; or it answers 502, 503, 504 or a SOCKS failure.",
			"Check `upstream`, and `server.address` and `server.port` behind it; of a server `egress.dial`.",
		},
		{
			UpstreamLoop, "`upstream` leads to this program itself.",
			"The proxy's address is that of this program's own port, by whatever name. Each request would ask for itself without end; it fails before it is sent.",
			"Name the proxy of your network in `upstream`, or leave it empty where there is none. With `\"env\"` check `HTTP_PROXY` and `HTTPS_PROXY`.",
		},
		{
			TLSNotTLS, "The port does not speak TLS.",
			"Something else than a TLS record in answer to the ClientHello, mostly plain HTTP.",
			"Set `tls.enabled` to false, or `server.port` to the TLS port (mostly 443).",
		},
		{
			TLSUnknownIssuer, "The certificate is signed by nobody this computer knows.",
			"No way from the certificate to a trusted authority: it is self-signed, from a private authority, or from a program that opens TLS on the way.",
			"If it is your server's own certificate: write its SHA-256, which is shown, to `tls.pin`. For a private authority name its file in `tls.caFile`.",
		},
		{
			TLSIncompleteChain, "The server does not send the intermediate certificate.",
			"The issuer is unknown, was not sent, and is a public authority or names a place to fetch it from.",
			"Let the server send the full chain (`fullchain.pem` instead of `cert.pem`); until then pin the certificate with `tls.pin`.",
		},
		{
			TLSExpired, "The certificate is out of date, or not valid yet.",
			"Its dates against this computer's clock, when the server's `Date` does not show that the clock is wrong.",
			"Out of date: renew the certificate on the server. Not valid yet: mostly this computer's clock is behind. Check its date first in both cases.",
		},
		{
			TLSWrongName, "The certificate is for other names.",
			"The name asked for is none of those in the certificate, which are listed.",
			"Set `tls.serverName` to a name of the certificate if that is your server.",
		},
		{
			TLSPinMismatch, "The certificate is not the pinned one.",
			"Its SHA-256 is none of `tls.pin`.",
			"If you renewed the certificate: write the shown SHA-256 to `tls.pin`. If not: somebody else answers, do not connect.",
		},
		{
			TLSRefused, "The server refuses the TLS handshake.",
			"A TLS alert, which is named (only TLS servers send one, so what the port answers to plain HTTP does not count), or the connection is closed during the handshake.",
			"Alert 112, and often 40: correct `tls.serverName`. 70: turn on TLS 1.2 or 1.3 at the server. 116 and those about certificates: the server requires a client certificate, which is not supported here. 120: the port has HTTP/2 only. Closed: check `server.port`, and whether the port expects the PROXY protocol.",
		},
		{
			WSNeedsTLS, "The port wants TLS, and plain WebSocket was spoken.",
			"A TLS record in answer to HTTP, a 400 that says so, or silence where a ClientHello is answered.",
			"Set `tls.enabled` to true.",
		},
		{
			WSNotFound, "The path does not exist there.",
			"Status 404 or 410. An empty body comes from the proxy core itself, with a `Server` header through a web server that passed the request on; a page from the web server.",
			"Check `ws.path` (letter by letter) and `ws.host` against the server's configuration: a server may take one host only. Behind nginx write `proxy_pass http://ADDRESS:PORT;` without a slash at its end: with one, V2Ray is asked for another path.",
		},
		{
			WSBadRequest, "The server does not take the request for a WebSocket upgrade.",
			"Status 400 or 426. With `Sec-Websocket-Version` in the answer the `Upgrade` header was dropped on the way. Go's bare \"400 Bad Request\" without it: Host arrives twice, or V2Ray expects the PROXY protocol. Else the way wants TLS twice, or the web server's own page says why.",
			"In nginx: `proxy_http_version 1.1`, `proxy_set_header Upgrade $http_upgrade`, `proxy_set_header Connection \"upgrade\"`, and `proxy_set_header Host` once. In V2Ray turn `acceptProxyProtocol` off unless what is in front sends it.",
		},
		{
			WSForbidden, "The request is forbidden.",
			"Status 401 or 403; from a CDN: its rules against bots, or WebSockets are off. Or nginx's page \"No required SSL certificate was sent\".",
			"Check `ws.host`; at the CDN turn WebSockets on and exempt the path from bot rules. Where a client certificate is required: turn `ssl_verify_client` off, or connect through the CDN that has one.",
		},
		{
			WSBadGateway, "The web server in front cannot reach the V2Ray behind it.",
			"Status 502, 503, 504, or 520 to 530 of Cloudflare.",
			"On the server: start V2Ray, and check that address and port in the web server's configuration are V2Ray's.",
		},
		{
			WSRedirect, "The server sends us elsewhere.",
			"Status 301, 302, 303, 307 or 308; where to is named.",
			"To https: set `tls.enabled` to true and `server.port` to 443. To the same path with a slash more or less: write nginx's `location` as V2Ray's path is. Elsewhere: check `ws.host` and `ws.path`.",
		},
		{
			WSNotWebSocket, "Something else than a WebSocket answers: a web site, or VMess by another transport.",
			"Status 200 or the like with a page, or a 101 with wrong headers. Another transport: a VMess request sent without WebSocket is accepted (certain), or the answer looks like that of V2Ray's TCP with an HTTP header, HTTP/2 or HTTPUpgrade (likely).",
			"A web site: check `ws.path` and `ws.host`. Another transport: set `\"network\": \"ws\"` in the server's inbound; only WebSocket is supported here.",
		},
		{
			WSUnexpectedStatus, "The server answers with a status that has no meaning here.",
			"Any other HTTP status.",
			"Look into the log of the program that answered, which is named; check `ws.path` and `ws.host`.",
		},
		{
			WSSilent, "The server takes the connection and then says nothing.",
			"No answer to the TLS handshake or the upgrade request in time.",
			"Check `server.port` and `tls.enabled`; if both are right the server is overloaded or hangs.",
		},
		{
			WSReset, "The server ends the connection instead of answering.",
			"The connection is closed or reset before an answer to the upgrade request.",
			"Check `server.port` and `tls.enabled`. If it works from another network, something on the way cuts it.",
		},
		{
			WSNotHTTP, "Something else than a web server answers.",
			"The answer to the upgrade request is not HTTP/1.1: another service, or HTTP/2; or there is none and HTTP/2 is answered.",
			"Check `server.port`; with HTTP/2: let the server accept HTTP/1.1 on this port.",
		},
		{
			WSEarlyDataRefused, "The server is not set up for early data.",
			"The same connection works without early data.",
			"Set `ws.earlyData` to 0, or set the same value on the server.",
		},
		{
			VMessClockSkew, "This computer's clock (or the server's) is wrong: VMess allows two minutes.",
			"The server's `Date` differs by more than 90 s, and a request signed with the server's time is accepted. Without `Date`: a V2Ray server counts as only one that knows the id can, and still refuses.",
			"Set the clock: turn on automatic time. With `heal.clock` the client signs with the server's time meanwhile.",
		},
		{
			VMessAEADRequired, "The server refuses MD5 authentication; it wants VMessAEAD.",
			"A probe with VMessAEAD is accepted, one with MD5 is not. With an `alterId` above 0 it is *likely* only: a server that takes MD5 but has another `alterId` for the user looks the same, and the fix is the same.",
			"Set `alterId` to 0 and unset `V2RAY_VMESS_AEAD_DISABLED`.",
		},
		{
			VMessAEADUnsupported, "The server knows only MD5 authentication.",
			"A probe with MD5 is accepted, one with VMessAEAD is not.",
			"Update the server (V2Ray 4.28.1 or later). Until then `V2RAY_VMESS_AEAD_DISABLED=true` speaks MD5, which is weaker: recorded requests can be replayed and tampered with.",
		},
		{
			VMessUnknownUser, "The server does not know this id.",
			"Refused with VMessAEAD and with MD5 while the clock is right. A deleted user looks the same.",
			"Compare `server.id` (and `alterId`) with the server's configuration, or ask whoever gave you the link for a new one.",
		},
		{
			VMessRefused, "The server refuses us, and the signals do not say why.",
			"Refused or silent, and without the server's time or further probes id, clock and mode cannot be told apart.",
			"Check this computer's clock first, then `server.id`, then `alterId` (0 for any server since 2022).",
		},
		{
			VMessBadResponse, "The answer does not decrypt.",
			"The bytes that come back are not what a server that read our request writes.",
			"Check that `ws.path` leads to a VMess inbound of V2Ray 4.28.1 or later and that nothing on the way changes the data.",
		},
		{
			TunnelIdleCut, "Something on the way ends connections that are idle.",
			"The end comes without a word after a silence: a known time after the last byte (60 s nginx, 100 s CDN, 300 or 600 s V2Ray), or the same as before with another destination.",
			"Set `ws.ping` to \"30s\"; in nginx raise `proxy_read_timeout`, in V2Ray the policy's `connIdle`.",
		},
		{
			TunnelReset, "A connection in use was cut.",
			"A reset, an end without close frame and end mark, or damaged data. Where a server resets a connection alike when the destination does (sing-box; V2Ray and Xray amid an upload), one alone is not reported.",
			"Once: nothing, try again. Often: look at the server's log and what is on the way (CDN, antivirus, router).",
		},
		{
			TunnelServerGone, "The server went away.",
			"All connections end at one moment, pings stay without answer while requests wait, or the server refuses new connections now.",
			"Wait for its restart, or start it; connections are made anew by themselves.",
		},
		{
			DestinationRefused, "The server is fine; the destination refused or the server may not go there.",
			"The server accepts us and ends the request without data.",
			"Check the destination's name and port; private addresses are mostly forbidden at the server.",
		},
		{
			DestinationUnresolvable, "The server is fine, but cannot resolve the destination's name.",
			"The request ends without data, and the name is one that only a local network can know.",
			"Exempt local names from the proxy in your browser or system, or use a public name.",
		},
		{
			DestinationNoAnswer, "The server is fine; the destination does not answer.",
			"The server accepts us, and nothing comes back.",
			"Try another destination. If all are silent, look at the server's own connection.",
		},
		{
			DestinationReset, "The server is fine; the destination broke off a connection.",
			"vmess-server marks it inside the answer, and with Mux most servers end the session with an error. Otherwise it shows as a connection that breaks off.",
			"Try again. Some destinations end idle connections like this; a destination that resets in use has a fault of its own, or forbids what was asked.",
		},
		{
			DestinationStalled, "With Mux: the destination did not take what was sent.",
			"The other connections of its Mux tunnel had to wait, so after 10 s vmess-server ended the one that held them up.",
			"Set `mux.enabled` to false if you send much to slow destinations: then each connection has a tunnel of its own.",
		},
		{
			LimitConnections, "Too many connections are open.",
			"`limits.connections` or the system's limit of open files is reached.",
			"Close what is not needed, raise `limits.connections`, or raise the limit of open files (`ulimit -n`).",
		},
		{
			LocalBadHandshake, "A local program speaks something else than SOCKS or HTTP proxy, or asks for what is not served.",
			"The first bytes of its connection.",
			"Set the program to SOCKS5 or HTTP proxy with this address, not to HTTPS proxy or a web address. For one that asks for UDP, set `udp.mode` to `auto`.",
		},
		{
			LocalBadAuth, "A local program gives a wrong user name or password.",
			"It differs from `auth`, or is missing.",
			"Enter the user name and password of `auth` in that program. Where it has none for SOCKS, as browsers, set it to HTTP proxy on the same port.",
		},
		{
			LocalNeedsNoAuth, "A local program insists on a user name and password, and the proxy has none.",
			"It offers only that method in its SOCKS5 greeting, as some programs do once a login is filled in.",
			"Remove the user name and password from that program's proxy settings, or set the same ones as `auth`.",
		},
		{
			LocalBadRequest, "A local program asks for a destination that is not valid, or its request is malformed.",
			"The program speaks SOCKS or HTTP proxy, but the port is 0, the host name has characters that no host name has, or the request breaks its protocol.",
			"Correct the host name and port that program connects to. If they are right, update that program, or switch it between SOCKS5 and HTTP proxy.",
		},
		{
			LocalStalled, "With Mux: a program did not read what it had asked for.",
			"It paused a download or a video, and the other connections of the Mux tunnel had to wait, so after 10 s the one that held them up was ended.",
			"Set `mux.enabled` to false if your programs pause downloads or videos: then each connection has a tunnel of its own.",
		},
	}
}
