package mux

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// DefaultConcurrency is how many sessions V2Ray's clients run over one tunnel
// at once.
const DefaultConcurrency = 8

// minIdle is how long an idle tunnel is kept at least; at most it is twice
// that, so that many do not end at once.
const minIdle = 16 * time.Second

// A Client opens sessions over tunnels of its own. A tunnel carries up to
// Concurrency sessions at once and 128 in its life, or fewer where its cipher's
// nonces run out before ([transport.NonceLimiter]); further ones get another.
// One without sessions is closed within 16 to 32 s. It may be used
// concurrently; its fields must not change then.
type Client struct {
	// Dial opens a tunnel: a stream at whose far end a Mux.Cool server listens.
	// first are its first bytes and not kept; when there are none, the dialer
	// may hold its own request back until the first Write.
	Dial func(ctx context.Context, first []byte) (transport.StreamConn, error)
	// Concurrency is how many sessions one tunnel carries at once; 0 means
	// DefaultConcurrency.
	Concurrency int
	// Owner, which may be nil, is handed on in the *[TunnelError] of its tunnels.
	Owner any
	// EndPatience is how long an answer may be silent after CloseWrite before
	// the session is ended; 0 means 10 s.
	EndPatience time.Duration
	// Again, when not nil, opens a stream again, with first as its first bytes,
	// whose session the server did not take ([ErrDraining]). It may come back to
	// this Client, with ctx.
	Again func(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error)
	// Dropped, when not nil, counts the datagrams that arrived while their
	// session's queue was full.
	Dropped *atomic.Int64

	mu      sync.Mutex
	tunnels []*clientTunnel
	closed  bool
	loops   sync.WaitGroup
}

var (
	_ transport.StreamDialer = (*Client)(nil)
	_ transport.PacketDialer = (*Client)(nil)
)

// DialStream implements transport.StreamDialer by a TCP session: over a tunnel
// that there is, or else over a new one, with whose request first travels then.
// Nothing is known of the destination when it returns; reads tell. CloseWrite
// holds the session's end back, for it ends both directions. Errors are
// [ErrFailed], [ErrEnded], [ErrDraining], [ErrStuck], [ErrStalled], [ErrSilent] and
// *[TunnelError].
func (c *Client) DialStream(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
	s, err := c.open(ctx, NetworkTCP, dst, first)
	if err != nil {
		return nil, err
	}
	if c.Again == nil || attemptsOf(ctx) == maxAttempts {
		return stream{s}, nil
	}
	return newReopener(ctx, c.Again, s, first), nil
}

// DialPacket implements transport.PacketDialer by a UDP session: all datagrams
// go to dst. They have 1 to 2,048 bytes, for V2Ray gives up the whole tunnel
// over a larger one.
func (c *Client) DialPacket(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	s, err := c.open(ctx, NetworkUDP, dst, nil)
	if err != nil {
		return nil, err
	}
	return &packets{session: s, max: maxPlainPacket}, nil
}

// Close ends all tunnels and their sessions, and makes dials fail. It waits
// for the tunnels' goroutines.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	tunnels := slices.Clone(c.tunnels)
	c.mu.Unlock()
	for _, t := range tunnels {
		t.end(net.ErrClosed, true)
	}
	c.loops.Wait()
	return nil
}

// Retire lets the tunnels that there are carry no further sessions: new ones
// get new tunnels. The sessions that are open go on.
func (c *Client) Retire() {
	c.mu.Lock()
	tunnels := slices.Clone(c.tunnels)
	c.mu.Unlock()
	for _, t := range tunnels {
		t.mu.Lock()
		t.last = maxSessions
		t.mu.Unlock()
	}
}

// open returns a session whose New is sent if there is something in first.
func (c *Client) open(ctx context.Context, network Network, dst netaddr.Addr, first []byte) (*session, error) {
	if !dst.IsValid() {
		return nil, errNoTarget
	}
	for {
		t, s, fresh, err := c.reserve(network, dst)
		if err != nil {
			return nil, err
		}
		if fresh {
			first, err = t.dial(ctx, s, first)
		} else {
			err = t.await(ctx)
		}
		if err == nil && len(first) > 0 {
			err = sendFirst(ctx, s, first)
		}
		if err == nil {
			return s, nil
		}
		again := !fresh && ctx.Err() == nil && !s.sent() && t.retry(err)
		s.close(true)
		if !again {
			return nil, err
		}
	}
}

// sendFirst writes first, and gives up with ctx.
func sendFirst(ctx context.Context, s *session, first []byte) error {
	stop := context.AfterFunc(ctx, func() { s.close(true) })
	_, err := s.write(first)
	if !stop() {
		return context.Cause(ctx)
	}
	return err
}

// sent reports whether the peer may know the session.
func (s *session) sent() bool {
	s.tunnel.mu.Lock()
	defer s.tunnel.mu.Unlock()
	return s.known
}

// HasRoom reports whether a new session would go over a tunnel that there is.
func (c *Client) HasRoom() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.tunnels, func(t *clientTunnel) bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.hasRoom()
	})
}

// reserve makes a session on a tunnel that has room for it. A fresh tunnel is
// the caller's to dial.
func (c *Client) reserve(network Network, dst netaddr.Addr) (t *clientTunnel, s *session, fresh bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, false, net.ErrClosed
	}
	for _, t := range c.tunnels {
		if s := t.reserve(network, dst); s != nil {
			return t, s, false, nil
		}
	}
	t = &clientTunnel{client: c, ready: make(chan struct{})}
	t.tunnel = newTunnel(t, &c.loops, c.Dropped)
	t.owner = c.Owner
	c.tunnels = append(c.tunnels, t)
	return t, t.reserve(network, dst), true, nil
}

func (c *Client) concurrency() int {
	if c.Concurrency > 0 {
		return c.Concurrency
	}
	return DefaultConcurrency
}

func (c *Client) patience() time.Duration {
	if c.EndPatience > 0 {
		return c.EndPatience
	}
	return endPatience
}

// A clientTunnel is a tunnel that a Client dialled, or is dialling.
type clientTunnel struct {
	*tunnel
	client *Client
	last   uint16 // id; with the tunnel locked

	ready    chan struct{} // closed when the dial is over
	failed   error         // the dial's; valid once ready
	forsaken bool          // the dial failed because its caller gave up
}

// hasRoom is called with the lock held.
func (t *clientTunnel) hasRoom() bool {
	if t.conn != nil && transport.NearNonceLimit(t.conn) {
		t.last = maxSessions
	}
	return t.err == nil && t.last < maxSessions && len(t.sessions) < t.client.concurrency() && t.stalled.Load() == nil
}

// reserve makes a session, nil when there is no room for it.
func (t *clientTunnel) reserve(network Network, dst netaddr.Addr) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.hasRoom() {
		return nil
	}
	t.last++
	s := newSession(t.tunnel, t.last, network, dst)
	s.patience = t.client.patience()
	t.add(s)
	return s
}

// dial opens the tunnel with the first frames of s and returns what of first
// is still to be written.
func (t *clientTunnel) dial(ctx context.Context, s *session, first []byte) (rest []byte, err error) {
	defer close(t.ready)
	conn, rest, err := t.connect(ctx, s, first)
	if err == nil {
		if err = t.start(conn); err != nil {
			_ = transport.Reset(conn)
		}
	}
	if err != nil {
		t.failed, t.forsaken = err, ctx.Err() != nil
		t.end(err, false)
		return nil, err
	}
	go t.readLoop()
	return rest, nil
}

func (t *clientTunnel) connect(ctx context.Context, s *session, first []byte) (transport.StreamConn, []byte, error) {
	if len(first) == 0 {
		conn, err := t.client.Dial(ctx, nil)
		return conn, nil, err
	}
	buf := transport.GetBuffer()
	defer buf.Release()
	flight := buf[:0]
	for len(first) > 0 && len(buf)-len(flight) >= maxOverhead+maxFrame {
		n := min(len(first), maxFrame)
		t.mu.Lock()
		flight = s.frame(true).Append(flight, first[:n])
		s.known, t.used = true, true
		t.mu.Unlock()
		first = first[n:]
	}
	conn, err := t.client.Dial(ctx, flight)
	return conn, first, err
}

// await waits for another's dial.
func (t *clientTunnel) await(ctx context.Context) error {
	select {
	case <-t.ready:
		return t.failed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// retry reports whether err says nothing about what another tunnel would do:
// this one broke before it was used.
func (t *clientTunnel) retry(err error) bool {
	var broken *TunnelError
	return t.forsaken || errors.As(err, &broken)
}

// opened implements side: servers open nothing.
func (t *clientTunnel) opened(Frame) error { return nil }

// idleLimit implements side.
func (t *clientTunnel) idleLimit() time.Duration {
	if t.last == maxSessions {
		return 0
	}
	return minIdle + rand.N(minIdle)
}

// ended implements side.
func (t *clientTunnel) ended() {
	c := t.client
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tunnels = slices.DeleteFunc(c.tunnels, func(other *clientTunnel) bool { return other == t })
}

// drains implements side: the tunnel carries no further sessions.
func (t *clientTunnel) drains() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last, t.drained = maxSessions, true
}
