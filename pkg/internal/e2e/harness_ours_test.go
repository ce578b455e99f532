package e2e

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/server"
)

// userID is the one user of all servers in these tests.
const userID = "5b1d9a60-3d0c-4a3e-9c0e-6f1d2f7a8b21"

// wsPath is the path that all servers in these tests serve.
const wsPath = "/tunnel"

// legacyEnv makes V2Ray and our client speak MD5 also with alterId 0.
const legacyEnv = "V2RAY_VMESS_AEAD_DISABLED=true"

// What our programs say when they are ready, with the address.
var (
	clientReady = regexp.MustCompile(`ready: SOCKS5 and HTTP proxy on (\S+)`)
	serverReady = regexp.MustCompile(`ready: VMess over WebSocket on (\S+)`)
)

// An end is a running client or server.
type end struct {
	addr string // where it listens, 127.0.0.1:PORT
	log  *tail
	proc *process // nil in process
}

// restart kills the end's process and starts it again. It is for one goroutine
// at a time, any.
func (e *end) restart(t testing.TB) {
	e.proc.kill()
	if err := errors.Join(e.proc.run(), e.proc.listens(e.addr)); err != nil {
		t.Error(err)
	}
}

// remoteAt describes a server to our client: plain ws on wsPath, AEAD.
func remoteAt(t testing.TB, addr string) config.Remote {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	r := config.DefaultRemote()
	r.Address, r.ID, r.WS.Path, r.TLS.Enabled = host, userID, wsPath, false
	if r.Port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	return r
}

// overTLS adds TLS to a description, trusting c's authority. The address
// becomes "localhost", so that the name is checked.
func overTLS(r config.Remote, c *certificates) config.Remote {
	r.Address, r.TLS.Enabled, r.TLS.CAFile = "localhost", true, c.caFile
	return r
}

// clientConfig is a client of one server, on a free port.
func clientConfig(r config.Remote) *config.Client {
	c := config.DefaultClient()
	c.Listen, c.Server, c.Status.Enabled, c.Limits.Drain, c.Log.Level = "127.0.0.1:0", r, false, 0, "debug"
	return c
}

// serverConfig is a server for userID on a free port, which lets loopback
// destinations through.
func serverConfig() *config.Server {
	s := config.DefaultServer()
	s.Listen, s.WS.Path, s.Limits.Drain, s.Log.Level = "127.0.0.1:0", wsPath, 0, "debug"
	s.Users = []config.User{{ID: userID, Name: "tester"}}
	s.Egress.AllowPrivate = true
	return s
}

// ourClient runs vmess-local with a configuration. env is NAME=value.
func ourClient(t testing.TB, cfg *config.Client, env ...string) *end {
	t.Helper()
	p := startOurs(t, "vmess-local", config.MarshalClient(cfg), env)
	ofClient(cfg).searchLog(t, "the client", p.log)
	return readyClient(t, p)
}

// readyClient waits for a vmess-local that was started.
func readyClient(t testing.TB, p *process) *end {
	t.Helper()
	addr := p.waitLine(t, clientReady)[1]
	return &end{addr: addr, log: p.log, proc: p}
}

// ourServer runs vmess-server with a configuration. env is NAME=value.
func ourServer(t testing.TB, cfg *config.Server, env ...string) *end {
	t.Helper()
	p := startOurs(t, "vmess-server", config.MarshalServer(cfg), env)
	ofServer(cfg).searchLog(t, "the server", p.log)
	return readyServer(t, p)
}

// readyServer waits for a vmess-server that was started.
func readyServer(t testing.TB, p *process) *end {
	t.Helper()
	addr := p.waitLine(t, serverReady)[1]
	return &end{addr: addr, log: p.log, proc: p}
}

// startOurs starts one of our programs without waiting for it to be ready.
func startOurs(t testing.TB, name string, cfg []byte, env []string) *process {
	t.Helper()
	return start(t, ours(t, name, cfg, env))
}

// ours is the command of one of our programs.
func ours(t testing.TB, name string, cfg []byte, env []string) command {
	t.Helper()
	path := program(t, name)
	file := filepath.Join(t.TempDir(), "config.json")
	writeFile(t, file, cfg)
	return command{path: path, args: []string{"run", "-c", file}, env: env}
}

// inProcessClient runs the client inside the test program: faster to start,
// under the race detector, and counted by the leak check. It ends with the
// test.
func inProcessClient(t testing.TB, cfg *config.Client, env ...string) *end {
	t.Helper()
	log := newTail()
	parsed, err := config.ParseClient("test", config.MarshalClient(cfg))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(parsed, client.Options{Log: logTo(log), LookupEnv: lookup(env)})
	if err != nil {
		t.Fatal(err)
	}
	ofClient(parsed).searchLog(t, "the client", log)
	runInProcess(t, "the client", log, c.Run)
	return &end{addr: c.Addr().String(), log: log}
}

// inProcess is server.Options; its log and environment are the harness's.
type inProcess = server.Options

// inProcessServer is inProcessClient for the server. opt is for its clock and
// its way out, which knows no names unless opt has a resolver.
func inProcessServer(t testing.TB, cfg *config.Server, opt inProcess, env ...string) *end {
	t.Helper()
	log := newTail()
	parsed, err := config.ParseServer("test", config.MarshalServer(cfg))
	if err != nil {
		t.Fatal(err)
	}
	opt.Log, opt.LookupEnv = logTo(log), lookup(env)
	if opt.Resolver == nil {
		opt.Resolver = newKnowsNothing(t).Resolver
	}
	s, err := server.New(parsed, opt)
	if err != nil {
		t.Fatal(err)
	}
	ofServer(parsed).searchLog(t, "the server", log)
	runInProcess(t, "the server", log, s.Run)
	return &end{addr: s.Addr().String(), log: log}
}

func runInProcess(t testing.TB, name string, log *tail, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
		showLog(t, name, log)
	})
}

func logTo(w *tail) *slog.Logger {
	return slog.New(logging.New(w, slog.LevelDebug, false))
}

// lookup is os.LookupEnv for an environment of NAME=value.
func lookup(env []string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, e := range env {
			if len(e) > len(name) && e[:len(name)] == name && e[len(name)] == '=' {
				return e[len(name)+1:], true
			}
		}
		return "", false
	}
}
