package client

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/protocol/mux"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// A session is a stream in a Mux.Cool tunnel, which is guarded itself. The server
// has accepted the tunnel, so what fails of a session alone is its destination's,
// and is named as it is without Mux.
type session struct {
	sessionStream
	guard *guard
	dst   netaddr.Addr
	start time.Time
	page  bool // the application is told failures in words

	asked    atomic.Bool // the application said something and waits for an answer
	answered atomic.Bool
	owed     atomic.Bool           // nothing has come since the application wrote last
	failed   atomic.Pointer[error] // what reads return since the failure was named
}

// A sessionStream is what package mux makes.
type sessionStream interface {
	transport.StreamConn
	transport.ReadWaiter
	transport.Resetter
	transport.PeerWaiter
}

// dialSession opens a session.
func (g *guard) dialSession(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
	conn, err := g.sessions.DialStream(ctx, dst, first)
	if err != nil {
		return nil, err
	}
	s := &session{sessionStream: conn.(sessionStream), guard: g, dst: dst, start: g.now(), page: wantsErrorText(ctx)}
	s.asked.Store(len(first) > 0)
	return s, nil
}

// Read implements net.Conn.
func (s *session) Read(p []byte) (int, error) {
	if err := s.failed.Load(); err != nil {
		return 0, *err
	}
	n, err := s.sessionStream.Read(p)
	if n > 0 {
		set(&s.answered, true)
		set(&s.owed, false)
	}
	if err != nil {
		err = s.ended(err)
	}
	return n, err
}

// ended names the end of a session where it is the destination's failure.
func (s *session) ended(err error) error {
	var told *VerdictError
	facts := diagnose.DestinationFacts{After: s.guard.now().Sub(s.start), To: s.dst}
	switch {
	case errors.As(err, &told):
		return err
	case errors.Is(err, mux.ErrStalled):
		facts.End = diagnose.HeldUp
	case errors.Is(err, mux.ErrStuck):
		facts.End = diagnose.NotRead
	case errors.Is(err, mux.ErrFailed) && s.answered.Load():
		return &transport.AmbiguousEnd{Err: err} // as of a guarded stream
	case errors.Is(err, mux.ErrFailed), err == io.EOF && !s.answered.Load() && s.asked.Load():
		facts.End = diagnose.NoData
	default:
		return err
	}
	named := s.guard.destinationFailed(facts, err)
	if err == io.EOF && !s.page {
		named = io.EOF // for most applications an end like any other
	}
	s.failed.Store(&named)
	return named
}

// Write implements net.Conn.
func (s *session) Write(p []byte) (int, error) {
	if len(p) > 0 {
		set(&s.asked, true)
		set(&s.owed, true)
	}
	return s.sessionStream.Write(p)
}

// CloseWrite implements transport.StreamConn.
func (s *session) CloseWrite() error {
	s.asked.Store(false)
	return s.sessionStream.CloseWrite()
}
