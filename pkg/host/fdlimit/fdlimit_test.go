package fdlimit

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
)

func TestConnections(t *testing.T) {
	for _, c := range []struct{ configured, files, each, want int }{
		{0, 200, 2, 100}, {1, 200, 2, 1}, {101, 200, 2, 100}, {0, 1, 2, 1}, {0, 201, 20, 10},
	} {
		if got := Connections(c.configured, c.files, c.each); got != c.want {
			t.Errorf("Connections(%d, %d, %d) = %d, want %d", c.configured, c.files, c.each, got, c.want)
		}
	}
}

func TestSplit(t *testing.T) {
	for _, c := range []struct{ n, others, files, granted int }{
		{1 << 20, 96, 1<<20 - 128 - 96, 96},
		{1024, 96, 800, 96},
		{1024, 5000, 448, 448},
		{400, 72, 200, 72},
		{256, 72, 99, 72},
		{64, 72, 20, 20},
		{64, 0, 40, 0},
		{16, 72, 2, 2},
		{0, math.MaxInt, 2, 2},
	} {
		files, granted := split(c.n, c.others)
		if files != c.files || granted != c.granted {
			t.Errorf("split(%d, %d) = %d, %d, want %d, %d", c.n, c.others, files, granted, c.files, c.granted)
		}
	}
	if files, granted := Files(10); files < 2 || granted > 10 {
		t.Errorf("%d, %d", files, granted)
	}
}

func TestWarning(t *testing.T) {
	for _, c := range []struct {
		configured, allowed int
		want                string
	}{
		{0, Few, ""},
		{10, 10, ""},
		{0, 10, "the limit on open files allows 10 connections at one time: for more raise the hard limit (ulimit -Hn 4096, or LimitNOFILE=4096 of a service)"},
		{50, 10, `"limits.connections" at c.json:1:2 is 50, and the limit on open files allows 10 connections: raise the hard limit (ulimit -Hn 4096, or LimitNOFILE=4096 of a service)`},
	} {
		if got := Warning(c.configured, c.allowed, " at c.json:1:2"); got != c.want {
			t.Errorf("Warning(%d, %d): %s", c.configured, c.allowed, got)
		}
	}
}

func TestBudget(t *testing.T) {
	files := NewSemaphore(10, nil, 0)
	conns, others := NewSemaphore(4, files, 2), NewSemaphore(9, files, 1)
	take := func(b *Semaphore, want bool) {
		t.Helper()
		if got := b.Acquire(); got != want {
			t.Errorf("Take() = %v, want %v", got, want)
		}
	}
	for range 4 {
		take(conns, true)
	}
	take(conns, false) // its own bound
	take(others, true)
	take(others, true)
	take(others, false) // that of all
	if !conns.Full() || others.Full() || !files.Full() {
		t.Errorf("full: %v, %v, %v", conns.Full(), others.Full(), files.Full())
	}
	conns.Release()
	take(others, true)
	take(conns, false)
	take(others, true)
	conns.SetLimit(2) // fewer than there are
	for range 2 {
		take(conns, false)
		conns.Release()
	}
	take(conns, true)
	var none *Semaphore
	take(none, true)
	none.Release()
}

func TestBudgetIsExact(t *testing.T) {
	files := NewSemaphore(100, nil, 0)
	b := NewSemaphore(50, files, 2)
	var all sync.WaitGroup
	var open, most atomic.Int64
	for range 100 {
		all.Go(func() {
			for range 100 {
				if !b.Acquire() {
					continue
				}
				if n := open.Add(1); n > most.Load() {
					most.Store(n)
				}
				open.Add(-1)
				b.Release()
			}
		})
	}
	all.Wait()
	if most.Load() > 50 || b.open.Load() != 0 || files.open.Load() != 0 {
		t.Errorf("%d were open, %d and %d are left", most.Load(), b.open.Load(), files.open.Load())
	}
}
