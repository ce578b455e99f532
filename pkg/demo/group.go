package demo

import (
	"context"
	"sync"
)

// A group is the demo's running parts: the first that fails ends all.
type group struct{ running sync.WaitGroup }

func (g *group) run(fail context.CancelCauseFunc, part func() error) {
	g.running.Go(func() {
		if err := part(); err != nil {
			fail(err)
		}
	})
}

func (g *group) wait() { g.running.Wait() }
