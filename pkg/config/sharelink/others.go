package sharelink

import (
	"fmt"
	"strings"
)

// The forms that only a few programs write.

// shadowrocketNames are the names of Shadowrocket's form.
var shadowrocketNames = map[string]string{
	"name": "remarks", "address": "host", "port": "port", "id": "id", "alterId": "alterId", "security": "cipher",
	"ws.path": "path", "ws.earlyData": "path", "ws.host": "obfsParam", "tls.enabled": "tls", "tls.serverName": "peer",
}

// parseShadowrocket reads base64("cipher:id@host:port")?obfs=websocket&….
func parseShadowrocket(data, query string) (*fields, error) {
	colon, at := strings.IndexByte(data, ':'), strings.LastIndexByte(data, '@')
	if colon < 0 || at < colon {
		return nil, errUnknownForm()
	}
	values, err := parseQuery(query, "remarks", "remark", "alterId", "aid", "obfs", "obfsParam", "wsHost", "path", "wspath", "tls", "peer", "sni", "allowInsecure")
	if err != nil {
		return nil, err
	}
	f := &fields{
		names:      shadowrocketNames,
		security:   data[:colon],
		name:       first(values, "remarks", "remark"),
		alterID:    first(values, "alterId", "aid"),
		transport:  first(values, "obfs"),
		host:       shadowrocketHost(first(values, "obfsParam", "wsHost")),
		path:       first(values, "path", "wspath"),
		tls:        first(values, "tls"),
		serverName: first(values, "peer", "sni"),
		insecure:   isTrue(first(values, "allowInsecure")),
	}
	return f, f.authority(data[colon+1:at], data[at+1:])
}

// shadowrocketHost reads a host, or an object of headers with it.
func shadowrocketHost(text string) string {
	if !strings.HasPrefix(strings.TrimSpace(text), "{") {
		return text
	}
	value, err := parseTree([]byte(text))
	if err != nil {
		return text // which is no host, and said to be none
	}
	var t texts
	o, _ := value.(object)
	return t.of(o, "Host", "host")
}

// first returns the first value among the keys that says something.
func first(values map[string]string, keys ...string) string {
	for _, key := range keys {
		if values[key] != "" {
			return values[key]
		}
	}
	return ""
}

// quantumultNames are the names of Quantumult's form.
var quantumultNames = map[string]string{
	"name": "name", "address": "host", "port": "port", "id": "id", "security": "cipher",
	"ws.path": "obfs-path", "ws.earlyData": "obfs-path", "ws.host": "obfs-header", "tls.enabled": "over-tls", "tls.serverName": "tls-host",
}

// parseQuantumult reads `name = vmess, host, port, cipher, "id", obfs=ws, …`.
func parseQuantumult(data string) (*fields, error) {
	parts := splitQuoted(data)
	name, kind, _ := strings.Cut(parts[0], "=")
	if !strings.EqualFold(strings.TrimSpace(kind), "vmess") || len(parts) < 5 {
		return nil, errUnknownForm()
	}
	values := make(map[string]string)
	for _, part := range parts[5:] {
		key, value, _ := strings.Cut(part, "=")
		values[strings.TrimSpace(key)] = unquote(value)
	}
	f := &fields{
		names: quantumultNames,
		name:  strings.TrimSpace(name), address: unquote(parts[1]), port: unquote(parts[2]),
		security: unquote(parts[3]), id: unquote(parts[4]),
		transport: values["obfs"], path: values["obfs-path"], tls: values["over-tls"], serverName: values["tls-host"],
		insecure: isFalse(values["certificate"]),
	}
	if strings.EqualFold(f.transport, "wss") {
		f.transport, f.tls = "ws", "tls"
	}
	f.host = quantumultHost(values["obfs-header"])
	return f, nil
}

// quantumultHost finds the Host among headers that "[Rr][Nn]" separates.
func quantumultHost(headers string) string {
	for header := range strings.SplitSeq(headers, "[Rr][Nn]") {
		if name, value, found := strings.Cut(header, ":"); found && strings.EqualFold(strings.TrimSpace(name), "host") {
			return value
		}
	}
	return ""
}

// splitQuoted splits at commas outside of double quotes.
func splitQuoted(text string) []string {
	var parts []string
	quoted, begin := false, 0
	for i, r := range text {
		switch {
		case r == '"':
			quoted = !quoted
		case r == ',' && !quoted:
			parts = append(parts, text[begin:i])
			begin = i + 1
		}
	}
	return append(parts, text[begin:])
}

func unquote(text string) string { return strings.Trim(strings.TrimSpace(text), `"`) }

func errUnknownForm() error {
	return fmt.Errorf("%w: its base64 contains neither a JSON object nor what Shadowrocket or Quantumult write", ErrNotVMess)
}
