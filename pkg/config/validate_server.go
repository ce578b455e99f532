package config

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/uuid"
)

// Normalize is [Client.Normalize] for the server.
func (s *Server) Normalize() error {
	var found findings
	s.check(validator{&found, nil})
	return found.err("", nil)
}

func (s *Server) check(by validator) {
	by.server(s)
}

func (c validator) server(cfg *Server) {
	c.listen("listen", cfg.Listen)
	c.users(cfg.Users)
	cfg.WS.Path = c.serverPath("ws.path", cfg.WS.Path)
	c.host("ws.host", cfg.WS.Host, true)
	c.certificate("tls", cfg.TLS)
	c.line("fallback", cfg.Fallback)
	c.upstream("egress.dial", string(cfg.Egress.Dial), ", or nothing")
	if cfg.Fallback == "404" {
		cfg.Fallback = ""
	}
	for i, proxy := range cfg.TrustedProxies {
		c.network(indexPath("trustedProxies", i), proxy)
	}
	c.limits("limits", cfg.Limits)
	c.status("status", cfg.Status)
	c.log("log", cfg.Log)
}

func (c validator) users(users []User) {
	if len(users) == 0 {
		c.mistake("users", "the list is empty", "at least one user")
	}
	first := make(map[uuid.UUID]string, len(users))
	for i := range users {
		path := indexPath("users", i)
		c.id(joinPath(path, "id"), &users[i].ID)
		c.number(joinPath(path, "alterId"), users[i].AlterID, 0, maxAlterID)
		c.line(joinPath(path, "name"), users[i].Name)
		if c.isSettled(joinPath(path, "id")) {
			continue
		}
		id := identity(users[i].ID)
		if other, twice := first[id]; twice {
			c.mistake(joinPath(path, "id"), "the id is the same as "+other+".id", "another id for each user")
			continue
		}
		first[id] = path
	}
}

// serverPath returns the path to serve. "?ed=N" is for clients and dropped;
// any other query would never match, because paths are compared without it.
func (c validator) serverPath(path, text string) string {
	rest, _ := SplitEarlyData(text)
	if strings.Contains(rest, "?") {
		c.report(Problem{Path: path, Message: "a server's path has no query", Seen: quote(text), Want: "a path like /ray"})
		return rest
	}
	return c.path(path, rest)
}

func (c validator) certificate(path string, t ServerTLS) {
	for _, part := range []struct{ key, value, other string }{
		{"certFile", t.CertFile, t.KeyFile},
		{"keyFile", t.KeyFile, t.CertFile},
	} {
		at := joinPath(path, part.key)
		c.line(at, part.value)
		if part.value == "" && part.other != "" {
			c.mistake(at, "missing or empty", "both certFile and keyFile, or none")
		}
	}
}

// network checks an IP address or a range of them.
func (c validator) network(path, text string) {
	if _, err := netip.ParseAddr(text); err == nil {
		return
	}
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		c.refuse(path, quote(text), "an IP address or a range like 10.0.0.0/8")
	case prefix.Masked() != prefix:
		c.report(Problem{Path: path, Message: "the address goes beyond the range", Seen: quote(text), Want: fmt.Sprintf("%q", prefix.Masked())})
	}
}
