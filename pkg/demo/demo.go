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
	"strconv"
	"strings"
	"syscall"
	"time"

	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/outbound/direct"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/server"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// Options say how the demo runs.
type Options struct {
	// Listen is the local proxy's address, a loopback one.
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

var (
	// ErrFetch is wrapped when the page did not arrive as it should.
	ErrFetch = errors.New("the page did not arrive")
	// ErrListen is wrapped when Listen is no loopback address: the demo's
	// proxy is open to whoever reaches it.
	ErrListen = errors.New("no loopback address")
)

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
	cfg, err := clientConfig(id, path, o.Listen)
	if err != nil {
		return err
	}
	page, err := servePage(ctx, &parts, cancel)
	if err != nil {
		return err
	}
	srv, err := newServer(id, path, page, o.Log)
	if err != nil {
		return err
	}
	parts.run(cancel, func() error { return srv.Run(ctx) })
	step(o.Out, 1, "server", "VMess over WebSocket on %s, fresh id and path", srv.Addr())

	cl, err := newClient(cfg, srv.Addr(), o)
	if err != nil {
		return err
	}
	parts.run(cancel, func() error { return cl.Run(ctx) })
	step(o.Out, 2, "client", "SOCKS5 and HTTP proxy on %s%s", cl.Addr(), instead(o.Listen, cl.Addr()))
	step(o.Out, 3, "page", "http://%s/, a name that only the server knows", PageName)

	if err := fetch(ctx, o.Out, cl.Addr()); err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			return cause // a part failed, and the fetch with it
		}
		return err
	}
	fmt.Fprintln(o.Out, "ok: program -> SOCKS5 -> VMess (AEAD) in WebSocket -> server -> page, and back")
	if o.Once {
		return nil
	}
	fmt.Fprintf(o.Out, stayText, cl.Addr(), PageName, cl.Addr(), PageName, cl.StatusURL())
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// PageName is the page's host. It is of a domain that no resolver has (RFC
// 6761), so a program that gets the page does so through the proxy, and hands
// names on unresolved.
const PageName = "vmess-local.test"

const stayText = `
Now enter %s as SOCKS5 or HTTP proxy in a browser and open
http://%s/ (Firefox: with "Proxy DNS when using SOCKS v5"), or try:
  curl -x socks5h://%s http://%s/
status: %s
Ctrl-C ends the demo.
`

// instead explains a port that is not the one asked for.
func instead(asked string, got net.Addr) string {
	if _, port, err := net.SplitHostPort(asked); err == nil && port != "0" && asked != got.String() && port != strconv.Itoa(got.(*net.TCPAddr).Port) {
		return ", because " + asked + " is taken"
	}
	return ""
}

func step(w io.Writer, n int, what, format string, args ...any) {
	fmt.Fprintf(w, "%d  %-7s %s\n", n, what, fmt.Sprintf(format, args...))
}

func newServer(id, path string, page net.Addr, log *slog.Logger) (*server.Server, error) {
	cfg := config.DefaultServer()
	cfg.Listen = "127.0.0.1:0"
	cfg.Users = []config.User{{ID: config.Secret(id), Name: "demo"}}
	cfg.WS.Path = path
	cfg.Limits.Drain = 0
	out := &direct.Dialer{AllowPrivate: true}
	return server.New(cfg, server.Options{Log: log, Dialer: wayOut(out, page), PacketDialer: out})
}

// wayOut is the server's: directly, and to the page by its name.
func wayOut(direct *direct.Dialer, page net.Addr) transport.StreamDialer {
	address := netaddr.FromAddrPort(page.(*net.TCPAddr).AddrPort())
	return transport.DialerFunc(func(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
		if strings.EqualFold(dst.Host(), PageName) {
			if dst.Port() != 80 { // as browsers do that try https first
				return nil, fmt.Errorf("dial the page: %w", syscall.ECONNREFUSED)
			}
			dst = address
		}
		return direct.DialStream(ctx, dst, first)
	})
}

// clientConfig is the client's, but for the server's port.
func clientConfig(id, path, listen string) (*config.Client, error) {
	cfg := config.DefaultClient()
	cfg.Listen = listen
	cfg.Limits.Drain = 0
	s := &cfg.Server
	s.Name, s.Address, s.Port = "demo", "127.0.0.1", 1
	s.ID, s.WS.Path, s.TLS.Enabled = config.Secret(id), path, false
	if err := cfg.Normalize(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrListen, err)
	}
	return cfg, nil
}

func newClient(cfg *config.Client, server net.Addr, o Options) (*client.Client, error) {
	cfg.Server.Port = server.(*net.TCPAddr).Port
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

func servePage(ctx context.Context, parts *group, cancel context.CancelCauseFunc) (net.Addr, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve the page: %w", err)
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
	return ln.Addr(), nil
}

// fetch gets the page as any program would, through the local SOCKS5 port.
func fetch(ctx context.Context, out io.Writer, proxy net.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	way := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "socks5h", Host: proxy.String()}), DisableKeepAlives: true}
	defer way.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+PageName+"/", nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFetch, err)
	}
	start := time.Now()
	resp, err := way.RoundTrip(req)
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
	step(out, 4, "fetch", "%s, %d bytes in %.1f ms end to end", resp.Status, len(body), float64(took.Microseconds())/1000)
	return nil
}
