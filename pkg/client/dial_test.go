package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/config/sharelink"
)

// newDialer returns a client of a fresh server, with Mux or without.
func newDialer(t *testing.T, mux bool) *client.Client {
	t.Helper()
	far, end := startServer()
	t.Cleanup(end)
	cfg := config.DefaultClient()
	cfg.Listen, cfg.Status.Enabled, cfg.Mux.Enabled = "127.0.0.1:0", false, mux
	cfg.Server.Address, cfg.Server.Port = "127.0.0.1", far.(*net.TCPAddr).Port
	cfg.Server.TLS.Enabled = false
	cfg.Server.ID, cfg.Server.WS.Path = userID, "/ray"
	if err := cfg.Normalize(); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cfg, client.Options{LookupEnv: func(string) (string, bool) { return "", false }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// once accepts one connection and hands it to serve.
func once(t *testing.T, serve func(c *net.TCPConn)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err == nil {
			serve(c.(*net.TCPConn))
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().String()
}

func TestDial(t *testing.T) {
	for _, mux := range []bool{false, true} {
		t.Run(fmt.Sprintf("mux=%v", mux), func(t *testing.T) {
			c := newDialer(t, mux)
			t.Run("half close", func(t *testing.T) {
				addr := once(t, func(c *net.TCPConn) {
					all, _ := io.ReadAll(c)
					_, _ = fmt.Fprintf(c, "read %s", all)
				})
				conn, err := c.Dial(t.Context(), "tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, "everything")
				if !mux { // a Mux.Cool session ends both ways at once
					_ = conn.(interface{ CloseWrite() error }).CloseWrite()
					if got, err := io.ReadAll(conn); string(got) != "read everything" || err != nil {
						t.Errorf("got %q, %v", got, err)
					}
				}
			})
			t.Run("the destination speaks first", func(t *testing.T) {
				addr := once(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "220 ready") })
				conn, err := c.Dial(t.Context(), "tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
				if got, err := io.ReadAll(conn); string(got) != "220 ready" || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
			})
		})
	}
}

// TestDialOutlivesContext: the context bounds the dial, not the connection.
func TestDialOutlivesContext(t *testing.T) {
	c := newDialer(t, false)
	addr := once(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	ctx, cancel := context.WithCancel(t.Context())
	conn, err := c.Dial(ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(conn, "still here")
	got := make([]byte, 10)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "still here" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestDialRejects(t *testing.T) {
	c := newDialer(t, false)
	for _, one := range []struct{ network, address string }{
		{"udp", "example.com:53"}, {"tcp", "example.com"}, {"tcp", ""}, {"tcp", "example.com:0"}, {"", "example.com:80"},
	} {
		if conn, err := c.Dial(t.Context(), one.network, one.address); err == nil {
			_ = conn.Close()
			t.Errorf("Dial(%q, %q) was accepted", one.network, one.address)
		}
	}
	_ = c.Close()
	if _, err := c.Dial(t.Context(), "tcp", "example.com:80"); !errors.Is(err, client.ErrNotRunning) {
		t.Errorf("after Close: %v", err)
	}
}

// From a link to a client whose tunnel an HTTP client of your own uses.
func ExampleClient_Dial() {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "the page")
	}))
	defer page.Close()
	server, end := startServer()
	defer end()
	link := "vmess://" + userID + "@127.0.0.1:" + strconv.Itoa(server.(*net.TCPAddr).Port) + "?type=ws&path=/ray&encryption=auto"

	found, err := sharelink.Read([]byte(link))
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg := found.Config()
	cfg.Listen, cfg.Status.Enabled = "127.0.0.1:0", false
	c, err := client.New(cfg, client.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close() // or c.Run(ctx), to serve the local port as well

	web := &http.Client{Transport: &http.Transport{DialContext: c.Dial}}
	defer web.CloseIdleConnections()
	resp, err := web.Get(page.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(strings.TrimSpace(string(body)))
	// Output: the page
}
