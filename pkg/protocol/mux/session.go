package mux

import (
	"context"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// A session is one of a tunnel's, on either side.
type session struct {
	tunnel  *tunnel
	id      uint16
	network Network
	dst     netaddr.Addr
	cone    atomic.Bool // datagrams carry their addresses
	// patience is a client's: how long the answer may be silent before a
	// held-back End is sent.
	patience time.Duration
	cancel   context.CancelCauseFunc // ends a server's handler; nil on a client

	// With the tunnel locked.
	known       bool  // the New is queued or was: the peer knows the session
	sealed      bool  // only the End may follow
	ended       bool  // by the peer, and the handler has some time left
	over        error // why nothing can be written
	writeBy     deadline
	gracePeriod *time.Timer // until a server's handler is told to end

	mu      sync.Mutex
	arrived *sync.Cond
	queue   queue
	readErr error // what comes behind the queue
	readBy  deadline
	// While an End is held back:
	held     *time.Timer
	lastSign time.Time // of life of the answer
}

func newSession(t *tunnel, id uint16, network Network, dst netaddr.Addr) *session {
	s := &session{tunnel: t, id: id, network: network, dst: dst, queue: queue{held: &t.held}}
	s.arrived = sync.NewCond(&s.mu)
	return s
}

// put queues data and returns how much, waiting for room; none means that the
// session takes no more.
func (s *session) put(p []byte) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readErr == nil && s.queue.room() == 0 {
		s.tunnel.beginStall(s)
		for s.readErr == nil && s.queue.room() == 0 {
			s.arrived.Wait()
		}
		s.tunnel.endStall()
	}
	if s.readErr != nil {
		return 0
	}
	n := min(len(p), s.queue.room())
	s.queue.put(p[:n])
	s.notify()
	return n
}

// putPacket queues a datagram, unless there is no room.
func (s *session) putPacket(p []byte, addr netaddr.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readErr != nil || !s.queue.takes(len(p)) {
		return false
	}
	s.queue.putPacket(p, addr)
	s.notify()
	return true
}

// notify tells the reader that something arrived.
func (s *session) notify() {
	if s.held != nil {
		s.lastSign = time.Now()
	}
	s.arrived.Broadcast()
}

// await waits until there is something to read; the caller holds the lock.
func (s *session) await() error {
	for {
		switch {
		case s.readErr == errClosed:
			return errClosed
		case s.readBy.passed:
			return os.ErrDeadlineExceeded
		case !s.queue.empty():
			return nil
		case s.readErr != nil:
			return s.readErr
		}
		s.arrived.Wait()
	}
}

// read reads the bytes of a stream.
func (s *session) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.await(); err != nil {
		return 0, err
	}
	n := s.queue.get(p)
	if s.held != nil {
		s.lastSign = time.Now()
	}
	s.arrived.Broadcast() // there is room
	return n, nil
}

// write sends the bytes of a stream, and the New with the first of them.
func (s *session) write(p []byte) (total int, err error) {
	t := s.tunnel
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(p) > 0 || !s.known {
		n := min(len(p), maxFrame)
		if err := t.send(s, s.frame(n > 0), p[:n]); err != nil {
			return total, err
		}
		s.known = true
		total += n
		p = p[n:]
	}
	return total, nil
}

// frame is the next frame that goes out; the caller holds the tunnel's lock.
func (s *session) frame(data bool) Frame {
	f := Frame{Session: s.id, Status: StatusKeep, HasData: data}
	if !s.known {
		f.Status, f.Network, f.Address = StatusNew, s.network, s.dst
	}
	return f
}

// finish ends the reading: err comes behind what is queued.
func (s *session) finish(err error) {
	s.mu.Lock()
	if s.readErr == nil {
		s.readErr = err
	}
	s.releaseEnd()
	s.arrived.Broadcast()
	s.mu.Unlock()
}

// discard ends the reading at once.
func (s *session) discard(err error) {
	s.mu.Lock()
	s.readErr = err
	s.queue.drop()
	s.readBy.stop()
	s.releaseEnd()
	s.arrived.Broadcast()
	s.mu.Unlock()
}

func (s *session) releaseEnd() {
	if s.held != nil {
		s.held.Stop()
	}
}

// stopWriting ends the writing because the tunnel has ended; the caller holds
// its lock.
func (s *session) stopWriting(err error) {
	if s.over == nil {
		s.over = err
	}
	if s.cancel != nil {
		s.cancel(err)
	}
}

// peerEnded takes note of the peer's End.
func (s *session) peerEnded(f Frame) {
	t := s.tunnel
	t.mu.Lock()
	if !t.remove(s) {
		t.mu.Unlock()
		return
	}
	over, last := ErrEnded, io.EOF
	switch {
	case f.Draining && s.cancel == nil:
		over, last = ErrDraining, ErrDraining
	case f.Stalled && s.cancel == nil:
		over, last = ErrStalled, ErrStalled
	case f.Error:
		over, last = ErrFailed, ErrFailed
	}
	switch {
	case s.cancel == nil:
		s.over = over
	case f.Error || s.network == NetworkUDP:
		s.stopWriting(over)
	default:
		// What the client sent is still on its way to the destination: a reset
		// would take it.
		s.ended = true
		defer s.beginWindUp()
	}
	t.room.Broadcast()
	t.mu.Unlock()
	s.finish(last)
}

// beginWindUp gives the handler of a session that is over some time.
func (s *session) beginWindUp() {
	s.tunnel.mu.Lock()
	defer s.tunnel.mu.Unlock()
	if s.gracePeriod == nil {
		s.gracePeriod = time.AfterFunc(endGrace, s.timeUp)
	}
}

// timeUp ends the handler of a session that is over.
func (s *session) timeUp() {
	t := s.tunnel
	t.mu.Lock()
	defer t.mu.Unlock()
	s.stopWriting(ErrEnded)
	t.room.Broadcast()
}

// detach ends the session on this side: over is what writes get, and the peer
// hears of it if it knows the session.
func (s *session) detach(over error, failed bool) {
	t := s.tunnel
	t.mu.Lock()
	if s.over == nil {
		s.over = over
	}
	var err error
	if t.remove(s) && s.known {
		err = t.sendControl(Frame{Session: s.id, Status: StatusEnd, Error: failed, Stalled: over == ErrStuck && s.cancel != nil})
	}
	t.room.Broadcast()
	t.mu.Unlock()
	if err != nil {
		t.end(err, false)
	}
}

// close ends the session for good.
func (s *session) close(failed bool) {
	s.detach(errClosed, failed)
	s.tunnel.mu.Lock()
	s.writeBy.stop()
	if s.gracePeriod != nil {
		s.gracePeriod.Stop()
	}
	s.tunnel.mu.Unlock()
	if s.cancel != nil {
		s.cancel(errClosed)
	}
	s.discard(errClosed)
}

// stuck ends a session whose reader does not keep up.
func (s *session) stuck() {
	s.detach(ErrStuck, true)
	if s.cancel != nil {
		s.cancel(ErrStuck)
	}
	s.discard(ErrStuck)
}

// seal ends the writing of a stream.
func (s *session) seal() error {
	if s.cancel != nil {
		// The destination has ended: the answer is whole. Mux.Cool cannot go on
		// in the other direction.
		s.detach(errSealed, false)
		s.finish(io.EOF)
		s.beginWindUp()
		return nil
	}
	if _, err := s.write(nil); err != nil { // the New must not be held back with the End
		return err
	}
	s.tunnel.mu.Lock()
	s.sealed = true
	s.tunnel.room.Broadcast()
	s.tunnel.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil && s.readErr == nil {
		s.lastSign = time.Now()
		s.held = time.AfterFunc(s.patience, s.checkHeld)
	}
	return nil
}

// checkHeld sends a held-back End when the answer is silent.
func (s *session) checkHeld() {
	s.mu.Lock()
	if !s.queue.empty() {
		s.lastSign = time.Now() // what is there and not read is not silence
	}
	left := s.patience - time.Since(s.lastSign)
	over := s.readErr != nil
	if !over && left > 0 {
		s.held.Reset(left)
	}
	s.mu.Unlock()
	if !over && left <= 0 {
		s.detach(errSealed, false)
		s.finish(ErrSilent)
	}
}

func (s *session) setReadDeadline(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readErr != errClosed {
		s.readBy.set(s.arrived, at)
	}
}

func (s *session) setWriteDeadline(at time.Time) {
	s.tunnel.mu.Lock()
	defer s.tunnel.mu.Unlock()
	if s.over == nil {
		s.writeBy.set(s.tunnel.room, at)
	}
}

// readPacket reads a datagram; what does not fit p is lost.
func (s *session) readPacket(p []byte) (int, netaddr.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.await(); err != nil {
		return 0, netaddr.Addr{}, err
	}
	n, addr := s.queue.getPacket(p)
	return n, addr, nil
}

// readPacketPooled is readPacket with a buffer that is lent once there is one.
func (s *session) readPacketPooled() (*transport.Buffer, []byte, netaddr.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.await(); err != nil {
		return nil, nil, netaddr.Addr{}, err
	}
	b := transport.GetBuffer()
	n, addr := s.queue.getPacket(b[:])
	return b, b[:n], addr, nil
}
