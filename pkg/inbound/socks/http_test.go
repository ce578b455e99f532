package socks

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

func basic(user, password string) string {
	return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + "\r\n"
}

func TestConnect(t *testing.T) {
	const established = "HTTP/1.1 200 Connection established\r\n\r\n"
	for _, c := range []struct {
		name   string
		auth   *Auth
		send   string
		status int // 0: established
		body   string
		report error
		dst    string
		first  string
		user   string
	}{
		{name: "name", send: "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", dst: "example.com:443"},
		{name: "without Host", send: "CONNECT example.com:443 HTTP/1.1\r\n\r\n", dst: "example.com:443"},
		{name: "version 1.0", send: "CONNECT example.com:443 HTTP/1.0\r\n\r\n", dst: "example.com:443"},
		{name: "ipv4", send: "CONNECT 192.0.2.1:80 HTTP/1.1\r\n\r\n", dst: "192.0.2.1:80"},
		{name: "ipv6", send: "CONNECT [2001:db8::1]:80 HTTP/1.1\r\n\r\n", dst: "[2001:db8::1]:80"},
		{name: "other script", send: "CONNECT h\xc3\xb6he.example:80 HTTP/1.1\r\n\r\n", dst: "xn--hhe-sna.example:80"},
		{name: "early bytes", send: "CONNECT example.com:443 HTTP/1.1\r\n\r\nearly", dst: "example.com:443", first: "early"},
		{name: "password", auth: &secret, send: "CONNECT example.com:443 HTTP/1.1\r\n" + basic("anna", "s3cret") + "\r\n", dst: "example.com:443", user: "anna"},

		{name: "no port", send: "CONNECT example.com HTTP/1.1\r\n\r\n", status: 400, body: "the port is missing", report: ErrBadRequest},
		{name: "empty port", send: "CONNECT example.com: HTTP/1.1\r\n\r\n", status: 400, body: "port", report: ErrBadRequest},
		{name: "port 0", send: "CONNECT example.com:0 HTTP/1.1\r\n\r\n", status: 400, body: "port", report: ErrBadRequest},
		{name: "port too large", send: "CONNECT example.com:70000 HTTP/1.1\r\n\r\n", status: 400, body: "port", report: ErrBadRequest},
		{name: "empty host", send: "CONNECT :443 HTTP/1.1\r\n\r\n", status: 400, body: "empty", report: ErrBadRequest},
		{name: "path", send: "CONNECT /rpc HTTP/1.1\r\n\r\n", status: 400, body: "port", report: ErrBadRequest},
		{name: "bad name", send: "CONNECT a!b:443 HTTP/1.1\r\n\r\n", status: 400, body: "host name", report: ErrBadRequest},

		{name: "no password", auth: &secret, send: "CONNECT example.com:443 HTTP/1.1\r\n\r\n", status: 407},
		{name: "wrong password", auth: &secret, send: "CONNECT example.com:443 HTTP/1.1\r\n" + basic("anna", "wrong") + "\r\n", status: 407, report: ErrBadAuth},
		{name: "wrong user", auth: &secret, send: "CONNECT example.com:443 HTTP/1.1\r\n" + basic("bert", "s3cret") + "\r\n", status: 407, report: ErrBadAuth},
		{name: "not Basic", auth: &secret, send: "CONNECT example.com:443 HTTP/1.1\r\nProxy-Authorization: Bearer x\r\n\r\n", status: 407, report: ErrBadAuth},
		{name: "not base64", auth: &secret, send: "CONNECT example.com:443 HTTP/1.1\r\nProxy-Authorization: Basic %\r\n\r\n", status: 407, report: ErrBadAuth},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, &Server{Auth: c.auth, Handler: greet(netip.MustParseAddrPort("192.0.2.7:258"))})
			client := d.dial(t)
			write(t, client, c.send)
			r := bufio.NewReader(client)
			if c.status == 0 {
				if got := readAll(t, r); got != established+"hello" {
					t.Errorf("answered %q", got)
				}
				asked := d.asked()
				if len(asked) != 1 || asked[0].Destination.String() != c.dst || asked[0].User != c.user ||
					string(asked[0].First) != c.first || asked[0].Inbound != "http" || asked[0].Source.String() != client.LocalAddr().String() {
					t.Errorf("handed on %+v", asked)
				}
				return
			}
			resp := readResponse(t, r)
			if resp.StatusCode != c.status || !strings.Contains(resp.text, c.body) {
				t.Errorf("answered %s %q, want %d %q", resp.Status, resp.text, c.status, c.body)
			}
			if c.status == 407 && resp.Header.Get("Proxy-Authenticate") != `Basic realm="vmess-local"` {
				t.Errorf("the header of the 407 is %v", resp.Header)
			}
			_ = client.Close()
			d.wantReport(t, c.report)
			if asked := d.asked(); len(asked) != 0 {
				t.Errorf("handed on %+v", asked)
			}
		})
	}
}

type response struct {
	*http.Response
	text string
}

func readResponse(t *testing.T, r *bufio.Reader) response {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return response{resp, readAll(t, resp.Body)}
}

// A browser asks for the password and tries again on the same connection.
func TestRetryAfter407(t *testing.T) {
	d := open(t, &Server{Auth: &secret, Handler: HandlerFunc(echo)})
	c := d.dial(t)
	r := bufio.NewReader(c)
	for range 2 {
		write(t, c, "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
		if resp := readResponse(t, r); resp.StatusCode != http.StatusProxyAuthRequired || resp.Close {
			t.Fatalf("answered %s, closing: %v", resp.Status, resp.Close)
		}
	}
	write(t, c, "CONNECT example.com:443 HTTP/1.1\r\n"+basic("anna", "s3cret")+"\r\n")
	readN(t, r, len("HTTP/1.1 200 Connection established\r\n\r\n"))
	write(t, c, "through")
	if got := readN(t, r, 7); got != "through" {
		t.Errorf("echoed %q", got)
	}
	_ = c.Close()
	d.wantReport(t, nil)
}

func TestRefusedInWords(t *testing.T) {
	d := open(t, &Server{Dialer: transport.DialerFunc(func(context.Context, netaddr.Addr, []byte) (transport.StreamConn, error) {
		return nil, errors.New("nobody may dial here")
	})})
	for _, c := range []struct {
		line   string
		status int
		text   string
	}{
		{"GET / HTTP/1.1", 400, textOrigin},
		{"GET /favicon.ico HTTP/1.1", 400, textOrigin},
		{"OPTIONS * HTTP/1.1", 400, textOrigin},
		{"GET https://example.com/ HTTP/1.1", 400, textScheme},
		{"GET ftp://example.com/ HTTP/1.1", 400, textScheme},
		{"GET http://" + d.addr + "/ HTTP/1.1", 403, textLoop},
		{"CONNECT " + d.addr + " HTTP/1.1", 403, textLoop},
		{"GET http://localhost:" + d.addr[strings.LastIndexByte(d.addr, ':')+1:] + "/ HTTP/1.1", 403, textLoop},
		{"GET http://a!b/ HTTP/1.1", 400, "host name"},
		{"GET http://example.com:0/ HTTP/1.1", 400, "port"},
	} {
		client := d.dial(t)
		write(t, client, c.line+"\r\nHost: x\r\nOrigin: http://evil.example\r\n\r\n")
		resp := readResponse(t, bufio.NewReader(client))
		if resp.StatusCode != c.status || !strings.Contains(resp.text, c.text) {
			t.Errorf("%s: answered %s %q, want %d %q", c.line, resp.Status, resp.text, c.status, c.text)
		}
		if ct := resp.Header.Get("Content-Type"); !strings.HasPrefix(ct, "text/plain") || resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: answered with %v", c.line, resp.Header)
		}
		_ = client.Close()
	}
}

func TestOriginFormBeforeAuth(t *testing.T) {
	d := open(t, &Server{Auth: &secret})
	c := d.dial(t)
	write(t, c, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
	if resp := readResponse(t, bufio.NewReader(c)); resp.StatusCode != 400 || resp.text != textOrigin {
		t.Errorf("answered %s %q", resp.Status, resp.text)
	}
}

// What a web page can have a browser send to the port as to a web site, with
// whatever in its body, goes nowhere.
func TestWebPagesGoNowhere(t *testing.T) {
	d := open(t, &Server{Dialer: transport.DialerFunc(func(_ context.Context, dst netaddr.Addr, _ []byte) (transport.StreamConn, error) {
		t.Errorf("%s was dialled", dst)
		return nil, errors.New("nobody may dial here")
	})})
	port := d.addr[strings.LastIndexByte(d.addr, ':')+1:]
	for name, body := range map[string]string{
		"a form":          "a=b",
		"a request":       "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
		"a tunnel":        "CONNECT example.com:443 HTTP/1.1\r\n\r\n",
		"SOCKS5":          "\x05\x01\x00\x05\x01\x00\x03\x0bexample.com\x00\x50",
		"SOCKS4":          "\x04\x01\x00\x50\x01\x02\x03\x04\x00",
		"more than fits":  strings.Repeat("GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", 10_000),
		"a TLS handshake": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	} {
		for _, host := range []string{d.addr, "localhost:" + port, "rebound.example:" + port, "example.com"} {
			for _, head := range []string{
				fmt.Sprintf("POST / HTTP/1.1\r\nHost: %s\r\nOrigin: http://evil.example\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", host, len(body), body),
				fmt.Sprintf("POST /x HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", host, len(body), body),
				fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", host),
			} {
				c := d.dial(t)
				go func() { _, _ = io.WriteString(c, head) }() // may be cut off
				resp := readResponse(t, bufio.NewReader(c))
				if resp.StatusCode != 400 || resp.text != textOrigin {
					t.Errorf("%s for %s: answered %s %q", name, host, resp.Status, resp.text)
				}
				_ = c.Close()
			}
		}
	}
	if n := len(d.asked()); n > 0 {
		t.Errorf("%d requests were made", n)
	}
}

func TestNoDialer(t *testing.T) {
	d := open(t, &Server{})
	c := d.dial(t)
	write(t, c, "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n")
	if resp := readResponse(t, bufio.NewReader(c)); resp.StatusCode != 501 {
		t.Errorf("answered %s", resp.Status)
	}
}

// Many early bytes reach the handler in order: some as First, the rest from
// the stream.
func TestManyEarlyBytes(t *testing.T) {
	var early strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&early, "%04d", i)
	}
	d := open(t, &Server{Handler: HandlerFunc(echo)})
	c := d.dial(t)
	write(t, c, "CONNECT example.com:443 HTTP/1.1\r\n\r\n"+early.String())
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_, got, _ := strings.Cut(readAll(t, c), "\r\n\r\n")
	if got != early.String() {
		t.Errorf("%d of %d early bytes came back, or in another order", len(got), early.Len())
	}
	if len(d.asked()[0].First) == 0 {
		t.Error("no early byte was in First")
	}
}

func TestKeepAliveEnds(t *testing.T) {
	inBubble(t, &Server{}, func(t *testing.T, _ *door, ln *memListener) {
		c := ln.dial()
		defer c.Close()
		r := bufio.NewReader(c)
		write(t, c, "GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n")
		readResponse(t, r)
		time.Sleep(keepAliveTime - time.Second) // longer than a handshake may take
		write(t, c, "GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n")
		readResponse(t, r)
		start := time.Now()
		if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("read: %v, want %v", err, io.EOF)
		}
		if took := time.Since(start); took != keepAliveTime {
			t.Errorf("closed after %s, want %s", took, keepAliveTime)
		}
	})
}

// What is no proxy request at all gets its explanation and nothing more.
func TestStrayRequestCloses(t *testing.T) {
	for _, request := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT nonsense HTTP/1.1\r\nHost: x\r\n\r\n"} {
		inBubble(t, &Server{}, func(t *testing.T, _ *door, ln *memListener) {
			c := ln.dial()
			defer c.Close()
			r := bufio.NewReader(c)
			start := time.Now()
			write(t, c, request)
			readResponse(t, r)
			if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("read: %v, want %v", err, io.EOF)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("closed after %s", took)
			}
		})
	}
}

func TestOriginConnIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := transporttest.Pipe(1024)
		defer near.Close()
		c := newOriginConn(far, time.Minute, func() {})
		defer c.Close()
		go func() { _, _ = io.Copy(io.Discard, near) }()
		for range 5 { // in use
			time.Sleep(59 * time.Second)
			write(t, c, "x")
		}
		start := time.Now()
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("read: no error")
		}
		if took := time.Since(start); took < time.Minute || took > 2*time.Minute {
			t.Errorf("closed after %s, want one to two minutes", took)
		}
	})
}
