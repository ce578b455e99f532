package e2e

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

var crowdServer = flag.String("crowd", "ours", "whose server TestCrowd is on: ours or v2ray")

const (
	// crowdFiles is the limit on open files of each program of the crowd but the
	// client: the server has room for its ready tunnels, too.
	crowdFiles  = 20_000
	clientFiles = crowdFiles - 100
	// crowd is how many tunnels are open at once, two files each,
	crowd = 9000
	// crowdBurst how many come at once on top of them,
	crowdBurst = 800
	// and crowdMost how many there is room for, beside 8 ready tunnels.
	crowdMost = (clientFiles - 128 - 8) / 2
	// tunnelMemory is the most that an idle tunnel may take of the client: the
	// table in docs/performance.md, and two thirds as much for the crowd's arrival.
	tunnelMemory = 36 << 10
)

// TestCrowd opens 9,000 tunnels at once and then more in a burst, with 20,000
// open files for each program: all are served. At the bound, which follows from
// the files, new ones are refused by name and the old ones go on. It runs
// alone: the test program holds a file for each tunnel, nginx, as destination,
// another.
func TestCrowd(t *testing.T) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil || l.Max < crowdFiles {
		leaveOut(t, "open files are limited to %d, it takes %d", l.Max, crowdFiles)
	}
	origin := crowdOrigin(t)
	far := crowdFar(t)
	cfg := clientConfig(remoteAt(t, far.addr))
	cfg.Log.Level = "info"
	near := readyClient(t, start(t, withFiles(ours(t, "vmess-local", config.MarshalClient(cfg), nil), clientFiles)))
	c := &gathering{proxy: near.addr, origin: origin}
	defer c.leave()
	c.come(t, 50, 16)
	looks := []*weight{weigh(t, "the client", near)}
	if *crowdServer == "ours" {
		looks = append(looks, weigh(t, "the server", far))
	}

	start := time.Now()
	c.come(t, crowd-len(c.conns), 64)
	t.Logf("%d tunnels after %.1f s", len(c.conns), time.Since(start).Seconds())
	start = time.Now()
	c.come(t, crowdBurst, crowdBurst)
	t.Logf("%d more at once after %.1f s", crowdBurst, time.Since(start).Seconds())
	for _, w := range looks {
		each := (w.look(t) - w.before) / int64(len(c.conns)-50)
		t.Logf("%s: %.0f MiB before, %.0f MiB at most, %.1f KiB a tunnel", w.name, mib(w.before), mib(w.most), float64(each)/1024)
		if each > tunnelMemory {
			t.Errorf("%s takes %d bytes a tunnel, want %d at most", w.name, each, tunnelMemory)
		}
	}

	c.come(t, crowdMost-len(c.conns), 16)
	for range 100 {
		if conn, err := crowdMember(near.addr, origin); err == nil {
			_ = conn.Close()
			t.Fatalf("tunnel %d was let in, with %d open files", crowdMost+1, clientFiles)
		}
	}
	near.log.waitFor(t, fmt.Sprintf("error: limit.connections: a connection was rejected: %d connections are already open", crowdMost))
	if n := strings.Count(near.log.String(), "error: "); n != 1 {
		t.Errorf("100 refusals take %d lines:\n%s", n, near.log)
	}
	c.stay(t)
}

// TestFilesAreRaised: programs that are started with few open files, as shells
// and desktops do, take as many as they may have.
func TestFilesAreRaised(t *testing.T) {
	t.Parallel()
	few := func(c command) command {
		c.args = append([]string{"-c", `ulimit -S -n 256 && exec "$0" "$@"`, c.path}, c.args...)
		c.path = "/bin/sh"
		return c
	}
	far := readyServer(t, start(t, few(ours(t, "vmess-server", config.MarshalServer(serverConfig()), nil))))
	near := readyClient(t, start(t, few(ours(t, "vmess-local", config.MarshalClient(clientConfig(remoteAt(t, far.addr))), nil))))
	for name, e := range map[string]*end{"the server": far, "the client": near} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", e.proc.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`Max open files +(\d+) +(\d+)`).FindStringSubmatch(string(data))
		if soft, hard := number(m, 1), number(m, 2); soft < hard-1 || soft <= 256 { // the runtime leaves one out
			t.Errorf("the limits of %s are %q", name, m)
		}
	}
}

// withFiles has a program run with so many open files.
func withFiles(c command, n int) command {
	c.args = append([]string{"-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, n), c.path}, c.args...)
	c.path = "/bin/sh"
	return c
}

// crowdOrigin is nginx with answers that leave the connection open.
func crowdOrigin(t *testing.T) string {
	addr := freePort(t)
	servers := "server { listen " + addr + " backlog=4096; keepalive_timeout 600s; location / { return 200 here; } }"
	start(t, withFiles(nginxWith(t, servers), crowdFiles)).waitPort(t, addr)
	return addr
}

// crowdFar is the server of the crowd's tunnels.
func crowdFar(t *testing.T) *end {
	if *crowdServer == "v2ray" {
		return startV2rayServer(t, v2rayServer{})
	}
	return readyServer(t, start(t, withFiles(ours(t, "vmess-server", config.MarshalServer(serverConfig()), nil), crowdFiles)))
}

// A gathering is a number of applications with a tunnel each.
type gathering struct {
	proxy, origin string
	mu            sync.Mutex
	conns         []net.Conn
}

// come adds n applications, so many at a time. All must be served.
func (g *gathering) come(t *testing.T, n, atOnce int) {
	t.Helper()
	var all sync.WaitGroup
	var left, bad atomic.Int64
	left.Store(int64(n))
	for range atOnce {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				conn, err := crowdMember(g.proxy, g.origin)
				if err != nil {
					if bad.Add(1) <= 3 {
						t.Error(err)
					}
					continue
				}
				g.mu.Lock()
				g.conns = append(g.conns, conn)
				g.mu.Unlock()
			}
		})
	}
	all.Wait()
	if bad.Load() > 0 {
		t.Fatalf("%d of %d were not served", bad.Load(), n)
	}
}

// stay wants that some of each age are still served.
func (g *gathering) stay(t *testing.T) {
	t.Helper()
	for i := 0; i < len(g.conns); i += 97 {
		if err := crowdAsk(g.conns[i]); err != nil {
			t.Fatalf("tunnel %d is no longer served: %v", i, err)
		}
	}
}

func (g *gathering) leave() {
	for _, c := range g.conns {
		_ = c.Close()
	}
}

// crowdMember opens a tunnel and has it answered.
func crowdMember(proxyAddr, origin string) (net.Conn, error) {
	c, err := dialVia(proxyAddr, origin)
	if err != nil {
		return nil, err
	}
	if err := crowdAsk(c); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// crowdAsk has an open tunnel answered.
func crowdAsk(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(ioPatience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: crowd\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "here" {
		return errors.Join(fmt.Errorf("the destination said %q", text), err)
	}
	return nil
}

// silentMemory is the most that a connection may take that says nothing.
const silentMemory = 16 << 10

// TestSilentCrowd has 10,000 connections say nothing, on each of our ports:
// more than there is room for, so that some are turned away. They take little,
// applications that were there go on, and after the time for the handshake
// there is room again.
func TestSilentCrowd(t *testing.T) {
	const (
		silent    = 10_000
		handshake = 10 * time.Second
	)
	scfg := serverConfig()
	scfg.Limits.Handshake, scfg.Log.Level = config.Duration(handshake), "info"
	far := readyServer(t, start(t, withFiles(ours(t, "vmess-server", config.MarshalServer(scfg), nil), crowdFiles)))
	ccfg := clientConfig(remoteAt(t, far.addr))
	ccfg.Limits.Handshake, ccfg.Log.Level, ccfg.Warm.Max = config.Duration(handshake), "info", 0
	near := readyClient(t, start(t, withFiles(ours(t, "vmess-local", config.MarshalClient(ccfg), nil), clientFiles)))
	echo, bulk := echoOrigin(t), bulkOrigin(t)
	exchange(t, near.addr, bulk, 1<<20, 1<<20)

	for name, e := range map[string]*end{"the client": near, "the server": far} {
		there := mustDialVia(t, near.addr, echo)
		mustEcho(t, there, "before\n")
		w := weigh(t, name, e)
		start := time.Now()
		crowd := make([]net.Conn, 0, silent)
		for range silent {
			c, err := net.DialTimeout("tcp", e.addr, ioPatience)
			if err != nil {
				t.Fatal(err)
			}
			crowd = append(crowd, c)
		}
		w.look(t)
		each := (w.most - w.before) / silent
		t.Logf("%s: %d silent connections after %.1f s, %.1f KiB each", name, silent, time.Since(start).Seconds(), float64(each)/1024)
		if each > silentMemory {
			t.Errorf("%s takes %d bytes for each, want %d at most", name, each, silentMemory)
		}
		mustEcho(t, there, "meanwhile\n")
		for _, c := range crowd {
			_ = c.SetReadDeadline(start.Add(3*handshake + 10*slowness))
			if _, err := c.Read(make([]byte, 1)); isTimeout(err) {
				t.Fatalf("%s lets who says nothing stay", name)
			}
			_ = c.Close()
		}
		t.Logf("%s: all were sent away after %.1f s", name, time.Since(start).Seconds())
		mustEcho(t, there, "after\n")
		exchange(t, near.addr, bulk, 1<<20, 1<<20)
	}
	for _, said := range []struct {
		log  *tail
		text string
	}{
		{near.log, "error: limit.connections: a connection was rejected: "},
		{far.log, "too many connections: the limit is "},
	} {
		said.log.waitFor(t, said.text)
		if n := strings.Count(said.log.String(), said.text); n > 3 {
			t.Errorf("that is said %d times", n)
		}
	}
}

// number reads a submatch, 0 for none.
func number(m []string, i int) int {
	if i >= len(m) {
		return 0
	}
	n, _ := strconv.Atoi(m[i])
	return n
}
