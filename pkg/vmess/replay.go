package vmess

import (
	"sync"
	"time"
)

// A memory remembers keys for at least keep and at most twice that, exactly:
// two generations that are swapped. When a generation is full, new keys are
// taken for known ones, so that its bound never opens a gap.
type memory[K comparable] struct {
	keep  time.Duration
	limit int

	mu       sync.Mutex
	now, old map[K]struct{}
	since    time.Time // when the generation now began
}

func newMemory[K comparable](keep time.Duration, limit int) *memory[K] {
	return &memory[K]{keep: keep, limit: limit, now: map[K]struct{}{}}
}

// add reports whether the key is new, and remembers it.
func (m *memory[K]) add(key K, at time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch age := at.Sub(m.since); {
	case age >= 2*m.keep:
		m.now, m.old, m.since = map[K]struct{}{}, nil, at
	case age >= m.keep, age <= -m.keep: // the clock may have been set back
		m.now, m.old, m.since = map[K]struct{}{}, m.now, at
	}
	if _, known := m.now[key]; known {
		return false
	}
	if _, known := m.old[key]; known || len(m.now) >= m.limit {
		return false
	}
	m.now[key] = struct{}{}
	return true
}
