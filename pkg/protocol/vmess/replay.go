package vmess

import (
	"sync"
	"time"
)

// A replayFilter remembers keys exactly, in two generations: for at least keep, and
// as long as there is room for them. That outlasts a clock that is set back,
// which makes old times good again. When a generation is full, new keys are
// taken for known ones, so that its bound never opens a gap.
type replayFilter[K comparable] struct {
	keep  time.Duration
	spare int // what a generation holds before keys are forgotten for their age
	limit int // what it may hold at all

	mu       sync.Mutex
	now, old map[K]struct{}
	since    time.Time // when the generation now began
}

func newReplayFilter[K comparable](keep time.Duration, spare, limit int) *replayFilter[K] {
	return &replayFilter[K]{keep: keep, spare: spare, limit: limit, now: map[K]struct{}{}}
}

// add reports whether the key is new, and remembers it.
func (m *replayFilter[K]) add(key K, at time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.now[key]; known {
		return false
	}
	if _, known := m.old[key]; known {
		return false
	}
	switch age := at.Sub(m.since); {
	case age >= m.keep && len(m.now) >= m.spare:
		m.now, m.old, m.since = map[K]struct{}{}, m.now, at
	case m.since.IsZero(), age <= -m.keep: // the first, or the clock was set back
		m.since = at
	}
	if len(m.now) >= m.limit {
		return false
	}
	m.now[key] = struct{}{}
	return true
}
