package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// TestFewFiles: with 400 open files, programs that open whatever costs one
// (connections to the status page that say nothing, datagrams to hundreds of
// destinations, each of which has a tunnel) do not keep others out.
func TestFewFiles(t *testing.T) {
	t.Parallel()
	const files = 400
	echo := echoOrigin(t)
	far := readyServer(t, start(t, ours(t, "vmess-server", config.MarshalServer(serverConfig()), nil)))
	cfg := clientConfig(remoteAt(t, far.addr))
	cfg.UDP.Mode, cfg.Log.Level = "plain", "info"
	cfg.Status.Enabled, cfg.Status.Listen = true, freePort(t)
	near := readyClient(t, start(t, withFiles(ours(t, "vmess-local", config.MarshalClient(cfg), nil), files)))
	old := mustDialVia(t, near.addr, echo)
	defer old.Close()
	mustEcho(t, old, "before\n")

	for range files {
		c, err := net.DialTimeout("tcp", cfg.Status.Listen, ioPatience)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for range 4 {
		a := associate(t, near.addr)
		for i := range 120 {
			to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(i)}), 9)
			if err := a.send(to, []byte("x")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond) // no more than what the socket keeps
		}
	}
	near.log.waitFor(t, "error: limit.connections: too many open files: the system allows this program no more connections")
	held := make([]*net.TCPConn, 0, 20)
	for range cap(held) {
		c := mustDialVia(t, near.addr, echo)
		defer c.Close()
		mustEcho(t, c, "meanwhile\n")
		held = append(held, c)
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", near.proc.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files are open", len(open))
	if len(open) > files*3/4 {
		t.Errorf("%d files are open, of %d", len(open), files)
	}
	for _, c := range append(held, old) {
		mustEcho(t, c, "still\n")
	}
}

// TestVeryFewFiles: with a hard limit of 64 open files both programs warn, with
// what to do, and carry several connections, however many are asked for.
func TestVeryFewFiles(t *testing.T) {
	t.Parallel()
	const (
		files  = 64
		carry  = 6
		beside = 40
	)
	echo := echoOrigin(t)
	scfg := serverConfig()
	scfg.Status.Enabled, scfg.Status.Listen = true, freePort(t)
	far := readyServer(t, start(t, withFiles(ours(t, "vmess-server", config.MarshalServer(scfg), nil), files)))
	cfg := clientConfig(remoteAt(t, far.addr))
	cfg.Log.Level = "info"
	cfg.Status.Enabled, cfg.Status.Listen = true, freePort(t)
	near := readyClient(t, start(t, withFiles(ours(t, "vmess-local", config.MarshalClient(cfg), nil), files)))
	for _, p := range []*end{far, near} {
		p.log.waitFor(t, "warning: the limit on open files allows ")
		p.log.waitFor(t, "raise the hard limit (ulimit -Hn 4096, or LimitNOFILE=4096 of a service)")
	}
	held := make([]*net.TCPConn, 0, carry)
	for range carry {
		c := mustDialVia(t, near.addr, echo)
		defer c.Close()
		mustEcho(t, c, "hello\n")
		held = append(held, c)
	}
	for _, addr := range []string{near.addr, cfg.Status.Listen, scfg.Status.Listen} {
		for range beside {
			c, err := net.DialTimeout("tcp", addr, ioPatience)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
	}
	for _, c := range held {
		mustEcho(t, c, "still\n")
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", near.proc.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files are open", len(open))
	if len(open) >= files {
		t.Errorf("%d files are open, of %d", len(open), files)
	}
}
