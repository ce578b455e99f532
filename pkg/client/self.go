package client

import (
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
)

// selfAddr is where the local proxy listens. It may be used concurrently; nil
// and its zero value listen nowhere.
type selfAddr struct{ atomic.Pointer[netip.AddrPort] }

// set notes an address to listen on.
func (s *selfAddr) set(addr string) {
	if a, err := netip.ParseAddrPort(addr); err == nil {
		s.Store(&a)
	}
}

// is reports whether a connection to an address leads to the local proxy.
func (s *selfAddr) is(to netip.AddrPort) bool {
	var self *netip.AddrPort
	if s != nil {
		self = s.Load()
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
