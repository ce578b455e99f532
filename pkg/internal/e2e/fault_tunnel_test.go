package e2e

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// hold makes a connection to an echoing origin, says something and waits for
// its echo.
func (l *lab) hold(t testing.TB, origin string) *net.TCPConn {
	t.Helper()
	c := mustDialVia(t, l.addr, origin)
	echoOn(t, c, "hello\n")
	return c
}

func echoOn(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Error(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Errorf("echo of %q: %q, %v", text, got, err)
	}
}

// wantCut reads until the connection ends, which must be within a time and not
// in order.
func wantCut(t testing.TB, c net.Conn, within time.Duration) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(within))
	if _, err := io.Copy(io.Discard, c); err == nil || isTimeout(err) {
		t.Errorf("the connection ended with %v, want it cut within %v", err, within)
	}
}

// causes are those of the failures told so far.
func (l *lab) causes(t testing.TB) []string {
	t.Helper()
	var all []string
	for _, r := range l.failures(t) {
		all = append(all, r.Cause)
	}
	return all
}

// awaitCause waits for a failure of a cause.
func (l *lab) awaitCause(t testing.TB, cause string) record {
	t.Helper()
	return l.await(t, cause, func(r record) bool { return r.Level == "ERROR" && r.Cause == cause })
}

// TestFaultIdleCut: nginx ends tunnels after proxy_read_timeout. Twice the same
// silence is proof; pings prevent it.
func TestFaultIdleCut(t *testing.T) {
	t.Parallel()
	const silence = 2 * time.Second
	certs := newCertificates(t)
	origin := echoOrigin(t)
	nginx := startNginx(t, labV2ray(t).addr, certs, silence).addr
	ping := func(every time.Duration) config.Remote {
		return with(overTLS(remoteAt(t, nginx), certs), func(r *config.Remote) { r.WS.Ping = config.Duration(every) })
	}

	t.Run("without pings", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, labSetup{remote: ping(0)})
		for range 2 {
			wantCut(t, l.hold(t, origin), silence+2*time.Second)
		}
		first := l.awaitCause(t, "tunnel.idle-cut")
		if first.Confidence != "likely" || !strings.Contains(first.Msg, "was closed after 2 s of silence") {
			t.Errorf("the first time: %+v", first)
		}
		r := l.await(t, "a certain idle cut", func(r record) bool { return r.Cause == "tunnel.idle-cut" && r.Confidence == "certain" })
		t.Logf("%s [%s]; fix: %s", r.Msg, r.Confidence, r.Fix)
		if !strings.Contains(r.Msg, "closes connections that are idle for 2 s") || !strings.Contains(r.Fix, `set "ws.ping": "1s" at config.json:`) {
			t.Errorf("%+v", r)
		}
		l.wantFailures(t, 2)
	})
	t.Run("plain HTTP", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, labSetup{remote: ping(0)})
		stalls := stallingOrigin(t)
		for range 2 {
			c, err := net.Dial("tcp", l.addr)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, "GET http://"+stalls+"/ HTTP/1.1\r\nHost: "+stalls+"\r\n\r\n")
			_ = c.SetReadDeadline(time.Now().Add(silence + 5*time.Second))
			if got, err := io.ReadAll(c); isTimeout(err) || !strings.Contains(string(got), "\r\n\r\n") {
				t.Errorf("read %q, %v; want a part of the answer and its end", got, err)
			}
			_ = c.Close()
		}
		r := l.await(t, "a certain idle cut", func(r record) bool { return r.Cause == "tunnel.idle-cut" && r.Confidence == "certain" })
		if !strings.Contains(r.Msg, "closes connections that are idle for 2 s") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("with pings", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, labSetup{remote: ping(time.Second)})
		c := l.hold(t, origin)
		time.Sleep(silence + time.Second) // the silence itself is tested
		echoOn(t, c, "still there\n")
		l.wantQuiet(t)
	})
	t.Run("the application's own end", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, labSetup{remote: ping(0)})
		c := l.hold(t, origin)
		_ = c.SetLinger(0)
		_ = c.Close()
		l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
		l.wantQuiet(t)
	})
}

// stallingOrigin is an HTTP server whose answers stop in the middle.
func stallingOrigin(t *testing.T) string {
	t.Helper()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "8")
		_, _ = io.WriteString(w, "some")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(origin.Close)
	return origin.Listener.Addr().String()
}

// TestFaultServerGone kills a server in the middle of downloads, and starts it
// again.
func TestFaultServerGone(t *testing.T) {
	t.Parallel()
	endless := serveOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, pattern(1, 1<<40)) })
	echo := echoOrigin(t)
	cfg := serverConfig()
	cfg.Listen = freePort(t)
	far := ourServer(t, cfg)
	l := newLab(t, labSetup{remote: remoteAt(t, far.addr)})

	const downloads = 3
	var started, ended sync.WaitGroup
	for range downloads {
		c := mustDialVia(t, l.addr, endless)
		started.Add(1)
		ended.Go(func() {
			_, err := io.CopyN(io.Discard, c, 1<<20)
			started.Done()
			if err == nil {
				_, err = io.Copy(io.Discard, c)
			}
			if err == nil || isTimeout(err) {
				t.Errorf("a download from a killed server ended with %v", err)
			}
		})
	}
	started.Wait()
	killed := time.Now()
	far.proc.kill()
	ended.Wait()
	r := l.expect(t, expected{
		cause: "tunnel.server-gone", sentence: "the connection ended and new ones are refused",
		fix: "start the service on the server again", confidence: "certain", since: killed, within: time.Second,
	})
	if !strings.Contains(l.text.String(), "[3 connections ended; certain]") {
		t.Errorf("%d connections ended, but the line does not say so: %+v", downloads, r)
	}

	// It stays away: what fails now is the way.
	l.ask(echo, "hello\n", 6).wantCode(t, replyConnRefused)
	l.awaitCause(t, "tcp.refused")
	l.wantFailures(t, 2)

	// It is back: the next request is served as if nothing had been.
	again := ourServer(t, cfg)
	l.ask(echo, "hello\n", 6).wantData(t, "hello\n")
	l.wantFailures(t, 2)

	// A restart between two requests goes unnoticed.
	again.proc.kill()
	ourServer(t, cfg)
	l.ask(echo, "hello\n", 6).wantData(t, "hello\n")
	l.wantFailures(t, 2)
}

// TestFaultRestart: a server that is back at once ended all connections at one
// moment.
func TestFaultRestart(t *testing.T) {
	t.Parallel()
	echo := echoOrigin(t)
	far := newCutter(t, inProcessServer(t, serverConfig(), inProcess{}).addr)
	l := newLab(t, labSetup{remote: remoteAt(t, far.addr)})
	held := []net.Conn{l.hold(t, echo), l.hold(t, echo)}
	since := time.Now()
	far.cut()
	for _, c := range held {
		wantCut(t, c, 2*time.Second)
	}
	l.expect(t, expected{
		cause: "tunnel.server-gone", sentence: "closed 2 connections at the same moment: it was restarted, or the network changed",
		fix: "if it happens once, ignore it", confidence: "likely", since: since, within: time.Second,
	})
	l.ask(echo, "hello\n", 6).wantData(t, "hello\n")
	l.wantFailures(t, 1)
}

// TestFaultTunnelReset: one connection of several is reset in use.
func TestFaultTunnelReset(t *testing.T) {
	t.Parallel()
	echo := echoOrigin(t)
	far := newCutter(t, inProcessServer(t, serverConfig(), inProcess{}).addr)
	l := newLab(t, labSetup{remote: remoteAt(t, far.addr)})
	one := l.hold(t, echo)
	since := time.Now()
	far.cut()
	wantCut(t, one, 2*time.Second)
	l.expect(t, expected{
		cause: "tunnel.reset", sentence: "was reset while in use, after", fix: "if it happens once, retry; if often, check the server's log",
		confidence: "likely", since: since, within: time.Second,
	})
	l.ask(echo, "hello\n", 6).wantData(t, "hello\n")
	l.wantFailures(t, 1)
}

// TestFaultMuxTunnelReset: a tunnel that many connections share breaks in use.
// It is one cause, told once, whatever the connections were doing.
func TestFaultMuxTunnelReset(t *testing.T) {
	t.Parallel()
	for name, addr := range map[string]func() string{
		"v2ray": func() string { return labV2ray(t).addr },
		"ours":  func() string { return inProcessServer(t, serverConfig(), inProcess{}).addr },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			echo := echoOrigin(t)
			far := newCutter(t, addr())
			l := newLab(t, labSetup{remote: remoteAt(t, far.addr), change: func(c *config.Client) {
				c.Mux.Enabled, c.Mux.Concurrency = true, 100
				if name == "v2ray" {
					c.UDP.Mode = "plain" // nothing is tried while the tunnel breaks
				}
			}})
			var held []net.Conn
			for range 40 {
				held = append(held, l.hold(t, echo))
			}
			heard := make(chan struct{}, 10)
			mute := serveOrigin(t, func(c *net.TCPConn) {
				_, _ = c.Read(make([]byte, 1))
				heard <- struct{}{}
				_, _ = io.Copy(io.Discard, c)
			})
			for range cap(heard) { // these have got no answer yet
				c := mustDialVia(t, l.addr, mute)
				if _, err := io.WriteString(c, "x"); err != nil {
					t.Fatal(err)
				}
				held = append(held, c)
			}
			for range cap(heard) {
				<-heard
			}
			a, to := associate(t, l.addr), echoDatagrams(t)
			a.mustEcho(t, to, 64)
			since := time.Now()
			far.cut()
			for _, c := range held {
				wantCut(t, c, 2*time.Second)
			}
			l.expect(t, expected{
				cause: "tunnel.reset", sentence: "was reset while in use, after", fix: "if it happens once, retry; if often, check the server's log",
				confidence: "likely", since: since, within: time.Second,
			})
			l.ask(echo, "hello\n", 6).wantData(t, "hello\n")
			a.mustEcho(t, to, 64)
			l.wantFailures(t, 1)
		})
	}
}

// A cutter passes connections on to a server, and can reset all of them.
type cutter struct {
	addr string
	mu   sync.Mutex
	open []*net.TCPConn
}

func newCutter(t testing.TB, server string) *cutter {
	t.Helper()
	cu := new(cutter)
	cu.addr = serveOrigin(t, func(c *net.TCPConn) {
		far, err := net.DialTimeout("tcp", server, 5*time.Second)
		if err != nil {
			return
		}
		defer far.Close()
		cu.mu.Lock()
		cu.open = append(cu.open, c)
		cu.mu.Unlock()
		go func() {
			_, _ = io.Copy(far, c)
			_ = far.Close()
		}()
		_, _ = io.Copy(c, far)
	})
	return cu
}

func (cu *cutter) cut() {
	cu.mu.Lock()
	defer cu.mu.Unlock()
	for _, c := range cu.open {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
	cu.open = nil
}

// TestFaultResetAtFirstFrame: something on the way lets the upgrade through and
// resets what comes then. The id is not to blame for that.
func TestFaultResetAtFirstFrame(t *testing.T) {
	t.Parallel()
	server := inProcessServer(t, serverConfig(), inProcess{}).addr
	echo := echoOrigin(t)
	for _, tt := range []struct {
		name   string
		resets int // how many upgraded connections are reset
		legacy bool
	}{
		{"always", 1 << 30, false},
		{"always, MD5", 1 << 30, true},
		{"the first", 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := labSetup{remote: remoteAt(t, resetsFrames(t, server, tt.resets))}
			if tt.legacy {
				s.env = []string{legacyEnv}
			}
			l := newLab(t, s)
			since := time.Now()
			l.ask(echo, "hello\n", 6).wantClosed(t, 3*time.Second)
			l.expect(t, expected{
				cause: "tunnel.reset", sentence: "was reset right at the start, before any answer",
				fix: "check the server's log and middleboxes on the path to 127.0.0.1", confidence: "likely", since: since, within: 4 * time.Second,
			})
			if tt.resets == 1 {
				l.ask(echo, "hello\n", 6).wantData(t, "hello\n")
				l.wantFailures(t, 1)
			}
		})
	}
}

// resetsFrames passes HTTP on to a server, and resets the first so many
// connections that carry something behind the upgrade.
func resetsFrames(t testing.TB, server string, resets int) string {
	t.Helper()
	var mu sync.Mutex
	reset := func() bool {
		mu.Lock()
		defer mu.Unlock()
		resets--
		return resets >= 0
	}
	return serveOrigin(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		far, err := net.DialTimeout("tcp", server, 5*time.Second)
		if err != nil {
			return
		}
		defer far.Close()
		_ = req.Write(far)
		back := make(chan struct{})
		go func() {
			defer close(back)
			_, _ = io.Copy(c, far)
		}()
		if _, err := r.Peek(1); errors.Is(err, io.EOF) {
			_ = far.Close()
			<-back
			return
		}
		if reset() {
			_ = c.SetLinger(0)
			_ = c.Close()
			return
		}
		_, _ = io.Copy(far, r)
		_ = far.Close()
		<-back
	})
}
