package e2e

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// watched is how long the tests of memory look at a program that must not
// grow.
var watched = flag.Duration("watch", 3*time.Second, "how long TestMemoryStaysFlat looks at each program")

const (
	// heap is what waits for a slow reader.
	heap = 4 << 30
	// growth is the most that a program may take for one connection, whatever
	// waits: its buffers, and what the runtime takes at a time.
	growth = 8 << 20
)

// TestMemoryStaysFlat has 4 GiB wait behind somebody who does not take them,
// and looks at what our programs, in processes of their own, hold meanwhile.
// Then it closes the connection in the middle of that: the far end must see it
// within a second.
func TestMemoryStaysFlat(t *testing.T) {
	t.Parallel()
	for _, server := range []struct {
		name  string
		start func(t testing.TB) *end
	}{
		{"V2Ray server", func(t testing.TB) *end { return startV2rayServer(t, v2rayServer{}) }},
		{"our server", func(t testing.TB) *end { return ourServer(t, serverConfig()) }},
	} {
		for _, s := range stuck {
			t.Run(server.name+"/"+s.name, func(t *testing.T) {
				t.Parallel()
				far := server.start(t)
				near := ourClient(t, clientConfig(remoteAt(t, far.addr)))
				s.run(t, near, far, server.name == "our server")
			})
		}
	}
}

// A standstill is a connection on which much more is sent than is taken.
type standstill struct {
	name   string
	within time.Duration              // the far end sees that the application has gone
	origin func(c *net.TCPConn) error // what the destination does; returns when its peer is gone
	app    func(c *net.TCPConn)       // what the application does, until c is closed
}

var stuck = []standstill{
	{
		"4 GiB down, read at 1 MiB a second", time.Second,
		func(c *net.TCPConn) error { return fill(c, heap) },
		func(c *net.TCPConn) { _ = sip(c) },
	},
	{
		"4 GiB up, read at 1 MiB a second", 30 * time.Second, // what is on its way is read at that pace
		func(c *net.TCPConn) error { return sip(c) },
		func(c *net.TCPConn) { _ = fill(c, heap) },
	},
	{
		"4 GiB down, never read", time.Second,
		func(c *net.TCPConn) error { return fill(c, heap) },
		func(*net.TCPConn) {},
	},
	{
		"an echo of 4 GiB, by a writer that never reads", time.Second,
		func(c *net.TCPConn) error {
			_, err := io.Copy(c, c)
			return err
		},
		func(c *net.TCPConn) { _ = fill(c, heap) },
	},
}

// run watches one standstill, and ends it.
func (s standstill) run(t *testing.T, near, far *end, farIsOurs bool) {
	begun, gone := make(chan struct{}), make(chan error, 1)
	origin := serveOrigin(t, func(c *net.TCPConn) {
		if _, err := readLine(c); err != nil {
			return
		}
		close(begun)
		gone <- s.origin(c)
	})
	exchange(t, near.addr, bulkOrigin(t), 8<<20, 8<<20) // what a program takes at first is no growth
	looks := []*weight{weigh(t, "the client", near)}
	if farIsOurs {
		looks = append(looks, weigh(t, "the server", far))
	}

	c := mustDialVia(t, near.addr, origin)
	if _, err := io.WriteString(c, "GET\n"); err != nil {
		t.Fatal(err)
	}
	<-begun
	var app sync.WaitGroup
	app.Go(func() { s.app(c) })
	for over := time.After(*watched); ; {
		select {
		case err := <-gone:
			t.Fatalf("the far end was over before the application was: %v", err)
		case <-time.After(50 * time.Millisecond):
			for _, w := range looks {
				w.look(t)
			}
			continue
		case <-over:
		}
		break
	}
	_ = c.SetLinger(0)
	_ = c.Close()
	closed := time.Now()
	app.Wait()
	select {
	case <-gone:
		t.Logf("the far end saw the end after %v", time.Since(closed))
	case <-time.After(s.within + slowness):
		t.Errorf("the far end goes on %v after the application went away", s.within)
	}
	for _, w := range looks {
		w.look(t)
		w.judge(t)
	}
}

// fill writes n bytes, unless the other side goes.
func fill(w io.Writer, n int64) error {
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(endless{}, n), make([]byte, 256<<10)); err != nil {
		return err
	}
	return errors.New("all of it was taken")
}

// sip reads 1 MiB a second until there is no more.
func sip(c *net.TCPConn) error {
	const parts = 16
	beat := time.NewTicker(time.Second / parts)
	defer beat.Stop()
	buf := make([]byte, 1<<20/parts)
	for range beat.C {
		if _, err := io.ReadFull(c, buf); err != nil {
			return err
		}
	}
	return nil
}

// A weight is the resident memory of a program, over time.
type weight struct {
	name         string
	pid          int
	before, most int64
}

// weigh weighs a program for the first time.
func weigh(t testing.TB, name string, e *end) *weight {
	t.Helper()
	w := &weight{name: name, pid: e.proc.cmd.Process.Pid}
	w.before = w.look(t)
	return w
}

// look weighs it again, and returns bytes.
func (w *weight) look(t testing.TB) int64 {
	t.Helper()
	rss, err := statusField(w.pid, "VmRSS:")
	if err != nil {
		t.Fatal(err)
	}
	w.most = max(w.most, rss)
	return rss
}

// judge fails the test when the program has grown.
func (w *weight) judge(t testing.TB) {
	t.Helper()
	grown := w.most - w.before
	t.Logf("%s: %.1f MiB before, %.1f MiB at most", w.name, mib(w.before), mib(w.most))
	if grown > growth {
		t.Errorf("%s has grown by %.1f MiB, want %d at most", w.name, mib(grown), growth>>20)
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// statusField reads a number of kB from /proc/PID/status, and returns bytes.
func statusField(pid int, field string) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("%s is not in the status of process %d", field, pid)
}

// TestGoneBehindStuckUpload: nothing is held for an application that is gone,
// though the destination takes nothing of what it sent before.
func TestGoneBehindStuckUpload(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t)
	secure := serverConfig()
	secure.TLS = config.ServerTLS{CertFile: certs.certFile, KeyFile: certs.keyFile}
	plain := func(r config.Remote) config.Remote { return r }
	for name, tt := range map[string]struct {
		far    func() *end
		remote func(config.Remote) config.Remote
		ours   bool
	}{
		"V2Ray server":        {func() *end { return startV2rayServer(t, v2rayServer{}) }, plain, false},
		"our server":          {func() *end { return ourServer(t, serverConfig()) }, plain, true},
		"our server with TLS": {func() *end { return ourServer(t, secure) }, func(r config.Remote) config.Remote { return overTLS(r, certs) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			stay := make(chan struct{})
			origin := serveOrigin(t, func(*net.TCPConn) { <-stay })
			defer close(stay)
			far := tt.far()
			near := ourClient(t, clientConfig(tt.remote(remoteAt(t, far.addr))))
			c := mustDialVia(t, near.addr, origin)
			_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
			if err := fill(c, heap); !isTimeout(err) {
				t.Fatalf("the destination takes nothing, and the application sees %v", err)
			}
			_ = c.SetLinger(0)
			_ = c.Close()
			gone := "to=" + origin
			near.log.waitFor(t, gone)
			if tt.ours {
				far.log.waitFor(t, gone)
			}
		})
	}
}
