//go:build !linux

package tcpconn

import "net/netip"

// TCPUser returns the user who made a TCP socket of this computer, which this
// system is not asked for.
func TCPUser(_, _ netip.AddrPort) (uid uint32, ok bool) { return 0, false }

// UDPUser returns the user who made a UDP socket of this computer, which this
// system is not asked for.
func UDPUser(_, _ netip.AddrPort) (uid uint32, ok bool) { return 0, false }
