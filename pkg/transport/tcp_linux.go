package transport

import "syscall"

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

var _ Breaker = (*tcpConn)(nil)
