package vmess

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// packetAddrName is the destination by which a request says that each of its
// datagrams carries its own address (section 9, packetaddr).
const packetAddrName = "sp.packet-addr.v2fly.arpa"

// errPacketAddr is a datagram without a whole address.
var errPacketAddr = errors.New("no packetaddr datagram")

// address types of packetaddr, which are not those of the header.
const (
	packetAddrIPv4 = 1
	packetAddrIPv6 = 2
)

// maxPacketAddr is the size of the longest address before a datagram.
const maxPacketAddr = 1 + 16 + 2

// appendPacketAddr appends what stands before the payload of a datagram to or
// from a.
func appendPacketAddr(dst []byte, a netaddr.Addr) ([]byte, error) {
	ip := a.IP()
	switch {
	case ip.Is4():
		b := ip.As4()
		dst = append(append(dst, packetAddrIPv4), b[:]...)
	case ip.IsValid():
		b := ip.As16()
		dst = append(append(dst, packetAddrIPv6), b[:]...)
	default:
		return dst, transport.ErrPacketAddress
	}
	return binary.BigEndian.AppendUint16(dst, a.Port()), nil
}

// readPacketAddr splits a datagram into its address and its payload, which is
// part of p. An IPv4 address in the IPv6 form is that IPv4 address.
func readPacketAddr(p []byte) (a netaddr.Addr, payload []byte, err error) {
	if len(p) == 0 {
		return a, nil, errPacketAddr
	}
	var ip netip.Addr
	switch kind, rest := p[0], p[1:]; {
	case kind == packetAddrIPv4 && len(rest) >= 4+2:
		ip, payload = netip.AddrFrom4([4]byte(rest)), rest[4:]
	case kind == packetAddrIPv6 && len(rest) >= 16+2:
		ip, payload = netip.AddrFrom16([16]byte(rest)), rest[16:]
	default:
		return a, nil, errPacketAddr
	}
	return netaddr.FromIP(ip, binary.BigEndian.Uint16(payload)), payload[2:], nil
}

// DialPacketAddr opens an association whose datagrams go to any IP address
// each, and come from any: a full cone NAT, by packetaddr (section 9). V2Ray 5,
// sing-box and vmess-server speak it; others take the request for one to a name
// that does not exist. Datagrams to names are transport.ErrPacketAddress.
func (d *Dialer) DialPacketAddr(ctx context.Context) (transport.PacketConn, error) {
	dst, err := netaddr.FromHost(packetAddrName, 0)
	if err != nil {
		return nil, err
	}
	return d.dialPackets(ctx, dst, netaddr.Addr{})
}

// AnyPeer reports whether a CommandUDP request is for datagrams to and from
// any address (packetaddr): Destination names no place then.
func (i *Incoming) AnyPeer() bool {
	return i.Command == CommandUDP && i.Destination.Host() == packetAddrName
}
