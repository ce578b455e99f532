//go:build !unix

package transport

import (
	"context"
	"net"
)

// WaitRead implements [ReadWaiter]. Where sockets cannot be peeked at, it does
// not wait: the Read that follows does.
func (t *tcpConn) WaitRead() error { return nil }

func (t *tcpConn) readable(uintptr) bool { return true }

// ReadLazy implements [LazyReader] without its laziness.
func (t *tcpConn) ReadLazy(head, most int) (*Buffer, int, error) {
	b := GetBuffer()
	n, err := t.Read(b[head : head+most])
	if n == 0 {
		b.Release()
		return nil, 0, err
	}
	return b, n, err
}

func (t *tcpConn) readLazily(uintptr) bool { return true }

// WaitEnd cannot tell where sockets cannot be peeked at.
func WaitEnd(context.Context, *net.TCPConn) (ended bool) { return false }
