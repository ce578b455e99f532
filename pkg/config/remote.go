package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"strings"

	"vmess-local/pkg/transport/netaddr"
)

// ServerName returns the name that TLS asks for and checks: tls.serverName, else
// the ws host, else the address.
func (r *Remote) ServerName() string {
	switch {
	case r.TLS.ServerName != "":
		return r.TLS.ServerName
	case r.WS.Host != "":
		if host, _, err := net.SplitHostPort(r.WS.Host); err == nil {
			return host
		}
		return r.WS.Host
	}
	return r.Address
}

// HostHeader returns the upgrade request's Host: ws.host as it is, else the TLS
// server name or the address, with the port unless it is the scheme's own
// (docs/protocol.md 12).
func (r *Remote) HostHeader() string {
	if r.WS.Host != "" {
		return r.WS.Host
	}
	host, own := r.Address, 80
	if r.TLS.Enabled {
		host, own = r.ServerName(), 443
	}
	if r.Port != own {
		return net.JoinHostPort(host, strconv.Itoa(r.Port))
	}
	if a, err := netaddr.FromHost(host, 0); err == nil && a.IP().Is6() {
		return "[" + a.Host() + "]"
	}
	return host
}

// Identity returns what makes a server the same one, as a hash, for the id is
// secret: address, port, id, ws path, ws host, and the name that TLS asks for where
// it is enabled. Its name for people is not part of it.
func (r *Remote) Identity() string {
	id := identity(r.ID) // however it is written
	sni := ""            // none without TLS
	if r.TLS.Enabled {
		sni = strings.ToLower(r.ServerName())
	}
	h := sha256.New()
	for _, part := range []string{
		strings.ToLower(r.Address), fmt.Sprint(r.Port), string(id[:]), "/" + strings.TrimPrefix(r.WS.Path, "/"),
		strings.ToLower(r.HostHeader()), fmt.Sprint(r.TLS.Enabled), sni,
	} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
