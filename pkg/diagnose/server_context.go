package diagnose

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"vmess-local/pkg/config"
)

// A ServerContext is what the user configured, as far as texts name it. It holds no
// secret.
type ServerContext struct {
	Name, Address string
	Port          int
	TLS           bool
	Path          string
	Host          string // the Host header as sent
	ServerName    string // as asked for in TLS
	AlterID       int
	AEADDisabled  bool // by the environment
	EarlyData     int
	Ping          time.Duration
	Upstream      string // host:port of the company proxy, "" without
	// Section is the path of this server in the file: "server" or "servers[1]".
	Section string
	// File is the configuration's name, "" when there is none (a link).
	File string
	// Place returns where a key of the file stands, as "config.json:9:18", or
	// "" when it is not there; nil is a Place that knows none.
	Place func(path string) string
}

// ServerContextOf reads a ServerContext out of a configuration and one of its
// servers, whose path is section. AEADDisabled is the caller's to set.
func ServerContextOf(cfg *config.Client, section string, r *config.Remote) ServerContext {
	s := ServerContext{
		Name: r.Name, Address: r.Address, Port: r.Port,
		TLS: r.TLS.Enabled, Path: r.WS.Path,
		Host:       r.HostHeader(),
		ServerName: r.ServerName(),
		AlterID:    r.AlterID, EarlyData: r.WS.EarlyData, Ping: time.Duration(r.WS.Ping),
		Upstream: proxyHost(string(cfg.Upstream)),
		Section:  section,
		Place: func(path string) string {
			file, line, column, ok := cfg.Position(path)
			if !ok {
				return ""
			}
			return fmt.Sprintf("%s:%d:%d", file, line, column)
		},
	}
	s.File, _, _, _ = cfg.Position(section)
	return s
}

// proxyHost returns the host and port of a proxy's URL and nothing else of it.
func proxyHost(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Host
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// server names the server with its port.
func (s ServerContext) server() string { return net.JoinHostPort(s.Address, strconv.Itoa(s.Port)) }

// legacy reports whether the configured mode is MD5.
func (s ServerContext) legacy() bool { return s.AlterID > 0 || s.AEADDisabled }

// path completes a key of the server, like "ws.path"; keys that begin with a
// slash are the file's own, like "/upstream".
func (s ServerContext) path(key string) string {
	if own, ok := strings.CutPrefix(key, "/"); ok {
		return own
	}
	return first(s.Section, "server") + "." + key
}

func (s ServerContext) place(key string) string {
	if s.Place == nil {
		return ""
	}
	return s.Place(s.path(key))
}

// at names a key and where it stands: `"alterId" at config.json:9:18`.
func (s ServerContext) at(key string) string { return s.named(key, "") }

// set tells to give a key a value: `set "alterId": 0 at config.json:9:18`.
func (s ServerContext) set(key, value string) string { return "set " + s.named(key, ": "+value) }

// setBoth tells to give two keys their values.
func (s ServerContext) setBoth(key, value, other, otherValue string) string {
	one := s.named(key, ": "+value)
	if s.File == "" && s.place(key) == "" {
		one = strings.TrimSuffix(one, linkFile) // once is enough
	}
	return "set " + one + " and " + s.named(other, ": "+otherValue)
}

// linkFile is where a key is set for who has only a link.
const linkFile = ` in the file that "vmess-local link import LINK -o config.json" writes`

func (s ServerContext) named(key, value string) string {
	quoted := strconv.Quote(strings.TrimPrefix(key, "/")) + value
	switch place := s.place(key); {
	case place != "":
		return quoted + " at " + place
	case s.File != "" && strings.HasPrefix(key, "/"):
		return quoted + " in " + s.File
	case s.File != "":
		return quoted + ` in "` + first(s.Section, "server") + `" of ` + s.File
	case value != "":
		return quoted + linkFile
	}
	return quoted + linkField(key)
}

// linkField names the field of a share link that holds a key.
func linkField(key string) string {
	field := map[string]string{
		"address": "add", "port": "port", "id": "id", "alterId": "aid",
		"ws.path": "path", "ws.host": "host", "tls.enabled": "tls", "tls.serverName": "sni",
	}[key]
	if field == "" {
		return ""
	}
	return ` (the link's "` + field + `")`
}
