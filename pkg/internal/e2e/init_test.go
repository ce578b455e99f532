package e2e

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"vmess-local/pkg/config"
)

// TestInit runs a server from what vmess-server init writes, and clients from
// the configuration and the link that it prints.
func TestInit(t *testing.T) {
	dir := t.TempDir()
	_, port, err := net.SplitHostPort(freePort(t))
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.Command(program(t, "vmess-server"), "init", "--host", "127.0.0.1", "--port", port, "--out", dir)
	cmd.Stderr = &said
	printed, err := cmd.Output()
	if err != nil {
		t.Fatalf("init: %v\n%s", err, said.String())
	}
	origin := bulkOrigin(t)
	file := filepath.Join(dir, "server.json")
	allowPrivate(t, file)
	start(t, command{path: program(t, "vmess-server"), args: []string{"run", "-c", file}}).
		waitLine(t, regexp.MustCompile(`(?m)^ready: VMess over WebSocket on `))

	t.Run("configuration", func(t *testing.T) {
		cfg, err := config.ParseClient("printed", printed[bytes.Index(printed, []byte("\n{\n")):])
		if err != nil {
			t.Fatal(err)
		}
		cfg.Listen, cfg.Status.Enabled = "127.0.0.1:0", false
		exchange(t, ourClient(t, cfg).addr, origin, 100_000, 100_000)
	})
	t.Run("link", func(t *testing.T) {
		link, _, _ := bytes.Cut(printed, []byte("\n"))
		p := start(t, command{path: program(t, "vmess-local"), args: []string{"run", string(link), "--listen", "127.0.0.1:0"}})
		addr := p.waitLine(t, regexp.MustCompile(`(?m)^ready: SOCKS5 and HTTP proxy on (\S+)`))[1]
		exchange(t, addr, origin, 100_000, 100_000)
		if p.log.contains(string(link)) {
			t.Error("the client says its link")
		}
	})
}

// allowPrivate changes a server's configuration so that this machine can be
// its users' destination.
func allowPrivate(t testing.TB, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.ParseServer(file, data)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Egress.AllowPrivate = true
	writeFile(t, file, config.MarshalServer(cfg))
}
