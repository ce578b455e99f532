package client

import (
	"context"

	"vmess-local/pkg/inbound/socks"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// httpErrorDialer is a dialer for applications that read failures as a page: plain
// HTTP. Others take an answer without data for an end like any other.
type httpErrorDialer struct{ transport.StreamDialer }

type wordingKey struct{}

// DialStream implements transport.StreamDialer.
func (w httpErrorDialer) DialStream(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
	return w.StreamDialer.DialStream(context.WithValue(ctx, wordingKey{}, true), dst, first)
}

var _ socks.PublicError = (*VerdictError)(nil)

// wantsErrorText reports whether the application reads failures.
func wantsErrorText(ctx context.Context) bool { return ctx.Value(wordingKey{}) != nil }
