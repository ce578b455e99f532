package socks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/host/fdlimit"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

// rawOrigin answers each connection by a function and tells what it was sent.
type rawOrigin struct {
	addr string
	got  chan string
}

func newRawOrigin(t *testing.T, answer string) *rawOrigin {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &rawOrigin{ln.Addr().String(), make(chan string, 1)}
	done := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		var head strings.Builder
		for r := bufio.NewReader(c); !strings.HasSuffix(head.String(), "\r\n\r\n"); {
			b, err := r.ReadByte()
			if err != nil {
				break
			}
			head.WriteByte(b)
		}
		o.got <- head.String()
		_, _ = io.WriteString(c, answer)
	}()
	return o
}

func (o *rawOrigin) dialer() transport.StreamDialer {
	return dialerTo(func(netaddr.Addr) string { return o.addr })
}

func TestForwardedBytes(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nX-Test: 1\r\nProxy-Authenticate: Basic\r\nConnection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 2\r\n\r\nhi"
	for _, c := range []struct {
		name, send, want string
	}{
		{
			name: "fields",
			send: "GET http://Example.com/a%7eb/|x?q=1;2&r=%zz HTTP/1.1\r\nHost: ignored\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\n" +
				"Proxy-Foo: 1\r\nKeep-Alive: 5\r\nConnection: X-Own\r\nX-Own: 1\r\nX-Forwarded-For: 192.0.2.3\r\nAccept: */*\r\n\r\n",
			want: "GET /a%7eb/|x?q=1;2&r=%zz HTTP/1.1\r\nHost: Example.com\r\nAccept: */*\r\nX-Forwarded-For: 192.0.2.3\r\n\r\n",
		},
		{
			name: "no path",
			send: "GET http://example.com:8080?x HTTP/1.1\r\nHost: example.com:8080\r\nUser-Agent: me\r\nAccept-Encoding: br\r\n\r\n",
			want: "GET /?x HTTP/1.1\r\nHost: example.com:8080\r\nUser-Agent: me\r\nAccept-Encoding: br\r\n\r\n",
		},
		{
			name: "two slashes",
			send: "GET http://example.com//x/y HTTP/1.1\r\nHost: example.com\r\n\r\n",
			want: "GET //x/y HTTP/1.1\r\nHost: example.com\r\n\r\n",
		},
		{
			name: "credentials in the URL are not a destination",
			send: "HEAD http://anna:x@example.com/ HTTP/1.0\r\n\r\n",
			want: "HEAD / HTTP/1.1\r\nHost: example.com\r\n\r\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer := answer
			if strings.HasPrefix(c.send, "HEAD") {
				answer = strings.TrimSuffix(answer, "hi")
			}
			origin := newRawOrigin(t, answer)
			d := open(t, &Server{Dialer: origin.dialer()})
			client := d.dial(t)
			write(t, client, c.send)
			if got := <-origin.got; got != c.want {
				t.Errorf("the origin got\n%q, want\n%q", got, c.want)
			}
			r := bufio.NewReader(client)
			req, _ := http.NewRequest(strings.Fields(c.send)[0], "", nil)
			resp, err := http.ReadResponse(r, req)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"X-Hop", "Proxy-Authenticate", "Date", "Content-Type", "Via"} {
				if v, ok := resp.Header[name]; ok {
					t.Errorf("the answer has %s: %q", name, v)
				}
			}
			if resp.Header.Get("X-Test") != "1" {
				t.Errorf("the answer has %v", resp.Header)
			}
			_ = resp.Body.Close()
		})
	}
}

// A namedError has words for everybody.
type namedError struct{ error }

func (namedError) Public() string { return "some.cause: something is wrong" }

// The errors of a dialer become statuses, as with CONNECT. Their words stay
// here: a browser lets the scripts of the page's origin read the answer.
func TestForwardErrors(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
	}{
		{errors.New("no such luck"), 502},
		{coded(transport.CodeNotAllowed), 403},
		{coded(transport.CodeNetworkUnreachable), 503},
		{coded(transport.CodeHostUnreachable), 504},
		{coded(transport.CodeConnectionRefused), 502},
		{namedError{errors.New("no luck at server.example")}, 502},
	} {
		d := open(t, &Server{Dialer: transport.DialerFunc(func(context.Context, netaddr.Addr, []byte) (transport.StreamConn, error) {
			return nil, fmt.Errorf("dial: %w", c.err)
		})})
		client := d.dial(t)
		r := bufio.NewReader(client)
		for range 2 { // the client's connection stays
			write(t, client, "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n")
			resp := readResponse(t, r)
			if resp.StatusCode != c.status || strings.Contains(resp.text, c.err.Error()) || !strings.HasSuffix(resp.text, textMore) {
				t.Errorf("%v: answered %s %q, want %d and no word of it", c.err, resp.Status, resp.text, c.status)
			}
			if _, named := c.err.(namedError); named != strings.Contains(resp.text, "some.cause: something is wrong") {
				t.Errorf("%v: answered %q", c.err, resp.text)
			}
			if ct := resp.Header.Get("Content-Type"); ct != "text/plain; charset=utf-8" {
				t.Errorf("%v: answered as %q", c.err, ct)
			}
		}
		_ = client.Close()
	}
}

// A stream that ends before the answer is a bad gateway.
func TestOriginGone(t *testing.T) {
	origin := newRawOrigin(t, "")
	d := open(t, &Server{Dialer: origin.dialer()})
	c := d.dial(t)
	write(t, c, "POST http://example.com/ HTTP/1.1\r\nHost: example.com\r\nContent-Length: 1\r\n\r\nx")
	if resp := readResponse(t, bufio.NewReader(c)); resp.StatusCode != 502 {
		t.Errorf("answered %s", resp.Status)
	}
}

func echoOrigin(t *testing.T, name string) *httptest.Server {
	t.Helper()
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprintf(w, "%s %s %s %v %s", name, r.Method, r.Host, r.TransferEncoding, body)
		w.Header().Set("X-Sum", fmt.Sprint(len(body)))
	}))
	t.Cleanup(o.Close)
	return o
}

func TestKeepAliveToTwoHosts(t *testing.T) {
	one, two := echoOrigin(t, "one"), echoOrigin(t, "two")
	var dials atomic.Int32
	d := open(t, &Server{Dialer: dialerTo(func(dst netaddr.Addr) string {
		dials.Add(1)
		switch dst.String() {
		case "one.example:80":
			return one.Listener.Addr().String()
		case "two.example:8080":
			return two.Listener.Addr().String()
		}
		t.Errorf("dialled %s", dst)
		return ""
	})})
	c := d.dial(t)
	r := bufio.NewReader(c)
	for range 3 {
		write(t, c, "GET http://one.example/ HTTP/1.1\r\nHost: one.example\r\n\r\n")
		if resp := readResponse(t, r); resp.text != "one GET one.example [] " || resp.Trailer.Get("X-Sum") != "0" {
			t.Fatalf("answered %s %q %v", resp.Status, resp.text, resp.Trailer)
		}
		write(t, c, "POST http://two.example:8080/ HTTP/1.1\r\nHost: two.example:8080\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
		if resp := readResponse(t, r); resp.text != "two POST two.example:8080 [chunked] abcde" || resp.Trailer.Get("X-Sum") != "5" {
			t.Fatalf("answered %s %q %v", resp.Status, resp.text, resp.Trailer)
		}
	}
	if n := dials.Load(); n != 2 {
		t.Errorf("%d dials, want 2: connections to origins are kept", n)
	}
	_ = c.Close()
	d.wantReport(t, nil)
}

// Origins' connections belong to one client connection and end with it.
func TestOriginsAreNotShared(t *testing.T) {
	origin := echoOrigin(t, "one")
	var dials atomic.Int32
	d := open(t, &Server{Dialer: dialerTo(func(netaddr.Addr) string { dials.Add(1); return origin.Listener.Addr().String() })})
	for range 2 {
		c := d.dial(t)
		write(t, c, "GET http://one.example/ HTTP/1.1\r\nHost: one.example\r\n\r\n")
		readResponse(t, bufio.NewReader(c))
		_ = c.Close()
	}
	if n := dials.Load(); n != 2 {
		t.Errorf("%d dials, want 2", n)
	}
}

// What is kept for a client's next requests gives way when there is no room.
func TestOriginsGiveWay(t *testing.T) {
	origin := echoOrigin(t, "one")
	var held, most atomic.Int32
	dial := dialerTo(func(netaddr.Addr) string { return origin.Listener.Addr().String() })
	room := fdlimit.NewSemaphore(1, nil, 0)
	d := open(t, &Server{OriginRoom: room, Dialer: transport.DialerFunc(func(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
		c, err := dial.DialStream(ctx, dst, first)
		if err != nil {
			return nil, err
		}
		if n := held.Add(1); n > most.Load() {
			most.Store(n)
		}
		return &closeTeller{StreamConn: c, told: func() { held.Add(-1) }}, nil
	})})
	c := d.dial(t)
	r := bufio.NewReader(c)
	for i := range 9 {
		host := fmt.Sprintf("%d.example", i%3)
		write(t, c, "GET http://"+host+"/ HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		if resp := readResponse(t, r); resp.StatusCode != 200 {
			t.Fatalf("answered %s %q", resp.Status, resp.text)
		}
	}
	_ = c.Close()
	d.until(t, 0)
	d.settle(t)
	if held.Load() != 0 || most.Load() != 2 || !room.Acquire() {
		t.Errorf("%d connections to origins at most, want 2; %d are left", most.Load(), held.Load())
	}
}

// A closeTeller tells its first Close.
type closeTeller struct {
	transport.StreamConn
	once sync.Once
	told func()
}

func (c *closeTeller) Close() error { c.once.Do(c.told); return c.StreamConn.Close() }

func TestExpectContinue(t *testing.T) {
	origin := echoOrigin(t, "one")
	d := open(t, &Server{Dialer: dialerTo(func(netaddr.Addr) string { return origin.Listener.Addr().String() })})
	c := d.dial(t)
	r := bufio.NewReader(c)
	write(t, c, "PUT http://one.example/ HTTP/1.1\r\nHost: one.example\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	const goOn = "HTTP/1.1 100 Continue\r\n\r\n"
	if got := readN(t, r, len(goOn)); got != goOn {
		t.Fatalf("answered %q", got)
	}
	write(t, c, "body")
	if resp := readResponse(t, r); resp.text != "one PUT one.example [] body" {
		t.Errorf("answered %s %q", resp.Status, resp.text)
	}
}

// Bytes of an answer arrive as they are sent, before it is complete.
func TestAnswerIsStreamed(t *testing.T) {
	more := make(chan struct{})
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "8")
		_, _ = io.WriteString(w, "some")
		_ = http.NewResponseController(w).Flush()
		<-more
		_, _ = io.WriteString(w, "more")
	}))
	defer origin.Close()
	d := open(t, &Server{Dialer: dialerTo(func(netaddr.Addr) string { return origin.Listener.Addr().String() })})
	c := d.dial(t)
	write(t, c, "GET http://one.example/ HTTP/1.1\r\nHost: one.example\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := readN(t, resp.Body, 4); got != "some" {
		t.Errorf("first %q", got)
	}
	close(more)
	if got := readAll(t, resp.Body); got != "more" {
		t.Errorf("then %q", got)
	}
}

// A client that leaves takes its request to the origin with it.
func TestClientAbortReachesOrigin(t *testing.T) {
	arrived, gone := make(chan struct{}), make(chan struct{})
	origin := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(gone)
	}))
	defer origin.Close()
	d := open(t, &Server{Dialer: dialerTo(func(netaddr.Addr) string { return origin.Listener.Addr().String() })})
	c := d.dial(t)
	write(t, c, "GET http://one.example/ HTTP/1.1\r\nHost: one.example\r\n\r\n")
	<-arrived
	_ = c.Close()
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("the origin still works for a client that left")
	}
}

// The dial of a client that leaves is cancelled, which http.Transport alone
// would not do.
func TestClientAbortCancelsDial(t *testing.T) {
	dialing, cancelled := make(chan struct{}), make(chan struct{})
	d := open(t, &Server{Dialer: transport.DialerFunc(func(ctx context.Context, _ netaddr.Addr, _ []byte) (transport.StreamConn, error) {
		close(dialing)
		<-ctx.Done()
		close(cancelled)
		return nil, ctx.Err()
	})})
	c := d.dial(t)
	write(t, c, "GET http://one.example/ HTTP/1.1\r\nHost: one.example\r\n\r\n")
	<-dialing
	_ = c.Close()
	select {
	case <-cancelled:
	case <-time.After(5 * time.Second):
		t.Error("the dial goes on for a client that left")
	}
}

// An answer that breaks off must not look complete to the client.
func TestOriginBreaksOff(t *testing.T) {
	origin := newRawOrigin(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	d := open(t, &Server{Dialer: origin.dialer()})
	c := d.dial(t)
	write(t, c, "GET http://one.example/ HTTP/1.1\r\nHost: one.example\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read %q, %v; want %v", got, err, io.ErrUnexpectedEOF)
	}
}

// A torn stream ends as one that was cut.
type torn struct{ transport.StreamConn }

func (c torn) Read(p []byte) (int, error) {
	n, err := c.StreamConn.Read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// An answer whose end nothing but the connection's end tells must not look
// complete either: to HTTP/1.0 and behind an upgrade.
func TestCutAnswersAreReset(t *testing.T) {
	for _, request := range []struct{ name, text, answer string }{
		{"HTTP/1.0", "GET http://one.example/ HTTP/1.0\r\nHost: one.example\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nhello"},
		{
			"upgrade", "GET http://one.example/ HTTP/1.1\r\nHost: one.example\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
			"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhello",
		},
	} {
		for _, cut := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, cut %v", request.name, cut), func(t *testing.T) {
				origin := newRawOrigin(t, request.answer)
				d := open(t, &Server{Dialer: transport.DialerFunc(func(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
					c, err := origin.dialer().DialStream(ctx, dst, first)
					if cut && err == nil {
						c = torn{c}
					}
					return c, err
				})})
				c := d.dial(t)
				write(t, c, request.text)
				got, err := io.ReadAll(c)
				switch {
				case cut && (err == nil || errors.Is(err, os.ErrDeadlineExceeded)):
					t.Errorf("read %q and %v, want a reset", got, err)
				case !cut && (!strings.HasSuffix(string(got), "\r\n\r\nhello") || err != nil):
					t.Errorf("read %q and %v", got, err)
				}
			})
		}
	}
}

func upgradeOrigin(t *testing.T) string {
	t.Helper()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" {
			http.Error(w, "upgrade", http.StatusUpgradeRequired)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nwelcome")
		_, _ = io.Copy(c, rw)
	}))
	t.Cleanup(origin.Close)
	return origin.Listener.Addr().String()
}

func TestUpgrade(t *testing.T) {
	addr := upgradeOrigin(t)
	d := open(t, &Server{Dialer: dialerTo(func(netaddr.Addr) string { return addr })})
	c := d.dial(t)
	r := bufio.NewReader(c)
	write(t, c, "GET http://one.example/chat HTTP/1.1\r\nHost: one.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("answered %v, %v", resp, err)
	}
	if got := readN(t, r, 7); got != "welcome" {
		t.Errorf("got %q", got)
	}
	for range 3 {
		write(t, c, "frame")
		if got := readN(t, r, 5); got != "frame" {
			t.Errorf("echoed %q", got)
		}
	}
	if n := d.open(); n != 1 {
		t.Errorf("%d connections are counted, want 1", n)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, r); got != "" {
		t.Errorf("at the end: %q", got)
	}
	d.wantReport(t, nil)
}

func TestDrainCutsExchanges(t *testing.T) {
	addr := upgradeOrigin(t)
	arrived := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	}))
	defer slow.Close()
	s := &Server{Dialer: dialerTo(func(dst netaddr.Addr) string {
		if dst.Host() == "slow.example" {
			return slow.Listener.Addr().String()
		}
		return addr
	})}
	d := open(t, s)
	upgraded, waiting := d.dial(t), d.dial(t)
	write(t, upgraded, "GET http://one.example/chat HTTP/1.1\r\nHost: one.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	readN(t, upgraded, 12)
	write(t, waiting, "GET http://slow.example/ HTTP/1.1\r\nHost: slow.example\r\n\r\n")
	<-arrived
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain: %v, want %v", err, context.DeadlineExceeded)
	}
	for _, c := range []net.Conn{upgraded, waiting} {
		_, _ = io.Copy(io.Discard, c) // ends
	}
}

// An exchange in which nothing moves ends at last, on both sides.
func TestIdleExchange(t *testing.T) {
	far := make(chan *transporttest.Conn, 1)
	s := &Server{Idle: time.Minute, Dialer: transport.DialerFunc(func(context.Context, netaddr.Addr, []byte) (transport.StreamConn, error) {
		a, b := transporttest.Pipe(4096)
		far <- b
		return a, nil
	})}
	inBubble(t, s, func(t *testing.T, _ *door, ln *memListener) {
		c := ln.dial()
		defer c.Close()
		write(t, c, "GET http://one.example/ HTTP/1.1\r\nHost: one.example\r\n\r\n")
		start := time.Now()
		resp := readResponse(t, bufio.NewReader(c))
		if took := time.Since(start); resp.StatusCode != 504 || took > 2*time.Minute {
			t.Errorf("answered %s after %s", resp.Status, took)
		}
		_ = (<-far).Close()
		synctest.Wait()
	})
}

// Who withholds a body or takes no answer is not waited for without end, before
// the password as behind it; what is slow and moves goes on.
func TestHTTPIsBounded(t *testing.T) {
	const (
		handshake = 5 * time.Second
		idle      = 20 * time.Second
	)
	// The body of an answer is a while behind its head: ReverseProxy flushes the
	// head aside, holding a lock, which stops the fake clock if it cannot.
	answer := func(c *transporttest.Conn, length int, text string) {
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", length)
		time.Sleep(time.Second)
		_, _ = io.WriteString(c, text)
	}
	long := strings.Repeat("long", 1<<13)
	for _, c := range []struct {
		name, target string
		auth         bool
		origin       func(c *transporttest.Conn)
		idle, pace   time.Duration
	}{
		{name: "origin form", target: "/"},
		{name: "another scheme", target: "ftp://one.example/"},
		{name: "bad destination", target: "http://one.example:0/"},
		{name: "without the password", target: "http://one.example/", auth: true},
		{name: "an origin that answers at once", target: "http://one.example/", origin: func(c *transporttest.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				answer(c, len(long), long)
			}
		}},
		{name: "an origin that breaks off", target: "http://one.example/", origin: func(c *transporttest.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				answer(c, len(long)+1, long)
			}
		}},
		{name: "an origin that takes the body", target: "http://one.example/", idle: idle, pace: idle / 2, origin: func(c *transporttest.Conn) {
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			if body, err := io.ReadAll(r.Body); err == nil {
				answer(c, len(body)+len(long), string(body)+long)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			transporttest.TestHTTPPort(t, func(t *testing.T) transporttest.HTTPPort {
				s := &Server{Handshake: handshake, Idle: idle}
				if c.auth {
					s.Auth = &Auth{Username: "anna", Password: "x"}
				}
				s.Dialer = transport.DialerFunc(func(context.Context, netaddr.Addr, []byte) (transport.StreamConn, error) {
					near, far := transporttest.Pipe(1 << 10)
					go func() { defer far.Close(); c.origin(far) }()
					return near, nil
				})
				room, within := 16, 2*handshake+time.Second
				if c.origin != nil {
					room, within = 512, 2*idle+2*handshake+keepAliveTime
				}
				ln := transporttest.NewPipeListener(room)
				openOn(t, s, ln)
				return transporttest.HTTPPort{
					Dial: ln.Dial, Room: room, Target: c.target, Fields: "Host: x\r\n", Within: within, Idle: c.idle, Pace: c.pace,
				}
			})
		})
	}
}

// An answer that does not wait for the body reaches the client at once.
func TestAnswerBeforeBody(t *testing.T) {
	for name, answer := range map[string]string{
		"with a text": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
		"without":     "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := &Server{Dialer: transport.DialerFunc(func(context.Context, netaddr.Addr, []byte) (transport.StreamConn, error) {
				near, far := transporttest.Pipe(1 << 10)
				go func() {
					defer far.Close()
					r := bufio.NewReader(far)
					for {
						if _, err := http.ReadRequest(r); err != nil {
							return
						}
						_, _ = io.WriteString(far, answer)
						_, _ = io.CopyN(io.Discard, r, 4)
					}
				}()
				return near, nil
			})}
			inBubble(t, s, func(t *testing.T, _ *door, ln *memListener) {
				c := ln.dial()
				defer c.Close()
				r := bufio.NewReader(c)
				for range 2 { // the connection stays
					write(t, c, "POST http://one.example/ HTTP/1.1\r\nHost: one.example\r\nContent-Length: 4\r\n\r\n")
					start := time.Now()
					if resp := readResponse(t, r); resp.StatusCode != 200 || time.Since(start) > time.Second {
						t.Errorf("answered %s after %s", resp.Status, time.Since(start))
					}
					write(t, c, "body")
					synctest.Wait()
				}
			})
		})
	}
}

// Who waits for a 100 gets the origin's answer in its place, up to its end, and
// the connection is closed: what he sends then is no request.
func TestAnswerInPlaceOf100(t *testing.T) {
	for name, answer := range map[string]string{
		"with a length": "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nhi",
		"in chunks":     "HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := &Server{Dialer: transport.DialerFunc(func(context.Context, netaddr.Addr, []byte) (transport.StreamConn, error) {
				near, far := transporttest.Pipe(1 << 10)
				go func() {
					defer far.Close()
					_, _ = http.ReadRequest(bufio.NewReader(far))
					_, _ = io.WriteString(far, answer)
				}()
				return near, nil
			})}
			const body = "CONNECT evil.example:443 HTTP/1.1\r\n\r\n"
			inBubble(t, s, func(t *testing.T, d *door, ln *memListener) {
				c := ln.dial()
				defer c.Close()
				write(t, c, fmt.Sprintf("PUT http://one.example/ HTTP/1.1\r\nHost: one.example\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(body)))
				start := time.Now()
				r := bufio.NewReader(c)
				resp := readResponse(t, r)
				if resp.StatusCode == 100 { // http.Transport sends the body all the same
					resp = readResponse(t, r)
				}
				if took := time.Since(start); resp.StatusCode != 401 || resp.text != "hi" || !resp.Close || took > time.Second {
					t.Errorf("answered %s %q after %s, closing %v", resp.Status, resp.text, took, resp.Close)
				}
				_, _ = io.WriteString(c, body)
				if _, err := r.ReadByte(); err != io.EOF {
					t.Errorf("the connection goes on: %v", err)
				}
				if n := len(d.asked()); n != 0 {
					t.Errorf("%d requests were made of a body", n)
				}
			})
		})
	}
}

// A body that stops coming is the client's fault, and told so.
func TestSilentBody(t *testing.T) {
	s := &Server{Idle: 20 * time.Second, Dialer: transport.DialerFunc(func(context.Context, netaddr.Addr, []byte) (transport.StreamConn, error) {
		near, far := transporttest.Pipe(1 << 10)
		go func() {
			_, _ = io.Copy(io.Discard, far)
			_ = far.Close()
		}()
		return near, nil
	})}
	inBubble(t, s, func(t *testing.T, _ *door, ln *memListener) {
		c := ln.dial()
		defer c.Close()
		write(t, c, "POST http://one.example/ HTTP/1.1\r\nHost: one.example\r\nContent-Length: 9\r\n\r\nsome")
		start := time.Now()
		resp := readResponse(t, bufio.NewReader(c))
		if took := time.Since(start); resp.StatusCode != http.StatusRequestTimeout || resp.text != textSilent || took < s.Idle || took > 2*s.Idle {
			t.Errorf("answered %s %q after %s", resp.Status, resp.text, took)
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the connection goes on: %v", err)
		}
	})
}

// The rest of a body that came too late is no request.
func TestLateBodyIsNoRequest(t *testing.T) {
	s := &Server{Idle: 20 * time.Second, Dialer: transport.DialerFunc(func(context.Context, netaddr.Addr, []byte) (transport.StreamConn, error) {
		near, far := transporttest.Pipe(1 << 10)
		go func() {
			defer far.Close()
			_, _ = http.ReadRequest(bufio.NewReader(far))
			_, _ = io.WriteString(far, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
		}()
		return near, nil
	})}
	const smuggled = "CONNECT evil.example:443 HTTP/1.1\r\n\r\n"
	inBubble(t, s, func(t *testing.T, d *door, ln *memListener) {
		c := ln.dial()
		defer c.Close()
		write(t, c, fmt.Sprintf("POST http://one.example/ HTTP/1.1\r\nHost: one.example\r\nContent-Length: %d\r\n\r\n", len(smuggled)))
		readResponse(t, bufio.NewReader(c))
		time.Sleep(45 * time.Second)
		_, _ = io.WriteString(c, smuggled)
		synctest.Wait()
		if n := len(d.asked()); n != 0 {
			t.Errorf("%d requests were made of a body", n)
		}
	})
}
