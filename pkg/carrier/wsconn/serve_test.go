package wsconn

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// serving runs handler on a loopback port.
func serving(t testing.TB, handler http.Handler) (addr string) {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// echo sends everything back until the end.
func echo(_ context.Context, c *Conn, _ *http.Request) {
	defer c.Close()
	_, _ = io.Copy(c, c)
}

// ask sends raw bytes and reads the answer to a request.
func ask(t *testing.T, addr, raw string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body []byte
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ = io.ReadAll(resp.Body)
	}
	return resp, string(body)
}

const upgradeHeaders = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nOrigin: http://elsewhere\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"

func TestServerAdmits(t *testing.T) {
	plain := Server{Path: "/ray"}
	hosted := Server{Path: "ray", Host: "Example.com:1"}
	page := Server{Path: "/ray", NotFound: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") })}
	for _, c := range []struct {
		server       Server
		target, host string
		status       int
		body         string
	}{
		{plain, "/ray", "h", 101, ""},
		{plain, "/ray?ed=2048", "h", 101, ""},
		{plain, "/", "h", 404, ""},
		{plain, "/ray/", "h", 404, ""},
		{plain, "/ra", "h", 404, ""},
		{plain, "/rays", "h", 404, ""},
		{Server{}, "/", "h", 101, ""},
		{Server{}, "/x", "h", 404, ""},
		{hosted, "/ray", "example.COM", 101, ""},
		{hosted, "/ray", "example.com:8443", 101, ""},
		{hosted, "/ray", "www.example.com", 404, ""},
		{Server{Host: "::1"}, "/", "[::1]:80", 101, ""},
		{Server{Host: "[::1]"}, "/", "[::1]", 101, ""},
		{page, "/x", "h", 200, "page"},
	} {
		s := c.server
		s.Serve = echo
		resp, body := ask(t, serving(t, &s), fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", c.target, c.host, upgradeHeaders))
		if resp.StatusCode != c.status || body != c.body {
			t.Errorf("%s at %s: %d %q", c.target, c.host, resp.StatusCode, body)
		}
		if c.status == 101 && resp.Header.Get("Sec-WebSocket-Accept") != "ICX+Yqv66kxgM0FcWaLWlFLwTAI=" {
			t.Errorf("accept %q", resp.Header.Get("Sec-WebSocket-Accept"))
		}
	}
	if resp, _ := ask(t, serving(t, &plain), "GET /ray HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"); resp.StatusCode != 400 {
		t.Errorf("no upgrade: %d", resp.StatusCode)
	}
	if resp, _ := ask(t, serving(t, &plain), "POST /ray HTTP/1.1\r\nHost: h\r\n"+upgradeHeaders+"\r\n"); resp.StatusCode != 405 {
		t.Errorf("POST: %d", resp.StatusCode)
	}
}

func TestServerEarlyData(t *testing.T) {
	url, std := base64.RawURLEncoding, base64.StdEncoding
	b := bytes.Repeat([]byte{0xfb, 0xff, 0x00}, 100)
	for _, c := range []struct {
		name           string
		target, header string
		status         int
		early          []byte
		echo           bool
	}{
		{"none", "/ray", "", 101, nil, false},
		{"header", "/ray", url.EncodeToString(b), 101, b, true},
		{"standard alphabet, padded", "/ray", std.EncodeToString(b[:100]), 101, b[:100], true},
		{"one byte", "/ray", "_w", 101, []byte{0xff}, true},
		{"subprotocols", "/ray", "soap, wamp", 101, nil, false},
		{"bad length", "/ray", "abcde", 101, nil, false},
		{"longest", "/ray", url.EncodeToString(make([]byte, maxEarlyData)), 101, make([]byte, maxEarlyData), true},
		{"too long", "/ray", url.EncodeToString(make([]byte, maxEarlyData+1)), 400, nil, false},
		{"path", "/ray" + url.EncodeToString(b), "", 101, b, false},
		{"path and query", "/ray" + url.EncodeToString(b) + "?x", "", 101, b, false},
		{"shortest path", "/ray" + url.EncodeToString(b[:54]), "", 101, b[:54], false},
		{"too short path", "/ray" + url.EncodeToString(b[:53]), "", 404, nil, false},
		{"standard alphabet in the path", "/ray" + std.EncodeToString(b), "", 404, nil, false},
		{"line feed in the path", "/ray%0A" + url.EncodeToString(b), "", 404, nil, false},
		{"too long path", "/ray" + url.EncodeToString(make([]byte, maxEarlyData+1)), "", 404, nil, false},
		{"both", "/ray" + url.EncodeToString(b), "_w", 101, append(bytes.Clone(b), 0xff), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := make(chan []byte, 1)
			addr := serving(t, &Server{Path: "/ray", Serve: func(_ context.Context, conn *Conn, _ *http.Request) {
				defer conn.Close()
				early := make([]byte, len(c.early))
				if len(early) > 0 && conn.WaitRead() != nil {
					t.Error("WaitRead fails")
				}
				for i := 0; i < len(early); {
					n, err := conn.Read(early[i:min(i+100, len(early))])
					if i += n; err != nil {
						t.Error(err)
						break
					}
				}
				if conn.early != nil {
					t.Errorf("%d bytes more", len(conn.early))
				}
				got <- early
			}})
			header := upgradeHeaders
			if c.header != "" {
				header += "Sec-WebSocket-Protocol: " + c.header + "\r\n"
			}
			resp, _ := ask(t, addr, "GET "+c.target+" HTTP/1.1\r\nHost: h\r\n"+header+"\r\n")
			if resp.StatusCode != c.status {
				t.Fatalf("status %d", resp.StatusCode)
			}
			if echoed := resp.Header.Get("Sec-WebSocket-Protocol"); (echoed == c.header && c.header != "") != c.echo {
				t.Errorf("echoed %q", echoed)
			}
			if c.status == 101 {
				if early := <-got; !bytes.Equal(early, c.early) {
					t.Errorf("early data of %d bytes, want %d", len(early), len(c.early))
				}
			}
		})
	}
}

// Our client and our server, early data in all forms, and what follows it.
func TestBothSides(t *testing.T) {
	type key struct{}
	base := context.WithValue(context.Background(), key{}, "base")
	done := make(chan error, 1)
	s := &Server{Path: "/ray", Host: "example.com", Context: base, Serve: func(ctx context.Context, c *Conn, r *http.Request) {
		if ctx.Err() != nil || ctx.Value(key{}) != "base" || r.Host != "example.com:81" || c.RemoteAddr().String() != r.RemoteAddr || c.LocalAddr() == nil {
			t.Errorf("ctx %v, request %+v", ctx.Err(), r)
		}
		b := make([]byte, 64<<10)
		var err error
		for err == nil {
			var n int
			if n, err = c.Read(b); n > 0 {
				if _, werr := c.Write(b[:n]); werr != nil {
					t.Error(werr)
				}
			}
		}
		_ = c.Close()
		done <- err
	}}
	endpoint := tcpEndpoint(serving(t, s))
	first, more := pattern(3000), pattern(300<<10)
	for _, header := range []string{"Sec-WebSocket-Protocol", ""} {
		for _, early := range []int{0, 100, 2048, 4000} {
			d := &Dialer{Endpoint: endpoint, Host: "example.com:81", Path: "/ray", EarlyData: early, EarlyDataHeader: header, Ping: time.Minute}
			c := dialWith(t, d, first)
			if c.EarlyDataEchoed() != (early > 0 && header != "") {
				t.Errorf("%q, %d: echoed is %v", header, early, c.EarlyDataEchoed())
			}
			written := make(chan struct{})
			go func() { defer close(written); _, _ = c.Write(more) }()
			_ = c.SetReadDeadline(time.Now().Add(patience))
			got := make([]byte, len(first)+len(more))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, append(bytes.Clone(first), more...)) {
				t.Errorf("%q, %d: %v", header, early, err)
			}
			<-written // a Close beside a Write says no goodbye
			_ = c.Close()
			if err := <-done; err != io.EOF {
				t.Errorf("the server's end: %v", err)
			}
		}
	}
	if (&Dialer{}).timeout() != 10*time.Second {
		t.Error("timeout")
	}
}

func TestServerReads(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes []byte
		want  error
	}{
		{"close", append(frame(0x81, []byte("data"), 1, 2, 3, 4), frame(0x88, []byte{3, 232}, 9, 8, 7, 6)...), io.EOF},
		{"long", append(frame(0x02, pattern(100<<10), 1, 2, 3, 4), frame(0x80, nil, 0, 0, 0, 0)...), ErrNoClose},
		{"unmasked", frame(0x82, []byte("data")), ErrBadFrame},
	} {
		t.Run(c.name, func(t *testing.T) {
			type end struct {
				b   []byte
				err error
			}
			got := make(chan end, 1)
			addr := serving(t, &Server{Serve: func(_ context.Context, conn *Conn, _ *http.Request) {
				b, err := io.ReadAll(eofMark{conn})
				var by endedBy
				errors.As(err, &by)
				_ = conn.Close()
				got <- end{b, by.error}
			}})
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\n"+upgradeHeaders+"\r\n")
			br := bufio.NewReader(conn)
			if _, err := http.ReadResponse(br, nil); err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write(c.bytes)
			_ = conn.(*net.TCPConn).CloseWrite()
			e := <-got
			_ = conn.Close()
			want := pattern(100 << 10)
			if c.name != "long" {
				want = []byte("data")
			}
			if c.name == "unmasked" {
				want = nil
			}
			if !bytes.Equal(e.b, want) || !errors.Is(e.err, c.want) {
				t.Errorf("read %d bytes, %v", len(e.b), e.err)
			}
		})
	}
}

// Bytes that come before the 101 are not lost in silence: gorilla refuses.
func TestFramesBeforeTheAnswerAreRefused(t *testing.T) {
	addr := serving(t, &Server{Serve: func(context.Context, *Conn, *http.Request) { t.Error("served") }})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\n"+upgradeHeaders+"\r\n"+string(frame(0x82, []byte("early"), 1, 2, 3, 4)))
	if b, _ := io.ReadAll(conn); len(b) != 0 {
		t.Errorf("answered %q", b)
	}
}

// An independent implementation as the server.
func TestOtherServer(t *testing.T) {
	addr := serving(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.CloseNow()
		ws.SetReadLimit(-1)
		for i := 0; ; i++ {
			kind, b, err := ws.Read(r.Context())
			if err != nil {
				if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
					t.Errorf("the server's end: %v", err)
				}
				return
			}
			if string(b) == "close" {
				_ = ws.Close(4001, "as asked")
				return
			}
			w, _ := ws.Writer(r.Context(), kind) // in fragments
			_, _ = w.Write(b[:len(b)/2])
			_, _ = w.Write(b[len(b)/2:])
			_ = w.Close()
			if i%10 == 0 {
				go func() { _ = ws.Ping(r.Context()) }()
			}
		}
	}))
	c := dialWith(t, &Dialer{Endpoint: tcpEndpoint(addr), Host: addr}, []byte("first"))
	exchange(t, c, []byte("first"))
	_ = c.Close()
	c = dialWith(t, &Dialer{Endpoint: tcpEndpoint(addr), Host: addr}, []byte("close"))
	var closed *CloseError
	if _, err := c.Read(make([]byte, 10)); !errors.As(err, &closed) || *closed != (CloseError{4001, "as asked"}) {
		t.Errorf("got %v", err)
	}
}

// exchange sends messages of many sizes to an echo and compares.
func exchange(t *testing.T, c io.ReadWriter, already []byte) {
	t.Helper()
	want := bytes.Clone(already)
	var sizes []int
	for n := 1; n < 200<<10; n = n*3/2 + 1 {
		sizes = append(sizes, n)
		want = append(want, pattern(n)...)
	}
	go func() {
		for _, n := range sizes {
			if _, err := c.Write(pattern(n)); err != nil {
				t.Error(err)
			}
		}
	}()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("other bytes came back, %v", err)
	}
}

// An independent implementation as the client.
func TestOtherClient(t *testing.T) {
	addr := serving(t, &Server{Path: "/ray", Serve: echo})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	early := base64.RawURLEncoding.EncodeToString([]byte("early"))
	ws, resp, err := websocket.Dial(ctx, "ws://"+addr+"/ray", &websocket.DialOptions{Subprotocols: []string{early}, CompressionMode: websocket.CompressionContextTakeover})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if ws.Subprotocol() != early || resp.Header.Get("Sec-WebSocket-Extensions") != "" {
		t.Errorf("subprotocol %q, extensions %q", ws.Subprotocol(), resp.Header.Get("Sec-WebSocket-Extensions"))
	}
	ws.SetReadLimit(-1)
	c := websocket.NetConn(ctx, ws, websocket.MessageBinary)
	exchange(t, c, []byte("early"))
	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("close: %v", err)
	}
	if resp, err := http.Get("http://" + addr + "/" + strings.Repeat("x", 10)); err != nil || resp.StatusCode != 404 {
		t.Errorf("another path: %v", err)
	} else {
		_ = resp.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
}
