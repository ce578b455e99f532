package client

import (
	"context"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/config"
	"vmess-local/pkg/host/fdlimit"
	"vmess-local/pkg/status"
)

// Whatever is opened first, all together never has more files than there are,
// and datagrams leave room for connections.
func TestRoomIsOne(t *testing.T) {
	cfg := testConfig()
	files, _ := fdlimit.Files(cfg.Warm.Max + status.MaxConns)
	take := func(b *fdlimit.Semaphore) (n int) {
		for b.Acquire() {
			n++
		}
		return n
	}
	r := newFDBudget()
	r.configure(cfg)
	if n := take(r.conns); n != files/2 || r.files.Acquire() {
		t.Errorf("%d connections with %d files, and more besides", n, files)
	}
	r = newFDBudget()
	r.configure(cfg)
	ways, destinations := take(r.udpTunnels), take(r.udpDestinations)
	conns, origins := take(r.conns), take(r.files)
	if all := ways + destinations + 2*conns + origins; ways == 0 || all != files {
		t.Errorf("%d associations, %d destinations, %d connections and %d origins: %d files of %d", ways, destinations, conns, origins, all, files)
	}
	if conns < files/4 {
		t.Errorf("datagrams leave room for %d connections, of %d files", conns, files)
	}
}

// A reload brings no more connections than are configured: those of before
// count, and so does a change of the limit.
func TestReloadKeepsTheBound(t *testing.T) {
	set := func(most int) *config.Client {
		cfg := testConfig()
		cfg.Limits.Connections, cfg.Limits.Drain, cfg.Status.Enabled, cfg.Warm.Max = most, 0, false, 0
		return cfg
	}
	c, err := New(set(3), Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	addr := c.Addr().String()
	greet := func() (net.Conn, bool) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(conn, "\x05\x01\x00")
		_, err = io.ReadFull(conn, make([]byte, 2))
		return conn, err == nil
	}
	var open []net.Conn
	fill := func(want int) {
		t.Helper()
		for {
			conn, ok := greet()
			if !ok {
				break
			}
			open = append(open, conn)
		}
		if len(open) != want {
			t.Errorf("%d connections are open, want %d", len(open), want)
		}
	}
	fill(3)
	for _, most := range []int{3, 3, 5, 2} {
		for err = ErrNotRunning; err == ErrNotRunning; {
			err = c.Reload(set(most))
		}
		if err != nil {
			t.Fatal(err)
		}
		fill(max(most, len(open)))
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, conn := range open {
		_ = conn.Close()
	}
}

// A limit that the system does not allow is said to be lower.
func TestLoweredLimitIsSaid(t *testing.T) {
	cfg := testConfig()
	r := newFDBudget()
	r.configure(cfg)
	if lines := r.hello(cfg); len(lines) != 0 {
		t.Errorf("without a limit: %v", lines)
	}
	cfg.Limits.Connections = math.MaxInt32
	r.configure(cfg)
	if lines := r.hello(cfg); len(lines) != 1 || lines[0].level != slog.LevelWarn {
		t.Errorf("it says %v", lines)
	}
}

// That there are no more files to accept a connection with is named as what it
// is.
func TestShortageIsNamed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig()
	cfg.Status.Enabled = false
	told := make(chan string, 100)
	c, err := New(cfg, Options{Listener: &shortListener{Listener: ln, left: 5}, Log: slog.New(logging.New(lines(told), slog.LevelWarn, false))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	const want = "error: limit.connections: too many open files: the system allows this program no more connections\nfix: raise the limit on open files"
	select {
	case got := <-told:
		if !strings.HasPrefix(got, want) {
			t.Errorf("it says %q", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing is said")
	}
	conn, err := net.Dial("tcp", c.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(conn, "\x05\x01\x00")
	if _, err := io.ReadFull(conn, make([]byte, 2)); err != nil {
		t.Errorf("after the shortage: %v", err)
	}
	_ = conn.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(told) > 0 {
		t.Errorf("and %q", <-told)
	}
}

// lines is a writer that hands on each line of a log.
type lines chan string

func (l lines) Write(p []byte) (int, error) { l <- string(p); return len(p), nil }

// A shortListener is short of files for a while.
type shortListener struct {
	net.Listener
	left int
}

func (l *shortListener) Accept() (net.Conn, error) {
	if l.left > 0 {
		l.left--
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}
