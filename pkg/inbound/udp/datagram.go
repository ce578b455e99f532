package udp

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"vmess-local/pkg/transport/netaddr"
)

// The address types of RFC 1928 section 5.
const (
	atypIPv4 = 1
	atypName = 3
	atypIPv6 = 4
)

const (
	headStart = 3                                      // RSV and FRAG
	maxHeader = headStart + 2 + netaddr.MaxNameLen + 2 // with a name
)

// Why a datagram of the client is not sent on (RFC 1928 section 7).
var (
	// ErrMalformed: it has no whole header, or a host name that is none.
	ErrMalformed = errors.New("not a SOCKS5 datagram")
	// ErrFragment: it is a fragment, which section 7 allows to drop.
	ErrFragment = errors.New("fragmented SOCKS5 datagrams are not supported")
	// ErrNothing: it has no payload, or goes to port 0.
	ErrNothing = errors.New("datagram without payload or to port 0")
)

// maxNames bounds the names that one association remembers.
const maxNames = 64

// names makes addresses of host names; those seen before cost no memory.
type names map[string]netaddr.Addr

// addr returns the address of name, which is not kept, with port.
func (n names) addr(name []byte, port uint16) (netaddr.Addr, error) {
	if a, ok := n[string(name)]; ok {
		return a.WithPort(port), nil
	}
	a, err := netaddr.FromHost(string(name), port)
	if err != nil {
		return netaddr.Addr{}, ErrMalformed // err has the name in it
	}
	if len(n) >= maxNames {
		clear(n)
	}
	n[string(name)] = a
	return a, nil
}

// parse splits a datagram of the client into where it goes and its payload,
// which is part of p. RSV is not looked at.
func (n names) parse(p []byte) (dst netaddr.Addr, payload []byte, err error) {
	if len(p) < headStart+2 {
		return dst, nil, ErrMalformed
	}
	if p[2] != 0 {
		return dst, nil, ErrFragment
	}
	host, rest, ok := cutHost(p[headStart:])
	if !ok {
		return dst, nil, ErrMalformed
	}
	port, payload := binary.BigEndian.Uint16(rest), rest[2:]
	switch {
	case port == 0 || len(payload) == 0:
		return dst, nil, ErrNothing
	case p[headStart] != atypName:
		ip, _ := netip.AddrFromSlice(host) // 4 or 16 bytes by its type
		return netaddr.FromIP(ip, port), payload, nil
	}
	if dst, err = n.addr(host, port); err != nil {
		return dst, nil, err
	}
	return dst, payload, nil
}

// cutHost splits p, which starts with an address type and one more byte, into
// the host and what follows it, from the two bytes of the port on.
func cutHost(p []byte) (host, rest []byte, ok bool) {
	start, size := 1, 0
	switch p[0] {
	case atypIPv4:
		size = 4
	case atypIPv6:
		size = 16
	case atypName:
		start, size = 2, int(p[1])
	}
	end := start + size
	if size == 0 || len(p) < end+2 {
		return nil, nil, false
	}
	return p[start:end], p[end:], true
}

// appendHeader appends what stands before the payload of a datagram from a.
func appendHeader(b []byte, a netaddr.Addr) []byte {
	b = append(b, 0, 0, 0)
	switch ip := a.IP(); {
	case ip.Is4():
		raw := ip.As4()
		b = append(append(b, atypIPv4), raw[:]...)
	case ip.IsValid():
		raw := ip.As16()
		b = append(append(b, atypIPv6), raw[:]...)
	default:
		b = append(append(b, atypName, byte(len(a.Host()))), a.Host()...)
	}
	return binary.BigEndian.AppendUint16(b, a.Port())
}
