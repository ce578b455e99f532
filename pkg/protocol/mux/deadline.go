package mux

import (
	"sync"
	"time"
)

// A deadline wakes whoever waits on a condition when it has passed.
type deadline struct {
	timer  *time.Timer
	round  int
	passed bool
}

// set is for who holds the condition's lock.
func (d *deadline) set(wake *sync.Cond, at time.Time) {
	d.stop()
	left := time.Until(at)
	d.passed = !at.IsZero() && left <= 0
	if !at.IsZero() && !d.passed {
		round := d.round
		d.timer = time.AfterFunc(left, func() { d.pass(wake, round) })
	}
	wake.Broadcast()
}

func (d *deadline) pass(wake *sync.Cond, round int) {
	wake.L.Lock()
	defer wake.L.Unlock()
	if d.round == round {
		d.passed = true
		wake.Broadcast()
	}
}

// stop forgets the deadline.
func (d *deadline) stop() {
	d.round++
	d.passed = false
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
