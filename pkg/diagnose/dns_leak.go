package diagnose

import (
	"net/netip"
	"sync/atomic"

	"vmess-local/pkg/transport/netaddr"
)

// bareIPThreshold is how many requests for bare addresses, and none for a name,
// show that the programs resolve names themselves.
const bareIPThreshold = 20

// A LocalResolutionDetector notices programs that resolve names themselves before
// they ask the proxy. It may be used concurrently.
type LocalResolutionDetector struct {
	bare atomic.Int32
	over atomic.Bool // a name was seen, or the hint given
}

// Observe takes note of a request's destination, and reports whether to give
// [HintBareAddresses]: once at most, and never after a name was seen.
func (d *LocalResolutionDetector) Observe(dst netaddr.Addr) bool {
	switch {
	case d.over.Load():
		return false
	case dst.IsName():
		d.over.Store(true)
		return false
	case !publicWeb(dst):
		return false
	}
	return d.bare.Add(1) >= bareIPThreshold && !d.over.Swap(true)
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
