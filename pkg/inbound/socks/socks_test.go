package socks

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"vmess-local/pkg/transport"
)

const (
	connect5 = "\x05\x01\x00" + "\x05\x01\x00\x03\x0bexample.com\x01\xbb"
	ok5      = "\x05\x00" + "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
	zeros    = "\x00\x01\x00\x00\x00\x00\x00\x00"
)

var secret = Auth{Username: "anna", Password: "s3cret"}

func TestSOCKSReplies(t *testing.T) {
	for _, c := range []struct {
		name   string
		auth   *Auth
		send   string
		want   string
		report error
		dst    string
		user   string
	}{
		{name: "name", send: connect5, want: ok5 + "hello", dst: "example.com:443"},
		{name: "ipv4", send: "\x05\x02\x01\x00" + "\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50", want: ok5 + "hello", dst: "192.0.2.1:80"},
		{name: "ipv6", send: "\x05\x01\x00" + "\x05\x01\x00\x04\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01\x00\x50", want: ok5 + "hello", dst: "[2001:db8::1]:80"},
		{name: "mapped ipv4", send: "\x05\x01\x00" + "\x05\x01\x00\x04" + strings.Repeat("\x00", 10) + "\xff\xff\xc0\x00\x02\x01\x00\x50", want: ok5 + "hello", dst: "192.0.2.1:80"},
		{name: "text that spells an IP", send: "\x05\x01\x00" + "\x05\x01\x00\x03\x09192.0.2.1\x00\x50", want: ok5 + "hello", dst: "192.0.2.1:80"},
		{name: "other script", send: "\x05\x01\x00" + "\x05\x01\x00\x03\x0eh\xc3\xb6he.example." + "\x00\x50", want: ok5 + "hello", dst: "xn--hhe-sna.example.:80"},
		{name: "early data is left alone", send: connect5 + "GET", want: ok5 + "hello", dst: "example.com:443"},

		{name: "no common method", send: "\x05\x01\x02", want: "\x05\xff", report: ErrNeedsNoAuth},
		{name: "GSSAPI only", send: "\x05\x01\x01", want: "\x05\xff", report: ErrBadRequest},
		{name: "no methods", send: "\x05\x00", want: "\x05\xff", report: ErrBadRequest},
		{name: "bind", send: "\x05\x01\x00" + "\x05\x02\x00\x01\xc0\x00\x02\x01\x00\x50", want: "\x05\x00\x05\x07" + zeros, report: ErrCommand},
		{name: "udp", send: "\x05\x01\x00" + "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", want: "\x05\x00\x05\x07" + zeros, report: ErrNoUDP},
		{name: "unknown command", send: "\x05\x01\x00" + "\x05\x09\x00\x01\x00\x00\x00\x00\x00\x01", want: "\x05\x00\x05\x07" + zeros, report: ErrCommand},
		{name: "unknown address type", send: "\x05\x01\x00" + "\x05\x01\x00\x02\xc0\x00\x02\x01\x00\x50", want: "\x05\x00\x05\x08" + zeros, report: ErrBadRequest},
		{name: "empty name", send: "\x05\x01\x00" + "\x05\x01\x00\x03\x00\x00\x50", want: "\x05\x00\x05\x01" + zeros, report: ErrBadRequest},
		{name: "name with NUL", send: "\x05\x01\x00" + "\x05\x01\x00\x03\x03a\x00b\x00\x50", want: "\x05\x00\x05\x01" + zeros, report: ErrBadRequest},
		{name: "name that is no UTF-8", send: "\x05\x01\x00" + "\x05\x01\x00\x03\x03a\xffb\x00\x50", want: "\x05\x00\x05\x01" + zeros, report: ErrBadRequest},
		{name: "port 0", send: "\x05\x01\x00" + "\x05\x01\x00\x03\x01a\x00\x00", want: "\x05\x00\x05\x01" + zeros, report: ErrBadRequest},
		{name: "request of another version", send: "\x05\x01\x00" + "\x04\x01\x00\x01\xc0\x00\x02\x01\x00\x50", want: "\x05\x00\x05\x01" + zeros, report: ErrBadRequest},

		{name: "password", auth: &secret, send: "\x05\x02\x00\x02" + "\x01\x04anna\x06s3cret" + connect5[3:], want: "\x05\x02\x01\x00" + ok5[2:] + "hello", dst: "example.com:443", user: "anna"},
		{name: "wrong password", auth: &secret, send: "\x05\x01\x02" + "\x01\x04anna\x06secret" + connect5[3:], want: "\x05\x02\x01\x01", report: ErrBadAuth},
		{name: "wrong user", auth: &secret, send: "\x05\x01\x02" + "\x01\x05annaa\x06s3cret", want: "\x05\x02\x01\x01", report: ErrBadAuth},
		{name: "longest wrong fields", auth: &secret, send: "\x05\x01\x02" + "\x01\xff" + strings.Repeat("u", 255) + "\xff" + strings.Repeat("p", 255), want: "\x05\x02\x01\x01", report: ErrBadAuth},
		{name: "empty user", auth: &secret, send: "\x05\x01\x02" + "\x01\x00\x06s3cret", want: "\x05\x02\x01\x01", report: ErrBadAuth},
		{name: "empty password", auth: &secret, send: "\x05\x01\x02" + "\x01\x04anna\x00", want: "\x05\x02\x01\x01", report: ErrBadAuth},
		{name: "password of another version", auth: &secret, send: "\x05\x01\x02" + "\x05\x04anna\x06s3cret", want: "\x05\x02\x01\x01", report: ErrBadRequest},
		{name: "no password offered", auth: &secret, send: connect5, want: "\x05\xff", report: ErrBadAuth},
		{name: "10k after a wrong password", auth: &secret, send: "\x05\x01\x02" + "\x01\x04anna\x06secret" + strings.Repeat("x", 10000), want: "\x05\x02\x01\x01", report: ErrBadAuth},

		{name: "socks4", send: "\x04\x01\x00\x50\xc0\x00\x02\x01me\x00", want: "\x00\x5a\x00\x00\x00\x00\x00\x00hello", dst: "192.0.2.1:80"},
		{name: "socks4a", send: "\x04\x01\x01\xbb\x00\x00\x00\x01\x00example.com\x00", want: "\x00\x5a\x00\x00\x00\x00\x00\x00hello", dst: "example.com:443"},
		{name: "socks4a with an IP", send: "\x04\x01\x01\xbb\x00\x00\x00\xff\x00192.0.2.1\x00", want: "\x00\x5a\x00\x00\x00\x00\x00\x00hello", dst: "192.0.2.1:443"},
		{name: "socks4 bind", send: "\x04\x02\x00\x50\xc0\x00\x02\x01\x00", want: "\x00\x5b\x00\x00\x00\x00\x00\x00", report: ErrCommand},
		{name: "socks4a empty name", send: "\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00", want: "\x00\x5b\x00\x00\x00\x00\x00\x00", report: ErrBadRequest},
		{name: "socks4 10k user", send: "\x04\x01\x00\x50\xc0\x00\x02\x01" + strings.Repeat("u", 10000), want: "\x00\x5b\x00\x00\x00\x00\x00\x00", report: ErrBadRequest},
		{name: "socks4 longest user", send: "\x04\x01\x00\x50\xc0\x00\x02\x01" + strings.Repeat("u", 255) + "\x00", want: "\x00\x5a\x00\x00\x00\x00\x00\x00hello", dst: "192.0.2.1:80"},
		{name: "socks4a 10k name", send: "\x04\x01\x00\x50\x00\x00\x00\x01\x00" + strings.Repeat("n", 10000), want: "\x00\x5b\x00\x00\x00\x00\x00\x00", report: ErrBadRequest},
		{name: "socks4 where a password is needed", auth: &secret, send: "\x04\x01\x00\x50\xc0\x00\x02\x01anna\x00", want: "\x00\x5b\x00\x00\x00\x00\x00\x00", report: ErrBadAuth},

		{name: "tls", send: "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", want: "", report: ErrTLS},
		{name: "noise", send: "\x00\x01\x02", want: "", report: ErrBadHandshake},
		{name: "telnet", send: "\r\n", want: "", report: ErrBadHandshake},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, &Server{Auth: c.auth, Handler: greet(netip.AddrPort{})})
			client := d.dial(t)
			write(t, client, c.send)
			if got := readAll(t, client); got != c.want {
				t.Errorf("answered % x\n    want % x", got, c.want)
			}
			_ = client.Close() // the server lingers for it
			d.wantReport(t, c.report)
			asked := d.asked()
			if c.dst == "" {
				if len(asked) != 0 {
					t.Errorf("handed on: %v", asked)
				}
				return
			}
			if len(asked) != 1 || asked[0].Destination.String() != c.dst || asked[0].User != c.user {
				t.Fatalf("handed on %+v, want %s for %q", asked, c.dst, c.user)
			}
			if inbound := "socks" + string('0'+c.send[0]); asked[0].Inbound != inbound || asked[0].Source.String() != client.LocalAddr().String() {
				t.Errorf("inbound %q from %v, want %q from %v", asked[0].Inbound, asked[0].Source, inbound, client.LocalAddr())
			}
		})
	}
}

func TestBoundAddress(t *testing.T) {
	for _, c := range []struct{ bound, want5, want4 string }{
		{"192.0.2.7:258", "\x05\x00\x00\x01\xc0\x00\x02\x07\x01\x02", "\x00\x5a\x01\x02\xc0\x00\x02\x07"},
		{"[::ffff:192.0.2.7]:258", "\x05\x00\x00\x01\xc0\x00\x02\x07\x01\x02", "\x00\x5a\x01\x02\xc0\x00\x02\x07"},
		{"[2001:db8::9]:258", "\x05\x00\x00\x04\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x09\x01\x02", "\x00\x5a\x00\x00\x00\x00\x00\x00"},
	} {
		d := open(t, &Server{Handler: greet(netip.MustParseAddrPort(c.bound))})
		if got, want := d.talk(t, connect5), "\x05\x00"+c.want5+"hello"; got != want {
			t.Errorf("%s: SOCKS5 answered % x, want % x", c.bound, got, want)
		}
		if got, want := d.talk(t, "\x04\x01\x00\x50\xc0\x00\x02\x01\x00"), c.want4+"hello"; got != want {
			t.Errorf("%s: SOCKS4 answered % x, want % x", c.bound, got, want)
		}
	}
}

func TestAbort(t *testing.T) {
	for _, c := range []struct {
		cause error
		rep   byte
		http  string
	}{
		{nil, 1, "502 Bad Gateway"},
		{errors.New("something"), 1, "502 Bad Gateway"},
		{coded(transport.CodeNotAllowed), 2, "403 Forbidden"},
		{coded(transport.CodeNetworkUnreachable), 3, "503 Service Unavailable"},
		{coded(transport.CodeHostUnreachable), 4, "504 Gateway Timeout"},
		{coded(transport.CodeConnectionRefused), 5, "502 Bad Gateway"},
		{syscall.ECONNREFUSED, 5, "502 Bad Gateway"},
		{context.DeadlineExceeded, 4, "504 Gateway Timeout"},
	} {
		d := open(t, &Server{Handler: abort(c.cause)})
		// The early bytes must not make the answer a reset.
		early := strings.Repeat("early", 1000)
		if got, want := d.talkAndLeave(t, connect5+early), "\x05\x00\x05"+string(rune(c.rep))+zeros; got != want {
			t.Errorf("%v: SOCKS5 answered % x, want % x", c.cause, got, want)
		}
		if got, want := d.talkAndLeave(t, "\x04\x01\x00\x50\xc0\x00\x02\x01\x00"+early), "\x00\x5b\x00\x00\x00\x00\x00\x00"; got != want {
			t.Errorf("%v: SOCKS4 answered % x, want % x", c.cause, got, want)
		}
		got := d.talkAndLeave(t, "CONNECT example.com:443 HTTP/1.1\r\n\r\n"+early)
		head, body, _ := strings.Cut(got, "\r\n\r\n")
		if !strings.HasPrefix(head, "HTTP/1.1 "+c.http+"\r\n") || !strings.Contains(head, "\r\nConnection: close") {
			t.Errorf("%v: HTTP answered %q, want %s", c.cause, got, c.http)
		}
		if c.cause != nil && !strings.Contains(body, c.cause.Error()) {
			t.Errorf("%v is not in the answer %q", c.cause, body)
		}
		d.wantReport(t, nil)
	}
}

// talkAndLeave is talk for a client that closes when it has the answer.
func (d *door) talkAndLeave(t *testing.T, send string) string {
	t.Helper()
	c := d.dial(t)
	defer c.Close()
	write(t, c, send)
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("after %q: %v", got, err)
	}
	return string(got)
}

func TestUnanswered(t *testing.T) {
	d := open(t, &Server{Handler: HandlerFunc(func(context.Context, *transport.Request) {})})
	if got, want := d.talkAndLeave(t, connect5), "\x05\x00\x05\x01"+zeros; got != want {
		t.Errorf("answered % x, want % x", got, want)
	}
}

func TestAnswerOnce(t *testing.T) {
	second := make(chan error, 4)
	d := open(t, &Server{Handler: HandlerFunc(func(_ context.Context, r *transport.Request) {
		if r.Destination.Port() == 443 {
			c, err := r.Pending.Proceed(netip.AddrPort{})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
		} else if err := r.Pending.Abort(nil); err != nil {
			t.Error(err)
		}
		_, err := r.Pending.Proceed(netip.AddrPort{})
		second <- err
		second <- r.Pending.Abort(nil)
	})})
	d.talkAndLeave(t, connect5)
	d.talkAndLeave(t, "\x05\x01\x00"+"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50")
	for range 4 {
		if err := <-second; !errors.Is(err, ErrAnswered) {
			t.Errorf("the second answer: %v, want %v", err, ErrAnswered)
		}
	}
}

func TestHalfClose(t *testing.T) {
	for name, hello := range map[string]struct{ send, want string }{
		"socks5": {connect5, ok5},
		"socks4": {"\x04\x01\x00\x50\xc0\x00\x02\x01\x00", "\x00\x5a\x00\x00\x00\x00\x00\x00"},
		"http":   {"CONNECT example.com:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 Connection established\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t, &Server{Handler: HandlerFunc(func(_ context.Context, r *transport.Request) {
				c, err := r.Pending.Proceed(netip.AddrPort{})
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				all, err := io.ReadAll(c) // up to the client's end
				if err != nil {
					t.Error(err)
				}
				_, _ = io.WriteString(c, "got "+string(all))
				_ = c.CloseWrite()
			})})
			c := d.dial(t)
			write(t, c, hello.send)
			if got := readN(t, c, len(hello.want)); got != hello.want {
				t.Fatalf("answered %q, want %q", got, hello.want)
			}
			write(t, c, "question")
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got := readAll(t, c); got != "got question" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestStreamWithoutHalfClose(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	c := newClient(far, newMemListener(), func() {})
	defer c.Close()
	if err := c.stream().CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("CloseWrite: %v, want %v", err, errors.ErrUnsupported)
	}
}

func TestStreamIsTCP(t *testing.T) {
	kind := make(chan transport.StreamConn, 2)
	d := open(t, &Server{Handler: HandlerFunc(func(_ context.Context, r *transport.Request) {
		c, err := r.Pending.Proceed(netip.AddrPort{})
		if err != nil {
			t.Error(err)
			return
		}
		kind <- c
		_ = c.Close()
	})})
	for _, hello := range []string{connect5, "CONNECT example.com:443 HTTP/1.1\r\n\r\n"} {
		d.talk(t, hello)
		c := <-kind
		_, waits := c.(transport.ReadWaiter)
		_, resets := c.(transport.Resetter)
		if !waits || !resets {
			t.Errorf("%q leads to a %T, which cannot wait (%v) or reset (%v)", hello, c, waits, resets)
		}
	}
}

func TestLoop(t *testing.T) {
	d := open(t, &Server{})
	port := netip.MustParseAddrPort(d.addr).Port()
	portBytes := string([]byte{byte(port >> 8), byte(port)})
	for _, name := range []string{"localhost", "LocalHost.", "x.localhost", "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::"} {
		ask := "\x05\x01\x00" + "\x05\x01\x00\x03" + string([]byte{byte(len(name))}) + name + portBytes
		if got, want := d.talkAndLeave(t, ask), "\x05\x00\x05\x02"+zeros; got != want {
			t.Errorf("%s: answered % x, want % x", name, got, want)
		}
	}
	for _, name := range []string{"notlocalhost", "192.0.2.1"} {
		if got := openAddr(t, d, name, portBytes); got != ok5 {
			t.Errorf("%s on our port: answered % x, want % x", name, got, ok5)
		}
	}
	if got := openAddr(t, d, "localhost", "\x00\x01"); got != ok5 {
		t.Errorf("another port of this machine: answered % x, want % x", got, ok5)
	}
	for _, err := range d.reported(t) {
		if !errors.Is(err, ErrLoop) || strings.Contains(err.Error(), "localhost") {
			t.Errorf("reported %v", err)
		}
	}
}

func openAddr(t *testing.T, d *door, name, portBytes string) string {
	t.Helper()
	c := d.dial(t)
	defer c.Close()
	write(t, c, "\x05\x01\x00"+"\x05\x01\x00\x03"+string([]byte{byte(len(name))})+name+portBytes)
	return readN(t, c, len(ok5))
}

func TestAuthHidesItself(t *testing.T) {
	if s := secret.String() + secret.LogValue().String(); strings.Contains(s, "anna") || strings.Contains(s, "s3cret") {
		t.Errorf("printed as %q", s)
	}
}
