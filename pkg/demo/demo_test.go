package demo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOnce(t *testing.T) {
	var out bytes.Buffer
	if err := Run(t.Context(), Options{Listen: "127.0.0.1:0", Once: true, Out: &out}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"1  server ", "2  client ", "3  page ", "4  fetch   200 OK", "ok: "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the steps lack %q:\n%s", want, out.String())
		}
	}
}

func TestPortTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	taken := ln.Addr().String()
	if err := Run(t.Context(), Options{Listen: taken, Once: true, Out: io.Discard}); err == nil {
		t.Error("the demo took a port that is taken")
	}
	var out bytes.Buffer
	if err := Run(t.Context(), Options{Listen: taken, AnyPort: true, Once: true, Out: &out}); err != nil {
		t.Errorf("the demo found no other port: %v", err)
	}
	if !strings.Contains(out.String(), ", because "+taken+" is taken\n") {
		t.Errorf("the steps do not explain the other port:\n%s", out.String())
	}
}

func TestLoopbackOnly(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "1080", ""} {
		var out bytes.Buffer
		if err := Run(t.Context(), Options{Listen: listen, Once: true, Out: &out}); !errors.Is(err, ErrListen) || out.Len() > 0 {
			t.Errorf("%q: %v, steps %q", listen, err, out.String())
		}
	}
}

// TestStaysUntilDone uses the demo as a proxy, as its last words suggest, and
// ends it.
func TestStaysUntilDone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{Listen: "127.0.0.1:0", Out: w})
		_ = w.Close()
	}()
	text, p := "", make([]byte, 4096)
	for !strings.Contains(text, "Ctrl-C") {
		n, err := r.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		text += string(p[:n])
	}
	_, after, _ := strings.Cut(text, "\nstatus: ")
	status, _, _ := strings.Cut(after, "\n")
	page, err := http.Get(status)
	if err != nil || page.StatusCode != http.StatusOK || !strings.Contains(status, "/?token=") {
		t.Fatalf("the status page at %q: %v, %v", status, page, err)
	}
	_ = page.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	_, after, _ = strings.Cut(text, "curl -x ")
	proxy, err := url.Parse(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	way := &http.Transport{Proxy: http.ProxyURL(proxy), DisableKeepAlives: true}
	resp, err := way.RoundTrip(newRequest(t, strings.Fields(after)[1]))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != pageText {
		t.Errorf("got %q, %v", body, err)
	}
	_ = resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func newRequest(t *testing.T, target string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// TestInterrupted ends the demo before its fetch.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, Options{Listen: "127.0.0.1:0", Once: true, Out: io.Discard}); !errors.Is(err, ErrFetch) {
		t.Errorf("got %v, want ErrFetch", err)
	}
}
