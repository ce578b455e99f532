package config

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"vmess-local/pkg/transport/netaddr"
)

// Normalize brings r into the canonical form that a parsed one has, and
// checks it: for values that come from elsewhere than a file, like a share
// link. The error is *Problems; their paths begin at r ("ws.path").
func (r *Remote) Normalize() error {
	var found findings
	validator{&found, nil}.remote("", r)
	return found.err("", nil)
}

// MaxEarlyData is the most early data that may be configured: more does not
// fit into the request of common servers.
const MaxEarlyData = 4000

func (c validator) remote(path string, r *Remote) {
	c.line(joinPath(path, "name"), r.Name)
	c.address(joinPath(path, "address"), &r.Address)
	c.number(joinPath(path, "port"), r.Port, 1, 65535)
	c.id(joinPath(path, "id"), &r.ID)
	c.number(joinPath(path, "alterId"), r.AlterID, 0, maxAlterID)
	c.security(path, r)
	c.webSocket(joinPath(path, "ws"), &r.WS)
	c.tls(joinPath(path, "tls"), &r.TLS)
}

func (c validator) address(path string, address *string) {
	text := *address
	addr, err := netaddr.FromHost(text, 1)
	switch {
	case err == nil && !addr.IsName():
		*address = strings.Trim(text, "[]")
	case err == nil && numericEnd(text):
		c.report(Problem{Path: path, Message: "this is neither a name nor an IP address", Seen: quote(text)})
	case err == nil:
	case strings.Contains(text, "://"):
		c.mistake(path, "this is a URL", "a host name or IP address alone")
	default:
		if _, portErr := netaddr.Parse(text); portErr == nil {
			c.report(Problem{Path: path, Message: "the address contains a port", Seen: quote(text), Want: "the port in " + siblingPath(path, "port")})
			return
		}
		p := Problem{Path: path, Message: hostMistake(text, err), Want: "a host name or IP address"}
		if text != "" {
			p.Seen = quote(text)
		}
		c.report(p)
	}
}

// numericEnd reports whether the last label of a name is a number: such a
// name is a mistyped IPv4 address and nothing resolves it.
func numericEnd(name string) bool {
	name = strings.TrimSuffix(name, ".")
	last := name[strings.LastIndexByte(name, '.')+1:]
	return last == "" || strings.Trim(last, "0123456789") == ""
}

func (c validator) security(path string, r *Remote) {
	at := joinPath(path, "security")
	c.choice(at, r.Security, "auto", "aes-128-gcm", "chacha20-poly1305", "none", "zero")
	if r.AuthenticatedLength && (r.Security == "none" || r.Security == "zero") {
		c.mistake(joinPath(path, "authenticatedLength"), fmt.Sprintf("true is impossible with security %q: there is no key to encrypt the length with", r.Security),
			"false, or another security")
	}
}

func (c validator) webSocket(path string, ws *WS) {
	c.clientPath(joinPath(path, "path"), joinPath(path, "earlyData"), ws)
	c.headers(joinPath(path, "headers"), joinPath(path, "host"), ws)
	c.host(joinPath(path, "host"), ws.Host, true)
	c.number(joinPath(path, "earlyData"), ws.EarlyData, 0, MaxEarlyData)
	c.earlyDataHeader(joinPath(path, "earlyDataHeader"), ws.EarlyDataHeader)
	c.durationOrZero(joinPath(path, "ping"), ws.Ping, time.Second, time.Hour)
}

// clientPath takes "?ed=N" off the path: it is an instruction to clients, and
// servers differ in what they make of it.
func (c validator) clientPath(path, earlyPath string, ws *WS) {
	rest, ed := SplitEarlyData(ws.Path)
	if ed == "" {
		ws.Path = c.path(path, rest)
		return
	}
	n, err := strconv.Atoi(ed)
	switch {
	case err != nil || n < 0 || n > MaxEarlyData:
		c.report(Problem{Path: path, Message: "the path's ed parameter is wrong", Seen: quote(ed), Want: fmt.Sprintf("a whole number from 0 to %d", MaxEarlyData)})
		return
	case (c.present(earlyPath) || ws.EarlyData != 0) && ws.EarlyData != n && !c.isSettled(earlyPath):
		c.report(Problem{Path: path, Message: fmt.Sprintf("ed=%d in the path contradicts earlyData %d", n, ws.EarlyData), Want: "one of them"})
		return
	}
	ws.EarlyData = n
	ws.Path = c.path(path, rest)
}

// SplitEarlyData takes the "ed" parameters off the query of a WebSocket path,
// other parts stay as they are. ed is the parameter's text, "" when there is
// none or it is empty; different ones, up to three, are joined by commas.
func SplitEarlyData(path string) (rest, ed string) {
	rest, query, found := strings.Cut(path, "?")
	if !found {
		return path, ""
	}
	var others, values []string
	for part := range strings.SplitSeq(query, "&") {
		if value, isED := strings.CutPrefix(part, "ed="); !isED {
			others = append(others, part)
		} else if value != "" && len(values) < 3 && !slices.Contains(values, value) {
			values = append(values, value)
		}
	}
	if len(others) > 0 {
		rest += "?" + strings.Join(others, "&")
	}
	return rest, strings.Join(values, ",")
}

const maxPathLen = 2000

// path returns a WebSocket path with its slash.
func (c validator) path(path, text string) string {
	if !strings.HasPrefix(text, "/") {
		text = "/" + text
	}
	odd := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '#' }
	switch _, err := url.ParseRequestURI(text); {
	case len(text) > maxPathLen:
		c.refuse(path, count(len(text), "byte"), fmt.Sprintf("at most %d bytes", maxPathLen))
	case strings.ContainsFunc(text, odd) || !utf8.ValidString(text):
		c.refuse(path, quote(text), "a path without spaces and #, like /ray (in a path %20 is a space, %23 is #)")
	case err != nil:
		c.refuse(path, quote(text), "a path like /ray, with two hexadecimal digits after each %")
	}
	return text
}

const (
	maxHeaders     = 64
	maxHeaderBytes = 8192
)

// headers checks the further headers; their values may be secrets and are
// never shown. A Host among them becomes ws.Host, as the peers' files have it.
func (c validator) headers(path, hostPath string, ws *WS) {
	kept := make(map[string]string, len(ws.Headers))
	lower := make(map[string]bool, len(ws.Headers))
	size := 0
	for _, name := range slices.Sorted(maps.Keys(ws.Headers)) {
		at, value := joinPath(path, printableKey(name)), ws.Headers[name]
		size += len(name) + len(value)
		if lower[strings.ToLower(name)] {
			c.mistake(at, "the header appears twice, in different spelling", "it once")
		}
		lower[strings.ToLower(name)] = true
		if strings.EqualFold(name, "Host") {
			c.hostHeader(at, hostPath, value, ws)
			continue
		}
		c.header(at, name, value)
		kept[name] = value
	}
	if len(kept) > maxHeaders || size > maxHeaderBytes {
		c.mistake(path, fmt.Sprintf("%s of %s", count(len(kept), "header"), count(size, "byte")), fmt.Sprintf("at most %d headers of %d bytes", maxHeaders, maxHeaderBytes))
	}
	ws.Headers = nil
	if len(kept) > 0 {
		ws.Headers = kept
	}
}

func (c validator) hostHeader(path, hostPath, value string, ws *WS) {
	if value == "" || c.isSettled(hostPath) {
		return
	}
	if ws.Host != "" && !strings.EqualFold(ws.Host, value) {
		c.mistake(path, "the header contradicts "+hostPath, "one of them")
		return
	}
	c.host(path, value, true)
	ws.Host = value
	if c.isSettled(path) {
		c.settle(hostPath)
	}
}

func (c validator) header(path, name, value string) {
	switch {
	case !isToken(name):
		c.mistake(path, "this is not the name of an HTTP header", "letters, digits and dashes")
	case isUpgradeHeader(name):
		c.mistake(path, "the WebSocket upgrade sets this header itself", "the list without it")
	case !utf8.ValidString(value), strings.ContainsFunc(value, func(r rune) bool { return r != '\t' && unicode.IsControl(r) }):
		c.mistake(path, "the header's value contains a control character", "a single line of text")
	}
}

// isUpgradeHeader reports whether a header belongs to the connection or to
// the upgrade and so cannot be the user's.
func isUpgradeHeader(name string) bool {
	switch lower := strings.ToLower(name); lower {
	case "connection", "upgrade", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "content-length", "expect":
		return true
	default:
		return strings.HasPrefix(lower, "sec-websocket-")
	}
}

func (c validator) earlyDataHeader(path, name string) {
	switch {
	case name == "" || strings.EqualFold(name, EarlyDataProtocol):
	case !isToken(name):
		c.refuse(path, quote(name), `the name of an HTTP header, or "" for the path`)
	case isUpgradeHeader(name) || strings.EqualFold(name, "Host"):
		c.report(Problem{Path: path, Message: "the WebSocket upgrade needs this header itself", Seen: quote(name), Want: EarlyDataProtocol + " or a header of your own"})
	}
}

// isToken reports whether s is a token (RFC 9110 section 5.6.2).
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		alphanumeric := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		return !alphanumeric && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

func (c validator) tls(path string, t *TLS) {
	c.host(joinPath(path, "serverName"), t.ServerName, false)
	c.alpn(joinPath(path, "alpn"), t.ALPN)
	for i, pin := range t.Pin {
		t.Pin[i] = c.pin(indexPath(joinPath(path, "pin"), i), pin)
	}
	c.line(joinPath(path, "caFile"), t.CAFile)
	if t.Fingerprint != "" {
		c.choice(joinPath(path, "fingerprint"), t.Fingerprint, Fingerprints()...)
	}
}

func (c validator) alpn(path string, protocols []string) {
	for i, protocol := range protocols {
		if c.isSettled(indexPath(path, i)) {
			return
		}
		if protocol == "" || len(protocol) > 255 {
			c.refuse(indexPath(path, i), count(len(protocol), "byte"), "a protocol's name of 1 to 255 bytes")
		}
	}
	if len(protocols) > 0 && !slices.Contains(protocols, "http/1.1") {
		c.report(Problem{
			Path: path, Message: `a WebSocket upgrade is HTTP/1.1, and a server that selects another protocol cannot answer it`,
			Seen: quote(strings.Join(protocols, ", ")), Want: `"http/1.1" in the list, or an empty list`,
		})
	}
}

// pin returns a certificate's SHA-256 as 64 lower-case digits.
func (c validator) pin(path, text string) string {
	bare := strings.ToLower(strings.ReplaceAll(text, ":", ""))
	odd := func(r rune) bool { return !isHexDigit(r) }
	if len(bare) != 64 || strings.ContainsFunc(bare, odd) {
		c.report(Problem{Path: path, Message: "this is not the SHA-256 of a certificate", Seen: measure(text), Want: "64 hexadecimal digits, colons optional"})
	}
	return bare
}

func indexPath(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

// siblingPath returns the path of another key of the same object.
func siblingPath(path, key string) string { return joinPath(parentPath(path), key) }
