//go:build !unix

package transport

// WaitRead implements [ReadWaiter]. Where sockets cannot be peeked at, it does
// not wait: the Read that follows does.
func (t *tcpConn) WaitRead() error { return nil }

func (t *tcpConn) readable(uintptr) bool { return true }
