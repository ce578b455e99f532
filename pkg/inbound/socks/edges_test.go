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
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// halfClosing sends text and ends its direction.
func (d *door) halfClosing(t *testing.T, text string) net.Conn {
	t.Helper()
	c := d.dial(t)
	write(t, c, text)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	return c
}

// A client that ends its direction behind its request still gets the answer,
// however late.
func TestHalfClosedRequest(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		time.Sleep(1500 * time.Millisecond) // longer than it takes to see that a client has left
		fmt.Fprintf(w, "got %s", body)
	}))
	t.Cleanup(origin.Close)
	for name, c := range map[string]struct{ send, want string }{
		"GET":           {"GET http://one.example/ HTTP/1.1\r\nHost: one.example\r\n\r\n", "got "},
		"POST":          {"POST http://one.example/ HTTP/1.1\r\nHost: one.example\r\nContent-Length: 4\r\n\r\nbody", "got body"},
		"POST chunked":  {"POST http://one.example/ HTTP/1.1\r\nHost: one.example\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", "got body"},
		"POST HTTP/1.0": {"POST http://one.example/ HTTP/1.0\r\nContent-Length: 4\r\n\r\nbody", "got body"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := open(t, &Server{Dialer: dialerTo(func(netaddr.Addr) string { return origin.Listener.Addr().String() })})
			client := d.halfClosing(t, c.send)
			r := bufio.NewReader(client)
			if resp := readResponse(t, r); resp.StatusCode != 200 || resp.text != c.want {
				t.Errorf("answered %s %q, want %q", resp.Status, resp.text, c.want)
			}
			if rest := readAll(t, r); rest != "" {
				t.Errorf("and then %q", rest)
			}
			d.wantReport(t, nil)
		})
	}
}

// A body that ends early is the client's fault, not the gateway's.
func TestCutBody(t *testing.T) {
	origin := echoOrigin(t, "one")
	d := open(t, &Server{Dialer: dialerTo(func(netaddr.Addr) string { return origin.Listener.Addr().String() })})
	c := d.halfClosing(t, "POST http://one.example/ HTTP/1.1\r\nHost: one.example\r\nContent-Length: 9\r\n\r\nbody")
	if resp := readResponse(t, bufio.NewReader(c)); resp.StatusCode != 400 || resp.text != textSilent {
		t.Errorf("answered %s %q", resp.Status, resp.text)
	}
}

// A body whose chunks are malformed is the client's fault, not the site's.
func TestMalformedBody(t *testing.T) {
	origin := echoOrigin(t, "one")
	for _, body := range []string{"-1\r\nx\r\n0\r\n\r\n", "0x3\r\nabc\r\n0\r\n\r\n", "3;a\nabc\r\n0\r\n\r\n", "ffffffffffffffff1\r\n", "3\r\nabcd\r\n0\r\n\r\n", "0\r\nno colon\r\n\r\n"} {
		d := open(t, &Server{Dialer: dialerTo(func(netaddr.Addr) string { return origin.Listener.Addr().String() })})
		c := d.dial(t)
		write(t, c, "POST http://one.example/ HTTP/1.1\r\nHost: one.example\r\nTransfer-Encoding: chunked\r\n\r\n"+body)
		if resp := readResponse(t, bufio.NewReader(c)); resp.StatusCode != 400 || !strings.Contains(resp.text, "body is malformed") || !resp.Close {
			t.Errorf("%q: answered %s %q", body, resp.Status, resp.text)
		}
		_ = c.Close()
		if reports := d.reported(t); len(reports) != 1 || !errors.Is(reports[0], ErrBadRequest) {
			t.Errorf("%q: reported %v", body, reports)
		}
	}
}

// An origin may choose from a list of protocols.
func TestUpgradeFromList(t *testing.T) {
	for _, c := range []struct {
		offered, chosen string
		status          int
	}{
		{"Upgrade: h2c, Foo\r\n", "foo", 101},
		{"Upgrade: h2c\r\nUpgrade: foo/2\r\n", "foo/2", 101},
		{"Upgrade: a, b\r\n", "b, a", 101},
		{"Upgrade: a, b\r\n", "a, c", 502},
		{"Upgrade: h2c, foobar\r\n", "foo", 502},
		{"Upgrade: a\r\n", "", 502},
	} {
		origin := newRawOrigin(t, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+c.chosen+"\r\n\r\n")
		d := open(t, &Server{Dialer: origin.dialer()})
		client := d.dial(t)
		write(t, client, "GET http://one.example/ HTTP/1.1\r\nHost: one.example\r\nConnection: Upgrade\r\n"+c.offered+"\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(client), nil)
		if err != nil || resp.StatusCode != c.status {
			t.Errorf("%q, %q: answered %v, %v; want %d", c.offered, c.chosen, resp, err, c.status)
		}
		_ = client.Close()
	}
}

// What the origin is sent is what the client wrote, however odd.
func TestTargetAsItCame(t *testing.T) {
	for target, want := range map[string]string{
		"http://one.example/100%-off":     "/100%-off",
		"http://one.example/%":            "/%",
		"http://one.example/a?q=%zz&r=%":  "/a?q=%zz&r=%",
		"http://one.example/a\xff\xc3":    "/a\xff\xc3",
		"http://one.example/a|b\\c^d`":    "/a|b\\c^d`",
		"http://one.example?":             "/?",
		"http://one.example/a?":           "/a?",
		"http://one.example//x//y":        "//x//y",
		"HTTP://one.example:80/%7e%2F%2f": "/%7e%2F%2f",
		"http://one.example/a#b":          "/a#b",
	} {
		origin := newRawOrigin(t, "HTTP/1.1 204 No Content\r\n\r\n")
		d := open(t, &Server{Dialer: origin.dialer()})
		c := d.dial(t)
		write(t, c, "GET "+target+" HTTP/1.1\r\nHost: one.example\r\n\r\n")
		if resp := readResponse(t, bufio.NewReader(c)); resp.StatusCode != 204 {
			t.Errorf("%s: answered %s %q", target, resp.Status, resp.text)
			continue
		}
		if line, _, _ := strings.Cut(<-origin.got, "\r\n"); line != "GET "+want+" HTTP/1.1" {
			t.Errorf("%s: the origin got %q, want %s", target, line, want)
		}
		_ = c.Close()
		d.wantReport(t, nil)
	}
}

// A request without Host has all that is needed in its first line.
func TestNoHost(t *testing.T) {
	origin := newRawOrigin(t, "HTTP/1.1 204 No Content\r\n\r\n")
	d := open(t, &Server{Dialer: origin.dialer()})
	c := d.dial(t)
	write(t, c, "GET http://one.example/x HTTP/1.1\r\nAccept: */*\r\n\r\n")
	if resp := readResponse(t, bufio.NewReader(c)); resp.StatusCode != 204 {
		t.Fatalf("answered %s %q", resp.Status, resp.text)
	}
	if got := <-origin.got; got != "GET /x HTTP/1.1\r\nHost: one.example\r\nAccept: */*\r\n\r\n" {
		t.Errorf("the origin got %q", got)
	}
	_ = c.Close()
	d.wantReport(t, nil)
}

// Malformed HTTP is reported with what is wrong, anything else as not HTTP.
func TestMalformedHTTP(t *testing.T) {
	for _, c := range []struct {
		send   string
		status string
		report error
		says   string
	}{
		{"GET http://x/a b HTTP/1.1\r\nHost: x\r\n\r\n", "400", ErrBadRequest, "space"},
		{"GET http://x/\x01 HTTP/1.1\r\nHost: x\r\n\r\n", "400", ErrBadRequest, "control character"},
		{"GET x HTTP/1.1\r\nHost: x\r\n\r\n", "400", ErrBadRequest, "not a URL"},
		{"G@T http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", "400", ErrBadRequest, "method"},
		{"GET http://x/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400", ErrBadRequest, "header"},
		{"GET http://x/ HTTP/1.1\r\nSecret: a\x00b\r\n\r\n", "400", ErrBadRequest, "header"},
		{"GET http://x/ HTTP/1.1\r\nNo colon here s3cret\r\n\r\n", "400", ErrBadRequest, "header"},
		{"POST http://x/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400", ErrBadRequest, "header"},
		{"GET http://x/ HTTP/2.0\r\nHost: x\r\n\r\n", "505", ErrBadRequest, "HTTP/2.0"},
		{"GET http://x/ HTTP/1.1\r\nX: " + strings.Repeat("x", maxHeader+8192) + "\r\n\r\n", "431", ErrBadRequest, "64 KiB"},
		{"GET http://x/" + strings.Repeat("x", maxHeader+8192) + " HTTP/1.1\r\n\r\n", "431", ErrBadRequest, "64 KiB"},
		{"GET /\r\n\r\n", "400", ErrBadRequest, "HTTP version"},
		{"EHLO there\r\n\r\n", "400", ErrBadHandshake, ""},
	} {
		d := open(t, &Server{})
		client := d.dial(t)
		go func() { _, _ = io.WriteString(client, c.send) }() // may be cut off
		got := readAll(t, client)
		if !strings.HasPrefix(got, "HTTP/1.1 "+c.status+" ") {
			t.Errorf("%.60q: answered %.80q, want %s", c.send, got, c.status)
		}
		_ = client.Close()
		reports := d.reported(t)
		if len(reports) != 1 || !errors.Is(reports[0], c.report) || !strings.Contains(reports[0].Error(), c.says) || strings.Contains(reports[0].Error(), "s3cret") {
			t.Errorf("%.60q: reported %v, want %v with %q", c.send, reports, c.report, c.says)
		}
	}
}

// Trailers of a request arrive, announced or not.
func TestRequestTrailers(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		announced := len(r.Trailer)
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s, %d announced, %s %s %s", body, announced, r.Trailer.Get("X-Sum"), r.Trailer.Get("X-More"), r.Trailer.Get("Content-Length"))
	}))
	defer origin.Close()
	d := open(t, &Server{Dialer: dialerTo(func(netaddr.Addr) string { return origin.Listener.Addr().String() })})
	c := d.dial(t)
	r := bufio.NewReader(c)
	for range 2 {
		write(t, c, "POST http://one.example/ HTTP/1.1\r\nHost: one.example\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 42\r\nX-More: 1\r\nContent-Length: 7\r\n\r\n")
		if resp := readResponse(t, r); resp.text != "body, 1 announced, 42 1 " {
			t.Errorf("answered %s %q", resp.Status, resp.text)
		}
	}
	_ = c.Close()
}

// Bytes that come with the request for an upgrade are for the new protocol.
func TestBytesBehindUpgrade(t *testing.T) {
	addr := upgradeOrigin(t)
	d := open(t, &Server{Dialer: dialerTo(func(netaddr.Addr) string { return addr })})
	early := strings.Repeat("0123456789", 2000)
	c := d.dial(t)
	write(t, c, "GET http://one.example/chat HTTP/1.1\r\nHost: one.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"+early)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("answered %v, %v", resp, err)
	}
	if got := readN(t, r, len("welcome"+early)); got != "welcome"+early {
		t.Errorf("%d bytes came back changed", len(got))
	}
	_ = c.Close()
}

// HTTP/1.0 knows no interim answers.
func TestInterimAnswers(t *testing.T) {
	const answer = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
	for version, want := range map[string]string{
		"1.0": "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
		"1.1": "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
	} {
		origin := newRawOrigin(t, answer)
		d := open(t, &Server{Dialer: origin.dialer()})
		c := d.dial(t)
		write(t, c, "GET http://one.example/ HTTP/"+version+"\r\nHost: one.example\r\nConnection: close\r\n\r\n")
		if got := readAll(t, c); got != want {
			t.Errorf("HTTP/%s: answered\n%q, want\n%q", version, got, want)
		}
	}
}

func TestStatusLines(t *testing.T) {
	for _, c := range []struct{ answer, want string }{
		{"HTTP/1.1 404 Nicht da\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 404 Nicht da"},
		{"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 "},
		{"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 "},
		{"HTTP/1.0 299 Odd One\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 299 Odd One"},
		{"ICY 200 OK\r\nicy-name: radio\r\n\r\nAAAA", "HTTP/1.1 200 OK"},
	} {
		origin := newRawOrigin(t, c.answer)
		d := open(t, &Server{Dialer: origin.dialer()})
		client := d.dial(t)
		write(t, client, "GET http://one.example/ HTTP/1.1\r\nHost: one.example\r\n\r\n")
		line, err := bufio.NewReader(client).ReadString('\n')
		if err != nil || line != c.want+"\r\n" {
			t.Errorf("%q: answered %q, %v; want %q", c.answer, line, err, c.want)
		}
		_ = client.Close()
	}
}

// SHOUTcast stations answer in a dialect of HTTP/1.0, and may do so byte by byte.
func TestICY(t *testing.T) {
	const answer = "ICY 200 OK\r\nicy-name: radio\r\n\r\n"
	audio := strings.Repeat("AAAA", 4000)
	for _, pace := range []int{1, 3, 4, 5, 10_000} {
		d := open(t, &Server{Dialer: transport.DialerFunc(func(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
			c, err := newRawOrigin(t, answer+audio).dialer().DialStream(ctx, dst, first)
			return &slowReader{c, pace}, err
		})})
		c := d.dial(t)
		write(t, c, "GET http://radio.example/ HTTP/1.0\r\n\r\n")
		if got := readAll(t, c); got != "HTTP/1.0 200 OK\r\nIcy-Name: radio\r\nConnection: close\r\n\r\n"+audio {
			t.Errorf("%d bytes at a time: answered %d bytes, %.120q", pace, len(got), got)
		}
	}
}

// A slowReader gives a few bytes at a time.
type slowReader struct {
	transport.StreamConn
	pace int
}

func (c *slowReader) Read(p []byte) (int, error) { return c.StreamConn.Read(p[:min(len(p), c.pace)]) }

// An invalid answer is explained to the client, and reported without the origin's
// words.
func TestBadAnswers(t *testing.T) {
	for _, c := range []struct{ answer, says string }{
		{"<html>HTTP/0.9</html>", "does not begin with an HTTP status line"},
		{"SSH-2.0-OpenSSH_9.2\r\n", "does not begin with an HTTP status line"},
		{"HTTP/1.1 abc OK\r\n\r\n", "does not begin with an HTTP status line"},
		{"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nab", "does not begin with an HTTP status line"},
		{"HTTP/1.1 +99 OK\r\nContent-Length: 2\r\n\r\nab", "does not begin with an HTTP status line"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "more than one length"},
		{"HTTP/1.1 200 OK\r\nno colon s3cret\r\n\r\n", "malformed"},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "transfer encoding"},
		{"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxOriginHead+8192) + "\r\n\r\n", "256 KiB"},
		{"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", "protocol"},
	} {
		origin := newRawOrigin(t, c.answer)
		d := open(t, &Server{Dialer: origin.dialer()})
		client := d.dial(t)
		write(t, client, "GET http://one.example/ HTTP/1.1\r\nHost: one.example\r\n\r\n")
		resp := readResponse(t, bufio.NewReader(client))
		if resp.StatusCode != 502 || !strings.Contains(resp.text, c.says) || strings.Contains(resp.text, textMore) || strings.Contains(resp.text, "s3cret") {
			t.Errorf("%.40q: answered %s %q, want 502 with %q", c.answer, resp.Status, resp.text, c.says)
		}
		_ = client.Close()
		reports := d.reported(t)
		if len(reports) != 1 || !errors.Is(reports[0], ErrBadAnswer) || !strings.Contains(reports[0].Error(), c.says) || strings.Contains(reports[0].Error(), "one.example") {
			t.Errorf("%.40q: reported %v, want one with %q", c.answer, reports, c.says)
		}
	}
}

// The answer names an origin that closed without one, and refers to no log.
func TestNoAnswer(t *testing.T) {
	for _, answer := range []string{"", "HTTP/1.1 200 OK\r\nX: y\r\n"} {
		origin := newRawOrigin(t, answer)
		d := open(t, &Server{Dialer: origin.dialer()})
		c := d.dial(t)
		write(t, c, "GET http://one.example/ HTTP/1.1\r\nHost: one.example\r\n\r\n")
		resp := readResponse(t, bufio.NewReader(c))
		if resp.StatusCode != 502 || !strings.Contains(resp.text, "closed the connection") || strings.Contains(resp.text, textMore) {
			t.Errorf("%q: answered %s %q", answer, resp.Status, resp.text)
		}
		_ = c.Close()
		d.wantReport(t, nil)
	}
}

// Two ways to read one request are a way to smuggle another: what net/http's server
// rejects is rejected, but for what a proxy need not understand, and what goes on has
// one length.
func TestNoSmuggling(t *testing.T) {
	judge := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer judge.Close()
	const start = "POST http://one.example/ HTTP/1.1\r\nHost: one.example\r\n"
	for name, c := range map[string]struct {
		send string
		sent string // what goes on; "" where it is rejected
	}{
		"Content-Length and chunks":     {start + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n"},
		"two lengths":                   {start + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", ""},
		"two lengths that are the same": {start + "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", "Content-Length: 1\r\n"},
		"a list of lengths":             {start + "Content-Length: 1, 1\r\n\r\na", ""},
		"a signed length":               {start + "Content-Length: +1\r\n\r\na", ""},
		"a negative length":             {start + "Content-Length: -1\r\n\r\na", ""},
		"a length in hexadecimal":       {start + "Content-Length: 0x1\r\n\r\na", ""},
		"a length with NUL":             {start + "Content-Length: 1\x00\r\n\r\na", ""},
		"another encoding":              {start + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", ""},
		"two encodings":                 {start + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", ""},
		"two fields of encodings":       {start + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", ""},
		"an encoding with a tab":        {start + "Transfer-Encoding:\vchunked\r\n\r\n0\r\n\r\n", ""},
		"a space before the colon":      {start + "Content-Length : 1\r\n\r\na", ""},
		"a field without a colon":       {start + "Content-Length\r\n\r\n", ""},
		"a field without a name":        {start + ": 1\r\n\r\n", ""},
		"a folded first field":          {"POST http://one.example/ HTTP/1.1\r\n Host: x\r\n\r\n", ""},
		"a folded field":                {start + "X: a\r\n b\r\nContent-Length: 1\r\n\r\na", "X: a b\r\n"},
		"bare LF":                       {strings.ReplaceAll(start, "\r\n", "\n") + "Content-Length: 1\n\na", "Content-Length: 1\r\n"},
		"bare CR in a field":            {start + "X: a\rContent-Length: 1\r\n\r\n", ""},
		"bare CR in the line":           {"GET http://one.example/\rX HTTP/1.1\r\nHost: x\r\n\r\n", ""},
		"NUL in a field":                {start + "X: a\x00b\r\n\r\n", ""},
		"two hosts":                     {start + "Host: two.example\r\n\r\n", ""},
		"a host with a space":           {"GET http://one.example/ HTTP/1.1\r\nHost: a b\r\n\r\n", ""},
		"a space before the method":     {"GET http://one.example/ HTTP/1.1\r\nHost: x\r\n\r\n" + " GET http://one.example/ HTTP/1.1\r\nHost: x\r\n\r\n", "Host: one.example\r\n"},
		"two spaces":                    {"GET  http://one.example/ HTTP/1.1\r\nHost: x\r\n\r\n", ""},
		"a tab":                         {"GET\thttp://one.example/ HTTP/1.1\r\nHost: x\r\n\r\n", ""},
		"text behind the version":       {"GET http://one.example/ HTTP/1.1 x\r\nHost: x\r\n\r\n", ""},
		"a version of two digits":       {"GET http://one.example/ HTTP/1.10\r\nHost: x\r\n\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			theirs, err := net.Dial("tcp", judge.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer theirs.Close()
			_, _ = io.WriteString(theirs, c.send)
			verdict := readResponse(t, bufio.NewReader(theirs)).StatusCode

			origin := newRawOrigin(t, "HTTP/1.1 204 No Content\r\n\r\n")
			d := open(t, &Server{Dialer: origin.dialer()})
			client := d.dial(t)
			_, _ = io.WriteString(client, c.send)
			resp := readResponse(t, bufio.NewReader(client))
			if rejected := resp.StatusCode >= 400; rejected != (c.sent == "") || (verdict >= 400) != rejected {
				t.Errorf("answered %s %q; net/http answers %d", resp.Status, resp.text, verdict)
			}
			if c.sent != "" {
				if got := <-origin.got; !strings.Contains(got, c.sent) || strings.Count(got, "Content-Length")+strings.Count(got, "Transfer-Encoding") > 1 {
					t.Errorf("the origin got %q", got)
				}
			}
			_ = client.Close()
		})
	}
}

// A request that http.Transport does not send is the client's fault, not the site's.
func TestRequestThatCannotBeSent(t *testing.T) {
	d := open(t, &Server{Dialer: transport.DialerFunc(func(context.Context, netaddr.Addr, []byte) (transport.StreamConn, error) {
		t.Error("the origin was dialled")
		return nil, io.ErrUnexpectedEOF
	})})
	c := d.dial(t)
	write(t, c, "POST http://one.example/ HTTP/1.1\r\nHost: one.example\r\nTrailer: a b\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	if resp := readResponse(t, bufio.NewReader(c)); resp.StatusCode != 400 || strings.Contains(resp.text, "site") {
		t.Errorf("answered %s %q", resp.Status, resp.text)
	}
	_ = c.Close()
	d.wantReport(t, ErrBadRequest)
}
