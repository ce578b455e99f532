package wsconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/gorilla/websocket"
)

// Errors of established connections, wrapped with the operation.
var (
	// ErrNoClose ends a stream whose connection ended without a close frame.
	ErrNoClose = fmt.Errorf("connection ended without a close frame: %w", io.ErrUnexpectedEOF)
	// ErrPingTimeout ends a stream on which pings stayed without an answer: two
	// of the regular ones or of those on behalf of a request that waits, or that
	// of a [Group.Check].
	ErrPingTimeout = errors.New("no answer to pings")
	// ErrBadFrame ends a stream whose far end broke RFC 6455.
	ErrBadFrame = errors.New("bad WebSocket frame")
	// ErrEnded answers a Write after a close frame has been sent, which the
	// far end's close frame or [ErrBadFrame] brings about.
	ErrEnded = errors.New("the WebSocket has ended")
)

// ErrClosedEarly means that the connection was closed or reset before the
// server had answered the upgrade request. It is wrapped beside the cause.
var ErrClosedEarly = errors.New("connection closed before the answer")

// A CloseError is the far end's close frame with a code that is no orderly
// end, that is none of 1000 (normal), 1001 (going away) and 1005 (no code).
type CloseError struct {
	Code int    // RFC 6455 section 7.4
	Text string // the reason the far end gives, at most 123 bytes; may be empty
}

// Error leaves the reason out: it may repeat what the far end was sent.
func (e *CloseError) Error() string {
	return "closed by the far end with code " + strconv.Itoa(e.Code)
}

// A HandshakeError is an HTTP answer to the upgrade request that did not
// upgrade. Its Status is 101 when only the answer's headers are wrong.
type HandshakeError struct {
	Status int
	Header http.Header // a copy
	Body   []byte      // the start of the body, at most 1 KiB; it may repeat what was sent
	Err    error       // gorilla's ErrBadHandshake, or why the headers are wrong
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("websocket upgrade: the server answered %d %s", e.Status, http.StatusText(e.Status))
}

// Unwrap returns Err.
func (e *HandshakeError) Unwrap() error { return e.Err }

// Server returns the name the answering program gives itself, or "".
func (e *HandshakeError) Server() string { return e.Header.Get("Server") }

// Location returns where a redirect points to, or "".
func (e *HandshakeError) Location() string { return e.Header.Get("Location") }

// Date returns the answering program's clock, if it told one.
func (e *HandshakeError) Date() (time.Time, bool) { return headerDate(e.Header) }

func headerDate(h http.Header) (time.Time, bool) {
	t, err := http.ParseTime(h.Get("Date"))
	return t, err == nil
}

// A ProtocolError means that the server's answer to the upgrade request was
// not HTTP, or not HTTP as it should be.
type ProtocolError struct {
	Seen []byte // the first bytes received, at most 64
	Err  error  // what is wrong with them
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("websocket upgrade: not an HTTP answer: %v", e.Err)
}

// Unwrap returns Err.
func (e *ProtocolError) Unwrap() error { return e.Err }

// A TimeoutError means that the server did not answer the upgrade request in
// time. It is context.DeadlineExceeded and os.ErrDeadlineExceeded.
type TimeoutError struct {
	After time.Duration // how long was waited
}

func (e *TimeoutError) Error() string {
	return "websocket upgrade: no answer within " + spoken(e.After)
}

// spoken writes a duration as people do: "10 s", "350 ms".
func spoken(d time.Duration) string {
	if d >= time.Second {
		return strconv.FormatFloat(d.Round(100*time.Millisecond).Seconds(), 'f', -1, 64) + " s"
	}
	return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
}

// Is answers for both errors that mean a passed deadline.
func (e *TimeoutError) Is(target error) bool {
	return target == context.DeadlineExceeded || target == os.ErrDeadlineExceeded
}

// Timeout implements net.Error.
func (e *TimeoutError) Timeout() bool { return true }

// Temporary implements net.Error.
func (e *TimeoutError) Temporary() bool { return false }

// closeErrorOf turns the code of a received close frame into the stream's end.
func closeErrorOf(e *websocket.CloseError) error {
	switch e.Code {
	case websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseNoStatusReceived:
		return io.EOF
	}
	return &CloseError{Code: e.Code, Text: e.Text}
}
