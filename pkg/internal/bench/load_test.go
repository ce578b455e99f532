package main

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// socksProxy is the relay inside the test.
func socksProxy(t *testing.T) string {
	t.Helper()
	ln, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	var (
		open    connSet
		running sync.WaitGroup
	)
	running.Go(func() { serve(ln, &open, &running, relaySOCKS) })
	t.Cleanup(func() {
		_ = ln.Close()
		open.closeAll()
		running.Wait()
	})
	return ln.Addr().String()
}

func TestTransferThroughTheRelay(t *testing.T) {
	o, err := newOrigins()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	proxy := socksProxy(t)
	for _, dir := range []direction{down, up} {
		for _, streams := range []int{1, 4} {
			tr, err := o.prepare(proxy, dir, streams)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := tr.move(4 * mib); err != nil {
					t.Errorf("%s, %d streams: %v", dir, streams, err)
				}
			}
			_ = tr.Close()
		}
	}
	if err := listenFirst(proxy, o.banner); err != nil {
		t.Errorf("an origin that speaks first: %v", err)
	}
	if err := short(proxy, o.source, kib); err != nil {
		t.Errorf("a short connection: %v", err)
	}
	conns, err := o.tunnels(proxy, 20)
	if err != nil {
		t.Error(err)
	}
	o.open.halfClose()
	for _, c := range conns {
		_ = c.Close()
	}
	if err := o.open.waitEmpty(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAtOnce(t *testing.T) {
	t.Run("calls each once, a few at a time", func(t *testing.T) {
		var calls [50]atomic.Int32
		var now, most atomic.Int32
		if err := atOnce(len(calls), 4, func(i int) error {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			calls[i].Add(1)
			now.Add(-1)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for i := range calls {
			if n := calls[i].Load(); n != 1 {
				t.Errorf("%d was called %d times", i, n)
			}
		}
		if most.Load() > 4 {
			t.Errorf("%d ran at a time, want 4 at most", most.Load())
		}
	})
	t.Run("stops after an error", func(t *testing.T) {
		bad, calls := errors.New("bad"), 0
		err := atOnce(50, 1, func(i int) error {
			calls++
			if i == 3 {
				return bad
			}
			return nil
		})
		if !errors.Is(err, bad) || calls != 4 {
			t.Errorf("got %v after %d calls, want %v after 4", err, calls, bad)
		}
	})
}
