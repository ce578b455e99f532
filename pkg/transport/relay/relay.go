// Package relay carries the bytes between the two streams of a request: the
// application's, or the client's on a server, and the one that leads to the
// destination.
package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
)

// ErrIdle ends a relay whose both directions were silent for too long.
var ErrIdle = errors.New("idle for too long")

// A Side is one of a relay's two.
type Side string

// The sides.
const (
	Local  Side = "local"
	Remote Side = "remote"
)

// An Error tells which side of a relay failed, at what.
type Error struct {
	Side Side
	Op   string // read, write or end
	Err  error
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("%s on the %s side: %v", e.Op, e.Side, e.Err)
}

// Unwrap returns the stream's own error.
func (e *Error) Unwrap() error { return e.Err }

// lingerLimit is how long the rest of an answer may stall after its stream
// stopped taking bytes: what was received before a close is still delivered,
// but nobody waits for ever for a far end that is gone.
const lingerLimit = time.Minute

// leaveLimit is how long a local side may take to leave once it was told that the
// remote side broke off.
const leaveLimit = 10 * time.Second

// maxRead is the most that is carried at a time: four full VMess chunks
// (docs/protocol.md 8), which fill a Buffer when they are sealed.
const maxRead = 4 * 16368

// never keeps a timer from firing until it is reset.
const never = time.Duration(math.MaxInt64)

// A Relay carries bytes both ways between two streams until both directions
// have ended. Its zero value works.
//
//   - The end of one direction (io.EOF) is passed on by CloseWrite; the other
//     goes on.
//   - An error while reading, or a far end that stopped reading what it is
//     sent, resets the other side, so that it sees an error and not an end.
//     That is no failure where the answer may be whole ([transport.EndsAnswer]).
//   - A side that has ended its direction, and then is gone altogether
//     ([transport.PeerWaiter], [transport.PeerCloser]), ends both in order: nobody waits for the rest of
//     the answer, nor can what is still sent arrive.
//   - A write error towards the answering side does not cut the answer: what
//     it sent before is delivered first.
type Relay struct {
	// Idle ends the relay with ErrIdle when neither direction moved a byte for
	// so long; 0 means never.
	Idle time.Duration
	// Up and Down, when not nil, count the bytes written to the remote and to
	// the local side while the relay runs.
	Up, Down *atomic.Int64
}

// An Outcome tells how a relay ended. UpErr and DownErr are nil for directions
// that ended in order.
type Outcome struct {
	Up, Down       int64         // bytes written to remote, to local
	IdleFor        time.Duration // from the last byte moved to the end
	UpErr, DownErr error
}

// Err returns what went wrong. A far end that has ended its answer in order owes
// nothing more: it is no failure that it takes no more bytes.
func (o Outcome) Err() error {
	var side *Error
	if o.DownErr != nil || errors.As(o.UpErr, &side) && side.Side == Remote {
		return o.DownErr
	}
	return o.UpErr
}

// Run relays until both directions have ended, ctx is cancelled, or the idle
// limit is met. Both streams are closed when it returns.
func (r Relay) Run(ctx context.Context, local, remote transport.StreamConn) Outcome {
	s := newSession(r, local, remote)
	defer s.timer.Stop()
	stop := context.AfterFunc(ctx, func() { s.abort(nil, context.Cause(ctx)) })
	defer stop()
	uploaded := make(chan error, 1)
	go s.upload(uploaded)
	s.download()
	lost := <-uploaded
	if s.broken.Load() != nil {
		s.awaitLeave()
	}
	return s.outcome(lost)
}

// A session is the state of one running relay.
type session struct {
	local, remote transport.StreamConn
	up, down      *atomic.Int64 // what each direction has moved
	up0, down0    int64         // and had before
	start         time.Time
	last          atomic.Int64  // time of the last byte moved, since start
	idle          time.Duration // limit without tail; 0: none
	lingering     atomic.Bool   // the remote takes no more bytes
	timer         *time.Timer

	said   atomic.Bool           // the local side is being told the end, or was
	over   atomic.Int32          // directions that are over, though the streams may be open
	broken atomic.Pointer[error] // the remote side broke off, and the local side is being told
	torn   atomic.Bool           // the streams are being closed, or were
	left   Poller                // for a local side that has left
	heard  atomic.Bool           // the local side is read though its direction is over
	sent   Poller                // for a local side that has yet to take the rest of the answer
	closed chan struct{}         // closed when both streams are
	// What the streams were closed for, nil for an orderly end. Valid once closed.
	upErr, downErr error
}

func newSession(r Relay, local, remote transport.StreamConn) *session {
	s := &session{local: local, remote: remote, up: r.Up, down: r.Down, idle: r.Idle, start: time.Now(), closed: make(chan struct{})}
	if s.up == nil {
		s.up = new(atomic.Int64)
	}
	if s.down == nil {
		s.down = new(atomic.Int64)
	}
	s.up0, s.down0 = s.up.Load(), s.down.Load()
	s.timer = time.AfterFunc(never, s.checkIdle)
	if r.Idle > 0 {
		s.timer.Reset(r.Idle)
	}
	return s
}

// outcome ends the session when both directions are over. lost is what upload
// told.
func (s *session) outcome(lost error) Outcome {
	quiet := s.quiet()
	s.finish()
	s.left.Stop()
	s.sent.Stop()
	<-s.closed
	o := Outcome{
		Up: s.up.Load() - s.up0, Down: s.down.Load() - s.down0, IdleFor: quiet,
		UpErr: cmp.Or(lost, s.upErr), DownErr: s.downErr,
	}
	if err := s.broken.Load(); err != nil && o.DownErr == nil {
		o.DownErr = *err
	}
	return o
}

// upload carries one direction. What it sends on done is a failure that does
// not end the other.
func (s *session) upload(done chan<- error) {
	up, stop := s.uploadWriter()
	rd, wr := s.copy(up, s.local, s.up, s.down)
	stop()
	op := "write"
	switch {
	case rd != nil && s.broken.Load() != nil:
		done <- nil
		return
	case rd != nil:
		// The local side broke off: the far end must not take it for an end.
		s.abort(&Error{Local, "read", rd}, nil)
		done <- nil
		return
	case wr == nil:
		op, wr = "end", s.remote.CloseWrite()
		if errors.Is(wr, errors.ErrUnsupported) {
			wr = nil
		}
	}
	var lost error
	if wr != nil && !s.torn.Load() && s.broken.Load() == nil { // the errors of torn streams say only that they were closed
		lost = &Error{Remote, op, wr}
		s.touch()
		s.lingering.Store(true)
		s.timer.Reset(s.limit())
	}
	w, waits := s.local.(transport.PeerWaiter)
	s.heard.Store(waits && lost == nil)
	switch {
	case s.broken.Load() != nil:
	case s.over.Add(1) == 2:
		s.finish() // nobody waits for a peer that is not needed
	default:
		s.attend(w)
	}
	done <- lost
}

// attend ends the session when the local side, whose direction is over, is gone
// altogether: a far end that stays silent would never notice that. A tunnel (w is
// not nil) is read meanwhile, so that its pings are answered and nothing lies
// unread when it is closed, which would reset it; but not one that was cut short:
// it may still send much, and nobody takes it.
func (s *session) attend(w transport.PeerWaiter) {
	switch {
	case w == nil:
		if _, ok := s.local.(transport.PeerCloser); !ok {
			return
		}
	case !s.heard.Load():
		return
	case w.WaitPeerClose():
		s.finish()
		return
	}
	s.left.Start(func() (again bool) {
		if transport.ResetByPeer(s.local) || transport.PeerClosed(s.local) {
			s.finish()
			return false
		}
		return true
	})
}

func (s *session) download() {
	rd, wr := s.copy(s.local, s.remote, s.down, s.up)
	switch {
	case wr != nil:
		s.abort(nil, &Error{Local, "write", wr})
		return
	case rd != nil && transport.EndsAnswer(rd, s.quiet()):
		s.abort(nil, nil)
		return
	case rd != nil:
		if err := error(&Error{Remote, "read", rd}); !s.markBroken(err) {
			s.abort(nil, err)
		}
		return
	}
	s.said.Store(true)
	if err := s.local.CloseWrite(); err != nil {
		// Without a half close the only way to say "ended" is to close.
		s.finish()
		return
	}
	if s.over.Add(1) == 2 {
		s.finishSent()
		return
	}
	if w, ok := s.remote.(transport.PeerWaiter); ok {
		_ = w.WaitPeerClose()
		s.finish() // nothing the local side still sends can arrive
	}
}

// finishSent ends the session behind the whole answer. While a tunnel that is read
// has yet to take some of that, it is not closed: the next ping on it would have the
// system reset it, and the rest be lost.
func (s *session) finishSent() {
	if !s.heard.Load() || transport.SendStateOf(s.local) != transport.SendBlocked {
		s.finish()
		return
	}
	_ = s.remote.Close()
	since := time.Now()
	s.sent.Start(func() (again bool) {
		if transport.SendStateOf(s.local) == transport.SendBlocked && time.Since(since) < lingerLimit {
			return true
		}
		s.finish()
		return false
	})
}

// markBroken has a local side that can mark it say that the remote side broke off,
// and reports whether it is understood: then the local side leaves, and is read
// until it has.
func (s *session) markBroken(err error) bool {
	m, ok := s.local.(transport.BreakMarker)
	if !ok || s.torn.Load() {
		return false
	}
	s.broken.Store(&err)
	if !m.MarkBroken() {
		return false
	}
	_ = transport.Reset(s.remote)
	_ = s.local.SetReadDeadline(time.Now().Add(leaveLimit))
	return true
}

// awaitLeave reads a local side that was told of a break until it leaves: what lay
// unread when it is closed would reset it, and take the mark with it.
func (s *session) awaitLeave() {
	in := newPooledReader(s.local)
	defer in.release()
	for {
		switch _, _, err := in.read(); err {
		case nil:
			continue
		case io.EOF: // of its direction alone
			if w, ok := s.local.(transport.PeerWaiter); ok {
				_ = w.WaitPeerClose()
			}
		}
		return
	}
}

// copy moves bytes until src ends (nil, nil) or one side fails.
func (s *session) copy(dst io.Writer, src transport.StreamConn, count, back *atomic.Int64) (readErr, writeErr error) {
	in, flow := newPooledReader(src), readCoalescer{back: back}
	defer in.release()
	for {
		buf, n, err := in.read()
		if n > 0 {
			at := s.touch()
			m, werr := dst.Write(buf[:n])
			count.Add(int64(m))
			s.touch()
			if werr != nil {
				return nil, werr
			}
			if err == nil && flow.shouldWait(n, at) {
				time.Sleep(coalesceDelay)
				flow.last = time.Since(s.start) // however long that took
			}
		}
		if err != nil {
			return endOf(err), nil
		}
		if n < maxRead/2 {
			in.release() // more is not at hand: the wait may be long
		}
	}
}

// A readCoalescer recognises a stream that comes in many small pieces, as V2Ray sends
// them. Reading each by itself costs two system calls a piece, so once a stream
// flows, the pieces of a moment are left to gather. What is alone is never held
// up, nor is a conversation: there the other direction moves, too. Where waiting
// makes the pieces no larger (TLS gives one record at a time) or the stream
// slower (whoever sends waits for us), it is tried again more and more seldom.
type readCoalescer struct {
	back   *atomic.Int64 // what the other direction has moved
	seen   int64         // of it, at the last piece
	last   time.Duration // when that was, or the wait behind it was over
	pieces int           // small ones in a row that were read without waiting
	bytes  int           // in those
	enough int           // of them make a stream; 0: gatherPieces
	slept  bool          // before the last piece
	full   bool          // the last piece filled the buffer
	since  time.Duration // when it was first looked at the pieces, or waited for them
	moved  int           // bytes since
	waits  int           // since
	rate   float64       // bytes per nanosecond while nothing waited
}

const (
	coalesceDelay   = time.Millisecond
	coalescePieces  = 16                   // in a row make a stream
	maxBackoff      = 1 << 14              // after waiting in vain, in the end
	coalesceSamples = 8                    // tell how fast the stream is with them
	coalesceGap     = 2 * time.Millisecond // and are no farther apart
	coalesceMinSize = 1 << 10              // nor smaller
)

// shouldWait takes note of a read of n bytes at a time, and reports whether the
// next should be left to gather.
func (g *readCoalescer) shouldWait(n int, at time.Duration) bool {
	g.moved += n
	if g.slept && g.wasFutile(n, at) {
		g.enough = min(4*max(g.enough, coalescePieces), maxBackoff)
		g.restart(at)
	}
	back := g.back.Load()
	rest := g.full // a piece behind a full read may be the rest of it
	if at-g.last > coalesceGap || n < coalesceMinSize && !rest || back != g.seen {
		g.restart(at)
	}
	g.last, g.seen, g.full = at, back, n == maxRead
	small, waited := n < maxRead/2, g.slept
	g.slept = small && g.pieces >= max(g.enough, coalescePieces)
	switch {
	case g.slept:
		g.wait(at)
	case small && !waited: // what is large says nothing of the pieces
		g.pieces++
		g.bytes += n
	}
	return g.slept
}

func (g *readCoalescer) restart(at time.Duration) {
	g.pieces, g.bytes = 0, 0
	g.since, g.moved, g.waits = at, 0, 0
}

// wait counts a wait; the first ends the time without.
func (g *readCoalescer) wait(at time.Duration) {
	if g.waits == 0 {
		g.rate = float64(g.moved) / float64(max(at-g.since, 1))
		g.since, g.moved = at, 0
	}
	g.waits++
}

// wasFutile reports whether the waiting was of no use, by a read of n bytes after it.
func (g *readCoalescer) wasFutile(n int, at time.Duration) bool {
	if n < 2*g.bytes/g.pieces {
		return true
	}
	if g.waits < coalesceSamples {
		return false
	}
	if rate := float64(g.moved) / float64(max(at-g.since, 1)); rate < g.rate/2 {
		return true
	}
	g.enough = coalescePieces
	g.since, g.moved, g.waits = at, 0, 1 // not 0: rate stays that without waiting
	return false
}

// pooledReader reads a stream with a buffer that is held only while much comes.
type pooledReader struct {
	src    transport.StreamConn
	lazy   transport.PooledReader
	waiter transport.ReadWaiter
	buf    *transport.Buffer
}

func newPooledReader(src transport.StreamConn) *pooledReader {
	l := &pooledReader{src: src}
	l.lazy, _ = src.(transport.PooledReader)
	l.waiter, _ = src.(transport.ReadWaiter)
	return l
}

// read returns the buffer with n bytes in it, which stays l's.
func (l *pooledReader) read() (buf *transport.Buffer, n int, err error) {
	switch {
	case l.buf != nil:
	case l.lazy != nil:
		l.buf, n, err = l.lazy.ReadPooled(0, maxRead)
		return l.buf, n, err
	case l.waiter != nil:
		_ = l.waiter.WaitRead() // Read tells the error in its own words
		l.buf = transport.GetBuffer()
	default:
		l.buf = transport.GetBuffer()
	}
	n, err = l.src.Read(l.buf[:maxRead])
	return l.buf, n, err
}

func (l *pooledReader) release() {
	if l.buf != nil {
		l.buf.Release()
		l.buf = nil
	}
}

func endOf(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

func (s *session) touch() time.Duration {
	at := time.Since(s.start)
	s.last.Store(int64(at))
	return at
}

// quiet is how long no byte has moved.
func (s *session) quiet() time.Duration { return time.Since(s.start) - time.Duration(s.last.Load()) }

// limit returns how long both directions may be silent; 0 is for ever.
func (s *session) limit() time.Duration {
	if s.lingering.Load() && (s.idle == 0 || s.idle > lingerLimit) {
		return lingerLimit
	}
	return s.idle
}

func (s *session) checkIdle() {
	for {
		limit := s.limit()
		left := limit - s.quiet()
		if left <= 0 && limit > 0 {
			s.abort(nil, ErrIdle)
			return
		}
		if limit == 0 {
			left = never
		}
		s.timer.Reset(left)
		if s.limit() == limit { // else upload set the timer for its tail meanwhile
			return
		}
	}
}

// abort tears both streams down so that neither side takes it for an end.
func (s *session) abort(upErr, downErr error) { s.end(upErr, downErr, transport.Reset) }

// finish closes both streams in order.
func (s *session) finish() { s.end(nil, nil, transport.StreamConn.Close) }

// end closes both streams, unless something else did or does: the errors that
// come of that are of no interest.
func (s *session) end(upErr, downErr error, how func(transport.StreamConn) error) {
	if !s.torn.CompareAndSwap(false, true) {
		return
	}
	defer close(s.closed)
	s.upErr, s.downErr = upErr, downErr
	_ = how(s.local)
	_ = how(s.remote)
}
