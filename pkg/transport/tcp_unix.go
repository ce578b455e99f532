//go:build unix

package transport

import (
	"net"
	"os"
	"syscall"
)

// WaitRead implements [ReadWaiter]. Its error is that of the Read that
// follows.
func (t *tcpConn) WaitRead() error {
	if t.raw == nil || t.lost != nil {
		return t.lost
	}
	if err := t.raw.Read(t.poll); err != nil {
		return err
	}
	return t.lost
}

// readable peeks at the socket: only an empty one that is still open makes the
// poller wait.
func (t *tcpConn) readable(fd uintptr) bool {
	var one [1]byte
	for {
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK)
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		case nil:
		default:
			t.lost = &net.OpError{
				Op: "read", Net: "tcp", Source: t.LocalAddr(), Addr: t.RemoteAddr(),
				Err: os.NewSyscallError("recvfrom", err),
			}
		}
		return true
	}
}
