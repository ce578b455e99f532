package wsconn

import (
	"context"
	"sync"
	"time"

	"vmess-local/pkg/transport"
)

// A Monitor judges connections of a [Group] on which a request waits: payload
// was written, somebody reads, and nothing is received. Its methods are called
// by timers and must not wait for the network.
type Monitor interface {
	// Waiting is called when nothing was received for [Group.RequestWait]
	// after a request. The connection is being pinged then, where pings are on.
	Waiting()
	// Doubt is called shortly before Silent would be.
	Doubt()
	// Silent is called when nothing was received for [Group.PongWait] after
	// Waiting. The connection is being pinged again then. used says that it has
	// carried payload from the far end: one that has not may be unable to answer
	// pings while it dials a destination.
	Silent(used bool)
	// Gone is called when nothing was received for another PongWait. It
	// reports whether the connection is to be ended. Otherwise the check begins
	// again after a pause, which is doubled each time.
	Gone(used bool) bool
}

// A stage is how far the check of a connection has come on which a request
// waits. Whatever is received ends the check.
type stage uint8

const (
	stageNone    stage = iota
	stagePinged        // until Doubt
	stageDoubted       // until Silent
	stageSilent        // until Gone
)

// mostPause is how long a check that came to nothing is left alone at most: a
// request may wait for hours for a far end that answers no pings.
const mostPause = 5 * time.Minute

// A requestWatch checks the far end of a connection while a request waits. It
// belongs to a pinger, whose lock guards it and whose timer it shares.
type requestWatch struct {
	stage   stage
	since   int64 // when the stage began
	checked int64 // bytes of payload before the last check's ping
	pause   int64 // after the last check; 0: there was none since something was received
	rests   int64 // until when the next one waits
}

// asks takes note that payload is about to be written, which may be a request:
// the far end is looked at when nothing is received for a while.
func (p *pinger) asks() {
	if p.monitor() == nil {
		return
	}
	now := p.now()
	if heard := p.heard.Load(); p.asked.Load() <= heard {
		p.asked.Store(max(now, heard+1)) // clocks are coarse
	}
	if !p.open.Load() {
		p.open.Store(true)
	}
	if !p.armed.Load() && p.armed.CompareAndSwap(false, true) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.watch.stage == stageNone {
			p.wake(now + int64(p.group.RequestWait))
		}
	}
}

// answered takes note that payload was received.
func (p *pinger) answered() {
	if p != nil && p.open.Load() {
		p.open.Store(false)
	}
}

// monitor returns who judges the connection; nil: nobody does.
func (p *pinger) monitor() Monitor {
	if p.group == nil {
		return nil
	}
	return p.group.Monitor
}

// judgeRequest decides what is to be done now for a request that waits. It is
// called with the lock held.
func (p *pinger) judgeRequest(now int64) pingVerdict {
	if p.monitor() == nil {
		return pingNone
	}
	w := &p.watch
	if w.stage == stageNone {
		return p.judgeWait(now)
	}
	lasts := p.stageTime()
	if now < w.since+lasts {
		p.wake(w.since + lasts)
		return pingNone
	}
	if p.excused() || p.conn.final.Load() || p.heldUp() {
		w.stage = stageNone // nothing can be said about it
		p.armed.Store(false)
		return pingNone
	}
	verdict := [...]pingVerdict{stagePinged: requestDoubt, stageDoubted: requestSilent, stageSilent: requestGone}[w.stage]
	if w.stage++; w.stage > stageSilent {
		w.stage = stageNone
		return verdict
	}
	w.since = now
	p.wake(now + p.stageTime())
	return verdict
}

// judgeWait begins the check of a connection on which a request waits for long
// enough.
func (p *pinger) judgeWait(now int64) pingVerdict {
	p.armed.Store(false)
	asked, waits := p.waitsSince()
	if !waits || p.excused() || p.conn.final.Load() {
		return pingNone
	}
	p.armed.Store(true)
	if due := max(asked+int64(p.group.RequestWait), p.watch.rests); now < due {
		p.wake(due)
		return pingNone
	}
	p.beginCheck(now)
	return requestWaits
}

// waitsSince reports whether a request waits, and since when nothing was received.
// On a connection of many requests one may have been overlooked by a far end that
// answered another: what is not proven to have been read may be one.
func (p *pinger) waitsSince() (since int64, waits bool) {
	asked, heard := p.asked.Load(), p.heard.Load()
	if asked > heard {
		return asked, true
	}
	return heard, p.group.Shared && p.conn.begun.Load() > max(p.watch.checked, p.proof.bytes())
}

// beginCheck begins the check with a ping that is sent now.
func (p *pinger) beginCheck(now int64) {
	w := &p.watch
	w.stage, w.since, w.checked = stagePinged, now, p.conn.begun.Load()
	p.wake(now + p.stageTime())
}

// stageTime is how long the present stage lasts.
func (p *pinger) stageTime() int64 {
	pong := p.group.PongWait
	switch p.watch.stage {
	case stagePinged:
		pong -= pong / 5
	case stageDoubted:
		pong /= 5
	}
	return int64(pong)
}

// excused reports whether silence means nothing: nobody reads, or this computer
// has no network.
func (p *pinger) excused() bool {
	return !p.reading.Load() || p.group != nil && p.group.offline.Load()
}

// networkUp reports whether the silence is the far end's and not that of a
// network that may come back. Where the system says that nothing arrives any
// more, a stream that was in use may outlive that, as it would without a
// tunnel; a request that was never answered has nothing to outlive.
func (p *pinger) networkUp() bool {
	return transport.SendStateOf(p.conn.carrier.conn) != transport.SendTimedOut || !p.conn.used.Load()
}

// act does what judgeRequest decided, unless something was received since: the
// check ends at the next look then.
func (p *pinger) act(v pingVerdict) {
	m, used := p.monitor(), p.conn.used.Load()
	if p.heardSinceJudged() {
		return
	}
	switch v {
	case requestWaits:
		m.Waiting()
	case requestDoubt:
		m.Doubt()
		return
	case requestSilent:
		m.Silent(used)
	default:
		if m.Gone(used) && p.networkUp() {
			p.dead()
			return
		}
		p.rest()
		return
	}
	if p.every > 0 {
		p.send(p.group.PongWait)
	}
}

// heardSinceJudged reports whether something was received since the last judge.
func (p *pinger) heardSinceJudged() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heard.Load() != p.seen
}

// rest has the check of a connection that was not ended begin again later.
func (p *pinger) rest() {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &p.watch
	w.pause = min(max(2*w.pause, int64(p.group.PongWait)), int64(mostPause))
	w.rests = p.now() + w.pause
	p.armed.Store(true)
	p.wake(w.rests)
}

// ping pings a connection that somebody reads, because others are silent. Where a
// request waits its check begins.
func (p *pinger) ping() {
	p.mu.Lock()
	now := p.now()
	due := p.timer != nil && p.every > 0 && p.watch.stage == stageNone && !p.excused()
	if due {
		if _, waits := p.waitsSince(); p.monitor() != nil && waits {
			p.armed.Store(true)
			p.beginCheck(now)
		}
	}
	p.mu.Unlock()
	if due {
		go p.send(p.group.PongWait) // which may wait for a writer
	}
}

// restart lets what was sent so far say nothing any more: this computer slept,
// or has moved to another network.
func (p *pinger) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.missed, p.watch.stage = 0, stageNone
	p.armed.Store(false)
	p.pinged.Store(0)
}

// PingOnce pings the far end of a connection that nobody has used, waits for the
// answer until ctx ends, and closes it. A Group remembers that pings are answered.
func (c *Conn) PingOnce(ctx context.Context) {
	defer c.Close()
	if c.ping == nil {
		return
	}
	answered := make(chan struct{})
	var once sync.Once
	c.ws.SetPongHandler(func(payload string) error {
		once.Do(func() { close(answered) })
		return c.ping.pong(payload)
	})
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = c.WaitRead()
	}()
	c.ping.send(closeWait)
	select {
	case <-answered:
	case <-over:
	case <-ctx.Done():
	}
	_ = c.Close()
	<-over
}

// trusted reports whether missing answers to pings mean anything: of a server
// that has never answered one they do not.
func (p *pinger) trusted() bool {
	if p.group == nil || p.group.ponged.Load() && p.every > 0 {
		return true
	}
	return transport.SendStateOf(p.conn.carrier.conn) == transport.SendTimedOut // its system does not answer, either
}
