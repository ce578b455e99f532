package tcpconn

import (
	"net/netip"
	"syscall"
)

// TCPUser returns the user who made the TCP socket at local that is connected
// to remote. ok is false where there is none on this computer, where no program
// has it any more, or where the system does not tell. It takes microseconds.
func TCPUser(local, remote netip.AddrPort) (uid uint32, ok bool) {
	s, ok := lookUp(syscall.IPPROTO_TCP, local, remote)
	return s.uid, ok && s.inode != 0
}

// UDPUser returns the user who made the UDP socket that a datagram from from to
// to, both of this computer, reaches. ok is false where there is none, or where
// the system does not tell. It takes microseconds.
func UDPUser(to, from netip.AddrPort) (uid uint32, ok bool) {
	// The kernel wants the sender first here; in case that changes, the port
	// tells whether it has found the right one.
	for _, ends := range [...][2]netip.AddrPort{{from, to}, {to, from}} {
		if s, ok := lookUp(syscall.IPPROTO_UDP, ends[0], ends[1]); ok && s.port == to.Port() {
			return s.uid, true
		}
	}
	return 0, false
}
