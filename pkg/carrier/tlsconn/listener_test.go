package tlsconn

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/transporttest"
)

// serveHTTP serves handler behind a Listener, and tells of failed handshakes.
func serveHTTP(t *testing.T, version uint16, handler http.Handler) (addr string, failed <-chan error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 9)
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() {
		done <- server.Serve(&Listener{
			Listener: ln, Config: serverConfig(t, version), Timeout: 10 * time.Second,
			Failed: func(_ net.Addr, err error) { errs <- err },
		})
	}()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return ln.Addr().String(), errs
}

func TestListenerServesHTTP(t *testing.T) {
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			addr, failed := serveHTTP(t, version, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/hijack" {
					body, err := io.ReadAll(r.Body)
					if err != nil {
						t.Error(err)
					}
					_, _ = w.Write(body)
					return
				}
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				if _, ok := conn.(transport.PooledReader); !ok {
					t.Errorf("%T cannot wait without a buffer", conn)
				}
				_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\n\r\n")
				_ = rw.Flush()
				_, _ = io.CopyN(conn, rw, 4)
			}))
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: clientConfig()}}
			defer client.CloseIdleConnections()
			for range 2 {
				body := strings.Repeat("x", 100000)
				answer, err := client.Post("https://"+addr+"/", "", strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(answer.Body)
				_ = answer.Body.Close()
				if string(got) != body || err != nil {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
			}

			conn, err := tls.Dial("tcp", addr, clientConfig())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "GET /hijack HTTP/1.1\r\nHost: x\r\n\r\n")
			br := bufio.NewReader(conn)
			if answer, err := http.ReadResponse(br, nil); err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("%v, %v", answer, err)
			}
			_, _ = io.WriteString(conn, "ping")
			if got, err := io.ReadAll(br); string(got) != "ping" || err != nil {
				t.Fatalf("read %q, %v", got, err)
			}
			select {
			case err := <-failed:
				t.Errorf("a handshake failed: %v", err)
			default:
			}
		})
	}
}

func TestListenerRefusesPlainHTTP(t *testing.T) {
	addr, failed := serveHTTP(t, tls.VersionTLS13, http.NotFoundHandler())
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\n")
	got, err := io.ReadAll(conn)
	if !strings.HasPrefix(string(got), "HTTP/1.0 400 ") || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if err := <-failed; !isRecordHeader(err) {
		t.Errorf("failed with %v", err)
	}
}

// oneListener accepts one connection.
type oneListener struct{ conn net.Conn }

func (l *oneListener) Accept() (net.Conn, error) {
	if l.conn == nil {
		return nil, net.ErrClosed
	}
	conn := l.conn
	l.conn = nil
	return conn, nil
}
func (l *oneListener) Close() error   { return nil }
func (l *oneListener) Addr() net.Addr { return nil }

func TestListenerCutsSilentHandshakes(t *testing.T) {
	for name, use := range map[string]func(c *Conn) error{
		"Read":     func(c *Conn) error { _, err := c.Read(make([]byte, 1)); return err },
		"ReadLazy": func(c *Conn) error { _, _, err := c.ReadPooled(0, 1); return err },
		"WaitRead": (*Conn).WaitRead,
		"Write":    func(c *Conn) error { _, err := c.Write([]byte("x")); return err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := transporttest.Pipe(64 << 10)
				failed := 0
				ln := &Listener{
					Listener: &oneListener{near}, Config: serverConfig(t, tls.VersionTLS13), Timeout: 5 * time.Second,
					Failed: func(net.Addr, error) { failed++ },
				}
				accepted, err := ln.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("the second Accept: %v", err)
				}
				began := time.Now()
				for range 2 {
					if err := use(accepted.(*Conn)); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
						t.Errorf("got %v", err)
					}
				}
				if took := time.Since(began); took != 5*time.Second {
					t.Errorf("cut after %s", took)
				}
				if failed != 1 {
					t.Errorf("told %d times", failed)
				}
				if _, err := far.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("the far end read %v", err)
				}
				_ = accepted.Close()
			})
		})
	}
}
