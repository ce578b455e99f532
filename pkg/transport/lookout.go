package transport

import (
	"sync"
	"time"
)

// lookEvery is how often a [Lookout] looks.
const lookEvery = time.Second

// A Lookout looks every second at what nobody waits for, with a timer and
// without a goroutine. Its zero value does not look.
type Lookout struct {
	mu    sync.Mutex
	timer *time.Timer
	over  bool
}

// Start begins to look, for as long as look returns true. It is called once.
func (l *Lookout) Start(look func() (again bool)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	l.timer = time.AfterFunc(lookEvery, func() {
		if look() {
			l.again()
		}
	})
}

func (l *Lookout) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.timer.Reset(lookEvery)
	}
}

// Stop ends the looking; a look may be under way.
func (l *Lookout) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.timer != nil {
		l.timer.Stop()
	}
}
