package e2e

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// TestNothingLeaks counts goroutines and memory while both ends run and many
// connections of all sorts have passed. It runs alone.
func TestNothingLeaks(t *testing.T) {
	far := inProcessServer(t, serverConfig(), inProcess{})
	cfg := clientConfig(remoteAt(t, far.addr))
	cfg.Warm.Idle = config.Duration(time.Second) // the ready tunnels must go, too
	near := inProcessClient(t, cfg)
	echo, bulk, short := echoOrigin(t), bulkOrigin(t), closingOrigin(t)
	round := func(n int) {
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				var err error
				switch i % 3 {
				case 0:
					err = tryExchange(near.addr, bulk, 10_000, 10_000)
				case 1:
					err = askShort(near.addr, short, 100)
				case 2:
					err = abandon(near.addr, echo)
				}
				if err != nil {
					t.Errorf("connection %d: %v", i, err)
				}
			})
		}
		all.Wait()
	}
	round(20)
	base := settled(0)
	for range 5 {
		round(100)
	}
	if left := settled(base); left > base {
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines before 500 connections, %d after:\n%s", base, left, stacks[:runtime.Stack(stacks, true)])
	}
}

// abandon opens a connection, uses it and goes away without a word.
func abandon(proxyAddr, echoOrigin string) error {
	c, err := dialVia(proxyAddr, echoOrigin)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := tryEcho(c, "hello\n"); err != nil {
		return err
	}
	return c.SetLinger(0) // by a reset
}

// settled returns the number of goroutines once it is no more than want, or
// does not fall any more.
func settled(want int) int {
	deadline := time.Now().Add(10 * time.Second)
	least, since := runtime.NumGoroutine(), time.Now()
	for time.Now().Before(deadline) {
		n := runtime.NumGoroutine()
		if n < least {
			least, since = n, time.Now()
		}
		if least <= want || want == 0 && time.Since(since) > time.Second {
			break
		}
		time.Sleep(10 * time.Millisecond) // a pause between two looks
	}
	return least
}
