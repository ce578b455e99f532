package dispatch

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// swell is by how many the requests must have become more or fewer before
	// memory is given back to the system: what their beginnings needed and
	// their lives do not, or all of it. By itself the runtime does so only
	// after minutes.
	swell = 256
	// swellWait lets a crowd pass, so that it is done once for all.
	swellWait = 2 * time.Second
	// calmPace and crowdPace are how much garbage there may be, in percent of
	// what lives. Of few requests so little lives that the usual pace would
	// collect again and again: a fifth of a short connection's cost. Of many,
	// each request would pay for it with memory.
	calmPace  = 300
	crowdPace = 100
)

// A tide follows how many requests there are: it gives memory back when many
// have come or gone, and sets the collector's pace, unless the environment
// does (GOGC).
type tide struct {
	mu        sync.Mutex
	open      int
	low, high int // the fewest and the most since memory was given back last
	timer     *time.Timer
	pace      int
	free      func()            // nil: giveBack
	setPace   func(percent int) // nil: setPace
}

// rise counts a request in.
func (t *tide) rise() { t.turn(1) }

// fall counts a request out.
func (t *tide) fall() { t.turn(-1) }

func (t *tide) turn(by int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open += by
	t.low, t.high = min(t.low, t.open), max(t.high, t.open)
	if t.timer == nil && max(t.open-t.low, t.high-t.open) >= swell {
		t.timer = time.AfterFunc(swellWait, t.slack)
	}
	switch {
	case t.open >= swell:
		t.adapt(crowdPace)
	case t.open < swell/2:
		t.adapt(calmPace)
	}
}

func (t *tide) adapt(pace int) {
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

// slack gives memory back.
func (t *tide) slack() {
	t.mu.Lock()
	t.timer, t.low, t.high = nil, t.open, t.open
	free := t.free
	t.mu.Unlock()
	if free == nil {
		free = giveBack
	}
	free()
}

// giveBack collects twice: pools let go of what they hold at the second time,
// and stacks that are too large become smaller each time.
func giveBack() {
	runtime.GC()
	debug.FreeOSMemory()
}

func setPace(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}
