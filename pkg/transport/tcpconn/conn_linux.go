package tcpconn

import (
	"syscall"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/rawsock"
)

// ResetByPeer implements [transport.PeerResetter]: a connection that was reset is closed for the
// system, whatever is still there to be read (TCP_CLOSE of Linux's
// tcp_states.h, which is the first byte of struct tcp_info).
func (t *Conn) ResetByPeer() bool {
	if t.raw == nil {
		return true
	}
	const closed = 7
	broken := false
	err := t.raw.Control(func(fd uintptr) {
		info, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO)
		broken = err == nil && info&0xff == closed
	})
	return broken || err != nil
}

// SendState implements [transport.SendStater]. A far end whose window is closed answers
// probes, one that is gone answers neither these nor what is sent again.
func (t *Conn) SendState() (s transport.SendState) {
	if t.raw == nil {
		return transport.SendUnknown
	}
	_ = t.raw.Control(func(fd uintptr) {
		switch waiting, missed, ok := rawsock.SendQueue(fd); {
		case !ok:
		case missed >= 2: // one may be on its way
			s = transport.SendTimedOut
		case waiting:
			s = transport.SendBlocked
		default:
			s = transport.SendAcked
		}
	})
	return s
}

var (
	_ transport.PeerResetter = (*Conn)(nil)
	_ transport.SendStater   = (*Conn)(nil)
)
