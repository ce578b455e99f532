package client_test

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/host/netmon"
	"vmess-local/pkg/server"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// slowToReach is a destination whose connections take their time to come about,
// all but the first.
type slowToReach struct {
	destination
	takes time.Duration
	dials *atomic.Int64
}

// DialStream implements transport.StreamDialer.
func (s slowToReach) DialStream(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
	takes := s.takes
	if s.dials.Add(1) == 1 {
		takes = 0
	}
	select {
	case <-time.After(takes):
		return s.destination.DialStream(ctx, dst, first)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestServerThatTakesLongToDial: a destination that is slow to accept is not
// taken for a server that hangs, whether or not the server is known to answer
// pings.
func TestServerThatTakesLongToDial(t *testing.T) {
	for name, rest := range map[string]time.Duration{"at once": 0, "after pings": 2 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, between := newPipeListener(), newPipeListener()
				var serving sync.WaitGroup
				defer serving.Wait()
				log := &notebook{}
				cfg := inMemoryServer(t)
				cfg.Limits.Dial = config.Duration(time.Minute)
				s, err := server.New(cfg, server.Options{
					Listener: between, Dialer: slowToReach{destination{&serving, echo}, 40 * time.Second, new(atomic.Int64)}, Log: tellOnFailure(t),
				})
				if err != nil {
					t.Fatal(err)
				}
				c, err := client.New(inMemoryClient(t), client.Options{
					Listener: near, DialTCP: between.dial, Log: slog.New(logging.New(log, slog.LevelInfo, false)),
					Watcher: &netmon.Monitor{Notices: make(chan struct{}), Addresses: func() netmon.Addresses { return nil }},
				})
				if err != nil {
					t.Fatal(err)
				}
				defer runAll(t, s.Run, c.Run)()
				var held []net.Conn
				ask := func() error {
					app, err := near.dial(t.Context(), "", "")
					if err != nil {
						t.Fatal(err)
					}
					held = append(held, app)
					return exchange(app)
				}
				for range 3 {
					if err := ask(); err != nil {
						t.Errorf("%v", err)
					}
					time.Sleep(rest)
				}
				for _, app := range slices.Backward(held) {
					_ = app.Close()
				}
				if said := log.String(); strings.Contains(said, "error: ") {
					t.Errorf("said:\n%s", said)
				}
			})
		})
	}
}
