//go:build unix

package transport

import (
	"context"
	"io"
	"net"
	"os"
	"syscall"
	"time"
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
			t.lost = t.readError("recvfrom", err)
		}
		return true
	}
}

// ReadLazy implements [LazyReader].
func (t *tcpConn) ReadLazy(head, most int) (*Buffer, int, error) {
	if t.lost != nil || t.raw == nil {
		return nil, 0, t.lostOr(net.ErrClosed)
	}
	t.lazy.head, t.lazy.most = head, most
	if err := t.raw.Read(t.lazy.read); err != nil {
		return nil, 0, err
	}
	b, n, err := t.lazy.buf, t.lazy.n, t.lazy.err
	t.lazy.buf, t.lazy.n, t.lazy.err = nil, 0, nil
	if err == io.EOF {
		err = t.end()
	}
	return b, n, err
}

func (t *tcpConn) lostOr(err error) error {
	if t.lost != nil {
		return t.lost
	}
	return err
}

// readLazily reads into a buffer that it gives back when the socket is empty.
func (t *tcpConn) readLazily(fd uintptr) bool {
	l := &t.lazy
	b := GetBuffer()
	for {
		n, err := syscall.Read(int(fd), b[l.head:l.head+l.most])
		switch {
		case err == syscall.EINTR:
			continue
		case n > 0:
			l.buf, l.n = b, n
			return true
		}
		b.Release()
		switch err {
		case syscall.EAGAIN:
			return false
		case nil:
			l.err = io.EOF
		default:
			l.err = t.readError("read", err)
		}
		return true
	}
}

func (t *tcpConn) readError(call string, err error) error {
	return &net.OpError{
		Op: "read", Net: "tcp", Source: t.LocalAddr(), Addr: t.RemoteAddr(),
		Err: os.NewSyscallError(call, err),
	}
}

// WaitEnd waits until the peer of c has closed or reset it, and reports that.
// It takes nothing from the stream, and returns false when there is something
// to read, when ctx ends, and where the system cannot tell. It counts as the
// reader, and leaves c without a read deadline.
func WaitEnd(ctx context.Context, c *net.TCPConn) (ended bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	freed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(freed)
		_ = c.SetReadDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-freed
			_ = c.SetReadDeadline(time.Time{})
		}
	}()
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		for {
			n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK)
			switch err {
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
				return false
			}
			ended = err != nil || n == 0
			return true
		}
	})
	return ended || err != nil && ctx.Err() == nil
}
