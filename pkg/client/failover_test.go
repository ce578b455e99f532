package client_test

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/host/netmon"
	"vmess-local/pkg/server"
)

// TestSilentServers: where the hosts of preferred servers fall silent, requests
// get through to the one that is left, however short limits.dial is.
func TestSilentServers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		dial   time.Duration
		silent int
	}{
		{"one, 10 s", 10 * time.Second, 1},
		{"one, 3 s", 3 * time.Second, 1},
		{"two, 10 s", 10 * time.Second, 2},
		{"three, 10 s", 10 * time.Second, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, host := newPipeListener(), &rebooting{pipeListener: newPipeListener()}
				alive := newPipeListener()
				var serving sync.WaitGroup
				defer serving.Wait()
				s, err := server.New(inMemoryServer(t), server.Options{Listener: host, Dialer: destination{&serving, echo}})
				if err != nil {
					t.Fatal(err)
				}
				s2, err := server.New(inMemoryServer(t), server.Options{Listener: alive, Dialer: destination{&serving, echo}})
				if err != nil {
					t.Fatal(err)
				}
				cfg := inMemoryClient(t)
				cfg.Limits.Dial = config.Duration(tt.dial)
				silent := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}[:tt.silent]
				for _, a := range append(slices.Clone(silent), "192.0.2.9") {
					r := cfg.Server
					r.Address, r.Name = a, a
					cfg.Servers = append(cfg.Servers, r)
				}
				cfg.Server = config.DefaultClient().Server
				if err := cfg.Normalize(); err != nil {
					t.Fatal(err)
				}
				var said notebook
				c, err := client.New(cfg, client.Options{
					Listener: near, Log: slog.New(logging.New(&said, slog.LevelInfo, false)),
					DialTCP: func(ctx context.Context, network, addr string) (net.Conn, error) {
						if addr == "192.0.2.9:80" {
							return alive.dial(ctx, network, addr)
						}
						return host.dial(ctx, network, addr)
					},
					Watcher: &netmon.Monitor{Notices: make(chan struct{}), Addresses: func() netmon.Addresses { return nil }},
				})
				if err != nil {
					t.Fatal(err)
				}
				defer runAll(t, s.Run, s2.Run, c.Run)()
				ask := func() error { return askOnce(t, near) }
				if err := ask(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute) // no tunnel is at hand
				host.reboot(time.Hour)
				within := time.Duration(tt.silent)*5*time.Second + time.Second
				for range 3 {
					start := time.Now()
					err := ask()
					if took := time.Since(start); err != nil || took > within {
						t.Errorf("%v after %v\n%s", err, took, said.String())
					}
					within = time.Second
				}
			})
		})
	}
}

// TestRefusingServerIsProbedSeldom: of several servers that all failed, one that
// takes requests and does not know the user any more is asked once in a while.
func TestRefusingServerIsProbedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, known, strange := newPipeListener(), newPipeListener(), newPipeListener()
		var serving sync.WaitGroup
		defer serving.Wait()
		s, err := server.New(inMemoryServer(t), server.Options{Listener: known, Dialer: destination{&serving, echo}})
		if err != nil {
			t.Fatal(err)
		}
		other := inMemoryServer(t)
		other.Users[0].ID = "11111111-2222-4333-8444-555555555555"
		s2, err := server.New(other, server.Options{Listener: strange, Dialer: destination{&serving, echo}})
		if err != nil {
			t.Fatal(err)
		}
		cfg := inMemoryClient(t)
		cfg.Warm.Max = 0
		for _, a := range []string{"192.0.2.1", "192.0.2.2"} {
			r := cfg.Server
			r.Address, r.Name = a, a
			cfg.Servers = append(cfg.Servers, r)
		}
		cfg.Server = config.DefaultClient().Server
		if err := cfg.Normalize(); err != nil {
			t.Fatal(err)
		}
		var changed atomic.Bool
		var dials atomic.Int64
		c, err := client.New(cfg, client.Options{
			Listener: near,
			DialTCP: func(ctx context.Context, network, addr string) (net.Conn, error) {
				switch {
				case addr == "192.0.2.2:80":
					return nil, syscall.ECONNREFUSED
				case changed.Load():
					dials.Add(1)
					return strange.dial(ctx, network, addr)
				}
				return known.dial(ctx, network, addr)
			},
			Watcher: &netmon.Monitor{Notices: make(chan struct{}), Addresses: func() netmon.Addresses { return nil }},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer runAll(t, s.Run, s2.Run, c.Run)()
		ask := func() error { return askOnce(t, near) }
		if err := ask(); err != nil {
			t.Fatal(err)
		}
		changed.Store(true)
		const requests = 60
		for range requests {
			if err := ask(); err == nil {
				t.Error("served by a server that does not know the user")
			}
			time.Sleep(time.Second)
		}
		if n := dials.Load(); n > requests+12 {
			t.Errorf("%d connections for %d requests", n, requests)
		}
	})
}
