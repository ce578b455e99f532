package socks

import (
	"context"
	"time"

	"vmess-local/pkg/transport"
)

// An Associator is what the front door hands SOCKS5 UDP ASSOCIATE requests to
// (RFC 1928 sections 4, 6 and 7).
type Associator interface {
	// HandleAssociate serves one association and returns when it is over. In r,
	// Destination is where the client says it will send from: an IP, often
	// 0.0.0.0, and a port, often 0. Local and Source are the two ends of the
	// control connection. Proceed tells the client where to send its datagrams
	// and returns the control connection; the association ends when that ends,
	// in whatever way, and with ctx, which ends when the server is cut. A
	// request that is left unanswered is aborted, and the control connection is
	// closed when HandleAssociate returns.
	HandleAssociate(ctx context.Context, r *transport.Request)
}

// associate serves a UDP ASSOCIATE. Retire waits for it, Drain does not.
func (s *Server) associate(ctx context.Context, c *client, r request5) {
	_ = c.SetDeadline(time.Time{})
	request := s.newRequest(c, "socks5", r.dst, r.user, socks5Replies{})
	c.association.Store(true)
	if s.endsAssociations() {
		return
	}
	s.Associator.HandleAssociate(ctx, request)
	_ = request.Pending.Abort(errUnanswered) // ErrAnswered is the rule
}
