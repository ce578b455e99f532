// Package direct is a server's way out: it dials destinations itself, by its
// own resolver, and keeps whoever uses the server away from loopback and the
// server's own network. Its public addresses are as public as others.
package direct

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/tcpconn"
)

// A Dialer implements [transport.StreamDialer]. Its zero value refuses private
// destinations and gives up after 10 s.
type Dialer struct {
	// AllowPrivate lets loopback, private, link-local and other addresses
	// through that are not of the public Internet.
	AllowPrivate bool
	// Timeout bounds resolution and connecting together; 0 means 10 s.
	Timeout time.Duration
	// Resolver resolves names; nil means the system's.
	Resolver *net.Resolver
}

var _ transport.StreamDialer = (*Dialer)(nil)

const defaultTimeout = 10 * time.Second

// DialStream implements transport.StreamDialer. Addresses are checked after
// resolution, each right before it is connected to, so that no name can
// smuggle a private one in: such an error is transport.ErrNotAllowed. The stream
// is frail ([transport.Frail]).
func (d *Dialer) DialStream(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout())
	defer cancel()
	if err := noSuchName(dst.Host()); err != nil {
		return nil, fmt.Errorf("dial the destination: %w", err)
	}
	dialer := net.Dialer{Resolver: d.Resolver, ControlContext: d.check}
	c, err := dialer.DialContext(ctx, "tcp", dst.String())
	if err != nil {
		return nil, fmt.Errorf("dial the destination: %w", err)
	}
	conn := tcpconn.New(c.(*net.TCPConn))
	transport.ResetOnAbort(conn)
	if len(first) > 0 {
		if _, err := conn.Write(first); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("send the first bytes: %w", err)
		}
	}
	return conn, nil
}

func (d *Dialer) check(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: not an address that can be checked", transport.ErrNotAllowed)
	}
	return d.allow(ap.Addr())
}

// Allowed reports whether the rules let dst through as far as can be said
// without resolving it: nil, or an error that is transport.ErrNotAllowed. It is
// for ways out that resolve names elsewhere.
func (d *Dialer) Allowed(dst netaddr.Addr) error {
	if dst.IsName() {
		return nil
	}
	return d.allow(dst.IP())
}

// errPrivate is made once: datagrams may come by the thousand.
var errPrivate = fmt.Errorf("%w: a private destination", transport.ErrNotAllowed)

func (d *Dialer) allow(ip netip.Addr) error {
	if !d.AllowPrivate && !public(ip) {
		return errPrivate
	}
	return nil
}

func (d *Dialer) timeout() time.Duration {
	if d.Timeout == 0 {
		return defaultTimeout
	}
	return d.Timeout
}

// public reports whether an address is of the public Internet. Addresses that
// carry an IPv4 address within are judged by that.
func public(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	for _, t := range translated {
		if t.prefix.Contains(ip) {
			b := ip.As16()
			return public(netip.AddrFrom4([4]byte(b[t.at:])))
		}
	}
	for _, p := range special {
		if p.Contains(ip) {
			return false
		}
	}
	return ip.IsValid() && !ip.IsUnspecified() && !ip.IsLoopback() && !ip.IsPrivate() &&
		!ip.IsLinkLocalUnicast() && !ip.IsMulticast()
}

// special are the ranges of the registries of special-purpose addresses (RFC
// 6890 and after) that package netip has no word for, and public addresses that
// lead to a cloud's own machinery.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),        // this network
	netip.MustParsePrefix("100.64.0.0/10"),    // shared address space
	netip.MustParsePrefix("192.0.0.0/24"),     // protocol assignments
	netip.MustParsePrefix("168.63.129.16/32"), // the host of an Azure machine
	netip.MustParsePrefix("192.0.2.0/24"),     // documentation
	netip.MustParsePrefix("192.88.99.0/24"),   // 6to4 relays
	netip.MustParsePrefix("198.18.0.0/15"),    // benchmarks
	netip.MustParsePrefix("198.51.100.0/24"),  // documentation
	netip.MustParsePrefix("203.0.113.0/24"),   // documentation
	netip.MustParsePrefix("240.0.0.0/4"),      // reserved, broadcast
	netip.MustParsePrefix("::/96"),            // IPv4-compatible
	netip.MustParsePrefix("::ffff:0:0:0/96"),  // stateless translation (SIIT)
	netip.MustParsePrefix("64:ff9b:1::/48"),   // local translation
	netip.MustParsePrefix("100::/64"),         // discard
	netip.MustParsePrefix("100:0:0:1::/64"),   // dummy
	netip.MustParsePrefix("2001::/32"),        // Teredo
	netip.MustParsePrefix("2001:2::/48"),      // benchmarks
	netip.MustParsePrefix("2001:10::/28"),     // ORCHID
	netip.MustParsePrefix("2001:db8::/32"),    // documentation
	netip.MustParsePrefix("3fff::/20"),        // documentation
	netip.MustParsePrefix("5f00::/16"),        // segment routing
	netip.MustParsePrefix("fec0::/10"),        // site-local
}

// translated are the ranges with an IPv4 address within, at that byte.
var translated = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12}, // NAT64
	{netip.MustParsePrefix("2002::/16"), 2},     // 6to4
}
