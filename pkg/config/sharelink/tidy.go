package sharelink

import (
	"net"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"vmess-local/pkg/config"
)

// tidy puts right what panels and people often write and that leaves no doubt
// of what is meant, with a note where it changes what was written.
func (f *fields) tidy() {
	f.strip()
	f.tidyTransport()
	f.tidyAddress()
	f.tidyPath()
	f.swapHostAndPath()
	f.host = f.oneName("ws.host", f.host)
	f.headers = f.oneHost()
	f.serverName = f.oneName("tls.serverName", f.serverName)
	if host, _, err := net.SplitHostPort(f.serverName); err == nil {
		f.note(f.field("tls.serverName"), "it contains a port, which is ignored")
		f.serverName = host
	}
	f.tidySecurity()
	if text := config.IDWarning(config.Secret(f.id)); text != "" {
		f.note(f.field("id"), text)
	}
}

// strip takes out what cannot be seen.
func (f *fields) strip() {
	stripped := false
	for _, field := range []*string{
		&f.address, &f.port, &f.id, &f.alterID, &f.security, &f.transport, &f.host, &f.path,
		&f.earlyData, &f.earlyDataHeader, &f.tls, &f.serverName, &f.fingerprint,
	} {
		text := strings.TrimSpace(*field)
		*field = strings.TrimSpace(strings.Map(func(r rune) rune {
			if unicode.In(r, unicode.Cc, unicode.Cf) {
				return -1
			}
			return r
		}, text))
		stripped = stripped || *field != text
	}
	if stripped {
		f.notes = append(f.notes, "invisible characters are removed")
	}
}

func (f *fields) tidyTransport() {
	switch strings.ToLower(f.transport) {
	case "wss", "ws+tls", "ws-tls":
		f.transport = "ws"
		if f.tls == "" {
			f.tls = "tls"
		}
	}
}

// tidyAddress takes a URL, a list or a port out of the address.
func (f *fields) tidyAddress() {
	f.address = f.oneName("address", f.address)
	host, port, err := net.SplitHostPort(f.address)
	if err == nil && host != "" && (f.port == "" || f.port == "0" || f.port == port) {
		f.note(f.field("address"), "it contains the port, which is used")
		f.address, f.port = host, port
	}
}

// oneName returns the host name of a list of such or of a URL.
func (f *fields) oneName(key, text string) string {
	if names := strings.FieldsFunc(text, isComma); len(names) > 1 || len(names) == 1 && names[0] != text {
		if len(names) > 1 {
			f.note(f.field(key), "it contains several names; the first is used")
		}
		text = strings.TrimSpace(names[0])
	}
	if _, rest, isURL := strings.Cut(text, "://"); isURL {
		f.note(f.field(key), "it is a URL; its host is used")
		text, _, _ = strings.Cut(rest, "/")
	}
	return text
}

func isComma(r rune) bool { return strings.ContainsRune(",，、", r) }

// oneHost returns the headers with one Host.
func (f *fields) oneHost() map[string]string {
	headers := make(map[string]string, len(f.headers))
	for name, value := range f.headers {
		if strings.EqualFold(name, "host") {
			value = f.oneName("ws.host", strings.TrimSpace(value))
		}
		headers[name] = value
	}
	return headers
}

// tidyPath takes a URL out of the path, and what it was escaped by once more.
func (f *fields) tidyPath() {
	f.path = strings.ReplaceAll(f.path, `\/`, "/")
	if _, rest, isURL := strings.Cut(f.path, "://"); isURL && hasScheme(f.path) {
		f.note(f.field("ws.path"), "it is a URL; its path is used")
		host, path, _ := strings.Cut(rest, "/")
		f.path = "/" + path
		if f.host == "" {
			f.host = host
		}
	}
	if len(f.path) >= 3 && strings.EqualFold(f.path[:3], "%2f") {
		if plain, err := url.PathUnescape(f.path); err == nil {
			f.note(f.field("ws.path"), "it is escaped once too often")
			f.path = plain
		}
	}
}

// hasScheme reports whether a text begins as the URL of a web or WebSocket
// server.
func hasScheme(text string) bool {
	scheme, _, _ := strings.Cut(strings.ToLower(text), "://")
	return slices.Contains([]string{"ws", "wss", "http", "https"}, scheme)
}

// swapHostAndPath is for a host that is a path while the path is a host.
func (f *fields) swapHostAndPath() {
	if strings.HasPrefix(f.host, "/") && strings.Contains(f.path, ".") && !strings.Contains(f.path, "/") {
		f.note(f.field("ws.host"), "it contains the path, and "+f.field("ws.path")+" the host: they are swapped")
		f.host, f.path = f.path, f.host
	}
}

// tidySecurity replaces ciphers that are not known here: which is used is the
// client's choice.
func (f *fields) tidySecurity() {
	word := cipher(f.security)
	switch {
	case word == "", slices.Contains([]string{"auto", "aes-128-gcm", "chacha20-poly1305", "none", "zero"}, word):
	case word == "tls" && (f.tls == "" || strings.EqualFold(f.tls, "tls")):
		f.tls, f.security = "tls", ""
	default:
		f.note(f.field("security"), show(word)+` is not supported; "auto" is used, since the cipher is the client's choice`)
		f.security = ""
	}
}
