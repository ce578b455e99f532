package relay

import (
	"sync"
	"time"
)

// pollInterval is how often a [Poller] looks.
const pollInterval = time.Second

// A Poller looks every second at what nobody waits for, with a timer and
// without a goroutine. Its zero value does not look.
type Poller struct {
	mu    sync.Mutex
	timer *time.Timer
	over  bool
}

// Start begins to look, for as long as look returns true. It is called once.
func (l *Poller) Start(look func() (again bool)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	l.timer = time.AfterFunc(pollInterval, func() {
		if look() {
			l.again()
		}
	})
}

func (l *Poller) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.timer.Reset(pollInterval)
	}
}

// Stop ends the looking; a look may be under way.
func (l *Poller) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.timer != nil {
		l.timer.Stop()
	}
}
