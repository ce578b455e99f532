package e2e

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
)

// severalServers is a lab whose client has servers in order of preference.
func severalServers(t testing.TB, remotes ...config.Remote) *lab {
	t.Helper()
	for i := range remotes {
		remotes[i].Name = string(rune('a' + i))
	}
	return newLab(t, labSetup{remote: remotes[0], change: func(c *config.Client) {
		c.Server, c.Servers = config.DefaultClient().Server, remotes
	}})
}

func (l *lab) awaitServer(t testing.TB, name string) record {
	t.Helper()
	return l.await(t, "the use of server "+name, func(r record) bool { return r.Msg == "server" && r.Server == name })
}

// deadAddress is where nobody listens.
func deadAddress(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// TestFailOver: a request whose server cannot be reached goes to the next at
// once, and those behind it do not try the dead one again.
func TestFailOver(t *testing.T) {
	origin := echoOrigin(t)
	far := inProcessServer(t, serverConfig(), inProcess{})
	l := severalServers(t, remoteAt(t, deadAddress(t)), remoteAt(t, far.addr))
	for range 5 {
		l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
	}
	l.awaitServer(t, "b")
	if f := l.failures(t); len(f) != 1 || f[0].Cause != "tcp.refused" || f[0].Server != "a" || f[0].Count != 1 {
		t.Errorf("told: %+v", f)
	}
}

// TestFailOverByAccount: a server that does not know the user is a failed one
// too; the request that found out is lost, the next is not.
func TestFailOverByAccount(t *testing.T) {
	origin := echoOrigin(t)
	other := serverConfig()
	other.Users[0].ID = "11111111-2222-4333-8444-555555555555"
	strange := inProcessServer(t, other, inProcess{})
	far := inProcessServer(t, serverConfig(), inProcess{})
	l := severalServers(t, remoteAt(t, strange.addr), remoteAt(t, far.addr))
	l.ask(origin, "hello\n", 6).wantClosed(t, 5*time.Second)
	l.awaitServer(t, "b")
	l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
}

// TestFailOverOfDatagrams: an association whose server fails goes on by the
// next one, though what found out is lost.
func TestFailOverOfDatagrams(t *testing.T) {
	t.Parallel()
	other := serverConfig()
	other.Users[0].ID = "11111111-2222-4333-8444-555555555555"
	for _, mode := range []string{"auto", "plain", "packetaddr", "xudp"} {
		for name, first := range map[string]func() string{
			"dead":    func() string { return deadAddress(t) },
			"silent":  func() string { return blackHole(t) },
			"strange": func() string { return inProcessServer(t, other, inProcess{}).addr },
		} {
			t.Run(name+", "+mode, func(t *testing.T) {
				t.Parallel()
				far := inProcessServer(t, serverConfig(), inProcess{})
				a, b := remoteAt(t, first()), remoteAt(t, far.addr)
				a.Name, b.Name = "a", "b"
				l := newLab(t, labSetup{remote: a, change: func(c *config.Client) {
					c.Server, c.Servers, c.UDP.Mode = config.DefaultClient().Server, []config.Remote{a, b}, mode
				}})
				u, to := associate(t, l.addr), echoDatagrams(t)
				u.mustEcho(t, to, 64)
				l.awaitServer(t, "b")
				if got := l.causes(t); len(got) != 1 {
					t.Errorf("told were %q", got)
				}
			})
		}
	}
}

// TestReturn: the preferred server is used again once it is back, after a
// rest, and only because there is traffic.
func TestReturn(t *testing.T) {
	origin := echoOrigin(t)
	far := inProcessServer(t, serverConfig(), inProcess{})
	first := inProcessServer(t, serverConfig(), inProcess{})
	way := newRoad(t, deadAddress(t), 0, 0)
	l := severalServers(t, remoteAt(t, way.addr), remoteAt(t, far.addr))
	l.ask(origin, "hello\n", 6)
	l.awaitServer(t, "b")
	way.leadTo(first.addr)
	deadline := time.Now().Add(20 * time.Second)
	for !used(t, l, "a") {
		if time.Now().After(deadline) {
			t.Fatal("the preferred server is not used again")
		}
		l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
		time.Sleep(100 * time.Millisecond) // traffic, not a wait
	}
	l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
}

func used(t testing.TB, l *lab, name string) bool {
	t.Helper()
	for _, r := range l.records(t) {
		if r.Msg == "server" && r.Server == name {
			return true
		}
	}
	return false
}

// TestDestinationIsNoServer: what fails behind a server does not move the
// client to another.
func TestDestinationIsNoServer(t *testing.T) {
	far := inProcessServer(t, serverConfig(), inProcess{})
	spare := inProcessServer(t, serverConfig(), inProcess{})
	l := severalServers(t, remoteAt(t, far.addr), remoteAt(t, spare.addr))
	origin, nobody := echoOrigin(t), deadAddress(t)
	l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
	for range 3 {
		l.ask(nobody, "hello\n", 6)
	}
	l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
	if used(t, l, "b") {
		t.Error("it went to the other server")
	}
}

// TestReload: connections that are open go on through the old server, new ones
// go through the new, on the same port or another.
func TestReload(t *testing.T) {
	origin := echoOrigin(t)
	one := inProcessServer(t, serverConfig(), inProcess{})
	two := inProcessServer(t, serverConfig(), inProcess{})
	l := newLab(t, labSetup{remote: remoteAt(t, one.addr)})
	old := mustDialVia(t, l.addr, origin)
	defer old.Close()
	mustEcho(t, old, "before\n")

	anew := func() *config.Client {
		cfg := clientConfig(remoteAt(t, two.addr))
		cfg.Status.Enabled, cfg.Status.Listen = true, "127.0.0.1:0" // as it was
		return cfg
	}
	cfg := anew()
	if err := l.client.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	if got := l.client.Addr().String(); got != l.addr {
		t.Fatalf("the port moved from %s to %s", l.addr, got)
	}
	mustEcho(t, old, "after\n")
	fresh := mustDialVia(t, l.addr, origin)
	defer fresh.Close()
	mustEcho(t, fresh, "hello\n")
	if !two.log.contains("connection") {
		// The line comes at the end of a connection.
		_ = fresh.Close()
		two.log.waitFor(t, "connection")
	}

	// A configuration that cannot work is kept out.
	taken := anew()
	taken.Listen = two.addr
	var busy *client.ListenError
	if err := l.client.Reload(taken); !errors.As(err, &busy) {
		t.Fatalf("a port in use: %v", err)
	}
	moved := anew()
	moved.Listen = deadAddress(t)
	if err := l.client.Reload(moved); err != nil {
		t.Fatal(err)
	}
	mustEcho(t, old, "still\n")
	if _, err := net.Dial("tcp", l.addr); err == nil {
		t.Error("the old port is still open")
	}
	last := mustDialVia(t, moved.Listen, origin)
	defer last.Close()
	mustEcho(t, last, "hello\n")
}

func mustEcho(t testing.TB, c *net.TCPConn, line string) {
	t.Helper()
	if err := tryEcho(c, line); err != nil {
		t.Fatalf("echo of %q: %v", line, err)
	}
}

// TestReloadKeepsAssociations: an association that is open goes on through the
// old server until it is idle, and by the same port; new ones go through the new
// server. At the end of the program nobody waits for one.
func TestReloadKeepsAssociations(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"plain", "xudp"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			one, two := newRoad(t, inProcessServer(t, serverConfig(), inProcess{}).addr, 0, 0), newRoad(t, inProcessServer(t, serverConfig(), inProcess{}).addr, 0, 0)
			change := func(c *config.Client) { c.UDP.Mode, c.UDP.Idle = mode, config.Duration(time.Second) }
			l := newLab(t, labSetup{remote: remoteAt(t, one.addr), change: change})
			destination := reflector(t)
			to := addrPortOf(destination)
			var seen []netip.AddrPort
			exchange := func(a *associated) {
				t.Helper()
				if err := a.send(to, []byte("ping")); err != nil {
					t.Fatal(err)
				}
				p := make([]byte, 10)
				_ = destination.SetReadDeadline(time.Now().Add(labPatience))
				n, from, err := destination.ReadFromUDPAddrPort(p)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = destination.WriteToUDPAddrPort(p[:n], from)
				if _, _, err := a.receive(labPatience); err != nil {
					t.Fatal(err)
				}
				seen = append(seen, from)
			}
			call := associate(t, l.addr)
			exchange(call)
			cfg := clientConfig(remoteAt(t, two.addr))
			cfg.Warm.Max, cfg.Status.Enabled, cfg.Status.Listen = 0, true, "127.0.0.1:0"
			change(cfg)
			if err := l.client.Reload(cfg); err != nil {
				t.Fatal(err)
			}
			for range 20 { // longer than udp.idle
				time.Sleep(100 * time.Millisecond)
				exchange(call)
			}
			for _, from := range seen {
				if from != seen[0] {
					t.Fatalf("the destination saw it come from %v and %v", seen[0], from)
				}
			}
			if n, _ := two.counts(); n != 0 {
				t.Errorf("%d tunnels to the new server by an association of before", n)
			}
			exchange(associate(t, l.addr))
			if n, _ := two.counts(); n != 1 {
				t.Errorf("%d tunnels to the new server, want 1", n)
			}
			call.wantOver(t) // it is idle now
			l.wantQuiet(t)

			last := associate(t, l.addr)
			exchange(last)
			if err := l.client.Reload(cfg); err != nil {
				t.Fatal(err)
			}
			exchange(last) // and the end of the test does not wait for it
		})
	}
}
