package e2e

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// deaths are how a program ends while it is in use, without an end of what it
// carries.
var deaths = []struct {
	name string
	die  func(t *testing.T, e *end)
}{
	{"killed", func(t *testing.T, e *end) {
		if err := e.proc.cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
	}},
	{"interrupted twice", func(t *testing.T, e *end) {
		for range 2 {
			if err := e.proc.cmd.Process.Signal(os.Interrupt); err != nil {
				t.Error(err)
			}
			waitClosed(t, e.addr)
		}
	}},
}

// TestKilledProcessIsNotEOF ends each program in the middle of a transfer: neither the
// application nor the destination may take what came for all.
func TestKilledProcessIsNotEOF(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("not tested: what the system makes of a dead process's connections, and no process can be interrupted from outside")
	}
	for _, victim := range []string{"client", "server"} {
		for _, d := range deaths {
			for _, app := range applications {
				t.Run(victim+" "+d.name+"/"+app.name, func(t *testing.T) {
					t.Parallel()
					near, dying := dyingPair(t, victim)
					o := newCutOrigin(t)
					c, err := app.dial(near, o.addr)
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					up := make([]byte, half)
					up[0] = '\n'
					if _, err := c.Write(up); err != nil {
						t.Fatal(err)
					}
					if _, err := io.ReadFull(c, make([]byte, half)); err != nil {
						t.Fatal(err)
					}
					if err := o.took(half); err != nil {
						t.Fatal(err)
					}
					d.die(t, dying)
					if n, err := io.Copy(io.Discard, c); err == nil || isTimeout(err) {
						t.Errorf("the application saw %v after %d more bytes", err, n)
					}
					o.wantCut(t)
				})
			}
			for _, version := range []string{"--http1.0", "--http1.1"} {
				t.Run(victim+" "+d.name+"/"+version, func(t *testing.T) {
					t.Parallel()
					need(t, "curl")
					near, dying := dyingPair(t, victim)
					exit, size := curlPage(t, func(*pageOrigin) { d.die(t, dying) }, version, "-x", "http://"+near)
					if exit == 0 || exit == 28 {
						t.Errorf("exit code %d after %d bytes of %d", exit, size, 2*half)
					}
				})
			}
		}
	}
}

func (o *cutOrigin) wantCut(t *testing.T) {
	t.Helper()
	select {
	case err := <-o.end:
		if err == nil || isTimeout(err) {
			t.Errorf("the destination saw %v", err)
		}
	case <-time.After(labPatience):
		t.Error("the destination was not told")
	}
}

// TestDeathIsNoEndForProxy has a server that dies behind a proxy.
func TestDeathIsNoEndForProxy(t *testing.T) {
	t.Parallel()
	o := &cutOrigin{got: make(chan int, 1000), end: make(chan error, 8)}
	proxy := serveOrigin(t, func(c *net.TCPConn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhello")
		_, err := io.Copy(io.Discard, c)
		o.end <- err
	})
	scfg := serverConfig()
	scfg.Egress.Dial = config.Secret("http://" + proxy)
	far := ourServer(t, scfg)
	c := mustDialVia(t, coldClient(t, far.addr, "auto"), "192.0.2.1:80")
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if err := far.proc.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	o.wantCut(t)
}

// dyingPair is a client, and the one of client and server that is to die.
func dyingPair(t *testing.T, victim string) (near string, dying *end) {
	t.Helper()
	scfg := serverConfig()
	scfg.Limits.Drain = config.Duration(time.Minute)
	far := ourServer(t, scfg)
	ccfg := clientConfig(remoteAt(t, far.addr))
	ccfg.Limits.Drain = config.Duration(time.Minute)
	client := ourClient(t, ccfg)
	if victim == "client" {
		return client.addr, client
	}
	return client.addr, far
}
