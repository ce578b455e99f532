package client

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/config"
)

// A countingListener counts connections.
type countingListener struct {
	*net.TCPListener
	accepted atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.TCPListener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return c, err
}

// lockedText is a log that may be read while it is written.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// An upstream proxy that is this program itself is not asked, by whatever name
// it is known.
func TestUpstreamIsNotItself(t *testing.T) {
	for _, tt := range []struct{ name, upstream, env, listen string }{
		{"address", "http://127.0.0.1:PORT", "", "127.0.0.1:0"},
		{"name", "http://localhost:PORT", "", "127.0.0.1:0"},
		{"SOCKS", "socks5://127.0.0.1:PORT", "", "127.0.0.1:0"},
		{"IPv4 in IPv6", "http://[::ffff:127.0.0.1]:PORT", "", "127.0.0.1:0"},
		{"unspecified", "http://0.0.0.0:PORT", "", "127.0.0.1:0"},
		{"listens everywhere", "http://127.0.0.2:PORT", "", "0.0.0.0:0"},
		{"environment", "env", "http://localhost:PORT", "127.0.0.1:0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ln, err := net.Listen("tcp4", tt.listen)
			if err != nil {
				t.Fatal(err)
			}
			counted := &countingListener{TCPListener: ln.(*net.TCPListener)}
			_, port, _ := net.SplitHostPort(ln.Addr().String())
			cfg := testConfig()
			cfg.Status.Enabled, cfg.Limits.Drain, cfg.Server.TLS.Enabled = false, 0, false
			cfg.Upstream = config.Secret(strings.ReplaceAll(tt.upstream, "PORT", port))
			cfg.Server.Address = "192.0.2.1" // one that the environment's proxy is for
			said := new(lockedText)
			c, err := New(cfg, Options{
				Listener: counted, Log: slog.New(logging.New(said, slog.LevelInfo, false)),
				LookupEnv: func(name string) (string, bool) {
					return strings.ReplaceAll(tt.env, "PORT", port), name == "HTTP_PROXY" && tt.env != ""
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- c.Run(ctx) }()
			defer func() { cancel(); <-done }()
			tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: "127.0.0.1:" + port})}
			defer tr.CloseIdleConnections()
			resp, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Get("http://198.51.100.1/")
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusBadGateway {
				t.Errorf("the answer is %s", resp.Status)
			}
			if n := counted.accepted.Load(); n != 1 {
				t.Errorf("%d connections for one request", n)
			}
			if text := said.String(); !strings.Contains(text, "upstream.loop") || !strings.Contains(text, "is this program itself [certain]") {
				t.Errorf("it says:\n%s", text)
			}
		})
	}
}
