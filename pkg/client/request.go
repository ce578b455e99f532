package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport/netaddr"
)

// silence is how long a first flight may stay unanswered on a server that is
// not known to accept us before somebody asks.
const silence = 3 * time.Second

// maxKept is the most payload that is kept until the first answer, so that a
// refused request can be sent again. A request that sent more is not repeated.
const maxKept = 16 << 10

// A request is one on its way to the server, as a guard judges it. Until the
// server has answered it authentically, it can be sent again in another
// connection: a refused request was never carried out.
type request struct {
	guard *guard
	impl  resender
	dst   netaddr.Addr // none for a tunnel that many share, and for datagrams
	start time.Time
	cold  bool // nobody had been accepted when it was dialled

	page  bool // the application is told failures in words
	named bool // that nothing answers is named: it is none of datagrams

	settled atomic.Bool // answered, or failed for good: the connection stays what it is
	closed  atomic.Bool

	mu     sync.Mutex
	flight transmission // the last
	said   time.Time    // when the application said something last
	lost   bool         // more was sent than is kept
	tries  int          // how often it was sent again
	fatal  error        // what reads and writes get once it failed for good
	timer  *time.Timer

	judging sync.Mutex                         // one judgement at a time
	redial  atomic.Pointer[context.CancelFunc] // ends a resend under way
}

// A transmission is one sending of a request.
type transmission struct {
	signed signature
	at     time.Time // when its first bytes were written, or a little before; zero: not yet
	early  bool      // it began as early data, and nothing proved that the server takes it
}

// A signature is how a request vouches for its user.
type signature struct {
	mode   vmess.Mode
	offset time.Duration
}

// A resender is what a request travels by. But for current and over, its methods
// are called when no other judgement is under way.
type resender interface {
	// current is the connection, which can be compared.
	current() any
	// over reports whether the connection's end mark is out.
	over() bool
	// resend puts a fresh connection in its place, and says what was said.
	resend() error
	// cut frees the connection's reader.
	cut()
	// forget gives up what was kept to be said again. It is called with the
	// lock held.
	forget()
}

// judge decides what becomes of a request whose connection c ended without an
// answer: nil when another connection has taken its place.
func (x *request) judge(c any, err error) error {
	ended := x.guard.now()
	x.judging.Lock()
	defer x.judging.Unlock()
	x.mu.Lock()
	fatal := x.fatal
	x.mu.Unlock()
	switch {
	case fatal != nil:
		return fatal
	case x.closed.Load():
		return err
	case x.impl.current() != c:
		return nil
	}
	if !refusedLike(err) {
		x.settle()
		return err
	}
	return x.act(x.guard.refused(x, err, ended))
}

// act does what the guard decided.
func (x *request) act(d decision) error {
	if d.again {
		err := x.impl.resend()
		if err == nil {
			return nil
		}
		if d.err == nil {
			d.err = err
		}
	}
	x.fail(d.err)
	return d.err
}

// refusedLike reports whether a connection that gave no answer ended as those
// of refused requests do: by a close or, with unread bytes left, a reset.
func refusedLike(err error) bool {
	return errors.Is(err, vmess.ErrNoAnswer) || errors.Is(err, vmess.ErrBadResponse) || diagnose.IsReset(err)
}

// silent is called when the first flight stayed unanswered.
func (x *request) silent() {
	if x.settled.Load() || x.closed.Load() {
		return
	}
	c := x.impl.current()
	d := x.guard.silent(x)
	if d.wait {
		return
	}
	x.judging.Lock()
	defer x.judging.Unlock()
	if x.settled.Load() || x.closed.Load() || x.impl.current() != c {
		return
	}
	if x.act(d) != nil {
		x.impl.cut() // frees the reader, which finds the verdict
	}
}

// settle ends the guarding.
func (x *request) settle() {
	if x.settled.Swap(true) {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.impl.forget()
	if x.timer != nil {
		x.timer.Stop()
	}
}

// fail ends the guarding with an error.
func (x *request) fail(err error) {
	x.mu.Lock()
	x.fatal = err
	x.mu.Unlock()
	x.settle()
}

// verdict returns what a read or write of a failed stream gets instead of err.
func (x *request) verdict(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.fatal != nil {
		return x.fatal
	}
	return err
}

// attempts returns how often the request was sent again.
func (x *request) attempts() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.tries
}

// sending returns how the request was sent last.
func (x *request) sending() transmission {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.flight
}

// sentAt returns when the request was sent last; what was never sent counts
// from its dial.
func (x *request) sentAt() time.Time {
	if at := x.sending().at; !at.IsZero() {
		return at
	}
	return x.start
}

// idle returns for how long the application has been waiting in silence.
func (x *request) idle(now time.Time) time.Duration {
	x.mu.Lock()
	said := x.said
	x.mu.Unlock()
	if at := x.sentAt(); at.After(said) {
		said = at
	}
	return now.Sub(said)
}

// speaks takes note that the application says something. It is called with the
// lock held, before that is written.
func (x *request) speaks() {
	x.said = x.guard.now()
	if x.flight.at.IsZero() { // it is sealed with what is written now
		x.flight.at, x.flight.signed.offset = x.said, x.guard.account.Offset()
	}
}

// repeatable reports whether the request can be sent again, which it may be so
// often in all.
func (x *request) repeatable(often int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return !x.lost && x.tries < often
}

var errNotKept = fmt.Errorf("%w, and too much was sent to send it again", vmess.ErrNoAnswer)
