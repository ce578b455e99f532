//go:build !unix

package transport

import (
	"context"
	"net"
)

type calls struct{}

func (t *tcpConn) bind() {}

func (t *tcpConn) read(p []byte) (int, error) { return t.TCPConn.Read(p) }

func (t *tcpConn) write(p []byte) (int, error) { return t.TCPConn.Write(p) }

// WriteReady implements [Roomer]: it does not know.
func (t *tcpConn) WriteReady() bool { return false }

// WaitRead implements [ReadWaiter]. Where sockets cannot be peeked at, it does
// not wait: the Read that follows does.
func (t *tcpConn) WaitRead() error { return nil }

// ReadPooled implements [LazyReader] without its laziness.
func (t *tcpConn) ReadPooled(head, most int) (*Buffer, int, error) {
	b := GetBuffer()
	n, err := t.Read(b[head : head+most])
	if n == 0 {
		b.Release()
		return nil, 0, err
	}
	return b, n, err
}

// WaitEnd cannot tell where sockets cannot be peeked at.
func WaitEnd(context.Context, *net.TCPConn) (ended bool) { return false }
