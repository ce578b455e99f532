package client

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/config"
	"vmess-local/pkg/host/listen"
)

// Where it listens on all addresses, programs on this computer are given
// 127.0.0.1 and other devices this computer's addresses; 0.0.0.0 is IPv4 only.
func TestWildcardListen(t *testing.T) {
	for addr, onIPv6 := range map[string]bool{"0.0.0.0:0": false, "[::]:0": true, ":0": true} {
		t.Run(addr, func(t *testing.T) {
			cfg := testConfig()
			cfg.Listen, cfg.Status.Listen, cfg.Warm.Max, cfg.Limits.Drain = addr, "127.0.0.1:0", 0, 0
			cfg.Auth = config.Auth{Username: "someone", Password: "5ec2e7word"}
			var log bytes.Buffer
			var hints SetupHints
			c, err := New(cfg, Options{
				Log: slog.New(logging.New(&log, slog.LevelInfo, false)), OnListen: func(h SetupHints) { hints = h },
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- c.Run(ctx) }()
			real := c.Addr().String()
			_, port, _ := net.SplitHostPort(real)
			here := "127.0.0.1:" + port
			wantProxy(t, here)
			conn, err := net.Dial("tcp", "[::1]:"+port)
			if got := err == nil; got != onIPv6 {
				t.Errorf("IPv6 accepted: %v, want %v", got, onIPv6)
			}
			if err == nil {
				_ = conn.Close()
			}
			if got := (page{c}).State().(pageState).Shell; !strings.HasSuffix(got, "@"+here) {
				t.Errorf("for a shell: %q, want %s", got, here)
			}
			resp, err := http.Get("http://" + c.page.Addr().String() + "/proxy.pac")
			if err != nil {
				t.Fatal(err)
			}
			pac, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if !strings.Contains(string(pac), `"PROXY `+here+`"`) {
				t.Errorf("PAC, want PROXY %s:\n%s", here, pac)
			}
			http.DefaultClient.CloseIdleConnections()
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if text, want := log.String(), "ready: SOCKS5 and HTTP proxy on "+real+"\n"; !strings.Contains(text, want) {
				t.Errorf("the log lacks %q:\n%s", want, text)
			}
			want := SetupHints{
				Proxy:    here,
				Firefox:  "HTTP Proxy 127.0.0.1 port " + port + ", and \"Also use this proxy for HTTPS\" (it asks for the password; for SOCKS it has none)",
				Chromium: "chromium --proxy-server=http://" + here + " (it asks for the password; for SOCKS it has none)",
				Shell:    exportProxy(runtime.GOOS, "socks5h://USER:PASSWORD@"+here),
				Others:   listen.Elsewhere(real),
			}
			if !reflect.DeepEqual(hints, want) {
				t.Errorf("hints %+v, want %+v", hints, want)
			}
		})
	}
}
