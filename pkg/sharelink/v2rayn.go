package sharelink

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"vmess-local/pkg/config"
)

// jsonNames are the names of the base64 form.
var jsonNames = map[string]string{
	"name": "ps", "address": "add", "port": "port", "id": "id", "alterId": "aid", "security": "scy",
	"ws.path": "path", "ws.earlyData": "path", "ws.host": "host", "tls.enabled": "tls", "tls.serverName": "sni", "tls.fingerprint": "fp",
}

// An object is a link's JSON. Panels write its values as texts, numbers,
// truth values or null, as they like.
type object map[string]json.RawMessage

func parseJSON(data string) (*fields, error) {
	var o object
	if err := json.Unmarshal([]byte(data), &o); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("%w: its JSON breaks at byte %d of %d", ErrNotVMess, syntax.Offset, len(data))
		}
		return nil, fmt.Errorf("%w: its JSON is no object", ErrNotVMess)
	}
	return o.fields()
}

func (o object) fields() (*fields, error) {
	f := &fields{names: jsonNames}
	var version, insecure, verify string
	for _, x := range []struct {
		to   *string
		keys []string // the first that says something counts
	}{
		{&version, []string{"v"}},
		{&f.name, []string{"ps", "remark", "remarks"}},
		{&f.address, []string{"add"}},
		{&f.port, []string{"port"}},
		{&f.id, []string{"id"}},
		{&f.alterID, []string{"aid", "alterId"}},
		{&f.security, []string{"scy", "cipher", "security"}},
		{&f.transport, []string{"net"}},
		{&f.host, []string{"host"}},
		{&f.path, []string{"path"}},
		{&f.tls, []string{"tls"}},
		{&f.serverName, []string{"sni", "peer"}},
		{&f.fingerprint, []string{"fp"}},
		{&insecure, []string{"insecure", "allowInsecure", "skip-cert-verify"}},
		{&verify, []string{"verify_cert"}},
	} {
		for _, key := range x.keys {
			text, err := o.text(key)
			if err != nil {
				return nil, err
			}
			if *x.to = text; text != "" {
				break
			}
		}
	}
	f.insecure = isTrue(insecure) || isFalse(verify)
	f.oldHost(version)
	return f, nil
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

// text returns a value as text; absent and null are empty.
func (o object) text(key string) (string, error) {
	raw := strings.TrimSpace(string(o[key]))
	switch {
	case raw == "" || raw == "null":
		return "", nil
	case raw[0] == '"':
		var text string
		if err := json.Unmarshal([]byte(raw), &text); err != nil {
			return "", &FieldError{key, "it is broken text"}
		}
		return text, nil
	case raw[0] == '{' || raw[0] == '[':
		return "", &FieldError{key, "it is a list or an object; want text"}
	default:
		return raw, nil
	}
}

func isTrue(text string) bool {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "1", "true", "yes":
		return true
	}
	return false
}

func isFalse(text string) bool {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "0", "false", "no":
		return true
	}
	return false
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
	if r.TLS.AllowInsecure {
		link.Insecure = "1"
	}
	data, err := json.Marshal(link)
	if err != nil {
		return "", fmt.Errorf("encode a share link: %w", err)
	}
	return scheme + base64.StdEncoding.EncodeToString(data), nil
}
