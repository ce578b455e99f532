// Package mux carries many sessions over one stream by the frames of Mux.Cool,
// and one full-cone UDP association by XUDP, its form for datagrams
// (docs/protocol.md 10 and 11).
//
// A [Client] opens TCP and UDP sessions over tunnels that it dials as they are
// needed, an [XUDP] opens associations of a tunnel each, and a [Server] serves
// both. None knows what the tunnels are made of: any transport.StreamConn does.
//
// One tunnel has two goroutines, however many sessions it carries: one deals
// what arrives out to the sessions, one writes the frames that gathered
// meanwhile in one piece. What a session has received waits for its reader in
// a bounded queue; when that is full, the whole tunnel stops being read
// (Mux.Cool has no flow control of sessions), and the tunnel gets no new
// sessions. A session that holds others up so for 10 s is ended with
// [ErrStuck]. Datagrams that do not fit are dropped instead.
//
// Nobody sends KeepAlive frames to keep a tunnel alive: what lies below does
// that, and V2Ray ends a silent session whether its tunnel is busy or not. They
// are understood. A server that is about to stop sends one that is marked, and
// marks the Ends of the sessions that it does not take: a client of ours opens
// these again elsewhere ([Client.Again]), other clients ignore the mark. A server
// marks the End of a session that held others up, too ([ErrStalled]).
package mux

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"vmess-local/pkg/transport"
)

const (
	// maxFrame is the most payload of one stream frame that is written.
	maxFrame = 8192
	// maxPlainPacket is the largest datagram of a UDP session: V2Ray gives up
	// the whole tunnel at a larger one.
	maxPlainPacket = 2048
	// maxXrayPacket is the same of Xray's.
	maxXrayPacket = 8192
	// maxPacket is the largest datagram that our own ends exchange.
	maxPacket = 65497

	// maxSessions is how many sessions a client opens in a tunnel's lifetime,
	// as V2Ray has it.
	maxSessions = 128

	// stallLimit is how long a session may keep the tunnel from being read
	// while there are others.
	stallLimit = 10 * time.Second
	// endPatience is how long an answer may be silent before a client's
	// held-back End is sent.
	endPatience = 10 * time.Second
	// endGrace is how long a server's handler may take to wind up a session
	// that its client has ended.
	endGrace = 5 * time.Second
	// drainLimit bounds the writing of what a tunnel still has at its end.
	drainLimit = time.Second
	// tailLimit bounds the reading of a tunnel that takes no more bytes.
	tailLimit = 10 * time.Second
)

// Errors of sessions.
var (
	// ErrEnded is returned by writes to a session that the far end has ended in
	// order, and is the cause with which the context of a server's handler is
	// cancelled then.
	ErrEnded = errors.New("the mux session has ended")
	// ErrFailed is returned for a session that the far end ended because of an
	// error: the destination could not be reached, or broke off.
	ErrFailed = errors.New("the far end gave up the mux session")
	// ErrDraining is returned for a session that the server did not take because
	// it is about to stop: nothing of it was carried out.
	ErrDraining = errors.New("the server is about to stop and did not take the mux session")
	// ErrStuck is returned for a session that was ended because nobody took
	// what it had received while other sessions waited.
	ErrStuck = errors.New("the mux session held up the others of its tunnel")
	// ErrStalled is ErrStuck at the other end: the server ended the session because
	// the destination did not take what was sent while other sessions waited.
	ErrStalled = errors.New("the destination held up the other sessions of the tunnel, and the server ended this one")
	// ErrSilent is returned by reads of a client's session whose answer stayed
	// silent for 10 s after CloseWrite: then the End went out, and took the
	// answer's direction with it. Programs that just close their connection
	// cause it all the time: it is no failure of anything.
	ErrSilent = errors.New("the answer was silent for 10 s after the end of the request")

	errClosed      = fmt.Errorf("the mux session is closed: %w", net.ErrClosed)
	errSealed      = fmt.Errorf("write after the end: %w", net.ErrClosed)
	errEmptyPacket = fmt.Errorf("%w: it is empty", transport.ErrPacketDropped)
	errIdle        = errors.New("no session for too long")
	errTooMany     = errors.New("the peer opens sessions faster than it reads their ends")
	errReused      = errors.New("the peer opened a session that is open")
	errNoTarget    = errors.New("a mux session needs a destination")
)

// A TunnelError ends all sessions of a tunnel that broke. It wraps the cause,
// and is the same value for all of them.
type TunnelError struct {
	Err   error
	Owner any // of the Client or XUDP that dialled the tunnel
}

// Error implements error.
func (e *TunnelError) Error() string { return "the mux tunnel ended: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *TunnelError) Unwrap() error { return e.Err }

// unexpected turns an end where none may be into an error.
func unexpected(err error) error {
	var end *transport.AmbiguousEnd
	switch {
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	case errors.As(err, &end):
		return end.Err // sessions that are open are not whole
	}
	return err
}
