package limit

import "sync/atomic"

// A Budget bounds how many of something are open at one time. It may be part
// of another, which then bounds the sum. It may be used concurrently; nil
// bounds nothing.
type Budget struct {
	within *Budget
	each   int64
	most   atomic.Int64
	open   atomic.Int64
}

// NewBudget makes a budget of so many, each of which takes so many of within;
// within may be nil.
func NewBudget(most int, within *Budget, each int) *Budget {
	b := &Budget{within: within, each: int64(each)}
	b.SetMost(most)
	return b
}

// SetMost changes how many there may be. Those that are open stay.
func (b *Budget) SetMost(most int) { b.most.Store(int64(most)) }

// Most returns how many there may be.
func (b *Budget) Most() int { return int(b.most.Load()) }

// Full reports whether there are so many.
func (b *Budget) Full() bool { return b.open.Load() >= b.most.Load() }

// Take counts one in, if there is room for it here and in what b is part of.
func (b *Budget) Take() bool { return b.take(1) }

// Give counts one out.
func (b *Budget) Give() { b.give(1) }

func (b *Budget) take(n int64) bool {
	if b == nil {
		return true
	}
	if b.open.Add(n) > b.most.Load() || !b.within.take(n*b.each) {
		b.open.Add(-n)
		return false
	}
	return true
}

func (b *Budget) give(n int64) {
	if b != nil {
		b.open.Add(-n)
		b.within.give(n * b.each)
	}
}
