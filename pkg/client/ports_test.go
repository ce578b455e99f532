package client

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// portsConfig listens there, and has a page where page is not empty.
func portsConfig(listen, page string) *config.Client {
	cfg := testConfig()
	cfg.Limits.Drain, cfg.Warm.Max = 0, 0
	cfg.Listen, cfg.Status.Enabled, cfg.Status.Listen = listen, page != "", page
	if !strings.HasPrefix(listen, "127.") {
		cfg.Auth = config.Auth{Username: "someone", Password: "5ec2e7word"}
	}
	return cfg
}

// runPorts runs a client until the test ends.
func runPorts(t *testing.T, cfg *config.Client) *Client {
	t.Helper()
	c, err := New(cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for c.Reload(cfg) == ErrNotRunning { // until it runs
		time.Sleep(time.Millisecond)
	}
	return c
}

// wantProxy wants a SOCKS5 proxy at an address.
func wantProxy(t *testing.T, addr string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(conn, "\x05\x02\x00\x02")
	var reply [2]byte
	if _, err := io.ReadFull(conn, reply[:]); err != nil || reply[0] != 5 {
		t.Fatalf("%s answers % x, %v", addr, reply, err)
	}
}

func wantPage(t *testing.T, addr string) {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); string(body) != "ok\n" {
		t.Fatalf("%s answers %q, %v", addr, body, err)
	}
}

// freePorts returns free ports.
func freePorts(t *testing.T, n int) (ports []string) {
	t.Helper()
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		ports = append(ports, port)
	}
	return ports
}

// A reload moves to an address that one of before is in the way of.
func TestReloadMovesItsPorts(t *testing.T) {
	p := freePorts(t, 2)
	a, b := "127.0.0.1:"+p[0], "127.0.0.1:"+p[1]
	c := runPorts(t, portsConfig(a, b))
	for _, step := range []struct{ name, listen, page, wantPage string }{
		{"to all addresses", "0.0.0.0:" + p[0], b, b},
		{"and back", a, b, b},
		{"page by its other name", a, "localhost:" + p[1], b},
		{"the ports exchanged", b, a, a},
		{"page off", b, "", ""},
		{"page on again", b, a, a},
		{"to the port of the page, which stays where it was told to", a, a, ""},
	} {
		t.Run(step.name, func(t *testing.T) {
			if err := c.Reload(portsConfig(step.listen, step.page)); err != nil {
				t.Fatal(err)
			}
			_, port, _ := net.SplitHostPort(step.listen)
			wantProxy(t, "127.0.0.1:"+port)
			if host, _, _ := net.SplitHostPort(c.Addr().String()); step.listen[0] == '1' && host != "127.0.0.1" {
				t.Errorf("it listens on %s", c.Addr())
			}
			switch {
			case step.wantPage != "":
				wantPage(t, step.wantPage)
			case step.page != "":
				wantPage(t, c.page.Addr().String()) // the next free one
			}
		})
	}
}

// Where the new address cannot be had, all listens as before when the error is
// returned.
func TestReloadTakesItsPortsBack(t *testing.T) {
	p := freePorts(t, 2)
	a, b := "127.0.0.1:"+p[0], "127.0.0.1:"+p[1]
	c := runPorts(t, portsConfig(a, b))
	url := c.page.URL()
	other, err := net.Listen("tcp", "127.0.0.2:"+p[0])
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for range 3 {
		if err := c.Reload(portsConfig("0.0.0.0:"+p[0], b)); err == nil {
			t.Fatal("it listens on an address in use")
		}
		wantProxy(t, a)
		wantPage(t, b)
	}
	bad := portsConfig(b, a)
	bad.Status.Listen = "192.0.2.1:" + p[0] // of no interface
	if err := c.Reload(bad); err == nil {
		t.Fatal("a page on an address of another computer")
	}
	wantProxy(t, a)
	wantPage(t, b)
	if got := c.page.URL(); got != url {
		t.Errorf("the page is at %s, was at %s", got, url)
	}
	if err := c.Reload(portsConfig(a, b)); err != nil {
		t.Fatal(err)
	}
	wantProxy(t, a)
}
