package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"vmess-local/pkg/cli"
	"vmess-local/pkg/config"
	"vmess-local/pkg/server"
)

// serve runs a server of secretID at /ws until the test ends, and returns its
// port.
func serve(t *testing.T) (port int) {
	t.Helper()
	cfg := config.DefaultServer()
	cfg.Listen, cfg.Egress.AllowPrivate, cfg.Limits.Drain = "127.0.0.1:0", true, 0
	cfg.Users = []config.User{{ID: secretID}}
	cfg.WS.Path = "/ws"
	s, err := server.New(cfg, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context()) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s.Addr().(*net.TCPAddr).Port
}

// closedPort returns a port where nothing listens.
func closedPort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// near writes a client's configuration for servers on the ports, which are
// called by the names, and returns its file.
func near(t *testing.T, ports []int, names ...string) string {
	t.Helper()
	cfg := config.DefaultClient()
	for i, port := range ports {
		r := config.DefaultClient().Server
		r.Name, r.Address, r.Port = names[i], "127.0.0.1", port
		r.ID, r.WS.Path, r.TLS.Enabled = secretID, "/ws", false
		cfg.Servers = append(cfg.Servers, r)
	}
	cfg.Server = cfg.Servers[0]
	if len(ports) == 1 {
		cfg.Servers = nil
	}
	file := filepath.Join(t.TempDir(), "c.json")
	if err := os.WriteFile(file, config.MarshalClient(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

var milliseconds = regexp.MustCompile(` +[0-9.]+ ms`)

// checked runs check and returns what it prints, times and the file's name
// replaced.
func checked(t *testing.T, code int, file string, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if got := run(append([]string{"check", "-c", file}, args...), strings.NewReader(""), &stdout, &stderr); got != code || stderr.Len() > 0 {
		t.Errorf("exit code %d, want %d; it said\n%s%s", got, code, stdout.String(), stderr.String())
	}
	return milliseconds.ReplaceAllString(strings.ReplaceAll(stdout.String(), file, "FILE"), " MS")
}

const (
	wellTable = `pass  configuration           FILE
skip  dns                     the address is an IP address
pass  tcp MS  127.0.0.1:PORT
skip  tls                     "tls.enabled" is false
pass  upgrade MS  the server upgrades to WebSocket
pass  account MS  the server accepts the id by VMessAEAD
pass  clock MS  this computer and the server agree
skip  destination
skip  udp                     not tried

all checks passed
`
	closedTable = `pass  configuration          FILE
skip  dns                    the address is an IP address
fail  tcp MS
skip  tls                    "tls.enabled" is false
skip  upgrade
skip  account
skip  clock
skip  destination
skip  udp

error: tcp.refused: 127.0.0.1:PORT refuses the connection: nothing is listening on that port [certain]
fix: check "port" at FILE:PLACE, and that the service is running on the server
`
)

// exact brings what depends on ports and on the width of times to one form.
func exact(text string) string {
	for pattern, with := range map[string]string{
		`127\.0\.0\.1:[0-9]+`: "127.0.0.1:PORT", `FILE:[0-9]+:[0-9]+`: "FILE:PLACE",
		`not tried [(].*`: "not tried", ` {2,}`: "  ",
	} {
		text = regexp.MustCompile(pattern).ReplaceAllString(text, with)
	}
	return text
}

// TestCheckServers walks all servers of a list: each under its name, and all
// must be well.
func TestCheckServers(t *testing.T) {
	good, bad := serve(t), closedPort(t)
	well, closed := wellTable, closedTable
	for _, c := range []struct {
		name  string
		ports []int
		args  []string
		code  int
		want  string
	}{
		{"one", []int{good}, nil, 0, well},
		{"both well", []int{good, good}, nil, 0, "server 1 of 2: first\n" + well + "\nserver 2 of 2: second\n" + well},
		{"the second is not", []int{good, bad}, nil, 1, "server 1 of 2: first\n" + well + "\nserver 2 of 2: second\n" + closed},
		{"the first is not", []int{bad, good}, nil, 1, "server 1 of 2: first\n" + closed + "\nserver 2 of 2: second\n" + well},
		{"only the well one", []int{bad, good}, []string{"--server", "second"}, 0, "server 2 of 2: second\n" + well},
		{"only the other", []int{bad, good}, []string{"--server", "first"}, 1, "server 1 of 2: first\n" + closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := checked(t, c.code, near(t, c.ports, "first", "second"), c.args...)
			if exact(got) != exact(c.want) {
				t.Errorf("got\n%s\nwant\n%s", exact(got), exact(c.want))
			}
		})
	}
}

// TestCheckServersJSON gives each server's report under its name; that of a
// single one stands alone.
func TestCheckServersJSON(t *testing.T) {
	type report struct {
		OK      bool
		Server  string
		Steps   []struct{ Name, Status string }
		Verdict *struct{ Cause, Fix string }
	}
	good, bad := serve(t), closedPort(t)
	var all struct {
		OK      bool
		Servers []report
	}
	if err := json.Unmarshal([]byte(checked(t, 1, near(t, []int{good, bad}, "first", "second"), "--json")), &all); err != nil {
		t.Fatal(err)
	}
	if all.OK || len(all.Servers) != 2 || !all.Servers[0].OK || all.Servers[0].Server != "first" || all.Servers[0].Verdict != nil ||
		all.Servers[1].OK || all.Servers[1].Server != "second" || all.Servers[1].Verdict == nil || all.Servers[1].Verdict.Cause != "tcp.refused" {
		t.Errorf("%+v", all)
	}
	var one report
	if err := json.Unmarshal([]byte(checked(t, 0, near(t, []int{good, bad}, "first", "second"), "--json", "--server", "first")), &one); err != nil {
		t.Fatal(err)
	}
	if !one.OK || one.Server != "first" || len(one.Steps) != 9 {
		t.Errorf("%+v", one)
	}
}

// TestCheckServerUnknown names the servers there are.
func TestCheckServerUnknown(t *testing.T) {
	var stdout, stderr bytes.Buffer
	file := near(t, []int{1, 2}, "first", "second")
	if code := run([]string{"check", "-c", file, "--server", "third"}, strings.NewReader(""), &stdout, &stderr); code != cli.ExitUsage {
		t.Errorf("exit code %d", code)
	}
	want := fmt.Sprintf("error: --server: no server is called %q\nfix: write one of first, second\n", "third")
	if stderr.String() != want || stdout.Len() > 0 {
		t.Errorf("%s%s", stdout.String(), stderr.String())
	}
}
