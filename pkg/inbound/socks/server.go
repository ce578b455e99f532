// Package socks is the local front door: SOCKS5 (RFC 1928 and 1929), SOCKS4
// and 4a, and HTTP proxy requests (CONNECT and plain ones) on one listener
// that is handed in, told apart by their first byte. It reads what the client
// wants, refuses what is wrong or forbidden in the words of the client's own
// protocol, and hands the rest to a [Handler] together with the answer that is
// still owed; plain HTTP requests it carries itself, over a dialer. Names are
// never resolved here. The SOCKS5 messages are those of txthinking/socks5, the
// accept loop, the deadlines and the bounds are its own.
package socks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"vmess-local/pkg/host/errno"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// The defaults of a Server's times.
const (
	DefaultHandshake = 10 * time.Second
	DefaultIdle      = time.Hour
)

const (
	cutTime     = 2 * time.Second  // for handlers to end after they were cut
	reportEvery = 10 * time.Second // at most, for what may repeat fast
	minPause    = 5 * time.Millisecond
	maxPause    = time.Second
)

// A Handler is what the front door hands its requests to.
type Handler interface {
	// HandleStream serves r and returns when the connection is over. ctx ends
	// when the connection is cut by Drain. A request that it leaves unanswered
	// is aborted; the client's connection is closed when it returns.
	HandleStream(ctx context.Context, r *transport.Request)
}

// HandlerFunc makes a Handler of a function.
type HandlerFunc func(ctx context.Context, r *transport.Request)

// HandleStream calls f.
func (f HandlerFunc) HandleStream(ctx context.Context, r *transport.Request) { f(ctx, r) }

// A Semaphore counts what is open at one time, here and wherever else it is used. It
// is used concurrently.
type Semaphore interface {
	// Acquire counts one in if there is room.
	Acquire() bool
	// Release counts one out.
	Release()
}

// A Server accepts proxy connections. Its fields may not be changed once Serve
// was called; it may not be copied. Serve may be called for several listeners.
type Server struct {
	// Handler gets the SOCKS and CONNECT requests. It is required.
	Handler Handler
	// Dialer carries plain HTTP requests, as in "GET http://host/ HTTP/1.1".
	// nil: they are answered 501.
	Dialer transport.StreamDialer
	// Associator gets the SOCKS5 UDP ASSOCIATE requests. nil: they are refused
	// (ErrNoUDP).
	Associator Associator
	// Auth is what clients must present. nil: nothing.
	Auth *Auth
	// Handshake bounds the time from accept to the complete request; an HTTP
	// client has it once for the first byte and once for the head of each
	// request. 0: DefaultHandshake.
	Handshake time.Duration
	// Idle ends plain HTTP exchanges that moved no byte for so long (and at
	// most twice that). 0: DefaultIdle.
	Idle time.Duration
	// Room bounds the client connections, each with one connection to where it
	// leads; more are closed when they come. nil: no bound.
	Room Semaphore
	// OriginRoom bounds what plain HTTP clients have besides: connections to
	// origins that are kept for their next requests. nil: no bound.
	OriginRoom Semaphore
	// Report, if set, is told what went wrong on the local side: the errors of
	// this package, and those of accept with a zero address. It holds neither
	// secrets nor destinations and is called from many goroutines; what can
	// repeat fast (limits, accept) is told every 10 s at most.
	Report func(err error, source netip.AddrPort)

	full      throttle
	shortage  throttle
	badAnswer throttle

	mu       sync.Mutex
	clients  map[*client]struct{}
	stops    map[*net.Listener]context.CancelFunc // of running Serve calls
	draining bool
	// associationsEnd: those of UDP are not waited for.
	associationsEnd bool
	empty           chan struct{} // closed when draining and without clients
}

// Serve accepts connections from ln until ctx is done, which returns nil, or
// until ln fails for good. It closes ln. Shortages (of file descriptors, say)
// are waited for. Connections that were accepted go on: see [Server.Drain],
// which must be called in the end.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer ln.Close()
	if !s.enter(&ln, stop) {
		return ErrServerClosed
	}
	defer s.leave(&ln)
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()

	pause := time.Duration(0)
	for {
		conn, err := ln.Accept()
		switch {
		case err == nil:
			pause = 0
			s.admit(ctx, ln, conn)
		case ctx.Err() != nil:
			return nil
		case !errno.IsTransientAccept(err):
			return fmt.Errorf("accept: %w", err)
		default:
			if _, ok := s.shortage.pass(); ok {
				s.report(fmt.Errorf("accept: %w", err), netip.AddrPort{})
			}
			pause = min(max(2*pause, minPause), maxPause)
			sleep(ctx, pause)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Drain stops all Serve calls, closes connections that wait for a request and
// those of UDP associations, which have no end of their own to wait for, and
// lets the others go on until ctx is done; then it cuts them: their handlers'
// contexts end and the client's connections are closed. It returns nil when
// nothing had to be cut, ctx's cause otherwise. No goroutine is left, unless a
// handler does not end within 2 s of that, which the error says.
func (s *Server) Drain(ctx context.Context) error { return s.drain(ctx, true) }

// Retire is Drain for a server that another one follows: it waits for UDP
// associations, too, and for the first request of connections that have just been
// accepted. The [Associator] should end those that are idle. Drain may
// be called meanwhile.
func (s *Server) Retire(ctx context.Context) error { return s.drain(ctx, false) }

func (s *Server) drain(ctx context.Context, associationsEnd bool) error {
	empty := s.close(associationsEnd)
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
	}
	s.cut()
	last := time.NewTimer(cutTime)
	defer last.Stop()
	select {
	case <-empty:
		return context.Cause(ctx)
	case <-last.C:
		return fmt.Errorf("connections still run %s after they were cut: %w", cutTime, context.Cause(ctx))
	}
}

func (s *Server) enter(ln *net.Listener, stop context.CancelFunc) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	if s.stops == nil {
		s.stops = make(map[*net.Listener]context.CancelFunc)
	}
	s.stops[ln] = stop
	return true
}

func (s *Server) leave(ln *net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.stops, ln)
}

// admit starts to serve conn where the bounds allow it.
func (s *Server) admit(ctx context.Context, ln net.Listener, conn net.Conn) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := newClient(conn, ln, cancel)
	if err := s.add(c); err != nil {
		cancel()
		_ = conn.Close()
		s.reportRefused(err, c.source)
		return
	}
	go s.serveClient(ctx, c)
}

func (s *Server) add(c *client) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		return ErrServerClosed
	case s.Room != nil && !s.Room.Acquire():
		return ErrTooMany
	case s.clients == nil:
		s.clients = make(map[*client]struct{})
	}
	s.clients[c] = struct{}{}
	return nil
}

func (s *Server) reportRefused(err error, source netip.AddrPort) {
	if !errors.Is(err, ErrTooMany) {
		return
	}
	if n, ok := s.full.pass(); ok {
		s.report(fmt.Errorf("%w: %d were refused", ErrTooMany, n), source)
	}
}

func (s *Server) remove(c *client) {
	c.cancel()
	_ = c.Close()
	if s.Room != nil {
		s.Room.Release()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
	if s.draining && len(s.clients) == 0 {
		close(s.empty)
	}
}

// close lets nobody in any more and sends away those who need not be waited for.
// The channel it returns is closed when the last client has left.
func (s *Server) close(associationsEnd bool) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.draining {
		s.draining = true
		s.empty = make(chan struct{})
		if len(s.clients) == 0 {
			close(s.empty)
		}
		for _, stop := range s.stops {
			stop()
		}
	}
	s.associationsEnd = s.associationsEnd || associationsEnd
	for c := range s.clients {
		// Where another server follows, a request of one that has just connected is
		// waited for: it may lie unread.
		if c.endless.Load() && (c.spoke.Load() || s.associationsEnd) || s.associationsEnd && c.association.Load() {
			_ = c.Close()
		}
	}
	return s.empty
}

func (s *Server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.clients {
		c.cancel()
		c.frail(true) // nobody who was promised a stream may take the cut for its end
		_ = c.Close()
	}
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

func (s *Server) endsAssociations() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.associationsEnd
}

func (s *Server) report(err error, source netip.AddrPort) {
	if s.Report != nil {
		s.Report(err, source)
	}
}

func (s *Server) handshake() time.Duration {
	if s.Handshake > 0 {
		return s.Handshake
	}
	return DefaultHandshake
}

func (s *Server) idle() time.Duration {
	if s.Idle > 0 {
		return s.Idle
	}
	return DefaultIdle
}

// serveClient is one connection from accept to its end.
func (s *Server) serveClient(ctx context.Context, c *client) {
	defer s.remove(c)
	request, err := s.negotiate(ctx, c)
	switch {
	case err != nil:
		s.turnAway(c, err)
	case request != nil:
		s.handle(ctx, c, request)
	}
}

// negotiate reads the client's request. Both results are nil when it was
// served on the way, as plain HTTP requests and UDP associations are.
func (s *Server) negotiate(ctx context.Context, c *client) (*transport.Request, error) {
	_ = c.SetDeadline(time.Now().Add(s.handshake()))
	first, err := c.peek()
	if err != nil {
		return nil, errQuiet // browsers connect ahead, scanners connect only
	}
	switch {
	case first == 0x05:
		r, err := readSOCKS5(c, s.Auth, s.Associator != nil)
		if err == nil && r.udp {
			s.associate(ctx, c, r)
			return nil, nil
		}
		return s.request(c, "socks5", r.dst, r.user, socks5Replies{}, err)
	case first == 0x04:
		dst, err := readSOCKS4(c, s.Auth)
		return s.request(c, "socks4", dst, "", socks4Replies{}, err)
	case 'a' <= first|0x20 && first|0x20 <= 'z':
		return s.serveHTTP(ctx, c)
	case first == 0x16: // TLS handshake record, RFC 8446 section 5.1
		return nil, ErrTLS
	default:
		return nil, fmt.Errorf("%w: first byte 0x%02x", ErrBadHandshake, first)
	}
}

// request ends a SOCKS handshake.
func (s *Server) request(c *client, inbound string, dst netaddr.Addr, user string, words replies, err error) (*transport.Request, error) {
	if err != nil {
		return nil, err
	}
	if c.isSelf(dst) {
		return nil, &refusal{words.failure(ErrLoop), ErrLoop}
	}
	_ = c.SetDeadline(time.Time{})
	return s.newRequest(c, inbound, dst, user, words), nil
}

func (s *Server) newRequest(c *client, inbound string, dst netaddr.Addr, user string, words replies) *transport.Request {
	return &transport.Request{
		Destination: dst,
		User:        user,
		Source:      c.source,
		Local:       c.self[1],
		Inbound:     inbound,
		Pending:     &pending{client: c, replies: words, within: s.handshake()},
	}
}

func (s *Server) turnAway(c *client, err error) {
	var owed *refusal
	if errors.As(err, &owed) {
		err = owed.err
	}
	if !errors.Is(err, errQuiet) {
		s.report(err, c.source)
	}
	if owed != nil {
		_ = c.closeWith(owed.reply)
	}
}

func (s *Server) handle(ctx context.Context, c *client, r *transport.Request) {
	answer := r.Pending
	s.Handler.HandleStream(ctx, r)
	_ = answer.Abort(errUnanswered) // ErrAnswered is the rule
}

// A throttle lets one event pass at once and then one per reportEvery.
type throttle struct {
	mu    sync.Mutex
	next  time.Time
	count int
}

// pass counts an event. Where it may pass it also returns how many came since
// the last that did, this one included.
func (t *throttle) pass() (n int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	now := time.Now()
	if now.Before(t.next) {
		return 0, false
	}
	n, t.count, t.next = t.count, 0, now.Add(reportEvery)
	return n, true
}
