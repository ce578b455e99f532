package client

import (
	"context"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/config"
	"vmess-local/pkg/outbound/packetenc"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// newPacketDialer returns what opens the UDP associations of a guard's server.
func newPacketDialer(g *guard, cfg *config.Client) *packetenc.Dialer {
	modes := map[string]packetenc.Encoding{"plain": packetenc.Plain, "packetaddr": packetenc.PacketAddr, "xudp": packetenc.XUDP}
	return packetenc.New(packetenc.Options{
		Server:     guardedPackets{g},
		Prober:     directPackets{g.dialer},
		Kind:       g.account.ServerKind,
		Configured: modes[cfg.UDP.Mode],
		Changed: func(e packetenc.Encoding, line string) {
			g.log.Info("UDP", logging.Text("%s", line), "form", e.String(), "server", g.Name())
		},
		Owner:       g,
		DialTimeout: g.dialTime,
		Idle:        time.Duration(cfg.UDP.Idle),
	})
}

// guardedPackets opens requests for datagrams with the guard's retries.
type guardedPackets struct{ guard *guard }

var _ packetenc.Server = guardedPackets{}

// DialPacket implements transport.PacketDialer, by a session where there is Mux.
func (d guardedPackets) DialPacket(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	if d.guard.sessions != nil {
		return d.guard.sessions.DialPacket(ctx, dst)
	}
	return d.guard.openPackets(ctx, func(ctx context.Context) (transport.PacketConn, error) {
		return d.guard.dialer.DialPacket(ctx, dst)
	})
}

// DialPacketAddr implements packetenc.Server.
func (d guardedPackets) DialPacketAddr(ctx context.Context) (transport.PacketConn, error) {
	return d.guard.openPackets(ctx, d.guard.dialer.DialPacketAddr)
}

// DialMux implements packetenc.Server.
func (d guardedPackets) DialMux(ctx context.Context, first []byte) (transport.StreamConn, error) {
	return d.guard.open(ctx, netaddr.Addr{}, false, first, d.guard.dialer.DialMux)
}

// directPackets opens requests for datagrams without retries or reports.
type directPackets struct{ *vmess.Dialer }

var _ packetenc.Server = directPackets{}

// DialMux implements packetenc.Server.
func (d directPackets) DialMux(ctx context.Context, first []byte) (transport.StreamConn, error) {
	conn, err := d.Dialer.DialMux(ctx, first)
	if err != nil {
		return nil, err
	}
	return conn, nil
}
