package udp

import (
	"errors"
	"net"
	"net/netip"

	"vmess-local/pkg/transport/tcpconn"
)

// ErrOtherUser: the datagram comes from this computer, and not from the user
// whose program asked for the association. It is wrapped beside ErrForeign.
var ErrOtherUser = errors.New("its socket is another user's, or closed")

// ErrLocalSender: the datagram comes from this computer, but from another address
// or port than the association's. It is wrapped beside ErrForeign.
var ErrLocalSender = errors.New("it was sent from this computer")

// A foreignSender is an ErrLocalSender with who sent it.
type foreignSender struct{ from, client netip.AddrPort }

// Error implements error.
func (e foreignSender) Error() string {
	whose := e.client.String()
	if e.client.Port() == 0 {
		whose = e.client.Addr().String()
	}
	return "it was sent from " + e.from.String() + ", and the association is that of " + whose
}

// Is reports whether target is ErrLocalSender.
func (foreignSender) Is(target error) bool { return target == ErrLocalSender }

// stranger is what to say of a datagram that is not the client's. It is nil for
// other computers: whatever they send is no mistake of a program here.
func (a *association) stranger(from netip.AddrPort) error {
	if !a.isLocal(from.Addr()) {
		return nil
	}
	return foreignSender{from, a.client}
}

// isLocal reports whether an address is this computer's, as far as it shows.
func (a *association) isLocal(ip netip.Addr) bool {
	return ip.IsLoopback() || ip == a.request.Local.Addr().Unmap()
}

// users are what the system tells of the sockets of this computer:
// tcpconn.TCPUser and tcpconn.UDPUser.
type users struct {
	tcp, udp func(to, from netip.AddrPort) (uid uint32, ok bool)
}

// checkPeer returns an error for a sender that is no program of the user whose
// control connection this is: on this computer a password is worth nothing if
// whoever is first at the port gets the association. Where nobody can tell, as
// of other computers, every sender is as good as another.
func (a *association) checkPeer(from netip.AddrPort) error {
	client, us := a.request.Source, a.request.Local
	if !a.isLocal(from.Addr()) {
		return nil
	}
	system := a.server.system
	if system == nil {
		system = &users{tcpconn.TCPUser, tcpconn.UDPUser}
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
