package sharelink

import (
	"fmt"
	"slices"
	"strings"
)

// v2rayNames are the names of V2Ray's and Xray's JSON.
var v2rayNames = map[string]string{
	"name": "tag", "security": "security",
	"ws.path": "wsSettings.path", "ws.earlyData": "maxEarlyData", "ws.host": "wsSettings.host", "ws.headers": "wsSettings.headers",
	"ws.earlyDataHeader": "earlyDataHeaderName", "ws.ping": "heartbeatPeriod",
	"tls.enabled": "streamSettings.security", "tls.serverName": "tlsSettings.serverName", "tls.fingerprint": "tlsSettings.fingerprint",
	"tls.pin": "tlsSettings.pinnedPeerCertSha256",
}

// v2rayOutbound reads an outbound, which may hold several servers.
func (r *reader) v2rayOutbound(place string, o object) {
	var t texts
	protocol := t.of(o, "protocol")
	switch strings.ToLower(protocol) {
	case "vmess":
	case "freedom", "blackhole", "dns", "loopback": // no servers
		return
	default:
		r.foreign(place, t.of(o, "tag"), protocol, o)
		return
	}
	settings := o.child("settings")
	if !settings.has("vnext") {
		r.v2rayServer(place, o, settings, settings)
		return
	}
	for i, next := range orOne(settings.list("vnext")) {
		server, _ := next.(object)
		for k, one := range orOne(server.list("users")) {
			at := place
			if i > 0 || k > 0 {
				at = fmt.Sprintf("%s.vnext[%d].users[%d]", place, i, k)
			}
			user, _ := one.(object)
			r.v2rayServer(at, o, server, user)
		}
	}
}

// orOne returns an absent thing in place of none, so that it is said to be
// missing.
func orOne(elements []any) []any {
	if len(elements) == 0 {
		return []any{nil}
	}
	return elements
}

// v2rayServer reads one server of an outbound with one of its users.
func (r *reader) v2rayServer(place string, outbound, server, user object) {
	var t texts
	stream := outbound.child("streamSettings")
	if stream == nil {
		stream = outbound // where somebody left the object out
	}
	f := &fields{
		names:     v2rayNames,
		name:      t.of(outbound, "tag"),
		address:   t.of(server, "address"),
		port:      t.of(server, "port"),
		id:        t.of(user, "id", "uuid"),
		alterID:   t.of(user, "alterId"),
		security:  t.of(user, "security"),
		transport: t.of(stream, "network", "transport"),
		tls:       t.of(stream, "security"),
	}
	if slices.Contains(strings.Split(t.of(user, "experiments"), "|"), "AuthenticatedLength") {
		f.authenticatedLength = "true"
	}
	f.v2rayWebSocket(&t, stream)
	f.v2rayTLS(&t, stream)
	mux := outbound.child("mux")
	f.sessions = t.of(mux, "concurrency")
	f.mux = isTrue(t.of(mux, "enabled")) && !strings.HasPrefix(f.sessions, "-") // below 0 only datagrams share a tunnel
	switch {
	case t.err != nil:
	case outbound.child("proxySettings").has("tag"):
		t.mistake("proxySettings", chained)
	case stream.child("sockopt").has("dialerProxy"):
		t.mistake("sockopt.dialerProxy", chained)
	}
	r.take(place, f, t.err)
}

// chained is why a server is skipped that is reached by way of another one.
const chained = "the server is reached through another one, which is not supported"

func (f *fields) v2rayWebSocket(t *texts, stream object) {
	ws := stream.child("wsSettings")
	if ws == nil {
		ws = stream.child("transportSettings")
	}
	f.path, f.host = t.of(ws, "path"), t.of(ws, "host", "Host")
	f.headers = t.headers(ws, "headers")
	if !ws.has("headers") {
		f.headers = t.headers(ws, "header")
	}
	f.hostWins()
	f.early(t.of(ws, "maxEarlyData"), t.of(ws, "earlyDataHeaderName"))
	f.ping = t.of(ws, "heartbeatPeriod")
}

// hostWins drops a Host among the headers where it has a field of its own.
func (f *fields) hostWins() {
	for name := range f.headers {
		if f.host != "" && strings.EqualFold(name, "host") {
			delete(f.headers, name)
		}
	}
}

// early takes early data as configurations have it: without a header it goes
// in the path.
func (f *fields) early(size, header string) {
	f.earlyData, f.earlyDataHeader = size, header
	f.earlyDataInPath = header == "" && size != "" && size != "0"
	if size == "" || size == "0" {
		f.earlyDataHeader = "" // of no meaning
	}
}

func (f *fields) v2rayTLS(t *texts, stream object) {
	tls := stream.child("tlsSettings")
	if tls == nil {
		tls = stream.child("securitySettings")
	}
	f.serverName, f.fingerprint = t.of(tls, "serverName"), t.of(tls, "fingerprint")
	f.pins = t.all(tls, "pinnedPeerCertSha256")
	f.insecure = isTrue(t.of(tls, "allowInsecure"))
	t.refuse(tls,
		refusal{"pinnedPeerCertificateChainSha256", "a pin of the whole chain; here tls.pin is the SHA-256 of a certificate"},
		refusal{"pinnedPeerCertificatePublicKeySha256", "a pin of the key; here tls.pin is the SHA-256 of a certificate"},
		refusal{"verifyPeerCertInNames", "the certificate has a different name than the one that is sent, which is not supported"},
		refusal{"verifyPeerCertByName", "the certificate has a different name than the one that is sent, which is not supported"},
		refusal{"certificates", "the configuration contains certificates; here tls.caFile names a CA file"},
		refusal{"echConfigList", "encrypted ClientHello is not supported"},
	)
}

// A refusal is a key that a server is skipped for: without it the connection
// would be protected less, or not come about.
type refusal struct{ key, reason string }

func (t *texts) refuse(o object, refusals ...refusal) {
	for _, x := range refusals {
		if o.has(x.key) {
			t.mistake(x.key, x.reason)
		}
	}
}

// note tells that a part of what was read is changed or left out.
func (f *fields) note(field, text string) { f.notes = append(f.notes, field+": "+text) }
