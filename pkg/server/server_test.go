package server

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"vmess-local/pkg/carrier/wsconn"
	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/config"
	"vmess-local/pkg/protocol/mux"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/tcpconn"
	"vmess-local/pkg/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const userID = "b831381d-6324-4d53-ad4f-8cda48b30811"

func testConfig() *config.Server {
	cfg := config.DefaultServer()
	cfg.Listen = "127.0.0.1:0"
	cfg.Users = []config.User{{ID: userID, Name: "alice"}}
	cfg.Egress.AllowPrivate = true
	cfg.Limits.Drain = 0
	return cfg
}

// logged is a log that may be read while it is written.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.text.String() }

// serve runs a server until the test ends.
func serve(t *testing.T, cfg *config.Server, opt Options) (*Server, *logged) {
	t.Helper()
	log := new(logged)
	opt.Log = slog.New(logging.New(log, slog.LevelDebug, false))
	opt.LookupEnv = func(string) (string, bool) { return "", false }
	s, err := New(cfg, opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s, log
}

// dialer reaches destinations through s.
func dialer(t *testing.T, s *Server) *vmess.Dialer {
	t.Helper()
	id, err := vmess.ParseID(userID)
	if err != nil {
		t.Fatal(err)
	}
	method, err := vmess.ParseMethod("auto", true, false)
	if err != nil {
		t.Fatal(err)
	}
	tcp := transport.EndpointFunc(func(ctx context.Context, _ []byte) (transport.StreamConn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", s.Addr().String())
		if err != nil {
			return nil, err
		}
		return tcpconn.New(c.(*net.TCPConn)), nil
	})
	return &vmess.Dialer{
		Client:   vmess.NewAccount(vmess.AccountConfig{ID: id, Method: method}),
		Endpoint: &wsconn.Dialer{Endpoint: tcp, Host: "server.test", Path: "/ray"},
	}
}

// echo is an origin that sends back what it gets.
func echo(t *testing.T) netaddr.Addr {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { _ = ln.Close(); all.Wait() })
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			})
		}
	})
	return netaddr.FromAddrPort(ln.Addr().(*net.TCPAddr).AddrPort())
}

// 0.0.0.0 is IPv4 only; [::] and nothing are both.
func TestListenFamilies(t *testing.T) {
	for addr, onIPv6 := range map[string]bool{"0.0.0.0:0": false, "[::]:0": true, ":0": true} {
		cfg := testConfig()
		cfg.Listen = addr
		s, err := New(cfg, Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(s.Addr().String())
		for host, want := range map[string]bool{"127.0.0.1": true, "::1": onIPv6} {
			conn, err := net.Dial("tcp", net.JoinHostPort(host, port))
			if err == nil {
				_ = conn.Close()
			}
			if got := err == nil; got != want {
				t.Errorf("%s: %s accepted: %v, want %v", addr, host, got, want)
			}
		}
		_ = s.Close()
	}
}

func TestStream(t *testing.T) {
	s, log := serve(t, testConfig(), Options{})
	conn, err := dialer(t, s).DialStream(t.Context(), echo(t), []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(conn); string(all) != "hello" || err != nil {
		t.Fatalf("read %q, %v", all, err)
	}
	if text := log.String(); !strings.Contains(text, "ready: VMess over WebSocket on "+s.Addr().String()) || strings.Contains(text, userID) {
		t.Errorf("the log says\n%s", text)
	}
}

// limits.handshake ends with the upgrade: a client keeps tunnels ready.
func TestReadyTunnelWaits(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.Handshake = config.Duration(100 * time.Millisecond)
	s, _ := serve(t, cfg, Options{})
	d := dialer(t, s)
	ready, err := d.Endpoint.ConnectStream(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Duration(cfg.Limits.Handshake)) // of a real connection
	d.Endpoint = transport.EndpointFunc(func(_ context.Context, flight []byte) (transport.StreamConn, error) {
		_, err := ready.Write(flight)
		return ready, err
	})
	c, err := d.DialStream(t.Context(), echo(t), []byte("late"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	got := make([]byte, 4)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "late" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestPrivateRefused(t *testing.T) {
	cfg := testConfig()
	cfg.Egress.AllowPrivate = false
	s, log := serve(t, cfg, Options{})
	for range 3 {
		conn, err := dialer(t, s).DialStream(t.Context(), echo(t), []byte("hello"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if all, err := io.ReadAll(conn); len(all) != 0 || err != nil {
			t.Errorf("read %q, %v; want an authentic answer without data", all, err)
		}
	}
	if n := strings.Count(log.String(), "warning: user \"alice\" asked for a private destination"); n != 1 {
		t.Errorf("told %d times:\n%s", n, log)
	}
}

// A Mux session to where nothing can be is ended as soon as it is opened, which
// tells whoever asks that it is accepted.
func TestProbeIsAnswered(t *testing.T) {
	s, _ := serve(t, testConfig(), Options{})
	probe, _ := netaddr.FromHost("probe.invalid", 80)
	open := mux.Frame{Session: 7, Status: mux.StatusNew, Network: mux.NetworkTCP, Address: probe}
	conn, err := dialer(t, s).DialMux(t.Context(), open.Append(nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f, err := mux.NewReader(conn).Next()
	if err != nil || f.Session != 7 || f.Status != mux.StatusEnd || !conn.Answered() {
		t.Errorf("got %+v, %v, answered %v", f, err, conn.Answered())
	}
}

func TestTooManyConnections(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.Connections = 1
	s, log := serve(t, cfg, Options{})
	first, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := io.WriteString(first, "GET /else HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Read(make([]byte, 1)); err != nil { // it is being served
		t.Fatal(err)
	}
	second, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	_ = second.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := second.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second connection read %d bytes, %v", n, err)
	}
	if !strings.Contains(log.String(), "too many connections: the limit is 1") {
		t.Errorf("the log says\n%s", log)
	}
}

func TestOrdinaryVisitor(t *testing.T) {
	s, _ := serve(t, testConfig(), Options{})
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + s.Addr().String() + "/index.html")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusNotFound || len(body) != 0 {
		t.Errorf("status %d, body %q", resp.StatusCode, body)
	}
}

// Streams that are open at the end are cut once the time for draining is over.
func TestDrainCuts(t *testing.T) {
	log := new(logged)
	s, err := New(testConfig(), Options{Log: slog.New(logging.New(log, slog.LevelDebug, false))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	conn, err := dialer(t, s).DialStream(t.Context(), echo(t), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("a cut stream ended with %v", err)
	}
	if want := "stopped: connections that were still open after 0s were cut\n"; !strings.HasSuffix(log.String(), want) {
		t.Errorf("it said\n%s, want\n%s", log, want)
	}
}

// A server that stops takes no request any more: tunnels without one end in
// order and at once, and only what runs is waited for.
func TestDrainTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, cfg := transporttest.NewPipeListener(1<<12), testConfig()
		cfg.Limits.Drain = config.Duration(time.Minute)
		log := new(logged)
		s, err := New(cfg, Options{Listener: ln, Dialer: transport.DialerFunc(echoPipe), Log: slog.New(logging.New(log, slog.LevelDebug, false))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		d := dialer(t, s)
		d.Endpoint.(*wsconn.Dialer).Endpoint = transport.EndpointFunc(func(context.Context, []byte) (transport.StreamConn, error) {
			return ln.Dial().(*transporttest.Conn), nil
		})
		dst, _ := netaddr.FromHost("example.com", 80)
		open := func(via transport.StreamDialer) transport.StreamConn {
			c, err := via.DialStream(t.Context(), dst, []byte("x"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			return c
		}
		overMux := func() *mux.Client {
			m := &mux.Client{Dial: func(ctx context.Context, first []byte) (transport.StreamConn, error) { return d.DialMux(ctx, first) }}
			t.Cleanup(func() { _ = m.Close() })
			return m
		}
		unused, busy := overMux(), overMux()
		_ = open(unused).Close()
		running := []transport.StreamConn{open(d), open(busy)}
		ready, err := d.Endpoint.ConnectStream(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer ready.Close()
		time.Sleep(10 * time.Second) // of the bubble's: all is quiet

		stopped := time.Now()
		stop()
		if n, err := ready.Read(make([]byte, 1)); n != 0 || err != io.EOF || time.Since(stopped) > 0 {
			t.Errorf("a ready tunnel ended with %d bytes, %v, after %v", n, err, time.Since(stopped))
		}
		if c, err := busy.DialStream(t.Context(), dst, []byte("y")); err == nil {
			if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Error("a new session is served")
			}
			_ = c.Close()
		}
		for _, c := range running {
			if _, err := c.Write([]byte("y")); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Errorf("what runs was ended: %v", err)
			}
		}
		select {
		case <-done:
			t.Error("what runs is not waited for")
		default:
		}
		for _, c := range running {
			_ = c.Close()
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(stopped); took > 10*time.Second {
			t.Errorf("the end took %v", took)
		}
		if strings.Contains(log.String(), "stopped:") {
			t.Errorf("it says that it cut something:\n%s", log)
		}
	})
}

// echoPipe makes a way to nowhere that sends back what it gets.
func echoPipe(context.Context, netaddr.Addr, []byte) (transport.StreamConn, error) {
	near, far := transporttest.Pipe(1 << 10)
	go func() {
		_, _ = io.Copy(far, far)
		_ = far.Close()
	}()
	return near, nil
}

// TestClose: a server that was not run gives its ports back.
func TestClose(t *testing.T) {
	cfg := testConfig()
	cfg.Status = config.Status{Enabled: true, Listen: "127.0.0.1:0"}
	s, err := New(cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	page, err := url.Parse(s.page.URL())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{s.Addr().String(), page.Host} {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatalf("a port was not given back: %v", err)
		}
		_ = ln.Close()
	}
}

func TestNewFails(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for name, change := range map[string]func(*config.Server){
		"port in use":    func(c *config.Server) { c.Listen = ln.Addr().String() },
		"no certificate": func(c *config.Server) { c.TLS = config.ServerTLS{CertFile: "none.pem", KeyFile: "none.key"} },
		"no users":       func(c *config.Server) { c.Users = nil },
		"a bad id":       func(c *config.Server) { c.Users[0].ID = config.Secret(userID[1:]) },
	} {
		cfg := testConfig()
		change(cfg)
		if s, err := New(cfg, Options{}); err == nil {
			_ = s.Close()
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), userID[1:]) {
			t.Errorf("%s: the error shows the id", name)
		}
	}
}

// Who withholds a body or takes no answer is not waited for without end.
func TestHTTPIsBounded(t *testing.T) {
	const handshake = 3 * time.Second
	port := func(t *testing.T, fallback, target string) transporttest.HTTPPort {
		ln, cfg := transporttest.NewPipeListener(16), testConfig()
		cfg.Limits.Handshake, cfg.Fallback = config.Duration(handshake), fallback
		serve(t, cfg, Options{Listener: ln})
		return transporttest.HTTPPort{Dial: ln.Dial, Room: 16, Target: target, Fields: "Host: x\r\n", Within: 3 * handshake}
	}
	for _, target := range []string{"/", "/ray", "/x"} {
		t.Run(target, func(t *testing.T) {
			transporttest.TestHTTPPort(t, func(t *testing.T) transporttest.HTTPPort { return port(t, "", target) })
		})
	}
	t.Run("fallback", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, 1<<17), 0o600); err != nil {
			t.Fatal(err)
		}
		transporttest.TestHTTPPort(t, func(t *testing.T) transporttest.HTTPPort {
			p := port(t, dir, "/big")
			p.Pace, p.Within = time.Second, fallbackPatience+3*handshake
			return p
		})
	})
}

// The bounds of HTTP are not those of a tunnel.
func TestTunnelOutlivesHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, cfg := transporttest.NewPipeListener(1<<12), testConfig()
		cfg.Limits.Handshake = config.Duration(3 * time.Second)
		far, way := transporttest.Pipe(1 << 10)
		s, _ := serve(t, cfg, Options{Listener: ln, Dialer: transport.DialerFunc(func(context.Context, netaddr.Addr, []byte) (transport.StreamConn, error) { return way, nil })})
		d := dialer(t, s)
		d.Endpoint.(*wsconn.Dialer).Endpoint = transport.EndpointFunc(func(context.Context, []byte) (transport.StreamConn, error) {
			return ln.Dial().(*transporttest.Conn), nil
		})
		dst, _ := netaddr.FromHost("example.com", 80)
		conn, err := d.DialStream(t.Context(), dst, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for range 3 {
			if _, err := far.Write([]byte("y")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
		}
		_ = far.Close()
	})
}

// A limit above what the system allows is said to be lower, and that there are
// no more files is named, a few times only.
func TestShortageIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Limits.Connections = math.MaxInt32
		ln := &shortListener{PipeListener: transporttest.NewPipeListener(1 << 12), left: 30}
		_, log := serve(t, cfg, Options{Listener: ln})
		c := ln.Dial() // all shortages are over
		defer c.Close()
		for text, n := range map[string]int{
			"error: limit.connections: too many open files: the system allows this program no more connections": 3,
			"fix: raise the limit on open files (ulimit -n), or lower \"limits.connections\"":                   3,
			"warning: \"limits.connections\" is 2147483647, and the limit on open files allows ":                1,
		} {
			if got := strings.Count(log.String(), text); got != n {
				t.Errorf("%q is said %d times, want %d:\n%s", text, got, n, log)
			}
		}
	})
}

// What net/http takes for the end of accepting, but passes on its own, does not
// stop the server.
func TestAcceptShortage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &shortListener{PipeListener: transporttest.NewPipeListener(1 << 12), left: 3, errno: syscall.ENOBUFS}
		serve(t, testConfig(), Options{Listener: ln})
		c := ln.Dial()
		defer c.Close()
		synctest.Wait()
		if ln.left != 0 {
			t.Errorf("accept was not called again: %d shortages are left", ln.left)
		}
	})
}

// A shortListener is short of files, or of what errno says, for a while.
type shortListener struct {
	*transporttest.PipeListener
	left  int
	errno syscall.Errno
}

func (l *shortListener) Accept() (net.Conn, error) {
	if l.left > 0 {
		l.left--
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", cmp.Or(l.errno, syscall.EMFILE))}
	}
	return l.PipeListener.Accept()
}
