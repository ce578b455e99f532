package client

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/transporttest"
)

// TestTLSLook: a port that is silent to many is looked at once, and again after a
// while.
func TestTLSLook(t *testing.T) {
	for name, speaks := range map[string]bool{"TLS": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var looks atomic.Int64
				ctx, end := context.WithCancel(t.Context())
				l := &tlsLook{ctx: ctx, dial: func(context.Context) (transport.StreamConn, error) {
					looks.Add(1)
					time.Sleep(100 * time.Millisecond)
					if !speaks {
						return nil, io.ErrUnexpectedEOF
					}
					near, _ := transporttest.Pipe(1)
					return near, nil
				}}
				defer l.close()
				defer end()
				silent := func() {
					dial, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					defer cancel()
					if got := l.speaks(dial); got != speaks {
						t.Errorf("it speaks TLS: %v", got)
					}
				}
				var all sync.WaitGroup
				for range 12 {
					all.Go(silent)
				}
				all.Wait()
				if n := looks.Load(); n != 1 {
					t.Errorf("the port was looked at %d times", n)
				}
				time.Sleep(lookPause)
				silent()
				if n := looks.Load(); n != 2 {
					t.Errorf("after a while it was looked at %d times", n)
				}
				gone, leave := context.WithCancel(t.Context())
				leave()
				time.Sleep(lookPause)
				if l.speaks(gone) {
					t.Error("a dial that is over is told something")
				}
			})
		})
	}
}
