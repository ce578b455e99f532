package tcpconn

import (
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"

	"vmess-local/pkg/transport"
)

// PeerClosed implements [transport.PeerCloser] for peers on this computer: it asks the kernel for
// the peer's own socket, by sock_diag(7). One that was closed ends its
// direction as a half close does, but belongs to nobody any more.
func (t *Conn) PeerClosed() bool {
	peer, ok := t.RemoteAddr().(*net.TCPAddr)
	us, known := t.LocalAddr().(*net.TCPAddr)
	if !ok || !known || !peer.IP.IsLoopback() && !peer.IP.Equal(us.IP) {
		return false
	}
	s, ok := lookUp(syscall.IPPROTO_TCP, peer.AddrPort(), us.AddrPort())
	return ok && s.inode == 0 && (s.state == tcpFinWait2 || s.state == tcpTimeWait)
}

// States of Linux's tcp_states.h.
const (
	tcpFinWait2 = 5
	tcpTimeWait = 6
)

const (
	sockDiagByFamily = 20 // linux/sock_diag.h
	diagRequestSize  = 16 + 56
	diagAnswerSize   = 16 + 72
)

// A socket is what the kernel tells of one of this computer.
type socket struct {
	state uint8
	port  uint16 // its own
	uid   uint32 // of who made it; 0 when it has no inode
	inode uint32 // by which programs hold it: 0 when none does
}

// lookUp finds the socket at local that is connected to remote; of UDP, see
// [UDPUser].
func lookUp(protocol uint8, local, remote netip.AddrPort) (s socket, ok bool) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_INET_DIAG)
	if err != nil {
		return socket{}, false
	}
	defer syscall.Close(fd)
	kernel := &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}
	if err := syscall.Sendto(fd, diagRequest(protocol, local, remote), 0, kernel); err != nil {
		return socket{}, false
	}
	// The kernel has answered when Sendto returns. That it knows no such socket
	// may mean only that it cannot look for one.
	var answer [512]byte
	n, _, err := syscall.Recvfrom(fd, answer[:], syscall.MSG_DONTWAIT)
	if err != nil || n < diagAnswerSize || binary.NativeEndian.Uint16(answer[4:]) != sockDiagByFamily {
		return socket{}, false
	}
	return socket{
		state: answer[16+1],
		port:  binary.BigEndian.Uint16(answer[16+4:]),
		uid:   binary.NativeEndian.Uint32(answer[16+64:]),
		inode: binary.NativeEndian.Uint32(answer[16+68:]),
	}, true
}

// diagRequest is struct inet_diag_req_v2 of linux/inet_diag.h behind its struct
// nlmsghdr.
func diagRequest(protocol uint8, local, remote netip.AddrPort) []byte {
	p := make([]byte, diagRequestSize)
	binary.NativeEndian.PutUint32(p, diagRequestSize)
	binary.NativeEndian.PutUint16(p[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(p[6:], syscall.NLM_F_REQUEST)
	q := p[16:]
	q[0], q[1] = syscall.AF_INET6, protocol
	src, dst := local.Addr().Unmap(), remote.Addr().Unmap()
	if src.Is4() {
		q[0] = syscall.AF_INET
	}
	binary.NativeEndian.PutUint32(q[4:], ^uint32(0)) // in whatever state
	binary.BigEndian.PutUint16(q[8:], local.Port())
	binary.BigEndian.PutUint16(q[10:], remote.Port())
	copy(q[12:], src.AsSlice())
	copy(q[28:], dst.AsSlice())
	for i := 48; i < 56; i++ {
		q[i] = 0xff // INET_DIAG_NOCOOKIE
	}
	return p
}

var _ transport.PeerCloser = (*Conn)(nil)
