// Package demo shows the whole way on one machine with nothing else needed: a
// server on a free loopback port, a client in front of it, a page behind it,
// and one fetch of that page through all of it.
package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/server"
	"vmess-local/pkg/vmess"
)

// Options say how the demo runs.
type Options struct {
	// Listen is the local proxy's address.
	Listen string
	// AnyPort takes a free port of the same host when that of Listen is taken.
	AnyPort bool
	// Once ends the demo after the fetch; otherwise it stays usable as a proxy
	// until ctx is done.
	Once bool
	// Out gets the steps, one line each.
	Out io.Writer
	// Log gets the talk of client and server; nil discards it.
	Log *slog.Logger
}

// ErrFetch is wrapped when the page did not come through as it should.
var ErrFetch = errors.New("the page did not come through")

const fetchTimeout = 10 * time.Second

// Run runs the demo. It returns nil once the page has been fetched and, unless
// Once is set, ctx is done.
func Run(ctx context.Context, o Options) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var parts group
	defer parts.wait()
	defer cancel(nil)

	id, path := vmess.NewID().Text(), "/"+rand.Text()[:12]
	srv, err := newServer(id, path, o.Log)
	if err != nil {
		return err
	}
	parts.run(cancel, func() error { return srv.Run(ctx) })
	step(o.Out, 1, "server", "VMess over WebSocket on %s, fresh id and path", srv.Addr())

	cl, err := newClient(id, path, srv.Addr(), o)
	if err != nil {
		return err
	}
	step(o.Out, 2, "client", "SOCKS5 and HTTP proxy on %s", cl.Addr())
	parts.run(cancel, func() error { return cl.Run(ctx) })

	page, err := servePage(ctx, &parts, cancel)
	if err != nil {
		return err
	}
	step(o.Out, 3, "page", "http://%s/ on this machine", page)

	if err := fetch(ctx, o.Out, cl.Addr(), page); err != nil {
		return err
	}
	fmt.Fprintln(o.Out, "ok: program -> SOCKS5 -> VMess (AEAD) in WebSocket -> server -> page, and back")
	if o.Once {
		return nil
	}
	fmt.Fprintf(o.Out, "\nEnter SOCKS5 host %s in a browser, or try:\n  curl -x socks5h://%s http://%s/\nCtrl-C ends the demo.\n", cl.Addr(), cl.Addr(), page)
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func step(w io.Writer, n int, what, format string, args ...any) {
	fmt.Fprintf(w, "%d  %-7s %s\n", n, what, fmt.Sprintf(format, args...))
}

func newServer(id, path string, log *slog.Logger) (*server.Server, error) {
	cfg := config.DefaultServer()
	cfg.Listen = "127.0.0.1:0"
	cfg.Users = []config.User{{ID: config.Secret(id), Name: "demo"}}
	cfg.WS.Path = path
	cfg.Egress.AllowPrivate = true
	cfg.Limits.Drain = 0
	return server.New(cfg, server.Options{Log: log})
}

func newClient(id, path string, addr net.Addr, o Options) (*client.Client, error) {
	cfg := config.DefaultClient()
	cfg.Listen = o.Listen
	cfg.Limits.Drain = 0
	s := &cfg.Server
	s.Name, s.Address, s.Port = "demo", "127.0.0.1", addr.(*net.TCPAddr).Port
	s.ID, s.WS.Path, s.TLS.Enabled = config.Secret(id), path, false
	// The embedded server is not the user's: a legacy switch meant for that one
	// would only break the demo.
	noEnv := func(string) (string, bool) { return "", false }
	cl, err := client.New(cfg, client.Options{Log: o.Log, LookupEnv: noEnv})
	var taken *client.ListenError
	if o.AnyPort && errors.As(err, &taken) {
		host, _, splitErr := net.SplitHostPort(o.Listen)
		if splitErr != nil {
			return nil, err
		}
		cfg.Listen = net.JoinHostPort(host, "0")
		return client.New(cfg, client.Options{Log: o.Log, LookupEnv: noEnv})
	}
	return cl, err
}

const pageText = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>vmess-local works</title>
<h1>vmess-local works</h1>
<p>This page came through a local proxy, VMess in a WebSocket, and a server.</p>
</html>
`

func servePage(ctx context.Context, parts *group, cancel context.CancelCauseFunc) (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("serve the page: %w", err)
	}
	s := &http.Server{ReadHeaderTimeout: fetchTimeout, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, pageText)
	})}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	parts.run(cancel, func() error {
		if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the page: %w", err)
		}
		return nil
	})
	return ln.Addr().String(), nil
}

// fetch gets the page as any program would, through the local SOCKS5 port.
func fetch(ctx context.Context, out io.Writer, proxy net.Addr, page string) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "socks5h", Host: proxy.String()}), DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+page+"/", nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFetch, err)
	}
	start := time.Now()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFetch, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrFetch, err)
	case resp.StatusCode != http.StatusOK || string(body) != pageText:
		return fmt.Errorf("%w: status %s, %d bytes", ErrFetch, resp.Status, len(body))
	}
	took := time.Since(start)
	step(out, 4, "fetch", "%s, %d bytes in %.1f ms through all of it", resp.Status, len(body), float64(took.Microseconds())/1000)
	return nil
}
