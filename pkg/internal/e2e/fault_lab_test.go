package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/host/netmon"
)

// The fault laboratory: our client, in process and under the race detector,
// against a server or a way that is at fault in a known manner. A test of it
// reads, in short:
//
//	l := newLab(t, labSetup{remote: remoteAt(t, far)})
//	start := time.Now()
//	r := l.ask(origin, "hello\n", 6)               // an application
//	r.wantClosed(t, 2*time.Second)
//	l.expect(t, expected{cause: "vmess.unknown-user", fix: `compare "id"`, since: start, within: 2*time.Second})
//
// and, for a situation that is nobody's fault, l.wantQuiet(t).

// A labSetup says what a lab's client is like.
type labSetup struct {
	remote  config.Remote
	change  func(*config.Client) // of what is not the server's; may be nil
	now     func() time.Time     // this computer's clock; nil is the true one
	env     []string             // NAME=value
	watcher *netmon.Monitor      // nil is the client's own
	// resolver knows the server's name; nil is the system's
	resolver netdial.Resolver
}

// A lab is a client under observation.
type lab struct {
	addr   string // of its proxy
	client *client.Client
	json   *tail // its log for programs, all levels
	text   *tail // its talk to people, at the default level

	visits sync.Mutex
	asked  map[string]bool // destinations
}

// newLab runs a client, whose configuration is called config.json, until the
// test ends.
func newLab(t testing.TB, s labSetup) *lab {
	t.Helper()
	cfg := clientConfig(s.remote)
	cfg.Warm.Max = 0 // the lab counts connections
	cfg.Status.Enabled, cfg.Status.Listen = true, "127.0.0.1:0"
	if s.change != nil {
		s.change(cfg)
	}
	parsed, err := config.ParseClient("config.json", config.MarshalClient(cfg))
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{json: newTail(), text: newTail(), asked: map[string]bool{}}
	log := slog.New(twoLogs{
		logging.New(l.json, slog.LevelDebug, true),
		logging.New(l.text, slog.LevelInfo, false),
	})
	l.client, err = client.New(parsed, client.Options{Log: log, LookupEnv: lookup(s.env), Now: s.now, Resolver: s.resolver, Watcher: s.watcher})
	if err != nil {
		t.Fatal(err)
	}
	l.addr = l.client.Addr().String()
	ofClient(parsed).searchLog(t, "the client", l.json)
	t.Cleanup(func() { l.secrets(parsed).search(t, "the client's talk", l.text.String()) })
	runInProcess(t, "the client", l.text, l.client.Run)
	t.Cleanup(func() { l.secrets(parsed).searchPages(t, l.text) })
	return l
}

// secrets are what neither the log at its default level nor the open pages may
// show: where applications went belongs to it.
func (l *lab) secrets(c *config.Client) secrecy {
	s := ofClient(c)
	l.visits.Lock()
	defer l.visits.Unlock()
	for target := range l.asked {
		s.addDestination(target)
	}
	return s
}

// twoLogs writes each record in both formats.
type twoLogs [2]slog.Handler

func (h twoLogs) Enabled(ctx context.Context, level slog.Level) bool {
	return h[0].Enabled(ctx, level) || h[1].Enabled(ctx, level)
}

func (h twoLogs) Handle(ctx context.Context, r slog.Record) error {
	var errs []error
	for _, one := range h {
		if one.Enabled(ctx, r.Level) {
			errs = append(errs, one.Handle(ctx, r))
		}
	}
	return errors.Join(errs...)
}

func (h twoLogs) WithAttrs(a []slog.Attr) slog.Handler {
	return twoLogs{h[0].WithAttrs(a), h[1].WithAttrs(a)}
}

func (h twoLogs) WithGroup(name string) slog.Handler {
	return twoLogs{h[0].WithGroup(name), h[1].WithGroup(name)}
}

// A record is a line of the log for programs, as far as the lab looks at it.
type record struct {
	Time       time.Time `json:"time"`
	Level      string    `json:"level"`
	Msg        string    `json:"msg"`
	Cause      string    `json:"cause"`
	Fix        string    `json:"fix"`
	Confidence string    `json:"confidence"`
	Server     string    `json:"server"`
	Count      int       `json:"count"`
	Healed     string    `json:"healed"`
}

// records returns what was logged so far.
func (l *lab) records(t testing.TB) []record {
	t.Helper()
	var all []record
	for line := range strings.Lines(l.json.String()) {
		if !strings.HasSuffix(line, "\n") {
			break // being written
		}
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Errorf("a line of the log is no JSON: %v: %s", err, line)
			continue
		}
		all = append(all, r)
	}
	return all
}

// failures are the records that a user sees as trouble.
func (l *lab) failures(t testing.TB) []record {
	t.Helper()
	return slices.DeleteFunc(l.records(t), func(r record) bool { return r.Level != "ERROR" && r.Level != "WARN" })
}

// healings are the records of what was healed.
func (l *lab) healings(t testing.TB) []record {
	t.Helper()
	return slices.DeleteFunc(l.records(t), func(r record) bool { return r.Healed == "" })
}

// An expected is a verdict that must come.
type expected struct {
	cause      string
	fix        string // must be part of the fix
	sentence   string // must be part of the sentence
	confidence string // "" is any
	since      time.Time
	within     time.Duration // since then
}

// labPatience is how long a lab waits for what must come.
const labPatience = 15 * time.Second

// slowness is what a test may take longer than the program promises: the race
// detector, and other tests, on few processors.
const slowness = time.Second

// expect waits for a verdict and wants it to be the only one, in time, and in
// no more than two lines for people. The seconds it took are logged.
func (l *lab) expect(t testing.TB, want expected) record {
	t.Helper()
	r := l.await(t, "an error", func(r record) bool { return r.Level == "ERROR" })
	took := r.Time.Sub(want.since)
	t.Logf("%.2f s to %s [%s]: %s; fix: %s", took.Seconds(), r.Cause, r.Confidence, r.Msg, r.Fix)
	switch {
	case r.Cause != want.cause:
		t.Errorf("the cause is %s (%s), want %s", r.Cause, r.Msg, want.cause)
	case !strings.Contains(r.Fix, want.fix):
		t.Errorf("the fix is %q, want %q in it", r.Fix, want.fix)
	case !strings.Contains(r.Msg, want.sentence):
		t.Errorf("the sentence is %q, want %q in it", r.Msg, want.sentence)
	case want.confidence != "" && r.Confidence != want.confidence:
		t.Errorf("the confidence is %s, want %s", r.Confidence, want.confidence)
	case r.Fix == "" || r.Server == "" || r.Count == 0:
		t.Errorf("the record is not complete: %+v", r)
	}
	if took > want.within+slowness {
		t.Errorf("%s took %v, want it within %v", r.Cause, took, want.within)
	}
	l.wantFailures(t, 1)
	return r
}

// expectHealed waits for the one line that says that a cause was healed.
func (l *lab) expectHealed(t testing.TB, cause, says string) record {
	t.Helper()
	r := l.await(t, "a healing", func(r record) bool { return r.Healed != "" })
	if r.Cause != cause || !strings.Contains(r.Healed, says) {
		t.Errorf("healed was %s: %q, want %s with %q", r.Cause, r.Healed, cause, says)
	}
	if n := strings.Count(l.text.String(), "healed: "+cause+": "); n != 1 {
		t.Errorf("people read of the healing in %d lines, want 1:\n%s", n, l.text)
	}
	return r
}

func (l *lab) await(t testing.TB, what string, is func(record) bool) record {
	t.Helper()
	for deadline := time.Now().Add(labPatience); ; time.Sleep(5 * time.Millisecond) { // a pause between two looks
		all := l.records(t)
		if i := slices.IndexFunc(all, is); i >= 0 {
			return all[i]
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s was not logged:\n%s", what, l.text)
		}
	}
}

// wantFailures wants so many failures told, each in at most two lines.
func (l *lab) wantFailures(t testing.TB, n int) {
	t.Helper()
	all := l.failures(t)
	if len(all) != n {
		t.Errorf("%d failures were told, want %d: %+v", len(all), n, all)
	}
	lines := 0
	for line := range strings.Lines(l.text.String()) {
		if strings.HasPrefix(line, "error: ") || strings.HasPrefix(line, "warning: ") || strings.HasPrefix(line, "fix: ") {
			lines++
		}
	}
	if lines > 2*n {
		t.Errorf("%d failures take %d lines:\n%s", n, lines, l.text)
	}
}

// wantQuiet wants that nothing was complained about and nothing healed.
func (l *lab) wantQuiet(t testing.TB) {
	t.Helper()
	if bad := append(l.failures(t), l.healings(t)...); len(bad) > 0 {
		t.Errorf("blamed without need: %+v", bad)
	}
}

// wantHarmless wants that no fault of the account or the way was claimed: what
// is said may only be about the destination.
func (l *lab) wantHarmless(t testing.TB) {
	t.Helper()
	for _, r := range append(l.failures(t), l.healings(t)...) {
		if !strings.HasPrefix(r.Cause, "destination.") {
			t.Errorf("blamed without need: %+v", r)
		}
	}
}

// A reply is what came of one SOCKS5 request. Times are since it was made.
type reply struct {
	code  int // of the SOCKS5 reply (RFC 1928 section 6); noReply without one
	coded time.Duration
	data  string
	end   error // how reading ended: nil once the wanted bytes came, io.EOF, a reset, a time-out
	ended time.Duration
}

const noReply = -1

// ask makes one SOCKS5 CONNECT request, says something, and reads until n
// bytes have come or the connection ends.
func (l *lab) ask(target, say string, n int) reply {
	l.visits.Lock()
	l.asked[target] = true
	l.visits.Unlock()
	return askVia(l.addr, target, say, n, labPatience)
}

// askVia is ask for any proxy, goroutine and patience.
func askVia(proxyAddr, target, say string, n int, patience time.Duration) (r reply) {
	start := time.Now()
	r.code = noReply
	defer func() { r.ended = time.Since(start) }()
	c, err := net.DialTimeout("tcp", proxyAddr, patience)
	if err != nil {
		r.end = err
		return r
	}
	defer c.Close()
	_ = c.SetDeadline(start.Add(patience))
	if r.end = connectRequest(c, target); r.end != nil {
		return r
	}
	head := make([]byte, 2+10) // method, reply with an IPv4 address
	if _, r.end = io.ReadFull(c, head); r.end != nil {
		return r
	}
	r.code, r.coded = int(head[3]), time.Since(start)
	if r.code != 0 {
		_, r.end = c.Read(make([]byte, 1))
		return r
	}
	if _, r.end = io.WriteString(c, say); r.end != nil {
		return r
	}
	data := make([]byte, n)
	got, err := io.ReadFull(c, data)
	r.data, r.end = string(data[:got]), err
	if errors.Is(err, io.ErrUnexpectedEOF) {
		r.end = io.EOF
	}
	return r
}

// connectRequest greets and asks for a target in one write.
func connectRequest(c net.Conn, target string) error {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return err
	}
	number, err := net.LookupPort("tcp", port)
	if err != nil {
		return err
	}
	req := []byte{5, 1, 0, 5, 1, 0}
	if ip := net.ParseIP(host).To4(); ip != nil {
		req = append(append(req, 1), ip...)
	} else {
		req = append(append(req, 3, byte(len(host))), host...)
	}
	_, err = c.Write(append(req, byte(number>>8), byte(number)))
	return err
}

// wantData wants an answer.
func (r reply) wantData(t testing.TB, data string) {
	t.Helper()
	if r.code != 0 || r.data != data || r.end != nil {
		t.Errorf("the request got code %d and %q, ended by %v after %v; want %q", r.code, r.data, r.end, r.ended, data)
	}
}

// wantCode wants a SOCKS5 failure, and the connection closed behind it.
func (r reply) wantCode(t testing.TB, code int) {
	t.Helper()
	if r.code != code || r.end != io.EOF && !errors.Is(r.end, net.ErrClosed) && isTimeout(r.end) {
		t.Errorf("the request got code %d, ended by %v after %v; want code %d", r.code, r.end, r.ended, code)
	}
}

// wantClosed wants a request that was let in, and then ended without data and
// in time instead of being left hanging.
func (r reply) wantClosed(t testing.TB, within time.Duration) {
	t.Helper()
	if r.code != 0 || r.data != "" || r.end == nil || isTimeout(r.end) {
		t.Errorf("the request got code %d and %q, ended by %v; want it closed", r.code, r.data, r.end)
	}
	if r.ended > within+slowness {
		t.Errorf("the request was held for %v, want it closed within %v", r.ended, within)
	}
}

// getVia gets a page through an HTTP proxy.
func getVia(t testing.TB, proxyAddr, page string) (status int, body string) {
	t.Helper()
	web := &http.Transport{
		Proxy:             http.ProxyURL(&url.URL{Scheme: "http", Host: proxyAddr}),
		DisableKeepAlives: true,
	}
	resp, err := (&http.Client{Transport: web, Timeout: labPatience}).Get(page)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(text)
}

// clockOff is a clock that is ahead of the true one by d.
func clockOff(d time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(d) }
}

// A road is a forwarder in front of a server: it takes its time, and counts.
type road struct {
	addr   string
	delay  time.Duration // each way
	jitter time.Duration // at most that much more, anew for each piece
	mu     sync.Mutex
	server string
	visits []visit
}

// A visit is a connection to the server.
type visit struct {
	at   time.Time
	head string // the first line of the HTTP request
}

// newRoad puts a road with round trips of rtt, and jitter, before a server.
func newRoad(t testing.TB, server string, rtt, jitter time.Duration) *road {
	t.Helper()
	r := &road{server: server, delay: rtt / 2, jitter: jitter}
	r.addr = serveOrigin(t, r.carry)
	return r
}

// carry takes one connection along the road.
func (r *road) carry(c *net.TCPConn) {
	server, seen := r.enter()
	conn, err := net.DialTimeout("tcp", server, 5*time.Second)
	if err != nil {
		_ = c.SetLinger(0)
		return
	}
	defer conn.Close()
	far := conn.(*net.TCPConn)
	var both sync.WaitGroup
	both.Go(func() { r.lane(c, far, func([]byte) {}) })
	both.Go(func() { r.lane(far, c, seen) })
	both.Wait()
}

// leadTo makes the road lead to another server from now on.
func (r *road) leadTo(server string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.server = server
}

// enter counts a visit, and returns where it goes and who wants to see its
// bytes.
func (r *road) enter() (server string, seen func([]byte)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.visits)
	r.visits = append(r.visits, visit{at: time.Now()})
	var head []byte
	return r.server, func(p []byte) {
		if head == nil {
			head, _, _ = bytes.Cut(p, []byte("\r\n"))
			r.mu.Lock()
			defer r.mu.Unlock()
			r.visits[n].head = string(head)
		}
	}
}

// lane carries one direction to its end.
func (r *road) lane(dst, src *net.TCPConn, seen func([]byte)) {
	type piece struct {
		data []byte
		due  time.Time
		err  error
	}
	queue := make(chan piece, 128)
	go func() {
		defer close(queue)
		buf := make([]byte, 16<<10)
		for {
			n, err := src.Read(buf)
			seen(buf[:n])
			wait := r.delay
			if r.jitter > 0 {
				wait += rand.N(r.jitter)
			}
			queue <- piece{bytes.Clone(buf[:n]), time.Now().Add(wait), err}
			if err != nil {
				return
			}
		}
	}()
	for p := range queue {
		time.Sleep(time.Until(p.due)) // the road's length
		if _, err := dst.Write(p.data); err != nil && p.err == nil {
			_ = src.SetLinger(0)
			_ = src.Close()
		}
		switch {
		case p.err == io.EOF:
			_ = dst.CloseWrite()
		case p.err != nil:
			_ = dst.SetLinger(0)
			_ = dst.Close()
		}
	}
}

// counts returns how many connections came for a WebSocket, and how many for
// anything else.
func (r *road) counts() (tunnels, others int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range r.visits {
		if strings.HasPrefix(v.head, "GET "+wsPath+" ") || strings.HasPrefix(v.head, "GET "+wsPath+"?") {
			tunnels++
		} else {
			others++
		}
	}
	return tunnels, others
}

// wantNoProbe wants that nothing came along but the requests that
// applications made.
func (r *road) wantNoProbe(t testing.TB, requests int) {
	t.Helper()
	if tunnels, others := r.counts(); tunnels != requests || others != 0 {
		t.Errorf("%d tunnels and %d other connections came to the server for %d requests: somebody probed", tunnels, others, requests)
	}
}

// A labV2ray is real V2Ray as a server that asks no resolver: what is
// "*.invalid", also in probes, is led to a closed port instead, which looks
// the same from outside: an authentic answer without data after 1.0 s. So is
// the name of packetaddr, which it does not know.
func labV2ray(t testing.TB, clients ...object) *end {
	t.Helper()
	return labV2rayOver(t, wsStream(), clients...)
}

// labV2rayOver is labV2ray with other stream settings.
func labV2rayOver(t testing.TB, stream object, clients ...object) *end {
	t.Helper()
	path := need(t, "v2ray")
	if clients == nil {
		clients = []object{{"id": userID, "alterId": 0}}
	}
	addr := freePort(t)
	host, port := splitAddr(t, addr)
	data, err := json.Marshal(object{
		"log": object{"loglevel": "info"},
		"inbounds": []object{{
			"listen": host, "port": port, "protocol": "vmess",
			"settings": object{"clients": clients}, "streamSettings": stream,
		}},
		"outbounds": []object{
			{"protocol": "freedom"},
			{"protocol": "freedom", "tag": "nowhere", "settings": object{"redirect": freePort(t)}},
		},
		"routing": object{"rules": []object{{"type": "field", "domain": []string{"domain:invalid", "full:" + packetAddrName}, "outboundTag": "nowhere"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "v2ray.json")
	writeFile(t, file, data)
	p := start(t, command{path: path, args: []string{"-config", file}})
	p.waitPort(t, addr)
	return &end{addr: addr, log: p.log, proc: p}
}

// silentOrigin takes connections and says nothing.
func silentOrigin(t testing.TB) string {
	t.Helper()
	return serveOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
}
