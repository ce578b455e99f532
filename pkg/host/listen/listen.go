// Package listen opens the TCP addresses that configurations name, and knows
// by which addresses others then reach them.
package listen

import (
	"net"
	"net/netip"
	"slices"
	"strings"
)

// maxElsewhere is how many addresses are worth showing.
const maxElsewhere = 4

// TCP listens on HOST:PORT: 0.0.0.0 stands for all IPv4 addresses of this
// computer, [::] and an empty host for all addresses, IPv4 and IPv6.
func TCP(addr string) (net.Listener, error) {
	network := "tcp"
	if ip, _, ok := wildcard(addr); ok && ip.Is4() {
		network = "tcp4" // with "tcp" Go listens on IPv6 as well
	}
	return net.Listen(network, addr)
}

// wildcard reports whether addr stands for all addresses of a family: of IPv4
// for 0.0.0.0, of both for [::].
func wildcard(addr string) (ip netip.Addr, port string, ok bool) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.Addr{}, "", false
	}
	if host == "" {
		return netip.IPv6Unspecified(), port, true
	}
	ip, err = netip.ParseAddr(host)
	ip = ip.Unmap()
	return ip, port, err == nil && ip.IsUnspecified()
}

// Here returns the address by which programs on this computer reach a listener
// on addr.
func Here(addr string) string {
	if _, port, ok := wildcard(addr); ok {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}

// Elsewhere returns the addresses by which other devices may reach a listener
// on addr, the likeliest first: none for a loopback address.
func Elsewhere(addr string) []string {
	if _, _, ok := wildcard(addr); !ok {
		return elsewhere(addr, nil)
	}
	return elsewhere(addr, interfaceAddrs())
}

func elsewhere(addr string, ips []netip.Addr) []string {
	family, port, ok := wildcard(addr)
	if !ok {
		if at, err := netip.ParseAddrPort(addr); err == nil && !at.Addr().Unmap().IsLoopback() {
			return []string{addr}
		}
		return nil
	}
	ips = slices.Clone(ips)
	slices.SortStableFunc(ips, func(a, b netip.Addr) int { return rank(a) - rank(b) })
	var all []string
	for _, ip := range ips {
		if len(all) < maxElsewhere && (ip.Is4() || family.Is6()) {
			all = append(all, net.JoinHostPort(ip.String(), port))
		}
	}
	return all
}

// rank is lower for addresses that are easier to type and likelier to be those
// of a home network.
func rank(ip netip.Addr) int {
	n := 0
	if ip.Is6() {
		n += 2
	}
	if !ip.IsPrivate() {
		n++
	}
	return n
}

// interfaceAddrs returns the addresses of this computer that others could use.
// Where the system does not list them there are none.
func interfaceAddrs() []netip.Addr {
	interfaces, _ := net.Interfaces()
	var all []netip.Addr
	for _, i := range interfaces {
		if i.Flags&net.FlagRunning == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			host, _, _ := strings.Cut(a.String(), "/")
			if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsGlobalUnicast() {
				all = append(all, ip.Unmap())
			}
		}
	}
	return all
}
