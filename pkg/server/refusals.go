package server

import (
	"log/slog"
	"net"
	"sync"
	"time"

	"vmess-local/pkg/cli/logging"
)

const (
	refusalFold    = time.Minute // refusals are counted for so long
	refusalsTold   = 10          // of one reason within it are told one by one
	refusalReasons = 16          // told apart; all others count as one
)

// otherReasons stands for what is beyond refusalReasons.
const otherReasons = "various reasons"

// A refusals tells refused requests to people: the first of each reason one by
// one, in the words that V2Ray's users know, and of a flood how many more there
// were. Whoever can reach the port must not fill the log.
type refusals struct {
	log *slog.Logger

	mu     sync.Mutex
	told   map[string]*refusal
	closed bool
}

// A refusal is a reason that was met a moment ago.
type refusal struct {
	reason string
	since  time.Time
	count  int
	last   net.Addr
	timer  *time.Timer
}

func newRefusals(log *slog.Logger) *refusals {
	return &refusals{log: log, told: map[string]*refusal{}}
}

// tell is told of each refusal at once. The peer is still held then.
func (r *refusals) tell(from net.Addr, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	t := r.of(err.Error())
	t.count++
	t.last = from
	if t.count <= refusalsTold {
		r.log.Warn("rejected", logging.Text("rejected a connection from %s: %v", from, err), "from", from.String(), "err", err)
	}
}

// of returns what is known of a reason.
func (r *refusals) of(reason string) *refusal {
	if t := r.told[reason]; t != nil {
		return t
	}
	if len(r.told) >= refusalReasons {
		if reason = otherReasons; r.told[reason] != nil {
			return r.told[reason]
		}
	}
	t := &refusal{reason: reason, since: time.Now()}
	t.timer = time.AfterFunc(refusalFold, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.closed {
			r.sum(t)
			delete(r.told, reason)
		}
	})
	r.told[reason] = t
	return t
}

// sum tells how many more there were than were told.
func (r *refusals) sum(t *refusal) {
	more := t.count - refusalsTold
	if more <= 0 {
		return
	}
	r.log.Warn("rejected", logging.Text("rejected %d more requests in the last %.0f s (%s), most recently from %s", more, time.Since(t.since).Seconds(), t.reason, t.last),
		"from", t.last.String(), "err", t.reason, "count", more)
}

// close tells what was not told yet, and then nothing any more.
func (r *refusals) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, t := range r.told {
		t.timer.Stop()
		r.sum(t)
	}
}
