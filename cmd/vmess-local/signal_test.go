//go:build unix

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmess-local/pkg/cli"
	"vmess-local/pkg/cli/clitest"
	"vmess-local/pkg/config"
)

// TestDrain sends the first signal while a connection is open: no new one is
// let in, the open one goes on to its end, and the program ends with 0.
func TestDrain(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			client, addr := startClient(t, "20s")
			c := openEcho(t, addr)
			echo(t, c, "before")
			sendSignal(t, client, sig)
			awaitRefusal(t, addr)
			echo(t, c, "after")
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
				t.Errorf("the open connection ended with %q, %v", rest, err)
			}
			if code, err := client.Wait(); code != 0 || err != nil {
				t.Errorf("exit code %d, %v; it said:\n%s", code, err, client.Stderr())
			}
			if strings.Contains(client.Stderr(), "cut") {
				t.Errorf("it says that it cut something:\n%s", client.Stderr())
			}
		})
	}
}

// TestDrainEnds sends one signal while a connection is open that does not end:
// it is cut after limits.drain, which is said, and the exit code is 0.
func TestDrainEnds(t *testing.T) {
	client, addr := startClient(t, "100ms")
	echo(t, openEcho(t, addr), "before")
	sendSignal(t, client, syscall.SIGTERM)
	if code, err := client.Wait(); code != 0 || err != nil {
		t.Errorf("exit code %d, %v; it said:\n%s", code, err, client.Stderr())
	}
	if want := "stopped: connections that were still open after 100ms were cut\n"; !strings.HasSuffix(client.Stderr(), want) {
		t.Errorf("it said\n%s, want\n%s", client.Stderr(), want)
	}
}

// TestSecondSignal sends two signals while a connection is open: the second
// one ends the program at once.
func TestSecondSignal(t *testing.T) {
	client, addr := startClient(t, "4m")
	echo(t, openEcho(t, addr), "before")
	sendSignal(t, client, syscall.SIGINT)
	awaitRefusal(t, addr)
	sendSignal(t, client, syscall.SIGINT)
	if code, err := client.Wait(); code != cli.ExitFailed || err != nil {
		t.Errorf("exit code %d, %v; it said:\n%s", code, err, client.Stderr())
	}
}

// startClient starts the program in front of a server in this process.
func startClient(t *testing.T, drain string) (client *clitest.Background, addr string) {
	t.Helper()
	client, addr, _ = startWithFile(t, drain)
	return client, addr
}

// startWithFile is startClient, and returns where the configuration is.
func startWithFile(t *testing.T, drain string) (client *clitest.Background, addr, file string) {
	t.Helper()
	near := config.DefaultClient()
	near.Listen = "127.0.0.1:0"
	near.Server.Address, near.Server.Port = "127.0.0.1", serve(t)
	near.Server.ID, near.Server.WS.Path, near.Server.TLS.Enabled = secretID, "/ws", false
	var err error
	if near.Limits.Drain, err = config.ParseDuration(drain); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "c.json")
	if err := os.WriteFile(file, config.MarshalClient(near), 0o600); err != nil {
		t.Fatal(err)
	}
	if client, err = clitest.Start(exec.Command("vmess-local", "run", "-c", file)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Kill)
	if addr, err = client.Ready(); err != nil {
		t.Fatalf("%v; it said:\n%s", err, client.Stderr())
	}
	return client, addr, file
}

func sendSignal(t *testing.T, p *clitest.Background, s os.Signal) {
	t.Helper()
	if err := p.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// openEcho connects to an echo server through the proxy at addr.
func openEcho(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(c, c)
		_ = c.Close()
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", ln.Addr(), ln.Addr())
	line, err := bufio.NewReaderSize(&oneByte{c}, 16).ReadString('\n')
	if err != nil || !strings.Contains(line, strconv.Itoa(200)) {
		t.Fatalf("the proxy answers %q, %v", line, err)
	}
	if _, err := bufio.NewReaderSize(&oneByte{c}, 16).ReadString('\n'); err != nil { // the empty line
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// oneByte reads byte by byte, so that nothing is taken that belongs to others.
type oneByte struct{ io.Reader }

// Read implements io.Reader.
func (r *oneByte) Read(p []byte) (int, error) { return r.Reader.Read(p[:1]) }

func echo(t *testing.T, c net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v", got, err)
	}
}

// awaitRefusal waits until the program takes no connection any more.
func awaitRefusal(t *testing.T, addr string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		_ = c.Close()
		if time.Now().After(deadline) {
			t.Fatal("the program still takes connections")
		}
	}
}
