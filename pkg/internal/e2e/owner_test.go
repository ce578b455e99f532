package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/config"
	"vmess-local/pkg/server"
)

// TestUsersComeAndGo: a reload adds and removes users without a restart; what
// is under way goes on.
func TestUsersComeAndGo(t *testing.T) {
	t.Parallel()
	cfg := serverConfig()
	log := newTail()
	s, err := server.New(cfg, server.Options{Log: logTo(log), LookupEnv: lookup(nil)})
	if err != nil {
		t.Fatal(err)
	}
	runInProcess(t, "the server", log, s.Run)
	origin := echoOrigin(t)
	near := inProcessClient(t, clientConfig(remoteAt(t, s.Addr().String())))
	old := mustDialVia(t, near.addr, origin)
	defer old.Close()
	mustEcho(t, old, "before\n")

	const otherID = "0c1d9a60-3d0c-4a3e-9c0e-6f1d2f7a8b99"
	next := serverConfig()
	next.Users = []config.User{{ID: otherID, Name: "other"}}
	if err := s.Reload(next); err != nil {
		t.Fatal(err)
	}
	mustEcho(t, old, "after\n")
	remote := remoteAt(t, s.Addr().String())
	remote.ID = otherID
	exchange(t, inProcessClient(t, clientConfig(remote)).addr, bulkOrigin(t), 10, 10)
	l := newLab(t, labSetup{remote: remoteAt(t, s.Addr().String())})
	l.ask(origin, "hello\n", 6).wantClosed(t, 5*time.Second)
	l.await(t, "the refusal", func(r record) bool { return r.Cause == "vmess.unknown-user" })

	moved := serverConfig()
	moved.Listen = "127.0.0.1:1"
	if err := s.Reload(moved); err == nil {
		t.Error("a change that needs a restart was taken over")
	}
}

// TestFallbackPage: an ordinary visitor sees a web server, a client a tunnel.
func TestFallbackPage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte("welcome"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := serverConfig()
	cfg.Fallback = dir
	far := inProcessServer(t, cfg, inProcess{})
	resp, err := http.Get("http://" + far.addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(body) != "welcome" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	near := inProcessClient(t, clientConfig(remoteAt(t, far.addr)))
	exchange(t, near.addr, bulkOrigin(t), 10, 10)
}

// TestTrustedProxies: behind a proxy that is trusted, the log names the
// visitor, by X-Forwarded-For or the PROXY protocol.
func TestTrustedProxies(t *testing.T) {
	t.Parallel()
	cfg := serverConfig()
	cfg.TrustedProxies = []string{"127.0.0.0/8"}
	cfg.Users[0].ID = "11111111-2222-4333-8444-555555555555" // so that ours is refused
	far := inProcessServer(t, cfg, inProcess{})
	remote := remoteAt(t, far.addr)
	remote.WS.Headers = map[string]string{"X-Forwarded-For": "6.6.6.6, 203.0.113.7"}
	newLab(t, labSetup{remote: remote}).ask(echoOrigin(t), "hello\n", 6)
	far.log.waitFor(t, "rejected a connection from 203.0.113.7:0")

	proxy := serveOrigin(t, func(c *net.TCPConn) {
		up, err := net.Dial("tcp", far.addr)
		if err != nil {
			return
		}
		defer up.Close()
		_, _ = io.WriteString(up, "PROXY TCP4 203.0.113.8 192.0.2.1 4711 443\r\n")
		ctx, cancel := context.WithCancel(context.Background())
		go func() { _, _ = io.Copy(c, up); _ = c.Close(); cancel() }()
		_, _ = io.Copy(up, c)
		_ = up.(*net.TCPConn).CloseWrite()
		<-ctx.Done()
	})
	newLab(t, labSetup{remote: remoteAt(t, proxy)}).ask(echoOrigin(t), "hello\n", 6)
	far.log.waitFor(t, "rejected a connection from 203.0.113.8:4711")
}

// TestEgressByProxy: what users ask for leaves by the configured proxy, names
// unresolved, and private addresses stay forbidden.
func TestEgressByProxy(t *testing.T) {
	t.Parallel()
	out := inProcessServer(t, serverConfig(), inProcess{})
	gate := inProcessClient(t, clientConfig(remoteAt(t, out.addr))) // any SOCKS5 proxy
	cfg := serverConfig()
	cfg.Egress.Dial = config.Secret("socks5://" + gate.addr)
	far := inProcessServer(t, cfg, inProcess{})
	near := inProcessClient(t, clientConfig(remoteAt(t, far.addr)))
	origin := bulkOrigin(t)
	exchange(t, near.addr, origin, 1000, 1000)
	exchange(t, near.addr, byName(origin), 1000, 1000)
	if !strings.Contains(gate.log.String(), "to="+byName(origin)) {
		gate.log.waitFor(t, "to="+byName(origin))
	}
	strict := serverConfig()
	strict.Egress = config.Egress{Dial: cfg.Egress.Dial}
	closed := inProcessServer(t, strict, inProcess{})
	if err := tryExchange(inProcessClient(t, clientConfig(remoteAt(t, closed.addr))).addr, origin, 10, 10); err == nil {
		t.Error("a private address was reached")
	}
}

// TestServerPage: what each user moves is shown with the token only.
func TestServerPage(t *testing.T) {
	t.Parallel()
	cfg := serverConfig()
	cfg.Status = config.Status{Enabled: true, Listen: "127.0.0.1:0"}
	far := inProcessServer(t, cfg, inProcess{})
	base, token, _ := strings.Cut(pageAddress(t, far.log), "/?token=")
	near := inProcessClient(t, clientConfig(remoteAt(t, far.addr)))
	origin := bulkOrigin(t)
	exchange(t, near.addr, origin, 1000, 5000)
	far.log.waitFor(t, "inbound=vmess user=tester to="+origin)
	// The sizes asked for go before the bytes up, a hash after those down.
	code, body := pageCall(t, "GET", base+"/api/state", token)
	if code != 200 || !strings.Contains(string(body), `"users":[{"name":"tester","open":0,"opened":1,"up":1024,"down":5032}]`) {
		t.Errorf("%d %s", code, body)
	}
	for _, open := range []string{"/", "/metrics"} {
		if _, body := pageCall(t, "GET", base+open, ""); strings.Contains(string(body), "tester") || strings.Contains(string(body), origin) {
			t.Errorf("%s shows users or destinations", open)
		}
	}
	if code, _ := pageCall(t, "GET", base+"/proxy.pac", ""); code != 404 {
		t.Errorf("a proxy configuration for no proxy: %d", code)
	}
}
