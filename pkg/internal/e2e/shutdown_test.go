package e2e

import (
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// TestDrain ends each program while a connection is in use: nobody new gets
// in, the connection goes on, and with its end the program ends in order.
func TestDrain(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("not tested: a process cannot be interrupted from outside here")
	}
	const drain = config.Duration(15 * time.Second)
	scfg := serverConfig()
	scfg.Limits.Drain = drain
	for _, tt := range []struct {
		name string
		pick func(near, far *end) *end
	}{
		{"client", func(near, _ *end) *end { return near }},
		{"server", func(_, far *end) *end { return far }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			far := ourServer(t, scfg)
			ccfg := clientConfig(remoteAt(t, far.addr))
			ccfg.Limits.Drain = drain
			near := ourClient(t, ccfg)
			c := mustDialVia(t, near.addr, echoOrigin(t))
			echo(t, c, "before\n")

			ending := tt.pick(near, far)
			if err := ending.proc.cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			waitClosed(t, ending.addr)
			echo(t, c, "while it drains\n")
			_ = c.Close()
			if code := ending.proc.exitCode(t); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
		})
	}
}

// TestSecondInterrupt does not wait for connections.
func TestSecondInterrupt(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("not tested: a process cannot be interrupted from outside here")
	}
	ccfg := clientConfig(remoteAt(t, ourServer(t, serverConfig()).addr))
	ccfg.Limits.Drain = config.Duration(time.Minute)
	near := ourClient(t, ccfg)
	c := mustDialVia(t, near.addr, echoOrigin(t))
	echo(t, c, "before\n")
	for range 2 {
		if err := near.proc.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		waitClosed(t, near.addr)
	}
	start := time.Now()
	near.proc.exitCode(t)
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %v to leave", took)
	}
}

// waitClosed waits until nobody accepts connections on addr any more.
func waitClosed(t *testing.T, addr string) {
	t.Helper()
	for deadline := time.Now().Add(startPatience); time.Now().Before(deadline); {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return
		}
		_ = c.Close()
		time.Sleep(10 * time.Millisecond) // a pause between two looks
	}
	t.Errorf("%s still accepts connections", addr)
}
