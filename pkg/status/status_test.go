package status

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"vmess-local/pkg/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shown is a Source that remembers what it was asked to do.
type shown struct {
	acted chan string
	auth  atomic.Bool
}

func (s *shown) State() any {
	return map[string]string{"words": "all is well", "to": "secret.example:443"}
}

func (s *shown) Metrics() map[string]float64 {
	return map[string]float64{"vmess_open": 2, "vmess_bytes_total": 1e10}
}
func (s *shown) Proxy() (string, bool) { return "127.0.0.1:1080", s.auth.Load() }
func (s *shown) Link(name string) (string, []string, error) {
	if name != "home" {
		return "", nil, ErrUnknown
	}
	return "vmess://the-link", []string{"10", "01"}, nil
}

func (s *shown) Act(_ context.Context, what, which string) error {
	switch what {
	case "cut":
		s.acted <- what + " " + which
		return nil
	case "reload":
		return errors.New("config.value: no")
	}
	return ErrUnknown
}

func (s *shown) Check(_ context.Context, tell func(any)) error {
	tell(map[string]string{"name": "dns", "status": "pass"})
	return errors.New("then not")
}

type site struct {
	*Page
	source *shown
	base   string
}

func serve(t *testing.T) *site {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{source: &shown{acted: make(chan string, 10)}, base: "http://" + ln.Addr().String()}
	s.Page = New(ln, s.source, "")
	runPage(t, s.Page)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return s
}

// ask sends a request with headers of the form NAME: VALUE, and returns status
// and body.
func (s *site) ask(t *testing.T, method, path string, headers ...string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			r.Host = value
		}
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

func (s *site) bearer() string { return "Authorization: Bearer " + s.token }

// What is open shows nothing secret; all else needs the token.
func TestToken(t *testing.T) {
	s := serve(t)
	for _, open := range []string{"/", "/page.css", "/page.js", "/icon.svg", "/proxy.pac", "/metrics", "/healthz"} {
		code, body, _ := s.ask(t, "GET", open)
		if code != 200 || strings.Contains(body, "secret.example") || strings.Contains(body, s.token) || strings.Contains(body, "the-link") {
			t.Errorf("%s: %d\n%.200s", open, code, body)
		}
	}
	for _, call := range []string{"GET /api/state", "GET /api/events", "GET /api/link?server=home", "POST /api/check", "POST /api/act?what=cut&which=1"} {
		method, path, _ := strings.Cut(call, " ")
		for _, h := range []string{"X: y", "Authorization: Bearer ", "Authorization: Bearer 0123", "Authorization: Bearer " + s.token + "0"} {
			if code, body, _ := s.ask(t, method, path, h); code != 401 || strings.Contains(body, "secret") {
				t.Errorf("%s with %q: %d", call, h, code)
			}
		}
	}
	if len(s.source.acted) > 0 {
		t.Error("something was done without the token")
	}
	if code, body, _ := s.ask(t, "GET", "/api/state", s.bearer()); code != 200 || !strings.Contains(body, "secret.example") {
		t.Errorf("with the token: %d %s", code, body)
	}
	if !strings.HasSuffix(s.URL(), "/?token="+s.token) || len(s.token) != 32 {
		t.Errorf("the address is %s", s.URL())
	}
}

// A name that was made to lead here is refused, whatever else is right: a web
// page that is served under such a name could read all answers otherwise.
func TestRebinding(t *testing.T) {
	s := serve(t)
	_, port, _ := net.SplitHostPort(s.listener.Addr().String())
	for _, host := range []string{"evil.example", "evil.example:" + port, "127.0.0.1", "127.0.0.1.evil.example:" + port, "localhost:1", "127.0.0.2:" + port} {
		for _, path := range []string{"/", "/proxy.pac", "/metrics", "/healthz", "/api/state"} {
			if code, body, _ := s.ask(t, "GET", path, "Host: "+host, s.bearer()); code != http.StatusMisdirectedRequest || strings.Contains(body, "secret") {
				t.Errorf("%s of %s: %d", path, host, code)
			}
		}
	}
	for _, host := range []string{"127.0.0.1:" + port, "localhost:" + port, "[::1]:" + port} {
		if code, _, _ := s.ask(t, "GET", "/", "Host: "+host); code != 200 {
			t.Errorf("under %s: %d", host, code)
		}
	}
}

// Another site can neither read nor do anything, with or without the token.
func TestCrossSite(t *testing.T) {
	s := serve(t)
	for _, from := range [][]string{
		{"Origin: http://evil.example"},
		{"Origin: null"},
		{"Origin: https://" + s.listener.Addr().String()},
		{"Origin: http://127.0.0.1:1"},
		{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"},
		{"Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: cors"},
	} {
		for _, call := range []string{"GET /", "GET /metrics", "GET /api/state", "POST /api/act?what=cut&which=1", "POST /api/check"} {
			method, path, _ := strings.Cut(call, " ")
			if code, _, header := s.ask(t, method, path, append(from, s.bearer())...); code != 403 || header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s from %s: %d", call, from[0], code)
			}
		}
	}
	if len(s.source.acted) > 0 {
		t.Error("something was done for another site")
	}
	// A link from elsewhere to the page may be followed, and the page's own calls work.
	if code, _, _ := s.ask(t, "GET", "/", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"); code != 200 {
		t.Errorf("a followed link: %d", code)
	}
	code, _, _ := s.ask(t, "POST", "/api/act?what=cut&which=7", "Origin: "+s.base, "Sec-Fetch-Site: same-origin", s.bearer())
	if code != 204 || len(s.source.acted) != 1 || <-s.source.acted != "cut 7" {
		t.Errorf("the page's own call: %d", code)
	}
	// It may not be framed, and loads nothing from elsewhere.
	for path, kind := range map[string]string{"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript", "/icon.svg": "image/svg+xml"} {
		_, body, header := s.ask(t, "GET", path)
		policy := header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "frame-ancestors 'none'") || !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") || header.Get("Cross-Origin-Resource-Policy") != "same-origin" {
			t.Errorf("headers of %s: %v", path, header)
		}
		if got := header.Get("Content-Type"); !strings.HasPrefix(got, kind) {
			t.Errorf("%s is %s", path, got)
		}
		for _, outside := range []string{"https://", "src=\"http", "href=\"http", "url(", "@import"} {
			if strings.Contains(body, outside) {
				t.Errorf("%s has %q", path, outside)
			}
		}
	}
}

func TestCalls(t *testing.T) {
	s := serve(t)
	for _, c := range []struct {
		call string
		code int
		has  string
	}{
		{"GET /api/link?server=home", 200, `{"link":"vmess://the-link","qr":["10","01"]}`},
		{"GET /api/link?server=other", 404, "no such thing"},
		{"POST /api/act?what=nothing", 404, "no such thing"},
		{"POST /api/act?what=reload", 409, "config.value: no"},
		{"GET /api/act?what=cut&which=1", 405, ""},
		{"POST /api/check", 200, `{"name":"dns","status":"pass"}` + "\n" + `{"error":"then not"}`},
		{"GET /metrics", 200, "# TYPE vmess_bytes_total counter\nvmess_bytes_total 10000000000\n# TYPE vmess_open gauge\nvmess_open 2\n"},
		{"GET /nothing", 404, ""},
	} {
		method, path, _ := strings.Cut(c.call, " ")
		if code, body, _ := s.ask(t, method, path, s.bearer()); code != c.code || !strings.Contains(body, c.has) {
			t.Errorf("%s: %d %q", c.call, code, body)
		}
	}
	_, pac, header := s.ask(t, "GET", "/proxy.pac")
	if header.Get("Content-Type") != "application/x-ns-proxy-autoconfig" || !strings.Contains(pac, `return "SOCKS5 127.0.0.1:1080; PROXY 127.0.0.1:1080";`) || strings.Count(pac, "DIRECT") != 1 {
		t.Errorf("PAC:\n%s", pac)
	}
	s.source.auth.Store(true)
	_, pac, _ = s.ask(t, "GET", "/proxy.pac")
	if !strings.Contains(pac, `return "PROXY 127.0.0.1:1080";`) || strings.Contains(pac, "SOCKS") || strings.Count(pac, "DIRECT") != 1 {
		t.Errorf("PAC of a proxy that asks for a password:\n%s", pac)
	}
}

// Events come at once and again, and so many pages may watch.
func TestEvents(t *testing.T) {
	s := serve(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	watch := func() *http.Response {
		r, err := http.NewRequestWithContext(ctx, "GET", s.base+"/api/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+s.token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	first := watch()
	defer first.Body.Close()
	lines := bufio.NewScanner(first.Body)
	for got := 0; got < 2 && lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var state map[string]string
		if err := json.Unmarshal([]byte(data), &state); err != nil || state["words"] != "all is well" {
			t.Fatalf("%s: %v", data, err)
		}
		got++
	}
	if lines.Err() != nil {
		t.Fatal(lines.Err())
	}
	for range maxEvents - 1 {
		defer watch().Body.Close()
	}
	more := watch()
	defer more.Body.Close()
	if more.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one too many: %d", more.StatusCode)
	}
}

// Who withholds a body or takes no answer is not waited for without end, with
// or without the token.
func TestHTTPIsBounded(t *testing.T) {
	for target, host := range map[string]string{
		"/": "evil.example", "/page.js": "127.0.0.1:1081", "/api/act": "127.0.0.1:1081",
		"/api/state?token=t": "127.0.0.1:1081", "/api/events?token=t": "127.0.0.1:1081",
		"/api/check?token=t": "127.0.0.1:1081", "/api/act?what=cut&which=1&token=t": "127.0.0.1:1081",
	} {
		t.Run(target, func(t *testing.T) {
			transporttest.TestHTTPPort(t, func(t *testing.T) transporttest.HTTPPort {
				ln := transporttest.NewPipeListener(16)
				p := New(ln, &shown{acted: make(chan string, 1)}, "t")
				runPage(t, p)
				return transporttest.HTTPPort{Dial: ln.Dial, Room: 16, Target: target, Fields: "Host: " + host + "\r\n", Within: 3 * patience}
			})
		})
	}
}

// Who opens connections and asks for nothing takes no place from the page, and
// those that are served go on.
func TestConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := transporttest.NewPipeListener(1 << 10)
		runPage(t, New(ln, &shown{}, "t"))
		ask := func(path string) (net.Conn, string) {
			c := ln.Dial()
			_, _ = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: 127.0.0.1:1081\r\n\r\n")
			line, _ := bufio.NewReader(c).ReadString('\n')
			return c, line
		}
		const ok = "HTTP/1.1 200 OK\r\n"
		watching, line := ask("/api/events?token=t")
		defer watching.Close()
		if line != ok {
			t.Fatalf("answered %q", line)
		}
		silent := make([]net.Conn, 3*MaxConns)
		for i := range silent {
			silent[i] = ln.Dial()
			defer silent[i].Close()
		}
		c, line := ask("/healthz")
		defer c.Close()
		if line != ok {
			t.Errorf("beside silent ones: %q", line)
		}
		synctest.Wait()
		open := 0
		for _, c := range silent {
			if _, err := c.Write([]byte("G")); err == nil {
				open++
			}
		}
		if open != MaxConns-2 {
			t.Errorf("%d silent ones are open beside two that were served, want %d", open, MaxConns-2)
		}
		if n, err := watching.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("the one that watches: %v", err)
		}
	})
}

// What takes its time is not cut by the bounds of what does not.
func TestLongCallsGoOn(t *testing.T) {
	for call, want := range map[string]string{"GET /api/events": "data: ", "POST /api/check": "slow"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := transporttest.NewPipeListener(16)
				runPage(t, New(ln, &slowCheck{}, "t"))
				c := ln.Dial()
				defer c.Close()
				go func() { _, _ = io.WriteString(c, call+"?token=t HTTP/1.1\r\nHost: 127.0.0.1:1081\r\n\r\n") }()
				start, got := time.Now(), 0
				for lines := bufio.NewScanner(c); got < 50 && lines.Scan(); {
					if strings.Contains(lines.Text(), want) {
						got++
					}
				}
				if took := time.Since(start); got < 50 || took < 45*time.Second {
					t.Errorf("it told %d times within %s", got, took)
				}
			})
		})
	}
}

// slowCheck tells something once a second while it is asked to.
type slowCheck struct{ shown }

func (*slowCheck) Check(ctx context.Context, tell func(any)) error {
	for {
		tell("slow")
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// runPage runs a page until the test ends.
func runPage(t *testing.T, p *Page) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
