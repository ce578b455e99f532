package server_test

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
	"time"

	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/server"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/tcpconn"
)

// A program of yours has the server in it: on a listener of its own, with its
// logger, and with a way out that leads every request to a service of its own,
// whatever destination it names. Whoever has the id reaches that service, and
// nothing else.
func Example() {
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "you asked for "+r.Host)
	}))
	defer inside.Close()
	var d net.Dialer
	wayOut := transport.DialerFunc(func(ctx context.Context, _ netaddr.Addr, first []byte) (transport.StreamConn, error) {
		conn, err := d.DialContext(ctx, "tcp", inside.Listener.Addr().String())
		if err != nil {
			return nil, err
		}
		stream := tcpconn.New(conn.(*net.TCPConn))
		if _, err := stream.Write(first); err != nil { // it travelled with the request
			_ = stream.Close()
			return nil, err
		}
		return stream, nil
	})

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg := config.DefaultServer()
	cfg.Listen = listener.Addr().String()
	cfg.Users = []config.User{{ID: "b831381d-6324-4d53-ad4f-8cda48b30811", Name: "friend"}}
	cfg.WS.Path = "/inside"
	if err := cfg.Normalize(); err != nil {
		fmt.Println(err)
		return
	}
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: messageOnly}))
	s, err := server.New(cfg, server.Options{Log: logger, Listener: listener, Dialer: wayOut})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()

	fmt.Println(askThrough(listener.Addr().(*net.TCPAddr).Port, cfg))
	stop()
	fmt.Println("server:", <-done)
	// Unordered output:
	// msg=authentication
	// msg=ready
	// you asked for service.example
	// server: <nil>
}

// messageOnly leaves the message of a record, which is the same at every run.
func messageOnly(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.MessageKey {
		return a
	}
	return slog.Attr{}
}

// askThrough asks http://service.example/ by a client of the server.
func askThrough(port int, of *config.Server) string {
	cfg := config.DefaultClient()
	cfg.Listen, cfg.Status.Enabled = "127.0.0.1:0", false
	cfg.Server.Address, cfg.Server.Port, cfg.Server.TLS.Enabled = "127.0.0.1", port, false
	cfg.Server.ID, cfg.Server.WS.Path = of.Users[0].ID, of.WS.Path
	if err := cfg.Normalize(); err != nil {
		return err.Error()
	}
	c, err := client.New(cfg, client.Options{})
	if err != nil {
		return err.Error()
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	defer func() { stop(); <-done }()

	way := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: c.Addr().String()})}
	defer way.CloseIdleConnections()
	resp, err := (&http.Client{Transport: way, Timeout: time.Minute}).Get("http://service.example/")
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
