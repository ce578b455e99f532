package client

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"vmess-local/pkg/config"
	"vmess-local/pkg/netaddr"
	"vmess-local/pkg/netdial"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/wsconn"
)

// newEndpoint makes the way to the server: WebSocket over TLS, where enabled,
// over TCP. limits.dial bounds all of it together.
func newEndpoint(cfg *config.Client) (transport.StreamEndpoint, error) {
	s := &cfg.Server
	server, err := netaddr.FromHost(s.Address, uint16(s.Port))
	if err != nil {
		return nil, fmt.Errorf("server.address: %w", err)
	}
	dial := time.Duration(cfg.Limits.Dial)
	below := &netdial.Dialer{Server: server, Timeout: dial}
	if s.TLS.Enabled {
		if below.TLS, err = newTLS(s); err != nil {
			return nil, err
		}
	}
	if cfg.Upstream != "" {
		if below.Upstream, err = url.Parse(string(cfg.Upstream)); err != nil {
			return nil, fmt.Errorf("upstream: not a URL") // the error itself would show the password
		}
	}
	header := http.Header{}
	for k, v := range s.WS.Headers {
		header.Set(k, v)
	}
	ws := &wsconn.Dialer{
		Endpoint:        below,
		Host:            hostHeader(s),
		Path:            s.WS.Path,
		Header:          header,
		EarlyData:       s.WS.EarlyData,
		EarlyDataHeader: s.WS.EarlyDataHeader,
		Ping:            time.Duration(s.WS.Ping),
		Timeout:         dial,
	}
	return transport.EndpointFunc(func(ctx context.Context, first []byte) (transport.StreamConn, error) {
		ctx, cancel := context.WithTimeout(ctx, dial)
		defer cancel()
		return ws.ConnectStream(ctx, first)
	}), nil
}

func newTLS(s *config.Remote) (*netdial.TLS, error) {
	t := &netdial.TLS{ServerName: serverName(s), AllowInsecure: s.TLS.AllowInsecure}
	for _, p := range s.TLS.Pin {
		pin, err := hex.DecodeString(p)
		if err != nil || len(pin) != 32 {
			return nil, fmt.Errorf("server.tls.pin: not the 64 hexadecimal digits of a SHA-256")
		}
		t.Pins = append(t.Pins, [32]byte(pin))
	}
	if s.TLS.CAFile != "" {
		pool, err := netdial.LoadCAFile(s.TLS.CAFile)
		if err != nil {
			return nil, fmt.Errorf("server.tls.caFile: %w", err)
		}
		t.RootCAs = pool
	}
	return t, nil
}

// serverName is what TLS asks for and checks: tls.serverName, else the ws
// Host, else the address.
func serverName(s *config.Remote) string {
	switch {
	case s.TLS.ServerName != "":
		return s.TLS.ServerName
	case s.WS.Host != "":
		if host, _, err := net.SplitHostPort(s.WS.Host); err == nil {
			return host
		}
		return s.WS.Host
	}
	return s.Address
}

// hostHeader is the upgrade request's Host: ws.host as it is, else the TLS
// server name or the address, with the port unless it is the scheme's own
// (docs/protocol.md 12).
func hostHeader(s *config.Remote) string {
	if s.WS.Host != "" {
		return s.WS.Host
	}
	host, own := s.Address, 80
	if s.TLS.Enabled {
		host, own = serverName(s), 443
	}
	if s.Port != own {
		return net.JoinHostPort(host, strconv.Itoa(s.Port))
	}
	if a, err := netaddr.FromHost(host, 0); err == nil && a.IP().Is6() {
		return "[" + a.Host() + "]"
	}
	return host
}
