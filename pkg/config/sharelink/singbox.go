package sharelink

import "strings"

// singBoxNames are the names of sing-box's JSON.
var singBoxNames = map[string]string{
	"name": "tag", "address": "server", "port": "server_port", "id": "uuid", "alterId": "alter_id", "security": "security",
	"ws.path": "transport.path", "ws.earlyData": "max_early_data", "ws.host": "transport.headers", "ws.headers": "transport.headers",
	"ws.earlyDataHeader": "early_data_header_name",
	"tls.enabled":        "tls.enabled", "tls.serverName": "tls.server_name", "tls.fingerprint": "tls.utls",
}

func (r *reader) singBoxOutbound(place string, o object) {
	var t texts
	kind := t.of(o, "type")
	switch strings.ToLower(kind) {
	case "vmess":
	case "direct", "block", "dns", "selector", "urltest": // no servers
		return
	default:
		r.foreign(place, t.of(o, "tag"), kind, o)
		return
	}
	f := &fields{
		names:               singBoxNames,
		name:                t.of(o, "tag"),
		address:             t.of(o, "server"),
		port:                t.of(o, "server_port"),
		id:                  t.of(o, "uuid"),
		alterID:             t.of(o, "alter_id"),
		security:            t.of(o, "security"),
		globalPadding:       t.of(o, "global_padding"),
		authenticatedLength: t.of(o, "authenticated_length"),
	}
	ws := o.child("transport")
	f.transport, f.path = t.of(ws, "type"), t.of(ws, "path")
	f.host, f.headers = t.of(ws, "host"), t.headers(ws, "headers")
	f.hostWins()
	f.early(t.of(ws, "max_early_data"), t.of(ws, "early_data_header_name"))
	f.singBoxTLS(&t, o.child("tls"))
	if isTrue(t.of(o.child("multiplex"), "enabled")) {
		f.note("multiplex", "sing-box's own is not supported; each connection has its own tunnel")
	}
	t.refuse(o, refusal{"detour", chained})
	r.take(place, f, t.err)
}

func (f *fields) singBoxTLS(t *texts, tls object) {
	f.tls, f.serverName = t.of(tls, "enabled"), t.of(tls, "server_name")
	f.insecure = isTrue(t.of(tls, "insecure"))
	f.caFile = t.of(tls, "certificate_path")
	if utls := tls.child("utls"); isTrue(t.of(utls, "enabled")) {
		if f.fingerprint = t.of(utls, "fingerprint"); f.fingerprint == "" {
			f.fingerprint = "chrome" // sing-box's own choice
		}
	}
	for _, key := range []string{"reality", "ech"} {
		if isTrue(t.of(tls.child(key), "enabled")) {
			t.mistake("tls."+key, "it is not supported")
		}
	}
	t.refuse(tls,
		refusal{"certificate", "the configuration contains a certificate; here tls.caFile names a CA file"},
		refusal{"certificate_public_key_sha256", "a pin of the key; here tls.pin is the SHA-256 of a certificate"},
		refusal{"client_certificate", "client certificates are not supported"},
		refusal{"client_certificate_path", "client certificates are not supported"},
	)
}
