package client

import (
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"

	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
)

func testConfig() *config.Client {
	cfg := config.DefaultClient()
	cfg.Listen = "127.0.0.1:0"
	cfg.Server.Address, cfg.Server.Port = "127.0.0.1", 1
	cfg.Server.ID = "b831381d-6324-4d53-ad4f-8cda48b30811"
	return cfg
}

// The ports are bound from New on, and given back by a client that is not run.
func TestPortIsBound(t *testing.T) {
	cfg := testConfig()
	cfg.Status.Listen = "127.0.0.1:0"
	c, err := New(cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	again := testConfig()
	again.Listen = c.Addr().String()
	_, err = New(again, Options{})
	var taken *ListenError
	if !errors.As(err, &taken) || taken.Addr != again.Listen {
		t.Fatalf("the port was bound twice: %v", err)
	}
	if text := taken.Error(); !strings.HasPrefix(text, "listen.in-use: ") || !strings.Contains(text, "\nfix: ") {
		t.Errorf("it says %q", text)
	}
	page, err := url.Parse(c.page.URL())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{again.Listen, page.Host} {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatalf("a port was not given back: %v", err)
		}
		_ = ln.Close()
	}
}

// A port that the page cannot have is reported with the key, not as an error of
// the configuration's form.
func TestPagePortDenied(t *testing.T) {
	cfg := testConfig()
	cfg.Status.Listen = "192.0.2.1:1081"
	_, err := New(cfg, Options{})
	var denied *ListenError
	if !errors.As(err, &denied) || denied.Verdict.Cause != diagnose.ListenDenied || !strings.Contains(denied.Verdict.Fix, `"status.listen"`) {
		t.Errorf("%v", err)
	}
}

// What the page offers follows the configuration: with a password shells are
// told to give one, whose words are placeholders, and browsers HTTP.
func TestPageTellsOfPassword(t *testing.T) {
	for _, auth := range []config.Auth{{}, {Username: "someone", Password: "5ec2e7word"}} {
		cfg := testConfig()
		cfg.Auth, cfg.Status.Listen = auth, "127.0.0.1:0"
		c, err := New(cfg, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		want := "export ALL_PROXY=socks5h://" + c.Addr().String()
		if auth.Username != "" {
			want = "export ALL_PROXY=socks5h://USER:PASSWORD@" + c.Addr().String()
		}
		if got := (page{c}).State().(pageState).Shell; got != want {
			t.Errorf("for a shell: %q, want %q", got, want)
		}
		if addr, asks := (page{c}).Proxy(); addr != c.Addr().String() || asks != (auth.Username != "") {
			t.Errorf("the proxy is %s, password: %v", addr, asks)
		}
	}
}

func TestExportProxy(t *testing.T) {
	for system, want := range map[string]string{
		"linux": "export ALL_PROXY=socks5h://127.0.0.1:1080", "windows": `$env:ALL_PROXY = "socks5h://127.0.0.1:1080"`,
	} {
		if got := exportProxy(system, "socks5h://127.0.0.1:1080"); got != want {
			t.Errorf("%s: %s", system, got)
		}
	}
}
