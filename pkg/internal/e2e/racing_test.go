package e2e

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vmess-local/pkg/config"
	"vmess-local/pkg/config/sharelink"
)

// blackHole is where connections are taken and nothing is ever said.
func blackHole(t testing.TB) string {
	t.Helper()
	return serveOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
}

// TestNotesBeforeServers: a subscription whose first entries are notes on
// addresses that never answer. The first page does not wait for them.
func TestNotesBeforeServers(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join("testdata", "cases", "33-fake-nodes-first.txt"))
	if err != nil {
		t.Fatal(err)
	}
	found, err := sharelink.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	good, silent, dead := inProcessServer(t, serverConfig(), inProcess{}).addr, blackHole(t), deadAddress(t)
	var remotes []config.Remote
	for _, s := range found.Servers {
		addr, ok := map[int]string{47001: good, 47095: silent, 1: dead}[s.Port]
		if !ok {
			t.Fatalf("the file has a server on port %d", s.Port)
		}
		r := remoteAt(t, addr)
		r.Name = s.Name
		remotes = append(remotes, r)
	}
	if len(remotes) < 4 {
		t.Fatalf("%d servers", len(remotes))
	}
	l := newLab(t, labSetup{remote: remotes[0], change: func(c *config.Client) {
		c.Server, c.Servers = config.DefaultClient().Server, remotes
	}})
	origin, start := echoOrigin(t), time.Now()
	l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
	if took := time.Since(start); took > 4*time.Second { // each silent one may take 5 s
		t.Errorf("the first answer came after %v", took)
	}
	l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
	l.awaitServer(t, "HK 01")
	if using := l.uses(t); len(using) != 1 {
		t.Errorf("used were %q, want the one that answers alone", using)
	}
}

// uses are the servers that were said to be used, in their order.
func (l *lab) uses(t testing.TB) (all []string) {
	t.Helper()
	for _, r := range l.records(t) {
		if r.Msg == "server" {
			all = append(all, r.Server)
		}
	}
	return all
}
