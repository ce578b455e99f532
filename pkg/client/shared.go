package client

import (
	"context"
	"sync"
)

// A sharedCall is a call over the network whose result serves all who ask for
// it while it is under way. No lock is held meanwhile. Its zero value is ready
// for use; it may be used concurrently.
type sharedCall[T any] struct {
	mu      sync.Mutex
	current *callUnderWay[T] // nil: there is none
	closed  bool
	running sync.WaitGroup
}

type callUnderWay[T any] struct {
	done   chan struct{}
	result T
}

// do returns the result of the call under way, or of f where there is none. It
// is the zero value once ctx has ended, which does not end the call, or the
// sharedCall is closed.
func (s *sharedCall[T]) do(ctx context.Context, f func() T) (result T) {
	c := s.start(f)
	if c == nil {
		return result
	}
	select {
	case <-c.done:
		return c.result
	case <-ctx.Done():
		return result
	}
}

// start returns the call under way, which is that of f where there was none; nil
// when the sharedCall is closed. It does not wait.
func (s *sharedCall[T]) start(f func() T) *callUnderWay[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil && !s.closed {
		c := &callUnderWay[T]{done: make(chan struct{})}
		s.current = c
		s.running.Go(func() { s.run(c, f) })
	}
	return s.current
}

func (s *sharedCall[T]) run(c *callUnderWay[T], f func() T) {
	c.result = f()
	s.mu.Lock()
	if s.current == c {
		s.current = nil
	}
	s.mu.Unlock()
	close(c.done)
}

// forget lets the call under way serve only those who wait for it already.
func (s *sharedCall[T]) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = nil
}

// close waits for the calls under way, which the caller must have ended.
func (s *sharedCall[T]) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.running.Wait()
}
