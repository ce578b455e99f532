package listen

import (
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
)

// A Self is the address that this program listens on, so that it does not connect
// to itself. It may be used concurrently; nil and the zero value listen nowhere.
type Self struct {
	addr atomic.Pointer[netip.AddrPort]
}

// Set sets the address, HOST:PORT; anything but an IP address and a port is
// ignored.
func (s *Self) Set(addr string) {
	if a, err := netip.ParseAddrPort(addr); err == nil {
		s.addr.Store(&a)
	}
}

// Is reports whether a connection to an address leads to this program.
func (s *Self) Is(to netip.AddrPort) bool {
	var self *netip.AddrPort
	if s != nil {
		self = s.addr.Load()
	}
	if self == nil || self.Port() != to.Port() {
		return false
	}
	listen, ip := self.Addr().Unmap(), to.Addr().Unmap().WithZone("")
	switch {
	case ip.IsUnspecified(): // which systems take for loopback
		return listen.IsLoopback() || listen.IsUnspecified()
	case !listen.IsUnspecified():
		return listen.WithZone("") == ip
	}
	return ip.IsLoopback() || isOwn(ip)
}

// isOwn reports whether an address is one of this computer's.
func isOwn(ip netip.Addr) bool {
	addrs, _ := net.InterfaceAddrs()
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		if !ok {
			return false
		}
		own, ok := netip.AddrFromSlice(n.IP)
		return ok && own.Unmap() == ip
	})
}
