package socks

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

const (
	originIdle    = 30 * time.Second // unused connections to origins
	maxOriginIdle = 4                // of one client connection
	maxOriginHead = 256 << 10
	continueTime  = 2 * time.Second // for an origin's 100 before the body goes anyway
)

// An originRequest is what a dial must know of the request it is for: http.Transport
// detaches a dial's context from the request's and keeps its values only.
type originRequest struct {
	ctx  context.Context
	conn *httpConn
	dst  netaddr.Addr
}

type errandKey struct{}

// newOrigins makes the connections to the origins of one client connection.
// Not one pool for all: logins that hold for a connection (NTLM, Negotiate)
// may not be shared, and origins see the connection end with the client's.
func (s *Server) newOrigins() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext:            s.dialOrigin,
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConns:           maxOriginIdle,
		MaxIdleConnsPerHost:    1, // requests of one client come one by one
		IdleConnTimeout:        originIdle,
		ExpectContinueTimeout:  continueTime,
		MaxResponseHeaderBytes: maxOriginHead,
	}
}

func (h *httpConn) closeOrigins() {
	if h.origins != nil {
		h.origins.CloseIdleConnections() // and those that become idle
	}
}

func (s *Server) dialOrigin(ctx context.Context, _, _ string) (net.Conn, error) {
	e := ctx.Value(errandKey{}).(originRequest)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	give, err := s.originRoom(e.conn)
	if err != nil {
		return nil, &streamError{err}
	}
	conn, err := s.Dialer.DialStream(ctx, e.dst, nil)
	if err != nil {
		give()
		return nil, &streamError{err}
	}
	return newOriginConn(conn, s.idle(), give), nil
}

// originRoom counts a client's connection to an origin in, and gives up those
// that are kept if there is no room for both. The first has its room with the
// client.
func (s *Server) originRoom(h *httpConn) (give func(), err error) {
	leave := func() { h.held.Add(-1) }
	if h.held.Add(1) == 1 || s.OriginRoom == nil {
		return leave, nil
	}
	if !s.OriginRoom.Acquire() {
		h.origins.CloseIdleConnections()
		if h.held.Load() == 1 {
			return leave, nil
		}
		if !s.OriginRoom.Acquire() {
			leave()
			return nil, ErrTooMany
		}
	}
	return func() { leave(); s.OriginRoom.Release() }, nil
}

// A streamError is an error of a stream to an origin, which its dialer has
// reported; other errors of http.Transport are about what came through it.
type streamError struct{ err error }

func (e *streamError) Error() string { return e.err.Error() }
func (e *streamError) Unwrap() error { return e.err }

// errIdle ends a stream through which nothing came for too long.
var errIdle = errors.New("no byte moved for too long")

// An originConn is a connection to an origin. It closes itself when it moved no
// byte for a while. A timer looks from time to time, so that reads and writes
// cost nothing.
type originConn struct {
	transport.StreamConn
	limit time.Duration
	moved atomic.Bool
	idled atomic.Bool
	timer *time.Timer
	once  sync.Once
	gone  func()

	begun bool   // the first bytes were looked at; of the reader
	rest  []byte // to be read before what comes; of the reader
}

// newOriginConn makes an originConn; gone is called when it is closed.
func newOriginConn(conn transport.StreamConn, limit time.Duration, gone func()) *originConn {
	c := &originConn{StreamConn: conn, limit: limit, gone: gone}
	c.timer = time.AfterFunc(1<<63-1, c.look)
	c.timer.Reset(limit) // look reads timer
	return c
}

func (c *originConn) look() {
	if c.moved.Swap(false) {
		c.timer.Reset(c.limit)
		return
	}
	c.idled.Store(true)
	_ = c.close()
}

// icy begins an answer of SHOUTcast's, which is one of HTTP/1.0 else.
const icy, icyMeans = "ICY ", "HTTP/1.0 "

func (c *originConn) Read(p []byte) (int, error) {
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	n, err := c.read(p)
	if c.begun || n == 0 {
		return n, err
	}
	c.begun = true
	first := append([]byte(nil), p[:min(n, len(icy))]...)
	for err == nil && len(first) < len(icy) && strings.HasPrefix(icy, string(first)) {
		var more [len(icy)]byte
		var m int
		m, err = c.read(more[:len(icy)-len(first)])
		first = append(first, more[:m]...)
	}
	switch {
	case string(first) == icy:
		c.rest = append([]byte(icyMeans), p[min(n, len(icy)):n]...)
	case len(first) > n:
		c.rest = first
	default:
		return n, err
	}
	n = copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil // an error comes again
}

func (c *originConn) read(p []byte) (int, error) {
	n, err := c.StreamConn.Read(p)
	if n > 0 {
		c.moved.Store(true)
	}
	return n, c.named(err)
}

func (c *originConn) Write(p []byte) (int, error) {
	n, err := c.StreamConn.Write(p)
	if n > 0 {
		c.moved.Store(true)
	}
	return n, c.named(err)
}

// named marks errors of the stream, as opposed to its clean end.
func (c *originConn) named(err error) error {
	switch {
	case err == nil:
		return nil
	case c.idled.Load():
		return errIdle
	case err == io.EOF:
		return err
	}
	return &streamError{err}
}

func (c *originConn) Close() error {
	c.timer.Stop()
	return c.close()
}

func (c *originConn) close() error {
	err := c.StreamConn.Close()
	c.once.Do(c.gone)
	return err
}
