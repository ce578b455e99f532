package relay

import (
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"vmess-local/pkg/transport"
)

const (
	// watchFrom is how much goes up before its writer is watched: less fits in
	// the buffers of any system.
	watchFrom = 64 << 10
	// watchEvery is how often the local side of a write that does not come to
	// its end is looked at.
	watchEvery = time.Second
)

// An uploadWatchdog is the way up of a relay. While a write waits for a far end that
// takes nothing, nobody reads the local side, so nobody would notice that it
// broke off, and what is held for it would be held until the idle limit. So
// the local side is looked at then.
type uploadWatchdog struct {
	session *session
	local   transport.PeerResetter
	remote  io.Writer
	sent    int
	timer   *time.Timer  // nil below watchFrom
	awake   atomic.Bool  // the timer runs
	since   atomic.Int64 // the write under way began so long after the session; 0: none
}

// uploadWriter returns what the local side's bytes are written to.
func (s *session) uploadWriter() (w io.Writer, done func()) {
	local, ok := transport.As[transport.PeerResetter](s.local)
	if !ok {
		return s.remote, func() {}
	}
	watch := &uploadWatchdog{session: s, local: local, remote: s.remote}
	return watch, watch.stop
}

// Write implements io.Writer.
func (w *uploadWatchdog) Write(p []byte) (int, error) {
	w.begin(len(p))
	n, err := w.remote.Write(p)
	w.since.Store(0)
	return n, err
}

func (w *uploadWatchdog) begin(n int) {
	if w.sent += n; w.sent < watchFrom {
		return
	}
	w.sent = watchFrom
	w.since.Store(max(1, w.session.last.Load())) // the read before it
	switch {
	case w.timer == nil:
		w.awake.Store(true)
		w.timer = time.AfterFunc(watchEvery, w.look)
	case w.awake.CompareAndSwap(false, true):
		w.timer.Reset(watchEvery)
	}
}

// look ends the relay when the local side has broken off under a write that
// takes its time, and goes on looking while there is one.
func (w *uploadWatchdog) look() {
	since := w.since.Load()
	if since == 0 {
		w.awake.Store(false)
		// One that began meanwhile has not started the timer.
		if w.since.Load() == 0 || !w.awake.CompareAndSwap(false, true) {
			return
		}
	} else if time.Since(w.session.start)-time.Duration(since) >= watchEvery/2 && w.broken() {
		w.session.abort(&Error{Local, "read", syscall.ECONNRESET}, nil)
		return
	}
	if !w.session.torn.Load() {
		w.timer.Reset(watchEvery)
	}
}

// broken reports whether the local side has broken off. Who was told the end of
// the answer may have left in order, and what it sent before counts.
func (w *uploadWatchdog) broken() bool { return w.local.ResetByPeer() && !w.session.said.Load() }

func (w *uploadWatchdog) stop() {
	if w.timer != nil {
		w.timer.Stop()
	}
}
