package client

import (
	"context"

	"vmess-local/pkg/netaddr"
	"vmess-local/pkg/socks"
	"vmess-local/pkg/transport"
)

// wording is a dialer for applications that read failures as a page: plain
// HTTP. Others take an answer without data for an end like any other.
type wording struct{ transport.StreamDialer }

type wordingKey struct{}

// DialStream implements transport.StreamDialer.
func (w wording) DialStream(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
	return w.StreamDialer.DialStream(context.WithValue(ctx, wordingKey{}, true), dst, first)
}

var _ socks.PublicError = (*VerdictError)(nil)

// inWords reports whether the application reads failures.
func inWords(ctx context.Context) bool { return ctx.Value(wordingKey{}) != nil }
