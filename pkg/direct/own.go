package direct

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// ownHolds is how long what the system says of its addresses is believed.
const ownHolds = 5 * time.Second

// ownAddresses are those of this machine's interfaces. They may be asked for
// with every datagram.
type ownAddresses struct {
	list func() ([]net.Addr, error) // of a test; nil is net.InterfaceAddrs
	mu   sync.Mutex
	now  atomic.Pointer[ownSet]
}

type ownSet struct {
	ips   map[netip.Addr]struct{}
	until time.Time
}

// has reports whether ip, which is no IPv4 address mapped to IPv6, is one.
func (o *ownAddresses) has(ip netip.Addr) bool {
	set := o.now.Load()
	if set == nil || time.Now().After(set.until) {
		set = o.look()
	}
	_, ok := set.ips[ip]
	return ok
}

// look asks the system, unless somebody else just did. Where it does not tell,
// what it told before holds.
func (o *ownAddresses) look() *ownSet {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.now.Load()
	if before != nil && time.Now().Before(before.until) {
		return before
	}
	next := &ownSet{until: time.Now().Add(ownHolds)}
	list := o.list
	if list == nil {
		list = net.InterfaceAddrs
	}
	if addrs, err := list(); err != nil {
		if before != nil {
			next.ips = before.ips
		}
	} else {
		next.ips = make(map[netip.Addr]struct{}, len(addrs))
		for _, a := range addrs {
			if network, ok := a.(*net.IPNet); ok {
				ip, _ := netip.AddrFromSlice(network.IP)
				next.ips[ip.Unmap()] = struct{}{}
			}
		}
	}
	o.now.Store(next)
	return next
}
