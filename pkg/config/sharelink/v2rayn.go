package sharelink

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"vmess-local/pkg/config"
)

// jsonNames are the names of the base64 form.
var jsonNames = map[string]string{
	"name": "ps", "address": "add", "port": "port", "id": "id", "alterId": "aid", "security": "scy",
	"ws.path": "path", "ws.earlyData": "path", "ws.host": "host", "tls.enabled": "tls", "tls.serverName": "sni", "tls.fingerprint": "fp",
}

// parseObject reads a link's JSON. Panels write its values as texts, numbers,
// truth values or null, as they like.
func parseObject(data string) (*fields, error) {
	value, err := parseTree([]byte(data))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotVMess, err)
	}
	o, isObject := value.(object)
	if !isObject {
		return nil, fmt.Errorf("%w: its JSON is not an object", ErrNotVMess)
	}
	return linkFields(o)
}

// linkFields reads the object of a link. The fields are there on errors, too.
func linkFields(o object) (*fields, error) {
	var t texts
	f := &fields{
		names:       jsonNames,
		name:        t.of(o, "ps", "remark", "remarks"),
		address:     t.of(o, "add", "address", "server"),
		port:        t.of(o, "port"),
		id:          t.of(o, "id"),
		alterID:     t.of(o, "aid", "alterId"),
		security:    t.of(o, "scy", "cipher", "security"),
		transport:   t.of(o, "net", "network"),
		host:        t.of(o, "host"),
		path:        t.of(o, "path"),
		tls:         t.of(o, "tls"),
		serverName:  t.of(o, "sni", "peer"),
		fingerprint: t.of(o, "fp"),
	}
	if kind, _ := o["type"].(string); f.transport == "" && isWebSocket(kind) {
		f.transport = kind // the header's field, mistaken for the transport's
	}
	f.insecure = isTrue(t.of(o, "insecure", "allowInsecure", "skip-cert-verify")) || isFalse(t.of(o, "verify_cert"))
	f.oldHost(t.of(o, "v"))
	return f, t.err
}

// oldHost splits the host of version 1, which may hold the path.
func (f *fields) oldHost(version string) {
	if version != "" && version != "1" || f.path != "" {
		return
	}
	if host, path, both := strings.Cut(f.host, ";"); both {
		f.host, f.path = host, path
	}
}

func isWebSocket(transport string) bool {
	return slices.Contains([]string{"ws", "wss", "websocket"}, strings.ToLower(strings.TrimSpace(transport)))
}

func isTrue(text string) bool {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "1", "true", "yes", "on":
		return true
	}
	return false
}

func isFalse(text string) bool {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "0", "false", "no", "off":
		return true
	}
	return false
}

// guiNames are the names of the file of v2rayN up to 5.
var guiNames = map[string]string{
	"name": "remarks", "address": "address", "port": "port", "id": "id", "alterId": "alterId", "security": "security",
	"ws.path": "path", "ws.earlyData": "path", "ws.host": "requestHost", "tls.enabled": "streamSecurity", "tls.serverName": "sni", "tls.fingerprint": "fingerprint",
}

// guiConfig reads the servers of that file.
func (r *reader) guiConfig(prefix string, o object) {
	var t texts
	mux := isTrue(t.of(o, "muxEnabled"))
	for i, element := range o.list("vmess") {
		at := fmt.Sprintf("%svmess[%d]", prefix, i)
		server, _ := element.(object)
		var t texts
		kind := t.of(server, "configType")
		if kind != "" && kind != "1" {
			protocol := map[string]string{"2": "custom", "3": "shadowsocks", "4": "socks", "5": "vless", "6": "trojan"}[kind]
			r.foreign(at, t.of(server, "remarks"), protocol, server)
			continue
		}
		f := &fields{
			names:       guiNames,
			name:        t.of(server, "remarks"),
			address:     t.of(server, "address"),
			port:        t.of(server, "port"),
			id:          t.of(server, "id"),
			alterID:     t.of(server, "alterId"),
			security:    t.of(server, "security"),
			transport:   t.of(server, "network"),
			host:        t.of(server, "requestHost"),
			path:        t.of(server, "path"),
			tls:         t.of(server, "streamSecurity"),
			serverName:  t.of(server, "sni"),
			fingerprint: t.of(server, "fingerprint"),
			insecure:    isTrue(t.of(server, "allowInsecure")),
			mux:         mux,
		}
		r.take(at, f, t.err)
	}
}

// A version2 is the object that v2rayN writes: everything is text.
type version2 struct {
	V        string `json:"v"`
	PS       string `json:"ps"`
	Add      string `json:"add"`
	Port     string `json:"port"`
	ID       string `json:"id"`
	AID      string `json:"aid"`
	SCY      string `json:"scy"`
	Net      string `json:"net"`
	Type     string `json:"type"`
	Host     string `json:"host"`
	Path     string `json:"path"`
	TLS      string `json:"tls"`
	SNI      string `json:"sni"`
	ALPN     string `json:"alpn"`
	FP       string `json:"fp"`
	Insecure string `json:"insecure"`
}

func formatJSON(r *config.Remote) (string, error) {
	link := version2{
		V: "2", PS: r.Name, Add: r.Address, Port: strconv.Itoa(r.Port), ID: string(r.ID), AID: strconv.Itoa(r.AlterID),
		SCY: r.Security, Net: "ws", Type: "none", Host: r.WS.Host, Path: linkPath(r), SNI: r.TLS.ServerName, FP: r.TLS.Fingerprint,
		Insecure: "0",
	}
	if r.TLS.Enabled {
		link.TLS, link.ALPN = "tls", "http/1.1"
	}
	if r.TLS.AllowInsecure && len(r.TLS.Pin) == 0 { // links carry no pin
		link.Insecure = "1"
	}
	data, err := json.Marshal(link)
	if err != nil {
		return "", fmt.Errorf("encode a share link: %w", err)
	}
	return scheme + base64.StdEncoding.EncodeToString(data), nil
}
