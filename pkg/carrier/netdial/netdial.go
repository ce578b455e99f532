// Package netdial connects to the one server: it resolves the server's name,
// races its addresses (Happy Eyeballs, RFC 8305), goes through an upstream
// proxy where the way out of a network demands one (HTTP CONNECT, SOCKS5), and
// speaks TLS with certificate pins or an own authority where asked to. A
// [Dialer] is a [transport.StreamEndpoint]; the WebSocket layer wraps it.
// Every failure is an [*Error] that names the step it happened in and keeps
// the facts (addresses, status codes, certificates) from which a diagnosis can
// name the cause; none holds a password. Only the server's own name, or that
// of the upstream proxy, is ever resolved here: destinations travel to the
// server as they are.
package netdial

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// DefaultTimeout bounds one attempt of a [Dialer] that sets no Timeout.
const DefaultTimeout = 10 * time.Second

// A Dialer connects to one server. Its exported fields must not change after
// the first ConnectStream; it must not be copied. All methods may be called
// concurrently: a Dialer remembers, for all of them, the server's last known
// addresses, the address that worked last, and TLS sessions to resume.
type Dialer struct {
	Server netaddr.Addr // where to; required

	// TLS is spoken with the server when it is set.
	TLS *TLS

	// Upstream is the proxy that leads out of this network: http://host:port
	// (CONNECT) or socks5://host:port, either with user:password. The server's
	// name is then left to the proxy to resolve. nil: direct.
	Upstream *url.URL

	// Timeout bounds DNS, TCP, upstream proxy and TLS together; 0 is
	// DefaultTimeout. The connection that is returned has no deadline.
	Timeout time.Duration

	// Resolver turns the first hop's name into addresses; nil is
	// net.DefaultResolver.
	Resolver Resolver

	// DialTCP connects to an "ip:port" on network "tcp" and obeys ctx, which
	// must not affect the connection afterwards. It is called again for an
	// address that stays silent, beside the call before. nil dials with
	// keep-alive.
	DialTCP func(ctx context.Context, network, addr string) (net.Conn, error)

	// IsSelf reports whether an upstream proxy at an address is the program that
	// dials, which would ask itself for ever: that fails with [ErrUpstreamLoop].
	// nil: none is.
	IsSelf func(netip.AddrPort) bool

	// OnStep is told when a step begins and when it ends, in order within one
	// attempt, from the goroutine that called ConnectStream. It must not block.
	OnStep func(Progress)

	extraAttempts atomic.Int32 // attempts beside others to the same address

	mu       sync.Mutex
	known    []netip.Addr // the last answer of the resolver that led all the way
	missing  time.Time    // since when the resolver says that there is no such name
	last     netip.Addr   // the address of the last attempt that came all the way
	sessions newSession   // nil before the first handshake
}

var _ transport.StreamEndpoint = (*Dialer)(nil)

// ConnectStream connects to the server and writes first, if there is any. It
// does not keep first. The caller closes the connection. Cancelling ctx ends
// the attempt at once, with an error that wraps ctx.Err and context.Cause, and
// leaves a connection already returned alone.
//
// The connection can be reset ([transport.Resetter]). Its CloseWrite ends the
// TCP direction, or with TLS sends close_notify.
func (d *Dialer) ConnectStream(ctx context.Context, first []byte) (transport.StreamConn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout())
	defer cancel()
	way, err := d.route()
	if err != nil {
		return nil, err
	}
	hop, err := d.dialHop(ctx, way)
	if err != nil {
		return nil, blameStale(err, hop.stale)
	}
	stop := context.AfterFunc(ctx, func() { _ = hop.conn.Close() })
	defer stop()
	conn, err := d.establish(ctx, way, hop.conn)
	if err == nil {
		err = d.deliver(ctx, conn, first, stop)
	}
	d.remember(hop, err)
	if err != nil {
		_ = hop.conn.Close()
		return nil, blameStale(err, hop.stale)
	}
	return conn, nil
}

// establish makes of a TCP connection to the first hop a stream to the server.
// The caller closes tcp when it fails, and when ctx ends.
func (d *Dialer) establish(ctx context.Context, way route, tcp net.Conn) (transport.StreamConn, error) {
	raw, err := d.passUpstream(ctx, way, tcp)
	if err != nil {
		return nil, err
	}
	if d.TLS == nil {
		return streamOf(raw), nil
	}
	return d.secure(ctx, raw)
}

// deliver writes first and sets the connection free of ctx by stop. Its errors
// count to the last step of the way.
func (d *Dialer) deliver(ctx context.Context, conn net.Conn, first []byte, stop func() bool) error {
	began := time.Now()
	var err error
	if len(first) > 0 {
		transport.Refresh(ctx)
		_, err = conn.Write(first)
	}
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err == nil {
		return nil
	}
	step := StepTCP
	if d.TLS != nil {
		step = StepTLS
	}
	return &Error{Step: step, Addr: d.Server.String(), Took: time.Since(began), Err: withContext(ctx, err)}
}

func (d *Dialer) timeout() time.Duration {
	if d.Timeout > 0 {
		return d.Timeout
	}
	return DefaultTimeout
}

// remember remembers the addresses of an attempt that came all the way, and drops
// the preference for one when the next attempt fails behind the TCP handshake,
// unless by cancelling.
func (d *Dialer) remember(hop hopConn, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil:
		d.last = hop.remote
		if hop.stale == nil {
			d.known = hop.addrs[:min(len(hop.addrs), maxAttempts)]
		}
	case d.last == hop.remote && !errors.Is(err, context.Canceled):
		d.last = netip.Addr{}
	}
}

// Forget drops the preference for the address that worked last: another
// network may have another way. The addresses themselves stay, for a resolver
// that fails.
func (d *Dialer) Forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = netip.Addr{}
}

// dialTCP is the default of Dialer.DialTCP. A vanished server is noticed by
// keep-alive after 90 s. TCP_USER_TIMEOUT would notice it sooner while data is
// under way, but it also cuts an upload that the far end merely holds back by
// a closed window, so it is not set.
func dialTCP(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable:   true,
		Idle:     30 * time.Second,
		Interval: 15 * time.Second,
		Count:    4,
	}}
	return dialer.DialContext(ctx, network, addr)
}
