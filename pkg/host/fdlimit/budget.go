package fdlimit

import "sync/atomic"

// A Semaphore bounds how many of something are open at one time. It may be part
// of another, which then bounds the sum. It may be used concurrently; nil
// bounds nothing.
type Semaphore struct {
	within *Semaphore
	each   int64
	most   atomic.Int64
	open   atomic.Int64
}

// NewSemaphore makes a budget of so many, each of which takes so many of within;
// within may be nil.
func NewSemaphore(most int, within *Semaphore, each int) *Semaphore {
	b := &Semaphore{within: within, each: int64(each)}
	b.SetLimit(most)
	return b
}

// SetLimit changes how many there may be. Those that are open stay.
func (b *Semaphore) SetLimit(most int) { b.most.Store(int64(most)) }

// Limit returns how many there may be.
func (b *Semaphore) Limit() int { return int(b.most.Load()) }

// Full reports whether there are so many.
func (b *Semaphore) Full() bool { return b.open.Load() >= b.most.Load() }

// Acquire counts one in, if there is room for it here and in what b is part of.
func (b *Semaphore) Acquire() bool { return b.take(1) }

// Release counts one out.
func (b *Semaphore) Release() { b.give(1) }

func (b *Semaphore) take(n int64) bool {
	if b == nil {
		return true
	}
	if b.open.Add(n) > b.most.Load() || !b.within.take(n*b.each) {
		b.open.Add(-n)
		return false
	}
	return true
}

func (b *Semaphore) give(n int64) {
	if b != nil {
		b.open.Add(-n)
		b.within.give(n * b.each)
	}
}
