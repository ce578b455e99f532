package client_test

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/awake"
	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/logline"
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
					Listener: near, Log: slog.New(logline.New(&said, slog.LevelInfo, false)),
					DialTCP: func(ctx context.Context, network, addr string) (net.Conn, error) {
						if addr == "192.0.2.9:80" {
							return alive.dial(ctx, network, addr)
						}
						return host.dial(ctx, network, addr)
					},
					Watcher: &awake.Watcher{Notices: make(chan struct{}), Addresses: func() awake.Addresses { return nil }},
				})
				if err != nil {
					t.Fatal(err)
				}
				defer runAll(t, s.Run, s2.Run, c.Run)()
				ask := func() error {
					app, err := near.dial(t.Context(), "", "")
					if err != nil {
						t.Fatal(err)
					}
					defer app.Close()
					return exchange(app)
				}
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
