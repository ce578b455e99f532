package mux

import (
	"io"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
)

const (
	// never keeps a timer from firing until it is reset.
	never = time.Duration(math.MaxInt64)
	// maxControl bounds the frames without data that wait: more means that the
	// peer makes us write what it does not read.
	maxControl = 64 << 10
	// maxUnknown is up to where frames of unknown sessions are answered.
	maxUnknown = 1 << 10
)

// A role is what client and server do differently.
type role interface {
	// opened takes a New; the data behind it is not read yet.
	opened(f Frame) error
	// idleLimit is how long the tunnel may be without sessions. It is called
	// with the tunnel locked.
	idleLimit() time.Duration
	// ended is called once, when the tunnel takes no more sessions.
	ended()
	// drains is called when the peer says that it takes no more sessions.
	drains()
}

// A tunnel carries sessions over one stream.
type tunnel struct {
	side    role
	conn    transport.StreamConn
	in      *Reader
	owner   any           // a Client's
	dropped *atomic.Int64 // counts datagrams that found no room; may be nil

	held      atomic.Int64            // blocks in the queues of all sessions
	stalled   atomic.Pointer[session] // the session that keeps in from being read
	stalledAt atomic.Int64            // since when, Unix nanoseconds
	stall     *time.Timer
	idle      *time.Timer
	loops     *sync.WaitGroup // of readLoop and writeLoop

	mu       sync.Mutex
	room     *sync.Cond // for writers: there is room in out, or a session is over
	work     *sync.Cond // for writeLoop
	sessions map[uint16]*session
	out      *transport.Buffer // frames with data that wait to be written; nil: none
	n        int               // bytes in out
	control  []byte            // frames that go behind out
	err      *TunnelError      // why it takes no more sessions nor bytes
	done     bool              // nothing is read any more, either
	orderly  bool              // out and control are still written then
	clean    bool              // it was orderly, and had no sessions
	used     bool              // something was written
	drained  bool              // a client's: the server takes no more sessions
}

func newTunnel(s role, loops *sync.WaitGroup, dropped *atomic.Int64) *tunnel {
	t := &tunnel{side: s, loops: loops, dropped: dropped, sessions: make(map[uint16]*session)}
	t.room, t.work = sync.NewCond(&t.mu), sync.NewCond(&t.mu)
	t.stall = time.AfterFunc(never, t.checkStall)
	t.idle = time.AfterFunc(never, t.expire)
	return t
}

// start gives the tunnel its stream, unless it has ended before. The caller
// runs readLoop then.
func (t *tunnel) start(conn transport.StreamConn) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return t.err
	}
	t.conn, t.in = conn, NewReader(conn)
	t.loops.Add(2)
	go t.writeLoop()
	return nil
}

// readLoop deals out what arrives, until the tunnel has ended.
func (t *tunnel) readLoop() {
	defer t.loops.Done()
	err := t.readFrames()
	t.in.release()
	t.end(err, err == io.EOF)
}

func (t *tunnel) readFrames() error {
	for {
		f, err := t.in.Next()
		if err != nil {
			return err
		}
		switch f.Status {
		case StatusNew:
			err = t.side.opened(f)
		case StatusKeep:
			err = t.keep(f)
		case StatusEnd:
			err = t.peerEnd(f)
		case StatusKeepAlive:
			if f.Draining {
				t.side.drains()
			}
		}
		if err != nil {
			return err
		}
	}
}

func (t *tunnel) find(id uint16) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sessions[id]
}

func (t *tunnel) keep(f Frame) error {
	if s := t.find(f.Session); s != nil {
		return t.deliver(s, f)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.control) < maxUnknown {
		return t.sendEnd(f.Session, false)
	}
	return nil
}

func (t *tunnel) peerEnd(f Frame) error {
	s := t.find(f.Session)
	if s == nil {
		return nil
	}
	if err := t.deliver(s, f); err != nil {
		return err
	}
	if f.Draining {
		t.side.drains()
	}
	s.peerEnded(f)
	return nil
}

// deliver moves the data of a frame to its session.
func (t *tunnel) deliver(s *session, f Frame) error {
	if s.network == NetworkUDP {
		return t.deliverPacket(s, f)
	}
	for t.in.left > 0 {
		p, err := t.in.some()
		if err != nil {
			return err
		}
		n := s.put(p)
		if n == 0 {
			return nil // nobody wants it
		}
		t.in.take(n)
	}
	return nil
}

func (t *tunnel) deliverPacket(s *session, f Frame) error {
	if t.in.left == 0 {
		return nil
	}
	p, err := t.in.need(t.in.left)
	if err != nil {
		return unexpected(err)
	}
	addr := s.dst
	if f.Network == NetworkUDP && f.Address.IsValid() {
		addr = f.Address
		if f.Status == StatusKeep {
			s.cone.Store(true)
		}
	}
	if !s.putPacket(p, addr) && t.dropped != nil {
		t.dropped.Add(1)
	}
	t.in.take(len(p))
	return nil
}

// beginStall takes note that s keeps the tunnel from being read.
func (t *tunnel) beginStall(s *session) {
	t.stalledAt.Store(time.Now().UnixNano())
	t.stalled.Store(s)
	t.stall.Reset(stallLimit)
}

func (t *tunnel) endStall() {
	t.stalled.Store(nil)
	t.stall.Stop()
}

// checkStall ends the session that has kept others waiting for too long.
func (t *tunnel) checkStall() {
	s := t.stalled.Load()
	if s == nil {
		return
	}
	left := stallLimit - time.Since(time.Unix(0, t.stalledAt.Load()))
	if left <= 0 && t.live() < 2 {
		left = stallLimit // nobody waits for it
	}
	if left > 0 {
		t.stall.Reset(left)
		return
	}
	s.stuck()
}

func (t *tunnel) live() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.sessions)
}

// add opens a session of an id that is free; the caller holds the lock.
func (t *tunnel) add(s *session) {
	t.idle.Stop()
	t.sessions[s.id] = s
}

// remove forgets a session and reports whether it was known; the caller holds
// the lock.
func (t *tunnel) remove(s *session) bool {
	if t.sessions[s.id] != s {
		return false
	}
	delete(t.sessions, s.id)
	if len(t.sessions) == 0 {
		t.idle.Reset(t.side.idleLimit())
		t.work.Signal() // a broken tunnel is closed then
	}
	return true
}

// sendEnd queues an End; the caller holds the lock.
func (t *tunnel) sendEnd(id uint16, failed bool) error {
	return t.sendControl(Frame{Session: id, Status: StatusEnd, Error: failed})
}

// sendControl queues a frame without data; the caller holds the lock.
func (t *tunnel) sendControl(f Frame) error {
	if t.err != nil {
		return nil
	}
	if len(t.control) > maxControl {
		return errTooMany
	}
	t.control = f.Append(t.control, nil)
	t.work.Signal()
	return nil
}

// send queues a frame of s with data, waiting for room. The caller holds the
// lock.
func (t *tunnel) send(s *session, f Frame, data []byte) error {
	for {
		switch {
		case s.over != nil:
			return s.over
		case s.sealed:
			return errSealed
		case s.writeBy.passed:
			return os.ErrDeadlineExceeded
		case !s.ended && transport.BufferSize-t.n >= maxOverhead+len(data):
			if t.out == nil {
				t.out = transport.GetBuffer()
			}
			t.n = len(f.Append(t.out[:t.n], data))
			t.work.Signal()
			return nil
		}
		t.room.Wait()
	}
}

// writeLoop writes what is queued, and at last closes the stream.
func (t *tunnel) writeLoop() {
	defer t.loops.Done()
	if err := t.writeFrames(); err != nil {
		t.breakOff(err)
		_ = transport.Reset(t.conn)
		return
	}
	if t.used {
		_ = t.conn.CloseWrite()
	}
	_ = t.conn.Close()
}

// writeFrames returns nil when the tunnel has ended, with everything written
// if that is wanted.
func (t *tunnel) writeFrames() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		for t.n == 0 && len(t.control) == 0 && !t.done {
			t.work.Wait()
		}
		if t.n == 0 && len(t.control) == 0 || t.done && !t.orderly {
			return nil
		}
		if err := t.writeBatch(); err != nil {
			return err
		}
	}
}

// writeBatch writes what is queued now.
func (t *tunnel) writeBatch() error {
	out, n, control := t.out, t.n, t.control
	if out == nil {
		out = transport.GetBuffer()
	}
	defer out.Release()
	m := copy(out[n:], control)
	t.out, t.n, t.control, t.used = nil, 0, nil, true
	t.room.Broadcast()
	t.mu.Unlock()
	_, err := t.conn.Write(out[:n+m])
	if err == nil && m < len(control) {
		_, err = t.conn.Write(control[m:])
	}
	t.mu.Lock()
	if t.control == nil {
		t.control = control[:0]
	}
	return err
}

// breakOff ends the writing. What still arrives for sessions is dealt out
// before the stream is closed.
func (t *tunnel) breakOff(err error) {
	_ = t.conn.SetReadDeadline(time.Now().Add(tailLimit))
	t.mu.Lock()
	first := t.cease(err)
	if first {
		t.mu.Unlock()
		t.side.ended()
		t.mu.Lock()
	}
	for !t.done && len(t.sessions) > 0 {
		t.work.Wait()
	}
	t.mu.Unlock()
}

// cease makes the tunnel take nothing more and reports whether it did before;
// the caller holds the lock.
func (t *tunnel) cease(err error) (first bool) {
	if t.err != nil {
		return false
	}
	t.err = &TunnelError{unexpected(err), t.owner}
	for _, s := range t.sessions {
		s.stopWriting(t.err)
	}
	t.room.Broadcast()
	return true
}

// end ends the tunnel and its sessions. When it is orderly, what is queued is
// written before the stream is closed.
func (t *tunnel) end(err error, orderly bool) {
	t.mu.Lock()
	t.endLocked(err, orderly)
}

// expire ends a tunnel that has had no sessions for a while.
func (t *tunnel) expire() {
	t.mu.Lock()
	if len(t.sessions) > 0 || t.err != nil {
		t.mu.Unlock()
		return
	}
	t.endLocked(errIdle, true)
}

// endLocked is end for who holds the lock, which it releases.
func (t *tunnel) endLocked(err error, orderly bool) {
	if t.done {
		t.mu.Unlock()
		return
	}
	first := t.cease(err)
	t.done, t.orderly = true, orderly && first
	sessions := t.sessions
	t.clean = t.orderly && len(sessions) == 0
	t.sessions = make(map[uint16]*session)
	t.idle.Stop()
	t.work.Signal()
	conn, orderly := t.conn, t.orderly
	var last error = t.err
	if t.drained && err == io.EOF {
		// The server has ended every session that it took.
		last = ErrDraining
	}
	t.mu.Unlock()
	for _, s := range sessions {
		s.finish(last)
	}
	t.endStall()
	if first {
		t.side.ended()
	}
	switch {
	case conn == nil:
	case orderly:
		_ = conn.SetWriteDeadline(time.Now().Add(drainLimit))
	default:
		_ = transport.Reset(conn)
	}
}
