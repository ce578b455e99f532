package netdial

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"golang.org/x/net/proxy"

	"vmess-local/pkg/transport/netaddr"
)

// RFC 1928 sections 3 and 6, RFC 1929 section 2.
const (
	socksVersion      = 5
	socksPasswordAuth = 2
	socksNoMethod     = 0xff
	socksSucceeded    = 0
)

// socksConnect asks the SOCKS5 proxy at the other end of conn for the server.
func socksConnect(ctx context.Context, conn net.Conn, way route, server netaddr.Addr) error {
	var auth *proxy.Auth
	if user := way.proxy.User; user != nil {
		password, _ := user.Password()
		auth = &proxy.Auth{User: user.Username(), Password: password}
	}
	tap := &socksTap{Conn: conn, credentials: auth != nil}
	dialer, err := proxy.SOCKS5("tcp", way.hop.String(), auth, tap)
	if err != nil {
		return fmt.Errorf("prepare the SOCKS client: %w", err)
	}
	_, err = dialer.(proxy.ContextDialer).DialContext(ctx, "tcp", server.String())
	if err == nil {
		return nil
	}
	if refusal := tap.refusal(); refusal != nil {
		return refusal
	}
	return err
}

// A socksTap lends conn to the SOCKS client and keeps the start of the proxy's
// answers: the client tells refusals in words only. It reads no further than
// the answers, so conn is the tunnel afterwards.
type socksTap struct {
	net.Conn
	credentials bool
	answers     [6]byte // method choice, password result if any, reply
	got         int
}

// Dial is only here because the SOCKS client's interface asks for it.
func (t *socksTap) Dial(string, string) (net.Conn, error) { return t, nil }

// DialContext lends the connection.
func (t *socksTap) DialContext(context.Context, string, string) (net.Conn, error) { return t, nil }

// SetDeadline does nothing: the attempt's end closes the connection, and a
// deadline that the client leaves behind or that fires early is not wanted.
func (t *socksTap) SetDeadline(time.Time) error { return nil }

// Read reads from the proxy. The client does not notice when the proxy insists
// on a password that there is none of, so that ends here.
func (t *socksTap) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	t.got += copy(t.answers[t.got:], p[:n])
	if t.got == 2 && t.answers[1] == socksPasswordAuth && !t.credentials {
		return 0, t.refusal()
	}
	return n, err
}

// refusal returns what the proxy refused, nil if the answers tell nothing.
func (t *socksTap) refusal() error {
	seen := t.answers[:t.got]
	if len(seen) > 0 && seen[0] != socksVersion {
		return &UpstreamError{Text: fmt.Sprintf("without SOCKS5: its first byte is %#02x", seen[0])}
	}
	if len(seen) < 2 {
		return nil
	}
	method, seen := seen[1], seen[2:]
	switch {
	case method == socksNoMethod:
		return &UpstreamError{Auth: true, Text: "that it accepts none of the authentication methods"}
	case method == socksPasswordAuth && !t.credentials:
		return &UpstreamError{Auth: true, Text: "that it wants a user name and password"}
	case method == socksPasswordAuth:
		if len(seen) >= 2 && seen[1] != socksSucceeded {
			return &UpstreamError{Auth: true, Text: "that user name or password are wrong"}
		}
		seen = seen[min(2, len(seen)):]
	}
	if len(seen) >= 2 && seen[1] != socksSucceeded {
		return &UpstreamError{Status: int(seen[1]), Text: socksReply(seen[1])}
	}
	return nil
}

// socksReply returns the words of RFC 1928 section 6 for a reply code.
func socksReply(code byte) string {
	words := [...]string{
		1: "general SOCKS server failure",
		2: "connection not allowed by ruleset",
		3: "network unreachable",
		4: "host unreachable",
		5: "connection refused",
		6: "TTL expired",
		7: "command not supported",
		8: "address type not supported",
	}
	if int(code) < len(words) {
		return words[code]
	}
	return "unknown reply " + strconv.Itoa(int(code))
}
