package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/carrier/wsconn"
	"vmess-local/pkg/host/netmon"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/transporttest"
)

// silentEndpoint is an endpoint that never connects. It counts the attempts.
func silentEndpoint(attempts *atomic.Int64) transport.StreamEndpoint {
	return transport.EndpointFunc(func(ctx context.Context, _ []byte) (transport.StreamConn, error) {
		attempts.Add(1)
		<-ctx.Done()
		return nil, ctx.Err()
	})
}

// TestFollowUpProbeIsShared: requests that fail at one moment, in whatever
// ways, wait for one follow-up probe of each way, all at the same time.
func TestFollowUpProbeIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, g := newFarEnd(t, 0)
		var probes atomic.Int64
		g.prober.Other = silentEndpoint(&probes)
		f.connect = func(_ context.Context, n int) error {
			if n%2 == 0 {
				return &wsconn.TimeoutError{After: time.Second}
			}
			return fmt.Errorf("websocket upgrade: %w", wsconn.ErrClosedEarly)
		}
		start := time.Now()
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				_, err := g.DialStream(t.Context(), somewhere, []byte("hello"))
				var named *VerdictError
				if took := time.Since(start); !errors.As(err, &named) || took > 3*time.Second {
					t.Errorf("%v after %v", err, took)
				}
			})
		}
		all.Wait()
		if n := probes.Load(); n != 2 {
			t.Errorf("%d probes of 2 ways", n)
		}
	})
}

// TestFollowUpProbeHoldsUpNobody: a network change is taken note of while a
// follow-up probe is under way, and who gives up does not wait for it.
func TestFollowUpProbeHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, g := newFarEnd(t, 0)
		var probes atomic.Int64
		g.prober.Other = silentEndpoint(&probes)
		f.connect = func(context.Context, int) error { return &wsconn.TimeoutError{After: time.Second} }
		start := time.Now()
		gone, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for _, ctx := range []context.Context{gone, t.Context()} {
			all.Go(func() {
				_, _ = g.DialStream(ctx, somewhere, []byte("hello"))
				if took := time.Since(start); ctx == gone && took > 0 {
					t.Errorf("a request that was given up ended after %v", took)
				}
			})
		}
		synctest.Wait()
		cancel()
		g.onNetworkChange(netmon.Event{AddrsChanged: true})
		if took := time.Since(start); took > 0 {
			t.Errorf("a network change was held up for %v", took)
		}
		all.Wait()
		if _, err := g.DialStream(t.Context(), somewhere, []byte("hello")); err == nil || probes.Load() != 2 {
			t.Errorf("on the new network: %v, %d probes", err, probes.Load())
		}
	})
}

// TestAccountProbesAreShared: a round of probes that finds nothing out in its
// time is one for all requests that wait for it.
func TestAccountProbesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, g := newFarEnd(t, 16)
		var probes atomic.Int64
		g.prober.Endpoint = silentEndpoint(&probes)
		g.found, g.ended, g.next = outcome{}, time.Time{}, time.Time{}
		f.refuse = func(c *transporttest.Conn) { _, _ = c.Read(make([]byte, 4<<10)) }
		start := time.Now()
		var all sync.WaitGroup
		for range 16 {
			c := dialGuarded(t, g, "hello")
			all.Go(func() {
				_, err := c.Read(make([]byte, 1))
				if took := time.Since(start); err == nil || took > probeTimeout {
					t.Errorf("%v after %v", err, took)
				}
			})
		}
		all.Wait()
	})
}
