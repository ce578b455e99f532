package client

import (
	"net/netip"
	"sync/atomic"

	"vmess-local/pkg/transport/netaddr"
)

// bareIPThreshold is how many requests for bare addresses, and none for a name,
// show that the programs resolve names themselves.
const bareIPThreshold = 20

// A localResolutionDetector notices programs that resolve names themselves before they ask
// the proxy. It may be used concurrently.
type localResolutionDetector struct {
	bare atomic.Int32
	over atomic.Bool // a name was seen, or the hint given
}

// observe takes note of a request's destination, and reports whether to give the
// hint: once at most, and never after a name was seen.
func (w *localResolutionDetector) observe(dst netaddr.Addr) bool {
	switch {
	case w.over.Load():
		return false
	case dst.IsName():
		w.over.Store(true)
		return false
	case !publicWeb(dst):
		return false
	}
	return w.bare.Add(1) >= bareIPThreshold && !w.over.Swap(true)
}

// publicWeb reports whether dst is what a browser that resolves names itself
// asks for. Private addresses may have no name, other ports are of programs
// that know addresses only (BitTorrent), and 198.18.0.0/15 is what local
// resolvers hand out in place of true addresses (RFC 2544).
func publicWeb(dst netaddr.Addr) bool {
	ip := dst.IP().Unmap()
	if dst.Port() != 80 && dst.Port() != 443 || !ip.IsGlobalUnicast() || ip.IsPrivate() {
		return false
	}
	for _, inner := range [...]string{"100.64.0.0/10", "198.18.0.0/15"} {
		if netip.MustParsePrefix(inner).Contains(ip) {
			return false
		}
	}
	return true
}
