// Package netaddr holds destination addresses: a host, which is a name or an
// IP address, and a port. It has the one parser and the one printer of them,
// so that every layer agrees on what an address is and none resolves a name
// by accident.
package netaddr

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// MaxNameLen is the longest host name in bytes: the length travels in one
// byte in SOCKS (RFC 1928 section 5) and in VMess (docs/protocol.md 5).
const MaxNameLen = 255

// Errors of the parsers. They are wrapped with the offending part.
var (
	ErrEmptyHost = errors.New("the host is empty")
	ErrLongHost  = errors.New("the host name is longer than 255 bytes")
	ErrBadHost   = errors.New("the host name may hold only letters, digits, '-', '_' and '.'")
	ErrBadPort   = errors.New("the port must be a number from 0 to 65535")
	ErrNoPort    = errors.New("the port is missing")
)

// An Addr is an immutable, comparable destination. The zero value is no
// address: IsValid reports false.
type Addr struct {
	name string // empty when ip is valid
	ip   netip.Addr
	port uint16
}

// FromIP returns the address of an IP and a port. An IPv4-mapped IPv6 address
// becomes IPv4 and a zone is dropped: neither means anything to a far end.
func FromIP(ip netip.Addr, port uint16) Addr {
	if !ip.IsValid() {
		return Addr{}
	}
	return Addr{ip: ip.Unmap().WithZone(""), port: port}
}

// FromAddrPort is FromIP for the standard library's pair.
func FromAddrPort(ap netip.AddrPort) Addr { return FromIP(ap.Addr(), ap.Port()) }

// FromHost returns the address of a host in text form and a port. Text that
// spells an IP address (IPv6 with or without brackets) is that IP; anything
// else must be a name of 1 to 255 letters, digits, '-', '_' and '.'.
// Names in other scripts must have been turned to punycode before.
func FromHost(host string, port uint16) (Addr, error) {
	if host == "" {
		return Addr{}, ErrEmptyHost
	}
	bare := host
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		bare = host[1 : len(host)-1]
	}
	if ip, err := netip.ParseAddr(bare); err == nil {
		return FromIP(ip, port), nil
	}
	if len(host) > MaxNameLen {
		return Addr{}, ErrLongHost
	}
	for i := range len(host) {
		if !nameByte(host[i]) {
			return Addr{}, fmt.Errorf("%w: byte %d is %q", ErrBadHost, i+1, host[i])
		}
	}
	return Addr{name: host, port: port}, nil
}

func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.'
}

// Parse reads "host:port", with brackets round an IPv6 address. The port must
// be decimal digits.
func Parse(s string) (Addr, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.HasSuffix(s, "]") {
		return Addr{}, ErrNoPort
	}
	host, portText := s[:i], s[i+1:]
	if strings.ContainsRune(host, ':') && (host[0] != '[' || host[len(host)-1] != ']') {
		return Addr{}, fmt.Errorf("an IPv6 address with a port needs brackets, as in [::1]:443: %w", ErrBadHost)
	}
	port, err := ParsePort(portText)
	if err != nil {
		return Addr{}, err
	}
	return FromHost(host, port)
}

// ParsePort reads a decimal port, without sign, spaces or service names.
func ParsePort(s string) (uint16, error) {
	if s == "" || len(s) > 5 || s[0] < '0' || s[0] > '9' {
		return 0, ErrBadPort
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, ErrBadPort
	}
	return uint16(n), nil
}

// IsValid reports whether a is an address at all.
func (a Addr) IsValid() bool { return a.name != "" || a.ip.IsValid() }

// IsName reports whether the host is a name that somebody must resolve.
func (a Addr) IsName() bool { return a.name != "" }

// IP returns the host's IP address; the zero netip.Addr when it is a name.
func (a Addr) IP() netip.Addr { return a.ip }

// AddrPort returns the IP and port; its address is invalid when the host is a
// name.
func (a Addr) AddrPort() netip.AddrPort { return netip.AddrPortFrom(a.ip, a.port) }

// Port returns the port in host byte order.
func (a Addr) Port() uint16 { return a.port }

// WithPort returns a with another port.
func (a Addr) WithPort(port uint16) Addr { a.port = port; return a }

// Host returns the host without port and without brackets.
func (a Addr) Host() string {
	if a.ip.IsValid() {
		return a.ip.String()
	}
	return a.name
}

// String returns "host:port", with brackets round IPv6, or "" for the zero
// value. Parse reads it back to an equal Addr.
func (a Addr) String() string {
	switch {
	case a.ip.IsValid():
		return a.AddrPort().String()
	case a.name != "":
		return a.name + ":" + strconv.Itoa(int(a.port))
	default:
		return ""
	}
}
