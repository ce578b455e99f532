package wsconn

import (
	"errors"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// maxMissed is how many pings may stay without an answer.
const maxMissed = 2

// muchWritten is how many bytes at least may be waiting where a far end does
// not take them: less fits in its own buffers and the destination's.
const muchWritten = 32 << 10

// checkPause is how long a check listens before it pings.
const checkPause = time.Second

// pongUsual is longer than the answer to a ping usually takes.
const pongUsual = time.Second

// A pinger pings when nothing was received for a while, and ends the Conn
// when it has missed the answers although somebody was reading and nothing
// that was written stood before the pings. While nobody reads it does not
// ping: the answer could not be read, and where what comes is held up as well
// V2Ray, which gives an answer a second to be written, would end the
// connection. It has one timer, which reading does not touch.
type pinger struct {
	conn    *Conn
	every   time.Duration
	group   *Group // nil without
	start   time.Time
	heard   atomic.Int64 // nanoseconds since start of the last receipt
	asked   atomic.Int64 // and of the first Write since then
	pinged  atomic.Int64 // and of the first ping since then
	open    atomic.Bool  // payload was written, and none was received since
	armed   atomic.Bool  // the timer is set for a request
	reading atomic.Bool  // somebody waits for the connection below
	sending atomic.Bool  // a ping is being written
	proof   readProof

	mu      sync.Mutex
	timer   *time.Timer // nil once stopped
	due     int64       // when it fires, nanoseconds since start
	regular int64       // when the regular pings are looked at next
	seen    int64       // heard when judged last
	missed  int         // pings since then
	watch   requestWatch
}

// never is a time that does not come.
const never = int64(math.MaxInt64)

// startPinger starts the pings of c; with every 0 there are none but those of
// check.
func startPinger(c *Conn, every time.Duration, group *Group) *pinger {
	p := &pinger{conn: c, every: every, group: group, start: time.Now(), due: never, regular: never}
	p.mu.Lock() // the timer may fire before it is stored
	defer p.mu.Unlock()
	if every > 0 {
		p.due, p.regular = int64(every), int64(every)
	}
	if every > 0 || p.monitor() != nil {
		p.timer = time.AfterFunc(time.Duration(p.due), p.tick)
	}
	return p
}

// now returns the time since the start.
func (p *pinger) now() int64 { return max(1, int64(time.Since(p.start))) }

// wake has the timer fire at a time at the latest. It is called with the lock
// held.
func (p *pinger) wake(at int64) {
	if p.timer != nil && at < p.due {
		p.due = at
		p.timer.Reset(max(0, time.Duration(at-int64(time.Since(p.start)))))
	}
}

// hear notes that something was received.
func (p *pinger) hear() { p.heard.Store(p.now()) }

// pong is gorilla's pong handler.
func (p *pinger) pong(payload string) error {
	p.proof.pong(payload)
	if p.group != nil && !p.group.ponged.Load() {
		p.group.ponged.Store(true)
	}
	return nil
}

// heldUp reports whether the far end may be unable to answer.
func (p *pinger) heldUp() bool { return p.conn.sendBlocked(p.conn.begun.Load() - p.proof.bytes()) }

// stop stops the pings; p may be nil.
func (p *pinger) stop() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}

func (p *pinger) tick() {
	request, regular := p.judge()
	switch regular {
	case pingDue:
		if request == pingNone {
			p.send(p.every)
		}
	case pingDead:
		p.dead()
		return
	}
	if request != pingNone {
		p.act(request)
	}
}

// dead ends the Conn.
func (p *pinger) dead() {
	p.stop()
	p.conn.pingTimedOut.Store(true)
	p.conn.closed.Store(true)
	_ = p.conn.abort()
}

// check ends the Conn when nothing is heard within a time, a ping's answer at
// least, although somebody reads.
func (p *pinger) check(within time.Duration) {
	heard := p.heard.Load()
	unheard := func() bool { return p.reading.Load() && p.heard.Load() == heard && !p.conn.closed.Load() }
	pause := min(checkPause, within/2)
	time.AfterFunc(pause, func() {
		if !unheard() {
			return
		}
		time.AfterFunc(within-pause, func() {
			if unheard() && !p.heldUp() && p.trusted() {
				p.dead()
			}
		})
		p.send(within)
	})
}

type pingVerdict uint8

const (
	pingNone pingVerdict = iota
	pingDue
	pingDead
	requestWaits
	requestDoubt
	requestSilent
	requestGone
)

// judge decides what is to be done now and sets the timer for the next time.
func (p *pinger) judge() (request, regular pingVerdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer == nil {
		return pingNone, pingNone
	}
	p.due = never
	now, heard := p.now(), p.heard.Load()
	if heard != p.seen {
		p.seen, p.missed = heard, 0
		p.watch.stage, p.watch.pause, p.watch.rests = stageNone, 0, 0
	}
	request = p.judgeRequest(now)
	if p.every > 0 {
		if regular = p.judgeRegular(now, heard); regular == pingDue && p.requestOpen() {
			p.beginCheck(now) // with that ping
		}
		p.wake(p.regular)
	}
	return request, regular
}

// requestOpen reports whether a request waits that is not being checked: for so
// long that a ping was answered meanwhile. It is called with the lock held.
func (p *pinger) requestOpen() bool {
	return p.monitor() != nil && (p.open.Load() || p.group.Shared) && p.watch.stage == stageNone
}

// judgeRegular decides about the regular pings. An eighth too early is in time,
// so that an idle connection wakes up once a period though the answer to the last
// ping came a little after it.
func (p *pinger) judgeRegular(now, heard int64) pingVerdict {
	if now < p.regular {
		return pingNone
	}
	every := int64(p.every)
	if silent := now - heard; silent < every-every/8 {
		if p.group == nil || p.group.ponged.Load() {
			p.regular = heard + every
			return pingNone
		}
		// A far end that pings us would never be pinged, and nobody would know
		// whether it answers.
		if silent < every/8 {
			p.regular = heard + every/8
			return pingNone
		}
		p.regular = now + every
		if p.excused() {
			return pingNone
		}
		return pingDue
	}
	p.regular = now + every
	switch {
	case p.excused():
		p.missed = 0
		return pingNone
	case p.missed < maxMissed:
		p.missed++
		return pingDue
	case !p.heldUp() && p.trusted():
		return pingDead
	}
	return pingNone
}

// send pings unless the ping before is still being written. It gives up
// behind a Write that takes longer than within; other errors end the pings.
func (p *pinger) send(within time.Duration) {
	if !p.sending.CompareAndSwap(false, true) {
		return
	}
	defer p.sending.Store(false)
	if heard := p.heard.Load(); p.pinged.Load() <= heard {
		p.pinged.Store(max(p.now(), heard+1)) // clocks are coarse
	}
	payload := p.proof.ping(p.conn.written.Load())
	err := p.conn.ws.WriteControl(websocket.PingMessage, payload, time.Now().Add(within))
	var timeout net.Error
	if err != nil && !(errors.As(err, &timeout) && timeout.Timeout()) {
		p.stop()
	}
}

// answerPing is gorilla's ping handler. It leaves the writing to a goroutine,
// for the reader must not wait for a far end that does not read. Of pings
// that come faster than they can be answered the last is (RFC 6455 section
// 5.5.3).
func (c *Conn) answerPing(data string) error {
	c.pong.Store(&data)
	if c.ponging.CompareAndSwap(false, true) {
		go c.sendPongs()
	}
	return nil
}

func (c *Conn) sendPongs() {
	for {
		if data := c.pong.Swap(nil); data != nil {
			// An error will be seen by whoever reads or writes.
			_ = c.ws.WriteControl(websocket.PongMessage, []byte(*data), time.Time{})
		}
		c.ponging.Store(false)
		if c.pong.Load() == nil || !c.ponging.CompareAndSwap(false, true) {
			return
		}
	}
}

// PingOverdue reports whether a ping has been unanswered for longer than a healthy
// far end takes, and nothing else came meanwhile. Of a far end of a Group that has
// never answered a ping that means nothing.
func (c *Conn) PingOverdue() bool {
	p := c.ping
	if p == nil || p.group != nil && !p.group.ponged.Load() {
		return false
	}
	pinged := p.pinged.Load()
	return pinged > p.heard.Load() && p.now()-pinged > int64(pongUsual)
}
