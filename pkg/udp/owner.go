package udp

import (
	"errors"
	"net"
	"net/netip"

	"vmess-local/pkg/transport"
)

// ErrOtherUser: the datagram comes from this computer, and not from the user
// whose program asked for the association. It is wrapped beside ErrForeign.
var ErrOtherUser = errors.New("its socket is another user's, or closed")

// users are what the system tells of the sockets of this computer:
// transport.TCPUser and transport.UDPUser.
type users struct {
	tcp, udp func(to, from netip.AddrPort) (uid uint32, ok bool)
}

// vet returns an error for a sender that is no program of the user whose
// control connection this is: on this computer a password is worth nothing if
// whoever is first at the port gets the association. Where nobody can tell, as
// of other computers, every sender is as good as another.
func (a *association) vet(from netip.AddrPort) error {
	client, us := a.request.Source, a.request.Local
	if !from.Addr().IsLoopback() && from.Addr() != us.Addr().Unmap() {
		return nil
	}
	system := a.server.system
	if system == nil {
		system = &users{transport.TCPUser, transport.UDPUser}
	}
	owner, ok := system.tcp(client, us)
	if !ok {
		return nil
	}
	relay := a.socket.LocalAddr().(*net.UDPAddr).AddrPort()
	sender, ok := system.udp(from, relay)
	if !ok {
		// One that is closed by now may have been anybody's, if only the
		// system knows any.
		_, ok = system.udp(relay, from)
		sender = ^owner
	}
	if ok && sender != owner {
		return ErrOtherUser
	}
	return nil
}
