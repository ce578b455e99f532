//go:build unix

package main

import (
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ownRuntimeDir keeps the test's programs apart from others.
func ownRuntimeDir(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "run") // short: a socket's path is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	t.Setenv("XDG_RUNTIME_DIR", dir)
}

// listenOn makes the configuration in a file listen elsewhere.
func listenOn(t *testing.T, file, addr string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data = regexp.MustCompile(`"listen": "[^"]*"`).ReplaceAll(data, []byte(`"listen": "`+addr+`"`))
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// TestReloadCommand: a mistake is told with its place and changes nothing; a
// good configuration is taken, and open connections go on.
func TestReloadCommand(t *testing.T) {
	ownRuntimeDir(t)
	if out, err := exec.Command("vmess-local", "reload").CombinedOutput(); err == nil || !strings.Contains(string(out), "fix: start it with") {
		t.Errorf("nothing runs: %v, %s", err, out)
	}
	_, addr, file := startWithFile(t, "20s")
	c := openEcho(t, addr)
	echo(t, c, "before")

	listenOn(t, file, "nowhere")
	out, err := exec.Command("vmess-local", "reload").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "config.value") || !strings.Contains(string(out), "c.json:2:") || !strings.Contains(string(out), "fix: ") {
		t.Errorf("a mistake: %v, %s", err, out)
	}
	echo(t, openEcho(t, addr), "still there")

	fresh := freeAddress(t)
	listenOn(t, file, fresh)
	if out, err := exec.Command("vmess-local", "reload").CombinedOutput(); err != nil || string(out) != "reloaded: "+fresh+"\n" {
		t.Fatalf("%v, %s", err, out)
	}
	echo(t, openEcho(t, fresh), "new")
	echo(t, c, "old")
	awaitRefusal(t, addr)
}

// TestHangup: SIGHUP does the same.
func TestHangup(t *testing.T) {
	ownRuntimeDir(t)
	client, _, file := startWithFile(t, "20s")
	fresh := freeAddress(t)
	listenOn(t, file, fresh)
	sendSignal(t, client, syscall.SIGHUP)
	for deadline := time.Now().Add(20 * time.Second); ; {
		conn, err := net.Dial("tcp", fresh)
		if err == nil {
			_ = conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not reloaded; it said:\n%s", client.Stderr())
		}
	}
	echo(t, openEcho(t, fresh), "new")
}
