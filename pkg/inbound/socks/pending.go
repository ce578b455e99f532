package socks

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/tcpconn"
)

// replies are the last words of a handshake in one protocol.
type replies interface {
	success(bound netip.AddrPort) []byte
	failure(cause error) []byte
}

// pending is the answer that a client is owed.
type pending struct {
	client   *client
	replies  replies
	within   time.Duration // for the success reply to be taken
	answered atomic.Bool
}

var (
	_ transport.Pending          = (*pending)(nil)
	_ transport.DisconnectWaiter = (*pending)(nil)
)

// WaitDisconnect implements transport.GoneWaiter. A client that ends its direction
// before it has the answer is taken to be gone; of one that has sent more,
// nobody can tell.
func (p *pending) WaitDisconnect(ctx context.Context) bool {
	conn, ok := p.client.Conn.(*net.TCPConn)
	return ok && tcpconn.WaitEnd(ctx, conn)
}

// Proceed implements transport.Pending.
func (p *pending) Proceed(bound netip.AddrPort) (transport.StreamConn, error) {
	if !p.answered.CompareAndSwap(false, true) {
		return nil, ErrAnswered
	}
	_ = p.client.SetWriteDeadline(time.Now().Add(p.within))
	if _, err := p.client.Conn.Write(p.replies.success(bound)); err != nil {
		_ = p.client.Close()
		return nil, fmt.Errorf("answer the client: %w", err)
	}
	_ = p.client.SetWriteDeadline(time.Time{})
	return p.client.stream(), nil
}

// Abort implements transport.Pending. It waits up to a second for the client
// to take the answer.
func (p *pending) Abort(cause error) error {
	if !p.answered.CompareAndSwap(false, true) {
		return ErrAnswered
	}
	if err := p.client.closeWith(p.replies.failure(cause)); err != nil {
		return fmt.Errorf("answer the client: %w", err)
	}
	return nil
}
