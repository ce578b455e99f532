package server

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/config"
	"vmess-local/pkg/outbound/direct"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// egress is a way out by a proxy ("egress.dial"). Names are the proxy's to
// resolve; private addresses are refused as on the direct way.
type egress struct {
	proxy   *url.URL
	rules   *direct.Dialer
	timeout time.Duration
}

var _ transport.StreamDialer = (*egress)(nil)

func newEgress(cfg *config.Server, rules *direct.Dialer) *egress {
	u, _ := url.Parse(string(cfg.Egress.Dial)) // config has checked it
	return &egress{proxy: u, rules: rules, timeout: time.Duration(cfg.Limits.Dial)}
}

// DialStream implements transport.StreamDialer.
func (e *egress) DialStream(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
	if err := e.rules.Allowed(dst); err != nil {
		return nil, fmt.Errorf("dial the destination: %w", err)
	}
	way := netdial.Dialer{Server: dst, Timeout: e.timeout, Upstream: e.proxy}
	conn, err := way.ConnectStream(ctx, first)
	if err == nil {
		transport.ResetOnAbort(conn)
	}
	return conn, err
}

// noPackets is no way out for datagrams, and says why: they must not go round
// the one that streams take.
type noPackets string

var _ transport.PacketDialer = noPackets("")

// DialPacket implements transport.PacketDialer.
func (why noPackets) DialPacket(context.Context, netaddr.Addr) (transport.PacketConn, error) {
	return nil, fmt.Errorf("%s: %w", string(why), errors.ErrUnsupported)
}
