package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/tcpconn"
)

// The faults of this side: the local port, and the programs that use it.

// TestFaultPortInUse: who has the port is named, and a port that is free.
func TestFaultPortInUse(t *testing.T) {
	t.Parallel()
	taken := echoOrigin(t)
	remote := remoteAt(t, inProcessServer(t, serverConfig(), inProcess{}).addr)
	listenOn := func(addr string) (*config.Client, error) {
		cfg := clientConfig(remote)
		cfg.Listen = addr
		return config.ParseClient("config.json", config.MarshalClient(cfg))
	}
	cfg, err := listenOn(taken)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.New(cfg, client.Options{LookupEnv: lookup(nil)})
	var refused *client.ListenError
	if !errors.As(err, &refused) {
		t.Fatalf("a taken port: %v", err)
	}
	t.Log(err)
	want := regexp.MustCompile(`^listen\.in-use: (.*) already listens on ` + regexp.QuoteMeta(taken) +
		`\nfix: stop that program, or set "listen" at config\.json:2:13 to "(127\.0\.0\.1:\d+)", which is free$`)
	m := want.FindStringSubmatch(err.Error())
	if m == nil {
		t.Fatalf("it says\n%v\nwant\n%s", err, want)
	}
	if own := fmt.Sprintf("(process %d)", os.Getpid()); m[1] != "another program" && !strings.HasSuffix(m[1], own) {
		t.Errorf("the port is said to be held by %s, want %s", m[1], own)
	}
	l := newLab(t, labSetup{remote: remote, change: func(c *config.Client) { c.Listen = m[2] }})
	l.ask(echoOrigin(t), "hello\n", 6).wantData(t, "hello\n")
	l.wantQuiet(t)
}

// TestFaultLocal: programs that speak something else to the port, or wrongly.
func TestFaultLocal(t *testing.T) {
	t.Parallel()
	origin := echoOrigin(t)
	remote := remoteAt(t, inProcessServer(t, serverConfig(), inProcess{}).addr)
	guarded := func(c *config.Client) { c.Auth = config.Auth{Username: "someone", Password: "5ec2e7word"} }
	hasty := func(c *config.Client) { c.Limits.Handshake = config.Duration(time.Second) }
	for _, tt := range []struct {
		name   string
		change func(*config.Client)
		do     func(c net.Conn, proxy string) // as a program
		want   expected
	}{
		{
			"TLS", nil,
			func(c net.Conn, _ string) {
				_ = tls.Client(c, &tls.Config{ServerName: "localhost", InsecureSkipVerify: true}).Handshake()
			},
			expected{cause: "local.bad-handshake", sentence: "a program at 127.0.0.1 speaks TLS to the proxy port", fix: "HTTP proxy (not HTTPS proxy) or SOCKS5 at 127.0.0.1:"},
		},
		{
			"noise", nil,
			func(c net.Conn, _ string) { _, _ = io.WriteString(c, "\x00\x01\x02noise") },
			expected{cause: "local.bad-handshake", sentence: "speaks neither SOCKS nor HTTP proxy", fix: "set that program to SOCKS5 or HTTP proxy at 127.0.0.1:"},
		},
		{
			"half a greeting", hasty,
			func(c net.Conn, _ string) { _, _ = io.WriteString(c, "\x05") },
			expected{cause: "local.bad-handshake", sentence: "did not send a complete request in time", fix: "set that program to SOCKS5", within: time.Second},
		},
		{
			"a password though none is set", nil,
			func(c net.Conn, _ string) { _, _ = io.WriteString(c, "\x05\x01\x02") },
			expected{cause: "local.needs-no-auth", sentence: "insists on a username and password, but the proxy has none", fix: "remove the username and password from that program's proxy settings"},
		},
		{
			"GSSAPI", nil,
			func(c net.Conn, _ string) { _, _ = io.WriteString(c, "\x05\x01\x01") },
			expected{cause: "local.bad-request", sentence: "sent a malformed or unsupported SOCKS5 request: ", fix: "update that program, or switch it between SOCKS5 and HTTP proxy"},
		},
		{
			"port 0", nil,
			func(c net.Conn, _ string) { _, _ = io.WriteString(c, "\x05\x01\x00\x05\x01\x00\x03\x01a\x00\x00") },
			expected{cause: "local.bad-request", sentence: "asked over SOCKS5 for an invalid destination: the port is 0", fix: "correct the host name and port that program connects to"},
		},
		{
			"a name with a space", nil,
			func(c net.Conn, _ string) {
				_, _ = io.WriteString(c, "\x05\x01\x00\x05\x01\x00\x03\x09some name\x00\x50")
			},
			expected{cause: "local.bad-request", sentence: "asked over SOCKS5 for an invalid destination: the host name may hold only", fix: "correct the host name and port"},
		},
		{
			"SOCKS4a and port 0", nil,
			func(c net.Conn, _ string) { _, _ = io.WriteString(c, "\x04\x01\x00\x00\x00\x00\x00\x01\x00a\x00") },
			expected{cause: "local.bad-request", sentence: "asked over SOCKS4 for an invalid destination: the port is 0", fix: "correct the host name and port"},
		},
		{
			"CONNECT and port 0", nil,
			func(c net.Conn, _ string) { _, _ = io.WriteString(c, "CONNECT a:0 HTTP/1.1\r\nHost: a:0\r\n\r\n") },
			expected{cause: "local.bad-request", sentence: "asked over HTTP for an invalid destination: the port is 0", fix: "correct the host name and port"},
		},
		{
			"a URL with a space", nil,
			func(c net.Conn, _ string) { _, _ = io.WriteString(c, "GET http://a/b c HTTP/1.1\r\nHost: a\r\n\r\n") },
			expected{cause: "local.bad-request", sentence: "sent a malformed or unsupported HTTP request: the URL has a space in it", fix: "update that program"},
		},
		{
			"BIND", nil,
			func(c net.Conn, _ string) {
				_, _ = io.WriteString(c, "\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50")
			},
			expected{cause: "local.bad-handshake", sentence: "a SOCKS command that is not supported", fix: "VMess cannot carry BIND"},
		},
		{
			"UDP that is off", func(c *config.Client) { c.UDP.Mode = "off" },
			func(c net.Conn, _ string) {
				_, _ = io.WriteString(c, "\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00")
			},
			expected{cause: "local.bad-handshake", sentence: `asked for UDP, which "udp.mode": "off" at config.json:`, fix: `set that to "auto", or turn UDP off in that program`},
		},
		{
			"the proxy itself", nil,
			func(c net.Conn, proxy string) { _ = connectRequest(c, proxy) },
			expected{cause: "local.bad-handshake", sentence: "asked the proxy to connect to the proxy itself", fix: "exempt 127.0.0.1:"},
		},
		{
			"wrong password", guarded,
			func(c net.Conn, _ string) { _, _ = io.WriteString(c, "\x05\x01\x02\x01\x07someone\x055ec2e") },
			expected{cause: "local.bad-auth", sentence: "sent a wrong username or password, or none", fix: `enter the username and password of "auth" at config.json:`},
		},
		{
			"no password", guarded,
			func(c net.Conn, _ string) { _ = connectRequest(c, "somewhere.example:80") },
			expected{cause: "local.bad-auth", sentence: "or none", fix: `enter the username and password of "auth" at config.json:`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labSetup{remote: remote, change: tt.change})
			tt.want.since = time.Now()
			tt.want.within += time.Second
			for range 3 { // repeats are folded
				c, err := net.Dial("tcp", l.addr)
				if err != nil {
					t.Fatal(err)
				}
				_ = c.SetDeadline(time.Now().Add(5 * time.Second))
				tt.do(c, l.addr)
				if _, err := io.Copy(io.Discard, c); isTimeout(err) {
					t.Error("the connection was left open")
				}
				_ = c.Close()
			}
			r := l.expect(t, tt.want)
			if r.Confidence != "certain" || strings.Contains(l.json.String(), "5ec2e") {
				t.Errorf("%+v", r)
			}
		})
	}
	t.Run("fine", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, labSetup{remote: remote, change: hasty})
		// Browsers connect ahead, and close what they did not need.
		idle, err := net.Dial("tcp", l.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, idle)
		_ = idle.Close()
		l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
		l.wantQuiet(t)
		locked := newLab(t, labSetup{remote: remote, change: guarded})
		c, err := net.Dial("tcp", locked.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(c, "\x05\x01\x02\x01\x07someone\x0a5ec2e7word")
		if got := make([]byte, 4); !readAll(c, got) || string(got) != "\x05\x02\x01\x00" {
			t.Errorf("the right password got % x", got)
		}
		locked.wantQuiet(t)
	})
}

// TestOddHTTPIsCarried: what a site understands is not for us to reject, and what
// it answers wrongly is told in the answer and logged.
func TestOddHTTPIsCarried(t *testing.T) {
	t.Parallel()
	origin := rawOrigin(t, func(line string) string {
		switch {
		case strings.HasPrefix(line, "POST /half"):
			return "HTTP/1.1 200 Sehr gut\r\nContent-Length: 4\r\nConnection: close\r\n\r\nhalf"
		case strings.HasPrefix(line, "GET /100%-off "):
			return "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nsaved"
		case strings.HasPrefix(line, "GET /radio "):
			return "ICY 200 OK\r\nicy-name: radio\r\n\r\nAAAA"
		}
		return "<html>no status line</html>"
	})
	l := newLab(t, labSetup{remote: remoteAt(t, inProcessServer(t, serverConfig(), inProcess{}).addr)})
	ask := func(line, fields string) string {
		c, err := net.Dial("tcp", l.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(c, strings.Replace(line, " /", " http://"+origin+"/", 1)+" HTTP/1.1\r\n"+fields)
		_ = c.(*net.TCPConn).CloseWrite()
		got, err := io.ReadAll(c)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		return string(got)
	}
	for _, tt := range []struct{ line, fields, status, body string }{
		{"POST /half", "Content-Length: 4\r\n\r\nbody", "HTTP/1.1 200 Sehr gut\r\n", "half"},
		{"GET /100%-off", "\r\n", "HTTP/1.1 200 OK\r\n", "saved"},
		{"GET /radio", "\r\n", "HTTP/1.1 200 OK\r\n", "4\r\nAAAA\r\n0\r\n\r\n"},
	} {
		if got := ask(tt.line, tt.fields); !strings.HasPrefix(got, tt.status) || !strings.HasSuffix(got, "\r\n\r\n"+tt.body) {
			t.Errorf("%s: answered %q", tt.line, got)
		}
	}
	l.wantQuiet(t)
	if got := ask("GET /html", "\r\n"); !strings.HasPrefix(got, "HTTP/1.1 502 ") || !strings.Contains(got, "The site's answer is not valid HTTP") {
		t.Errorf("an answer without a status line: %q", got)
	}
	r := l.await(t, "a line about the answer", func(r record) bool { return strings.Contains(r.Msg, "invalid answer") })
	if r.Level != "WARN" || strings.Contains(r.Msg, origin) {
		t.Errorf("%+v", r)
	}
	l.wantFailures(t, 1)
}

// rawOrigin answers each connection's first line.
func rawOrigin(t *testing.T, answer func(line string) string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(c).ReadString('\n')
			_, _ = io.WriteString(c, answer(line))
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}()
	return ln.Addr().String()
}

func readAll(c net.Conn, p []byte) bool {
	_, err := io.ReadFull(c, p)
	return err == nil
}

// TestFaultTooMany: a limit that is reached is named once, and no obstacle once
// there is room again.
func TestFaultTooMany(t *testing.T) {
	t.Parallel()
	const most = 5
	origin := echoOrigin(t)
	l := newLab(t, labSetup{
		remote: remoteAt(t, inProcessServer(t, serverConfig(), inProcess{}).addr),
		change: func(c *config.Client) { c.Limits.Connections = most },
	})
	held := make([]net.Conn, 0, most)
	for range most {
		held = append(held, l.hold(t, origin))
	}
	l.wantQuiet(t)
	since := time.Now()
	for range 10 {
		if r := l.ask(origin, "hello\n", 6); r.code != noReply || isTimeout(r.end) {
			t.Errorf("one too many got code %d, ended by %v", r.code, r.end)
		}
	}
	l.expect(t, expected{
		cause: "limit.connections", sentence: "a connection was rejected: 5 connections are already open, which is the limit",
		fix: `raise "limits.connections" at config.json:`, confidence: "certain", since: since, within: time.Second,
	})
	for _, c := range held {
		echoOn(t, c, "still there\n")
		_ = c.Close()
	}
	for deadline := time.Now().Add(labPatience); ; {
		if r := l.ask(origin, "hello\n", 6); r.data == "hello\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("there is no room again")
		}
	}
	l.wantFailures(t, 1)
}

// TestHintBareAddresses: a browser that resolves names itself is told of once.
func TestHintBareAddresses(t *testing.T) {
	t.Parallel()
	origin := echoOrigin(t)
	// The server's way out leads to one origin, whatever was asked for.
	there := transport.DialerFunc(func(ctx context.Context, _ netaddr.Addr, first []byte) (transport.StreamConn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", origin)
		if err != nil {
			return nil, err
		}
		_, err = c.Write(first)
		return tcpconn.New(c.(*net.TCPConn)), err
	})
	remote := remoteAt(t, inProcessServer(t, serverConfig(), inProcess{Dialer: there}).addr)
	const bare, name = "192.0.2.7:443", "www.example.com:443"
	for _, tt := range []struct {
		name  string
		asks  []string // each that many times
		times int
		hints int
	}{
		{"bare addresses", []string{bare, "192.0.2.8:80"}, 15, 1},
		{"too few to tell", []string{bare}, 19, 0},
		{"names", []string{name}, 25, 0},
		{"a name first", []string{name, bare}, 25, 0},
		{"private addresses", []string{"192.168.1.1:80", "127.0.0.1:443", "100.64.0.1:443", "198.18.0.5:443"}, 10, 0},
		{"other ports", []string{"192.0.2.7:6881"}, 30, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labSetup{remote: remote})
			for _, target := range tt.asks {
				for range tt.times {
					l.ask(target, "hello\n", 6).wantData(t, "hello\n")
				}
			}
			if n := strings.Count(l.text.String(), "hint: "); n != tt.hints {
				t.Errorf("%d hints, want %d:\n%s", n, tt.hints, l.text)
			}
			if tt.hints > 0 && !strings.Contains(l.text.String(), `"socks5h"`) {
				t.Errorf("the hint does not say what to do:\n%s", l.text)
			}
			l.wantQuiet(t)
		})
	}
}
