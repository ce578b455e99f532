//go:build !unix

package tcpconn

import (
	"context"
	"net"

	"vmess-local/pkg/transport"
)

type calls struct{}

func (t *Conn) bind() {}

func (t *Conn) read(p []byte) (int, error) { return t.TCPConn.Read(p) }

func (t *Conn) write(p []byte) (int, error) { return t.TCPConn.Write(p) }

// WriteReady implements [transport.WriteReadier]: it does not know.
func (t *Conn) WriteReady() bool { return false }

// WaitRead implements [transport.ReadWaiter]. Where sockets cannot be peeked at, it does
// not wait: the Read that follows does.
func (t *Conn) WaitRead() error { return nil }

// ReadPooled implements [transport.PooledReader] without its laziness.
func (t *Conn) ReadPooled(head, most int) (*transport.Buffer, int, error) {
	b := transport.GetBuffer()
	n, err := t.Read(b[head : head+most])
	if n == 0 {
		b.Release()
		return nil, 0, err
	}
	return b, n, err
}

// WaitEnd cannot tell where sockets cannot be peeked at.
func WaitEnd(context.Context, *net.TCPConn) (ended bool) { return false }
