package netmon

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A computer is one whose clock and addresses a test sets.
type computer struct {
	mu      sync.Mutex
	ahead   time.Duration // of its wall clock
	addrs   Addresses
	notices chan struct{}
	events  []Event
}

func (c *computer) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *computer) take() []Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.events = nil }()
	return c.events
}

// watched runs a watcher of a computer, with one address unless told otherwise,
// until the test ends.
func watched(t *testing.T, addrs ...Addresses) *computer {
	t.Helper()
	addrs = append(addrs, Addresses{netip.MustParseAddr("10.0.0.1"): true})
	c := &computer{addrs: addrs[0], notices: make(chan struct{}, 1)}
	w := &Monitor{
		Now: func() (now time.Time) {
			c.set(func() { now = time.Now().Add(c.ahead) })
			return now
		},
		Addresses: func() (now Addresses) {
			c.set(func() { now = c.addrs })
			return now
		},
		Notices: c.notices,
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Watch(ctx, func(e Event) { c.set(func() { c.events = append(c.events, e) }) })
	}()
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
	return c
}

func TestClocks(t *testing.T) {
	for name, tt := range map[string]struct {
		jump time.Duration
		want []Event
	}{
		"nothing":      {0, nil},
		"a correction": {5 * time.Second, nil},
		"a sleep":      {time.Hour, []Event{{Slept: time.Hour, ClockSet: true}}},
		"put back":     {-time.Hour, []Event{{ClockSet: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := watched(t)
				time.Sleep(time.Minute)
				c.set(func() { c.ahead = tt.jump })
				time.Sleep(tick)
				synctest.Wait()
				if got := c.take(); !slices.Equal(got, tt.want) {
					t.Errorf("noticed %+v, want %+v", got, tt.want)
				}
				time.Sleep(time.Minute)
				if got := c.take(); got != nil {
					t.Errorf("noticed it again: %+v", got)
				}
			})
		})
	}
}

// TestClocksAtOnce: where the kernel says so nobody waits for the tick, and the
// tick does not tell it again. Notices of something else tell nothing.
func TestClocksAtOnce(t *testing.T) {
	for _, tt := range []struct {
		jump time.Duration
		want []Event
	}{
		{0, nil},
		{slack, nil},
		{time.Minute, []Event{{Slept: time.Minute, ClockSet: true}}},
		{-time.Minute, []Event{{ClockSet: true}}},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := watched(t)
			time.Sleep(time.Minute + time.Second) // off the ticks
			c.set(func() { c.ahead = tt.jump })
			c.notices <- struct{}{}
			synctest.Wait()
			if got := c.take(); !slices.Equal(got, tt.want) {
				t.Errorf("noticed %+v at once, want %+v", got, tt.want)
			}
			for range 60 {
				time.Sleep(time.Second)
				c.notices <- struct{}{}
			}
			synctest.Wait()
			if got := c.take(); got != nil {
				t.Errorf("noticed it again: %+v", got)
			}
		})
	}
}

// TestLateTick: where the monotonic clock goes on during sleep, the tick is
// late by both clocks.
func TestLateTick(t *testing.T) {
	now := time.Now()
	before := reading{now.Round(0), now}
	for _, tt := range []struct {
		wall, mono time.Duration
		want       Event
	}{
		{tick, tick, Event{}},
		{tick + slack, tick + slack, Event{}},
		{tick + time.Hour, tick + time.Hour, Event{Slept: time.Hour}},
		{tick + time.Hour, tick, Event{Slept: time.Hour, ClockSet: true}},
		{tick - time.Hour, tick, Event{ClockSet: true}},
		{0, tick + time.Hour, Event{Slept: time.Hour, ClockSet: true}},
	} {
		after := reading{before.wall.Add(tt.wall), before.mono.Add(tt.mono)}
		if got := before.until(after); got != tt.want {
			t.Errorf("%v by the wall, %v by the monotonic clock: %+v, want %+v", tt.wall, tt.mono, got, tt.want)
		}
	}
}

func TestAddresses(t *testing.T) {
	home, away := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.168.7.7")
	for _, notice := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			c := watched(t)
			for i, step := range []struct {
				addrs Addresses
				want  []Event
			}{
				{Addresses{home: true, away: false}, []Event{{AddrsChanged: true}}},
				{Addresses{away: false, home: true}, nil},
				{Addresses{home: false, away: true}, []Event{{AddrsChanged: true}}}, // another way out
				{Addresses{}, []Event{{AddrsChanged: true, Offline: true}}},
				{Addresses{home: false}, []Event{{AddrsChanged: true, Offline: true}}}, // which leads nowhere yet
				{Addresses{home: true}, []Event{{AddrsChanged: true}}},
			} {
				time.Sleep(time.Minute + time.Millisecond) // off the ticks
				_ = c.take()
				c.set(func() { c.addrs = step.addrs })
				within := tick
				if notice {
					within = settling
					c.notices <- struct{}{}
				}
				time.Sleep(within)
				synctest.Wait()
				got := c.take()
				for j := range got {
					// Two steps lay between the loss and the return.
					if without := got[j].OfflineFor; without > 0 && (i != 5 || (without-2*time.Minute).Abs() > 2*tick) {
						t.Errorf("notice %v, step %d: without a way for %v", notice, i, without)
					} else if i == 5 && without == 0 {
						t.Errorf("notice %v: nobody knows for how long there was no way", notice)
					}
					got[j].OfflineFor = 0
				}
				if !slices.Equal(got, step.want) {
					t.Errorf("notice %v, step %d: %+v, want %+v", notice, i, got, step.want)
				}
			}
		})
	}
}

// TestAsleepAndAway: a sleep during which the way to the world went is told as
// such, and the return of the way by itself.
func TestAsleepAndAway(t *testing.T) {
	home := netip.MustParseAddr("10.0.0.1")
	synctest.Test(t, func(t *testing.T) {
		c := watched(t)
		c.set(func() { c.ahead, c.addrs = time.Hour, Addresses{home: false} })
		time.Sleep(tick)
		synctest.Wait()
		if got := c.take(); !slices.Equal(got, []Event{{Slept: time.Hour, ClockSet: true, AddrsChanged: true, Offline: true}}) {
			t.Errorf("after the sleep: %+v", got)
		}
		time.Sleep(8 * time.Second)
		c.set(func() { c.addrs = Addresses{home: true} })
		c.notices <- struct{}{}
		time.Sleep(settling)
		synctest.Wait()
		if got := c.take(); !slices.Equal(got, []Event{{AddrsChanged: true, OfflineFor: 8*time.Second + settling}}) {
			t.Errorf("the address came back: %+v", got)
		}
	})
}

// TestNeverConnected: a computer that never had a way to the world has not lost
// it.
func TestNeverConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := watched(t, Addresses{})
		for range 2 {
			c.set(func() { c.ahead += time.Hour })
			time.Sleep(tick)
			synctest.Wait()
			if got := c.take(); !slices.Equal(got, []Event{{Slept: time.Hour, ClockSet: true}}) {
				t.Errorf("noticed %+v", got)
			}
		}
	})
}

// TestThisComputer: the watcher of a real computer starts, is quiet, and ends.
func TestThisComputer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	new(Monitor).Watch(ctx, func(e Event) { t.Logf("noticed %+v", e) })
}
