package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"

	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/config/sharelink"
)

// From a share link to a running client, and a page fetched through it.
func ExampleNew() {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "the page")
	}))
	defer page.Close()
	link, end := linkToServer()
	defer end()

	body, err := fetch(context.Background(), link, page.URL)
	fmt.Println(string(body), err)
	// Output:
	// the page <nil>
}

// docs/embedding.md shows the following function.

func fetch(ctx context.Context, link, page string) (body []byte, err error) {
	found, err := sharelink.Read([]byte(link))
	if err != nil {
		return nil, err // it names what is wrong, never the link
	}
	cfg := found.Config()
	cfg.Listen = "127.0.0.1:0" // any free port
	cfg.Status.Enabled = false // no status page
	c, err := client.New(cfg, client.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}

	ctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	defer func() { stop(); err = errors.Join(err, <-done) }()

	proxy := &url.URL{Scheme: "http", Host: c.Addr().String()}
	transport := &http.Transport{Proxy: http.ProxyURL(proxy)}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, page, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return io.ReadAll(response.Body)
}

// linkToServer starts a server and returns its share link.
func linkToServer() (link string, end func()) {
	addr, end := startServer()
	at := netip.MustParseAddrPort(addr.String())
	remote := config.DefaultRemote()
	remote.Address, remote.Port, remote.ID = at.Addr().String(), int(at.Port()), userID
	remote.TLS.Enabled = false
	link, err := sharelink.Format(&remote, sharelink.FormV2rayN)
	if err != nil {
		panic(err)
	}
	return link, end
}

// TestEmbeddingDoc: docs/embedding.md shows the function that ExampleNew runs.
func TestEmbeddingDoc(t *testing.T) {
	source, err := os.ReadFile("example_link_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, function, _ := strings.Cut(string(source), "\nfunc fetch(")
	function, _, found := strings.Cut(function, "\n}\n")
	if !found {
		t.Fatal("the example has no function fetch")
	}
	doc, err := os.ReadFile("../../docs/embedding.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := "func fetch(" + function + "\n}\n"; !strings.Contains(string(doc), want) {
		t.Errorf("docs/embedding.md does not show\n%s", want)
	}
}
