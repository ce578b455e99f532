package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSeveralServersBehindOneName: the examples of docs/install lead a client
// to two servers; when one is stopped, its connections go on to work by the
// other, and when it is back it is used again.
func TestSeveralServersBehindOneName(t *testing.T) {
	for name, run := range map[string]func(t testing.TB, one, two string, c *certificates) *end{
		"haproxy": haproxyBefore, "nginx": nginxBefore,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := serverConfig()
			// HAProxy and nginx want to know the addresses before; so does restart.
			cfg.Listen = freePort(t)
			one := ourServer(t, cfg)
			cfg.Listen = freePort(t)
			two := ourServer(t, cfg)
			certs := newCertificates(t)
			front := run(t, one.addr, two.addr, certs)
			// A tunnel made ahead could be taken before the word of its end has come
			// through: what is new is what counts here.
			user := clientConfig(overTLS(remoteAt(t, front.addr), certs))
			user.Warm.Max = 0
			near := inProcessClient(t, user)
			origin := bulkOrigin(t)

			exchangeUntil(t, near, origin, one)
			exchangeUntil(t, near, origin, two)
			one.proc.kill()
			for range 10 {
				exchange(t, near.addr, origin, 1<<10, 64<<10)
			}
			one.restart(t)
			exchangeUntil(t, near, origin, one)
		})
	}
}

// exchangeUntil makes exchanges, all of which must work, until the server has
// served one of them.
func exchangeUntil(t *testing.T, near *end, origin string, far *end) {
	t.Helper()
	served := func() int { return strings.Count(far.log.String(), "inbound=vmess") }
	before, deadline := served(), time.Now().Add(time.Minute)
	for served() == before {
		if time.Now().After(deadline) {
			t.Fatalf("the server at %s is not used", far.addr)
		}
		exchange(t, near.addr, origin, 10, 1000)
		if t.Failed() {
			return
		}
	}
}

// installExample returns a file of docs/install, with what stands in it for the
// user's own replaced: pairs of old and new, each of which must be there.
func installExample(t testing.TB, name string, pairs ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "install", name))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(string(data), pairs[i]) {
			t.Errorf("%s has no %s", name, pairs[i])
		}
	}
	return strings.NewReplacer(pairs...).Replace(string(data))
}

// nginxBefore runs nginx's example before two servers.
func nginxBefore(t testing.TB, one, two string, c *certificates) *end {
	t.Helper()
	addr := freePort(t)
	return runNginx(t, addr, installExample(t, "nginx.conf",
		"10.0.0.11:8080", one, "10.0.0.12:8080", two, "listen 443 ssl", "listen "+addr+" ssl", "= /ray", "= "+wsPath,
		"server_name vps.example.com", "server_name localhost",
		"/etc/letsencrypt/live/vps.example.com/fullchain.pem", c.certFile,
		"/etc/letsencrypt/live/vps.example.com/privkey.pem", c.keyFile))
}

// haproxyBefore runs HAProxy's example before two servers.
func haproxyBefore(t testing.TB, one, two string, c *certificates) *end {
	t.Helper()
	path, dir, addr := need(t, "haproxy"), t.TempDir(), freePort(t)
	var pair []byte
	for _, name := range []string{c.certFile, c.keyFile} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		pair = append(pair, data...)
	}
	writeFile(t, filepath.Join(dir, "pair.pem"), pair)
	file := filepath.Join(dir, "haproxy.cfg")
	writeFile(t, file, []byte(installExample(t, "haproxy.cfg",
		"10.0.0.11:8080", one, "10.0.0.12:8080", two, "bind :443 ", "bind "+addr+" ", "path /ray", "path "+wsPath,
		"/etc/haproxy/vps.example.com.pem", filepath.Join(dir, "pair.pem"))))
	p := start(t, command{path: path, args: []string{"-db", "-V", "-f", file}, dir: dir})
	p.waitPort(t, addr)
	return &end{addr: addr, log: p.log, proc: p}
}
