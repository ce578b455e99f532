package socks

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"vmess-local/pkg/transport/netaddr"
)

// Why a destination cannot be used. They do not hold it.
var (
	errBadName  = errors.New("the host name is invalid (IDNA)")
	errZeroPort = errors.New("the port is 0")
)

// destination makes an address of what a client sent. It resolves nothing;
// names in other scripts become punycode.
func destination(host string, port uint16) (netaddr.Addr, error) {
	if port == 0 {
		return netaddr.Addr{}, errZeroPort
	}
	if !isASCII(host) {
		ascii, err := idna.Lookup.ToASCII(host)
		if err != nil || !utf8.ValidString(host) { // err has the name in it
			return netaddr.Addr{}, errBadName
		}
		host = ascii
	}
	return netaddr.FromHost(host, port)
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}

// parseDestination is destination for "host:port", with brackets round IPv6.
func parseDestination(hostport string) (netaddr.Addr, error) {
	host, portText, err := net.SplitHostPort(hostport)
	if err != nil {
		return netaddr.Addr{}, netaddr.ErrNoPort
	}
	port, err := netaddr.ParsePort(portText)
	if err != nil {
		return netaddr.Addr{}, err
	}
	return destination(host, port)
}

// leadsTo reports whether dst is the listener at self: what would come back
// to us through the far end, or never was meant to leave this machine.
func leadsTo(self netip.AddrPort, dst netaddr.Addr) bool {
	if !self.IsValid() || dst.Port() != self.Port() {
		return false
	}
	if dst.IsName() {
		name := strings.ToLower(strings.TrimSuffix(dst.Host(), "."))
		return name == "localhost" || strings.HasSuffix(name, ".localhost")
	}
	ip := dst.IP()
	return ip.IsLoopback() || ip.IsUnspecified() || ip == self.Addr()
}

// addrPort returns the IP and port of a network address, the zero value when
// it has none.
func addrPort(a net.Addr) netip.AddrPort {
	if a == nil {
		return netip.AddrPort{}
	}
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
