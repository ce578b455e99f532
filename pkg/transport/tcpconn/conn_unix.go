//go:build unix

package tcpconn

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/rawsock"
)

// calls are those of the system that are under way: what the callbacks of the
// RawConn, which are made once so that their use allocates nothing, are asked
// for and what they found.
type calls struct {
	poll    func(fd uintptr) bool // readable
	lazy    lazyRead
	reading reading
	writing writing
	room    room
}

func (t *Conn) bind() {
	c := &t.calls
	c.poll, c.lazy.read, c.reading.try = t.readable, t.readPooled, t.readSome
	c.writing.try, c.room.ask = t.writeMore, t.hasRoom
}

// A lazyRead is a ReadLazy under way.
type lazyRead struct {
	read       func(fd uintptr) bool
	head, most int
	buf        *transport.Buffer
	n          int
	err        error
}

// WaitRead implements [transport.ReadWaiter]. Its error is that of the Read that
// follows.
func (t *Conn) WaitRead() error {
	if t.raw == nil || t.lost != nil {
		return t.lost
	}
	if err := t.raw.Read(t.calls.poll); err != nil {
		return err
	}
	return t.lost
}

// readable peeks at the socket: only an empty one that is still open makes the
// poller wait.
func (t *Conn) readable(fd uintptr) bool {
	switch err := rawsock.Peek(fd); err {
	case syscall.EAGAIN:
		return false
	case nil:
	default:
		t.lost = t.fault("read", "recvfrom", err)
	}
	return true
}

// ReadPooled implements [transport.PooledReader].
func (t *Conn) ReadPooled(head, most int) (*transport.Buffer, int, error) {
	if t.lost != nil || t.raw == nil {
		return nil, 0, t.lostOr(net.ErrClosed)
	}
	t.calls.lazy.head, t.calls.lazy.most = head, most
	if err := t.raw.Read(t.calls.lazy.read); err != nil {
		return nil, 0, err
	}
	b, n, err := t.calls.lazy.buf, t.calls.lazy.n, t.calls.lazy.err
	t.calls.lazy.buf, t.calls.lazy.n, t.calls.lazy.err = nil, 0, nil
	if err == io.EOF {
		err = t.end()
	}
	return b, n, err
}

func (t *Conn) lostOr(err error) error {
	if t.lost != nil {
		return t.lost
	}
	return err
}

// readPooled reads into a buffer that it gives back when the socket is empty.
func (t *Conn) readPooled(fd uintptr) bool {
	l := &t.calls.lazy
	b := transport.GetBuffer()
	n, err := rawsock.Read(fd, b[l.head:l.head+l.most])
	if n > 0 {
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
		l.err = t.fault("read", "read", err)
	}
	return true
}

// A reading is a Read under way.
type reading struct {
	try func(fd uintptr) bool
	p   []byte
	n   int
	err error
}

func (t *Conn) read(p []byte) (int, error) {
	if t.raw == nil {
		return 0, net.ErrClosed
	}
	r := &t.calls.reading
	r.p, r.n, r.err = p, 0, nil
	err := t.raw.Read(r.try)
	r.p = nil
	if err == nil {
		err = r.err
	}
	return r.n, renamed(err, "read")
}

// readSome is false when there is nothing to read.
func (t *Conn) readSome(fd uintptr) bool {
	r := &t.calls.reading
	var err error
	switch r.n, err = rawsock.Read(fd, r.p); {
	case err == syscall.EAGAIN:
		return false
	case err != nil:
		r.err = t.fault("read", "read", err)
	case r.n == 0 && len(r.p) > 0:
		r.err = io.EOF
	}
	return true
}

// A writing is a Write under way: what its callback is asked for, and how far it
// came.
type writing struct {
	mu  sync.Mutex
	try func(fd uintptr) bool
	p   []byte
	n   int
	err error
}

// write writes p, waiting for room where there is none.
func (t *Conn) write(p []byte) (int, error) {
	if t.raw == nil {
		return 0, net.ErrClosed
	}
	w := &t.calls.writing
	w.mu.Lock()
	defer w.mu.Unlock()
	w.p, w.n, w.err = p, 0, nil
	err := t.raw.Write(w.try)
	w.p = nil
	if err == nil {
		err = w.err
	}
	return w.n, renamed(err, "write")
}

// renamed returns an error of a syscall.RawConn as package net has it.
func renamed(err error, op string) error {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		e.Op = op
	}
	return err
}

// writeMore writes what the socket takes; it is false when that was not all.
func (t *Conn) writeMore(fd uintptr) bool {
	w := &t.calls.writing
	for w.n < len(w.p) {
		n, err := rawsock.Write(fd, w.p[w.n:])
		w.n += n
		switch err {
		case nil:
		case syscall.EAGAIN:
			return false
		default:
			w.err = t.fault("write", "write", err)
			return true
		}
	}
	return true
}

// A room is a Roomy under way.
type room struct {
	mu  sync.Mutex
	ask func(fd uintptr)
	is  bool
}

// WriteReady implements [transport.WriteReadier].
func (t *Conn) WriteReady() bool {
	if t.raw == nil {
		return false
	}
	t.calls.room.mu.Lock()
	defer t.calls.room.mu.Unlock()
	err := t.raw.Control(t.calls.room.ask)
	return err == nil && t.calls.room.is
}

func (t *Conn) hasRoom(fd uintptr) { t.calls.room.is = rawsock.Writable(fd) }

func (t *Conn) fault(op, call string, err error) error {
	return &net.OpError{
		Op: op, Net: "tcp", Source: t.LocalAddr(), Addr: t.RemoteAddr(),
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
