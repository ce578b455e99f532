//go:build unix

package main

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmess-local/pkg/config"
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
	if out, err := exec.Command("vmess-local", "reload").CombinedOutput(); err == nil || !strings.Contains(string(out), "error: no running vmess-local found for this user") {
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

// change writes a configuration's file anew.
func change(t *testing.T, file string, how func(*config.Client)) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.ParseClient(file, data)
	if err != nil {
		t.Fatal(err)
	}
	how(cfg)
	if err := os.WriteFile(file, config.MarshalClient(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
}

func reloadNow(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("vmess-local", "reload").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "reloaded: ") {
		t.Fatalf("%v, %s", err, out)
	}
}

// TestReloadLog: level, format and file are taken over, a file that cannot be
// written is a mistake that changes nothing, and one that was moved aside is
// made anew.
func TestReloadLog(t *testing.T) {
	ownRuntimeDir(t)
	client, addr, file := startWithFile(t, "20s")
	if strings.Contains(client.Stderr(), "debug: ") {
		t.Fatal("it talks at debug level before")
	}
	change(t, file, func(c *config.Client) { c.Log.Level = "debug" })
	reloadNow(t)
	_ = openEcho(t, addr).Close()
	if _, err := client.WaitStderr(regexp.MustCompile(`(?m)^debug: connection `)); err != nil {
		t.Errorf("%v; it said\n%s", err, client.Stderr())
	}

	talk := filepath.Join(t.TempDir(), "talk.log")
	change(t, file, func(c *config.Client) { c.Log.Format, c.Log.File = "json", filepath.Join(talk, "nowhere") })
	out, err := exec.Command("vmess-local", "reload").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "error: log file: ") || !strings.Contains(string(out), "fix: name a file that you may write") {
		t.Errorf("a file that cannot be: %v, %s", err, out)
	}
	change(t, file, func(c *config.Client) { c.Log.File = talk })
	reloadNow(t)
	if err := os.Rename(talk, talk+".old"); err != nil {
		t.Fatal(err)
	}
	reloadNow(t)
	_ = openEcho(t, addr).Close()
	for deadline := time.Now().Add(20 * time.Second); ; {
		data, _ := os.ReadFile(talk)
		if strings.Contains(string(data), `"msg":"connection"`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it wrote\n%s", data)
		}
	}
	if strings.Contains(client.Stderr(), `"msg"`) {
		t.Errorf("it said, too:\n%s", client.Stderr())
	}
}

// TestReloadStatus: the page is turned off, and on again elsewhere; a reload that
// does not change it leaves it as it is.
func TestReloadStatus(t *testing.T) {
	ownRuntimeDir(t)
	client, _, file := startWithFile(t, "20s")
	address := regexp.MustCompile(`(?m)^status: http://([^/]+)/`)
	m, err := client.WaitStderr(address)
	if err != nil {
		t.Fatal(err)
	}
	awaitPage(t, m[1])
	change(t, file, func(c *config.Client) { c.Status.Enabled = false })
	reloadNow(t)
	awaitRefusal(t, m[1])
	reloadNow(t)

	fresh := freeAddress(t)
	change(t, file, func(c *config.Client) { c.Status.Enabled, c.Status.Listen = true, fresh })
	reloadNow(t)
	if _, err := client.WaitStderr(regexp.MustCompile(`(?m)^status: http://` + regexp.QuoteMeta(fresh) + `/`)); err != nil {
		t.Fatalf("%v; it said\n%s", err, client.Stderr())
	}
	awaitPage(t, fresh)
	reloadNow(t) // nothing has changed: the same page goes on
	awaitPage(t, fresh)
	sendSignal(t, client, syscall.SIGTERM)
	if code, err := client.Wait(); code != 0 || err != nil {
		t.Errorf("exit code %d, %v; it said\n%s", code, err, client.Stderr())
	}
}

func awaitPage(t *testing.T, addr string) {
	t.Helper()
	way := &http.Transport{Proxy: nil, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: way, Timeout: 20 * time.Second}).Get("http://" + addr + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("%s", resp.Status)
	}
}
