package transport

import (
	"syscall"

	"vmess-local/pkg/noblock"
)

// Broken implements [Breaker]: a connection that was reset is closed for the
// system, whatever is still there to be read (TCP_CLOSE of Linux's
// tcp_states.h, which is the first byte of struct tcp_info).
func (t *tcpConn) Broken() bool {
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

// Standing implements [Stander]. A far end whose window is closed answers
// probes, one that is gone answers neither these nor what is sent again.
func (t *tcpConn) Standing() (s Standing) {
	if t.raw == nil {
		return StandingUnknown
	}
	_ = t.raw.Control(func(fd uintptr) {
		switch waiting, missed, ok := noblock.Sent(fd); {
		case !ok:
		case missed >= 2: // one may be on its way
			s = StandingLost
		case waiting:
			s = StandingHeld
		default:
			s = StandingTaken
		}
	})
	return s
}

var (
	_ Breaker = (*tcpConn)(nil)
	_ Stander = (*tcpConn)(nil)
)
