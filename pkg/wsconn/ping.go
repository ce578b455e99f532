package wsconn

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// maxMissed is how many pings may stay without an answer.
const maxMissed = 2

// A pinger pings when nothing was received for a while, and ends the Conn
// when it has missed the answers although somebody was reading. It has one
// timer, which reading does not touch.
type pinger struct {
	conn    *Conn
	every   time.Duration
	start   time.Time
	heard   atomic.Int64 // nanoseconds since start of the last receipt
	reading atomic.Bool  // somebody waits for the connection below
	sending atomic.Bool  // a ping is being written

	mu     sync.Mutex
	timer  *time.Timer // nil once stopped
	seen   int64       // heard when judged last
	missed int         // pings since then
}

// startPinger starts the pings of c; with every 0 there are none but those of
// check.
func startPinger(c *Conn, every time.Duration) *pinger {
	p := &pinger{conn: c, every: every, start: time.Now()}
	p.mu.Lock() // the timer may fire before it is stored
	defer p.mu.Unlock()
	if every > 0 {
		p.timer = time.AfterFunc(every, p.tick)
	}
	return p
}

// hear notes that something was received.
func (p *pinger) hear() { p.heard.Store(int64(time.Since(p.start))) }

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
	switch p.judge() {
	case pingDue:
		p.send(p.every)
	case pingDead:
		p.dead()
	case pingNone:
	}
}

// dead ends the Conn.
func (p *pinger) dead() {
	p.stop()
	p.conn.unheard.Store(true)
	p.conn.closed.Store(true)
	_ = p.conn.abort()
}

// check pings now, and ends the Conn when nothing is heard within a time
// although somebody reads.
func (p *pinger) check(within time.Duration) {
	heard := p.heard.Load()
	time.AfterFunc(within, func() {
		if p.reading.Load() && p.heard.Load() == heard && !p.conn.closed.Load() {
			p.dead()
		}
	})
	p.send(within)
}

type pingVerdict uint8

const (
	pingNone pingVerdict = iota
	pingDue
	pingDead
)

// judge decides what is to be done now and sets the timer for the next time.
// An eighth too early is in time, so that an idle connection wakes up once a
// period though the answer to the last ping came a little after it.
func (p *pinger) judge() pingVerdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer == nil {
		return pingNone
	}
	heard := p.heard.Load()
	if heard != p.seen {
		p.seen, p.missed = heard, 0
	}
	silent := time.Since(p.start) - time.Duration(heard)
	if silent < p.every-p.every/8 {
		p.timer.Reset(p.every - silent)
		return pingNone
	}
	switch {
	case !p.reading.Load():
		p.missed = 0 // the answers are there, but nobody wants them
	case p.missed == maxMissed:
		return pingDead
	default:
		p.missed++
	}
	p.timer.Reset(p.every)
	return pingDue
}

// send pings unless the ping before is still being written. It gives up
// behind a Write that takes longer than within; other errors end the pings.
func (p *pinger) send(within time.Duration) {
	if !p.sending.CompareAndSwap(false, true) {
		return
	}
	defer p.sending.Store(false)
	err := p.conn.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(within))
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
