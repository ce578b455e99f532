package sharelink

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"vmess-local/pkg/config"
)

// urlNames are the names of the URL form.
var urlNames = map[string]string{
	"name": "name", "address": "address", "port": "port", "id": "id", "alterId": "alterId", "security": "encryption",
	"ws.path": "path", "ws.earlyData": "path", "ws.host": "host", "ws.earlyDataHeader": "eh",
	"tls.enabled": "security", "tls.serverName": "sni", "tls.fingerprint": "fp",
}

// parseURL reads "id@host:port?key=value&…". Values are percent-encoded as
// encodeURIComponent does it, so a plus is a plus.
func parseURL(body string) (*fields, error) {
	authority, query, _ := strings.Cut(body, "?")
	at := strings.LastIndexByte(authority, '@')
	if at < 0 {
		return nil, fmt.Errorf("%w: it contains no id@host:port", ErrNotVMess)
	}
	if network, user, old := strings.Cut(authority[:at], ":"); old {
		return parseOldURL(network, user, authority[at+1:], query)
	}
	f := &fields{names: urlNames}
	if err := f.authority(authority[:at], strings.TrimSuffix(authority[at+1:], "/")); err != nil {
		return f, err
	}
	return f, f.query(query)
}

// oldNames are the names of the URL form of 2020.
var oldNames = map[string]string{
	"name": "name", "address": "address", "port": "port", "id": "id", "alterId": "alterId", "ws.path": "path", "ws.earlyData": "path",
	"ws.host": "host", "tls.enabled": "network", "tls.serverName": "tlsServerName",
}

// parseOldURL reads "ws+tls:id-alterId@host:port/?path=…&host=…&tlsServerName=…".
func parseOldURL(network, user, hostPort, query string) (*fields, error) {
	f := &fields{names: oldNames}
	network, secured := strings.CutSuffix(strings.ToLower(network), "+tls")
	f.transport = network
	if secured {
		f.tls = "tls"
	}
	id := user
	if dash := strings.LastIndexByte(user, '-'); dash >= 0 && strings.Count(user, "-") != 4 {
		id, f.alterID = user[:dash], user[dash+1:]
	}
	if err := f.authority(id, strings.TrimSuffix(hostPort, "/")); err != nil {
		return f, err
	}
	values, err := parseQuery(query, "path", "host", "tlsServerName", "sni", "allowInsecure")
	if err != nil {
		return f, err
	}
	f.path, f.host, f.serverName = values["path"], values["host"], first(values, "tlsServerName", "sni")
	f.insecure = isTrue(values["allowInsecure"])
	return f, nil
}

func (f *fields) authority(id, hostPort string) (err error) {
	colon := strings.LastIndexByte(hostPort, ':')
	if colon < 0 || strings.HasSuffix(hostPort, "]") {
		return &FieldError{"port", "it is missing"}
	}
	f.port = hostPort[colon+1:]
	if f.id, err = unescape("id", id); err != nil {
		return err
	}
	f.address, err = unescape("address", hostPort[:colon])
	return err
}

func (f *fields) query(query string) error {
	values, err := parseQuery(query, "type", "net", "network", "obfs", "encryption", "security", "path", "host", "sni", "fp", "alterId", "ed", "eh", "insecure", "allowInsecure")
	if err != nil {
		return err
	}
	f.transport, f.security, f.tls = first(values, "type", "net", "network", "obfs"), values["encryption"], values["security"]
	f.path, f.host = values["path"], values["host"]
	f.serverName, f.fingerprint = values["sni"], values["fp"]
	f.alterID = values["alterId"]
	f.earlyData, f.earlyDataHeader = values["ed"], values["eh"]
	f.insecure = isTrue(values["insecure"]) || isTrue(values["allowInsecure"])
	return nil
}

// parseQuery reads the values of keys in "key=value&…", of each the first.
func parseQuery(query string, keys ...string) (map[string]string, error) {
	values := make(map[string]string)
	for part := range strings.SplitSeq(query, "&") {
		key, escaped, _ := strings.Cut(part, "=")
		if _, twice := values[key]; twice || !slices.Contains(keys, key) {
			continue
		}
		value, err := unescape(key, escaped)
		if err != nil {
			return nil, err
		}
		values[key] = value
	}
	return values, nil
}

func unescape(field, value string) (string, error) {
	text, err := url.PathUnescape(value)
	if err != nil {
		return "", &FieldError{field, "a % in it is not followed by two hexadecimal digits"}
	}
	if !utf8.ValidString(text) {
		return "", &FieldError{field, "it is not valid UTF-8"}
	}
	return text, nil
}

// escape is encodeURIComponent.
func escape(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

func formatURL(r *config.Remote) string {
	host := r.Address
	if strings.Contains(host, ":") {
		host = "[" + strings.ReplaceAll(host, "%", "%25") + "]"
	}
	tls, alpn, insecure := "none", "", ""
	if r.TLS.Enabled {
		tls, alpn = "tls", "http/1.1"
	}
	if r.TLS.AllowInsecure && len(r.TLS.Pin) == 0 { // links carry no pin
		insecure = "1"
	}
	var b strings.Builder
	b.WriteString(scheme + escape(string(r.ID)) + "@" + host + ":" + strconv.Itoa(r.Port))
	b.WriteString("?type=ws&encryption=" + r.Security + "&security=" + tls)
	for _, x := range []struct{ key, value string }{
		{"path", linkPath(r)},
		{"host", r.WS.Host},
		{"sni", r.TLS.ServerName},
		{"alpn", alpn},
		{"fp", r.TLS.Fingerprint},
		{"allowInsecure", insecure},
		{"ed", ownEarlyData(r)},
		{"eh", ownHeader(r)},
	} {
		if x.value != "" {
			b.WriteString("&" + x.key + "=" + escape(x.value))
		}
	}
	if r.Name != "" {
		b.WriteString("#" + escape(r.Name))
	}
	if link, dot := strings.CutSuffix(b.String(), "."); dot {
		return link + "%2E" // or it is taken for the end of a sentence round the link
	}
	return b.String()
}

// ownHeader returns the header of early data when it is not the one that
// links mean by themselves.
func ownHeader(r *config.Remote) string {
	if r.WS.EarlyDataHeader == config.EarlyDataProtocol {
		return ""
	}
	return r.WS.EarlyDataHeader
}

// ownEarlyData is the early data that goes with ownHeader.
func ownEarlyData(r *config.Remote) string {
	if r.WS.EarlyData == 0 || ownHeader(r) == "" {
		return ""
	}
	return strconv.Itoa(r.WS.EarlyData)
}
