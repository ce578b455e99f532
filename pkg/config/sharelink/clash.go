package sharelink

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The keys of a Clash configuration that are read.
const (
	keyProxies    = "proxies"
	keyOldProxies = "Proxy"
	keyProviders  = "proxy-providers"
	keyPayload    = "payload"
	keyRules      = "rules"
)

// clashNames are the names of Clash's and mihomo's YAML.
var clashNames = map[string]string{
	"name": "name", "address": "server", "port": "port", "id": "uuid", "alterId": "alterId", "security": "cipher",
	"ws.path": "ws-opts.path", "ws.earlyData": "max-early-data", "ws.host": "ws-opts.headers", "ws.headers": "ws-opts.headers",
	"ws.earlyDataHeader": "early-data-header-name",
	"tls.enabled":        "tls", "tls.serverName": "servername", "tls.fingerprint": "client-fingerprint", "tls.pin": "fingerprint",
}

// clashConfig reads the list of proxies.
func (r *reader) clashConfig(place string, o object) {
	for _, key := range []string{keyProxies, keyOldProxies} {
		r.clashList(place, key, o)
	}
	providers := o.child(keyProviders)
	for _, name := range slices.Sorted(maps.Keys(providers)) {
		provider := providers.child(name)
		r.clashList(place+keyProviders+"."+name+".", keyPayload, provider)
		var t texts
		if at := t.of(provider, "url", "path"); at != "" {
			r.providers = append(r.providers, at)
		}
	}
}

// A ProvidersError is about a Clash configuration that holds no server but
// says where lists of them are. It is [ErrNothing].
type ProvidersError struct {
	At []string // URLs or files, which are secrets
}

func (*ProvidersError) Error() string {
	return ErrNothing.Error() + ": it refers to lists at other addresses (proxy-providers)"
}

// Unwrap returns ErrNothing.
func (*ProvidersError) Unwrap() error { return ErrNothing }

func (r *reader) clashList(place, key string, o object) {
	for i, element := range o.list(key) {
		at := fmt.Sprintf("%s%s[%d]", place, key, i)
		proxy, isObject := element.(object)
		if !isObject {
			r.skip(at, &FieldError{key, "it must be an object"})
			continue
		}
		r.clashProxy(at, proxy)
	}
}

func (r *reader) clashProxy(place string, o object) {
	var t texts
	kind := t.of(o, "type")
	switch strings.ToLower(kind) {
	case "vmess":
	case "direct", "reject", "reject-drop", "dns", "pass", "compatible": // no servers
		return
	default:
		r.foreign(place, t.of(o, "name"), kind, o)
		return
	}
	f := &fields{
		names:               clashNames,
		name:                t.of(o, "name"),
		address:             t.of(o, "server"),
		port:                t.of(o, "port"),
		id:                  t.of(o, "uuid"),
		alterID:             t.of(o, "alterId"),
		security:            t.of(o, "cipher"),
		globalPadding:       t.of(o, "global-padding"),
		authenticatedLength: t.of(o, "authenticated-length"),
		transport:           t.of(o, "network"),
		tls:                 t.of(o, "tls"),
		serverName:          t.of(o, "servername", "sni"),
		fingerprint:         t.of(o, "client-fingerprint"),
		pins:                t.all(o, "fingerprint"),
		insecure:            isTrue(t.of(o, "skip-cert-verify")),
	}
	f.clashWebSocket(&t, o)
	if isTrue(t.of(o.child("smux"), "enabled")) {
		f.note("smux", "it is not supported; each connection has its own tunnel")
	}
	t.refuse(o,
		refusal{"reality-opts", "it is not supported"},
		refusal{"dialer-proxy", chained},
		refusal{"certificate", "client certificates are not supported"},
		refusal{"private-key", "client certificates are not supported"},
	)
	if isTrue(t.of(o.child("ech-opts"), "enable")) {
		t.mistake("ech-opts", "it is not supported")
	}
	r.take(place, f, t.err)
}

// clashWebSocket reads ws-opts, and what older files have at the top.
func (f *fields) clashWebSocket(t *texts, o object) {
	ws := o.child("ws-opts")
	f.path, f.host, f.headers = t.of(ws, "path"), t.of(ws, "host", "Host"), t.headers(ws, "headers")
	if f.path == "" {
		f.path = t.of(o, "ws-path")
	}
	if len(f.headers) == 0 {
		f.headers = t.headers(o, "ws-headers")
	}
	f.hostWins()
	f.early(t.of(ws, "max-early-data"), t.of(ws, "early-data-header-name"))
	if isTrue(t.of(ws, "v2ray-http-upgrade")) {
		f.transport = "httpupgrade"
	}
}
