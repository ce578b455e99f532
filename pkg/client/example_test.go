package client_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"sync"
	"time"

	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/server"
)

// A program of yours has the client in it: on a listener of its own, with its
// logger, and with a dialer of its own, here one that tells where the server is
// and knows the way to it.
func Example() {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "the page")
	}))
	defer page.Close()
	far, end := startServer()
	defer end()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg := config.DefaultClient()
	cfg.Listen = listener.Addr().String()
	cfg.Status.Enabled = false
	cfg.Warm.Max = 0
	cfg.Server.Address, cfg.Server.Port = "192.0.2.1", 80 // nobody is there
	cfg.Server.TLS.Enabled = false
	cfg.Server.ID, cfg.Server.WS.Path = userID, "/ray"
	if err := cfg.Normalize(); err != nil {
		fmt.Println(err)
		return
	}
	var once sync.Once
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		once.Do(func() { fmt.Println("dial", network, addr) })
		var d net.Dialer
		return d.DialContext(ctx, network, far.String())
	}
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: messageOnly}))
	c, err := client.New(cfg, client.Options{Log: logger, Listener: listener, DialTCP: dial})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()

	fmt.Println(getBy(c.Addr(), page.URL))
	stop()
	fmt.Println("client:", <-done)
	// Unordered output:
	// msg=authentication
	// msg=ready
	// dial tcp 192.0.2.1:80
	// the page
	// client: <nil>
}

const userID = "b831381d-6324-4d53-ad4f-8cda48b30811"

// messageOnly leaves the message of a record, which is the same at every run.
func messageOnly(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.MessageKey {
		return a
	}
	return slog.Attr{}
}

// startServer runs a server that lets loopback destinations through.
func startServer() (addr net.Addr, end func()) {
	cfg := config.DefaultServer()
	cfg.Listen, cfg.Egress.AllowPrivate = "127.0.0.1:0", true
	cfg.Users = []config.User{{ID: userID}}
	if err := cfg.Normalize(); err != nil {
		panic(err)
	}
	s, err := server.New(cfg, server.Options{})
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s.Addr(), func() { stop(); <-done }
}

// getBy gets a page by an HTTP proxy.
func getBy(proxy net.Addr, page string) string {
	way := &http.Transport{Proxy: func(*http.Request) (*url.URL, error) {
		return &url.URL{Scheme: "http", Host: proxy.String()}, nil
	}}
	defer way.CloseIdleConnections()
	resp, err := (&http.Client{Transport: way, Timeout: time.Minute}).Get(page)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}
