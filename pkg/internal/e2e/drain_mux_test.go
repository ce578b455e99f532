package e2e

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// TestServerDrainsWithMux stops a server while a session of a Mux tunnel is in
// use: that goes on, and sessions that are opened meanwhile are served elsewhere,
// by another server or by the same when it is back.
func TestServerDrainsWithMux(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("not tested: a process cannot be interrupted from outside here")
	}
	for _, mux := range []bool{false, true} {
		for _, several := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, several servers: %v", muxName(mux), several), func(t *testing.T) {
				t.Parallel()
				scfg := serverConfig()
				scfg.Listen, scfg.Limits.Drain = freePort(t), config.Duration(10*time.Second)
				far := ourServer(t, scfg)
				ccfg := clientConfig(remoteAt(t, far.addr))
				if several {
					ccfg.Servers = []config.Remote{ccfg.Server, remoteAt(t, ourServer(t, serverConfig()).addr)}
					for i := range ccfg.Servers {
						ccfg.Servers[i].Name = fmt.Sprint("server ", i)
					}
					ccfg.Server = config.Remote{}
				}
				ccfg.Mux.Enabled = mux
				near := ourClient(t, ccfg)
				origin := echoOrigin(t)
				running := mustDialVia(t, near.addr, origin)
				echo(t, running, "before\n")
				if err := far.proc.cmd.Process.Signal(os.Interrupt); err != nil {
					t.Fatal(err)
				}
				if !mux {
					waitClosed(t, far.addr) // a request that meets the moment itself may be lost
				}
				var all sync.WaitGroup
				for i := range 40 {
					all.Go(func() {
						c, err := dialVia(near.addr, origin)
						if err == nil {
							defer c.Close()
							err = tryEcho(c, fmt.Sprintf("request %d\n", i))
						}
						if err != nil {
							t.Errorf("request %d: %v", i, err)
						}
					})
					time.Sleep(time.Millisecond) // before, in and after the moment
				}
				if !several {
					waitClosed(t, far.addr)
					scfg.Limits.Drain = 0
					ourServer(t, scfg)
				}
				all.Wait()
				echo(t, running, "while it drains\n")
				_ = running.Close()
				if code := far.proc.exitCode(t); code != 0 {
					t.Errorf("exit code %d, want 0", code)
				}
			})
		}
	}
}

// TestV2rayIgnoresDrainMark has V2Ray as a client with Mux while our server
// drains: its running session goes on.
func TestV2rayIgnoresDrainMark(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("not tested: a process cannot be interrupted from outside here")
	}
	scfg := serverConfig()
	scfg.Limits.Drain = config.Duration(20 * time.Second)
	far := ourServer(t, scfg)
	near := startV2rayClient(t, far.addr, v2rayClient{mux: 8})
	origin := echoOrigin(t)
	running := mustDialVia(t, near.addr, origin)
	echo(t, running, "before\n")
	if err := far.proc.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	waitClosed(t, far.addr)
	for range 3 {
		echo(t, running, "behind the mark\n")
		// V2Ray is sent a marked End.
		refused := mustDialVia(t, near.addr, origin)
		if err := tryEcho(refused, "x\n"); err == nil {
			t.Error("a server that drains took a session")
		}
	}
	echo(t, running, "still\n")
	_ = running.Close()
	if code := far.proc.exitCode(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}
