package client

import (
	"context"
	"sync"
	"time"

	"vmess-local/pkg/diagnose"
)

// A followUp is the second look at a path that failed: one probe for each
// cause, whose facts serve all requests for a while. Its zero value knows
// nothing; it may be used concurrently.
type followUp struct {
	mu     sync.Mutex
	causes map[diagnose.Cause]*causeFacts
	closed bool
}

// causeFacts are what was found out about one cause.
type causeFacts struct {
	probe sharedCall[diagnose.ConnectFacts]

	mu    sync.Mutex
	at    time.Time // when they were found; zero: not yet
	facts diagnose.ConnectFacts
	epoch int // how often they were forgotten
}

// look returns the facts about a cause, by probe where the last ones are old.
// They are zero once ctx has ended.
func (l *followUp) look(ctx context.Context, cause diagnose.Cause, probe func() diagnose.ConnectFacts) diagnose.ConnectFacts {
	c := l.about(cause)
	if c == nil {
		return diagnose.ConnectFacts{}
	}
	if facts, _, ok := c.recent(); ok {
		return facts
	}
	return c.probe.do(ctx, func() diagnose.ConnectFacts {
		facts, epoch, ok := c.recent() // found between the question and now
		if !ok {
			facts = probe()
			c.keep(facts, epoch)
		}
		return facts
	})
}

// forget lets what was found, or is being found out, serve no further request:
// the network is another one.
func (l *followUp) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.causes {
		c.forget()
	}
}

// close waits for the probes under way, which the caller must have ended.
func (l *followUp) close() {
	l.mu.Lock()
	l.closed = true
	causes := l.causes
	l.mu.Unlock()
	for _, c := range causes {
		c.probe.close()
	}
}

func (l *followUp) about(cause diagnose.Cause) *causeFacts {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	if l.causes == nil {
		l.causes = make(map[diagnose.Cause]*causeFacts)
	}
	if l.causes[cause] == nil {
		l.causes[cause] = new(causeFacts)
	}
	return l.causes[cause]
}

func (c *causeFacts) recent() (facts diagnose.ConnectFacts, epoch int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.facts, c.epoch, !c.at.IsZero() && time.Since(c.at) <= lookPause
}

func (c *causeFacts) keep(facts diagnose.ConnectFacts, epoch int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch == epoch {
		c.facts, c.at = facts, time.Now()
	}
}

func (c *causeFacts) forget() {
	c.mu.Lock()
	c.at = time.Time{}
	c.epoch++
	c.mu.Unlock()
	c.probe.forget()
}
