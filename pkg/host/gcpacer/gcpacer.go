// Package gcpacer sets the pace of the garbage collector by how many requests a
// program serves, and gives memory back to the system when many have come or gone.
// It belongs to commands: it changes the whole process.
package gcpacer

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// step is by how many the requests must have become more or fewer before
	// memory is given back to the system: what their beginnings needed and
	// their lives do not, or all of it. By itself the runtime does so only
	// after minutes.
	step = 256
	// stepDelay lets a crowd pass, so that it is done once for all.
	stepDelay = 2 * time.Second
	// calmPace and crowdPace are how much garbage there may be, in percent of
	// what lives. Of few requests so little lives that the usual pace would
	// collect again and again: a fifth of a short connection's cost. Of many,
	// each request would pay for it with memory.
	calmPace  = 300
	crowdPace = 100
)

// A Pacer follows how many requests there are: it gives memory back when many
// have come or gone, and sets the collector's pace, unless the environment
// does (GOGC). Its zero value is ready for use; a process needs one.
type Pacer struct {
	mu        sync.Mutex
	open      int
	low, high int // the fewest and the most since memory was given back last
	timer     *time.Timer
	pace      int
	free      func()            // nil: freeMemory
	setPace   func(percent int) // nil: setPace
}

// Add counts requests that begin, or end when by is negative. It may be called
// concurrently.
func (t *Pacer) Add(by int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open += by
	t.low, t.high = min(t.low, t.open), max(t.high, t.open)
	if t.timer == nil && max(t.open-t.low, t.high-t.open) >= step {
		t.timer = time.AfterFunc(stepDelay, t.release)
	}
	switch {
	case t.open >= step:
		t.adapt(crowdPace)
	case t.open < step/2:
		t.adapt(calmPace)
	}
}

func (t *Pacer) adapt(pace int) {
	if t.pace == pace {
		return
	}
	t.pace = pace
	set := t.setPace
	if set == nil {
		set = setPace
	}
	set(pace)
}

// release gives memory back.
func (t *Pacer) release() {
	t.mu.Lock()
	t.timer, t.low, t.high = nil, t.open, t.open
	free := t.free
	t.mu.Unlock()
	if free == nil {
		free = freeMemory
	}
	free()
}

// freeMemory collects twice: pools let go of what they hold at the second time,
// and stacks that are too large become smaller each time.
func freeMemory() {
	runtime.GC()
	debug.FreeOSMemory()
}

func setPace(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}
