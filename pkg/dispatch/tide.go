package dispatch

import (
	"runtime/debug"
	"sync"
	"time"
)

const (
	// ebb is how many requests must have ended, net, before memory is given
	// back to the system: by itself the runtime does so only after minutes.
	ebb = 256
	// ebbWait lets a crowd of ends pass, so that it is done once for all.
	ebbWait = 3 * time.Second
)

// A tide follows how many requests there are, and gives memory back when many
// of them have ended.
type tide struct {
	mu    sync.Mutex
	open  int
	high  int // most since memory was given back last
	timer *time.Timer
	free  func() // nil: debug.FreeOSMemory
}

// rise counts a request in.
func (t *tide) rise() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open++
	t.high = max(t.high, t.open)
}

// fall counts a request out.
func (t *tide) fall() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open--
	if t.timer == nil && t.high-t.open >= ebb {
		t.timer = time.AfterFunc(ebbWait, t.giveBack)
	}
}

func (t *tide) giveBack() {
	t.mu.Lock()
	t.timer, t.high = nil, t.open
	free := t.free
	t.mu.Unlock()
	if free == nil {
		free = debug.FreeOSMemory
	}
	free()
}
