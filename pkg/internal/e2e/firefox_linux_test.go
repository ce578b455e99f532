package e2e

import (
	"encoding/json"
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
)

// TestFirefox loads a page in Firefox, set up by hand as the log suggests: the
// SOCKS5 proxy, and names resolved by it. The test runs in a network namespace
// that has only loopback, so that the browser can contact nothing else.
func TestFirefox(t *testing.T) {
	path := need(t, "firefox-esr")
	if !onlyLoopback(t) {
		return
	}
	origin := servePage(t)
	site := at(t, origin.addr, "site.example") // a name that only the server knows
	far := inProcessServer(t, serverConfig(), inProcess{Dialer: onlyTo(site, origin.addr)})
	near := inProcessClient(t, clientConfig(remoteAt(t, far.addr)))

	host, port := splitAddr(t, near.addr)
	browser := startFirefox(t, path, map[string]any{
		"network.proxy.type":                1, // manual
		"network.proxy.socks":               host,
		"network.proxy.socks_port":          port,
		"network.proxy.socks_version":       5,
		"network.proxy.socks_remote_dns":    true, // up to version 127
		"network.proxy.socks5_remote_dns":   true,
		"network.proxy.no_proxies_on":       ".com, .net, .org", // of the browser's own requests
		"browser.shell.checkDefaultBrowser": false,
	})
	browser.call("WebDriver:Navigate", object{"url": "http://" + site + "/"})
	for deadline := time.Now().Add(45 * time.Second); browser.call("WebDriver:GetTitle", object{}) == "working"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the page does not finish")
		}
	}
	text, _ := browser.call("WebDriver:ExecuteScript", object{"script": `return document.getElementById("report").textContent`, "args": []any{}}).(string)
	var report pageReport
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		t.Fatalf("the page's report %q: %v", text, err)
	}
	if len(report.Errors) > 0 {
		t.Errorf("the page reports: %s", strings.Join(report.Errors, "; "))
	}
	checkReport(t, report, origin)

	near.log.waitFor(t, "to="+site)
	for _, m := range destination.FindAllStringSubmatch(near.log.String(), -1) {
		if m[1] != site {
			t.Errorf("the browser asked for %s, want nothing but %s", m[1], site)
		}
	}
}

// onlyLoopback runs the test again in a network namespace that has only
// loopback, and reports whether this is that run.
func onlyLoopback(t *testing.T) bool {
	t.Helper()
	const inNamespace = "E2E_ONLY_LOOPBACK"
	if os.Getenv(inNamespace) == t.Name() {
		if out, err := exec.Command(need(t, "ip"), "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Fatalf("bring up loopback: %v: %s", err, out)
		}
		return true
	}
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=3m")
	again.Env = append(os.Environ(), inNamespace+"="+t.Name())
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		again.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		again.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		again.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := again.CombinedOutput()
	if again.ProcessState == nil {
		leaveOut(t, "no network namespaces here: %v", err)
	}
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
	return false
}

// A firefox is a running Firefox, driven by its Marionette protocol.
type firefox struct {
	testing.TB
	conn  net.Conn
	calls int
}

// startFirefox starts a headless Firefox with a fresh profile of the given
// preferences. It ends with the test.
func startFirefox(t testing.TB, path string, prefs map[string]any) *firefox {
	t.Helper()
	dir := t.TempDir()
	var profile strings.Builder
	for name, value := range prefs {
		data, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&profile, "user_pref(%q, %s);\n", name, data)
	}
	writeFile(t, filepath.Join(dir, "user.js"), []byte(profile.String()))
	p := start(t, command{
		path: path, args: []string{"--headless", "--no-remote", "--marionette", "--profile", dir, "about:blank"},
		env: []string{"HOME=" + dir, "XDG_RUNTIME_DIR=" + dir, "DISPLAY=", "WAYLAND_DISPLAY=", "MOZ_CRASHREPORTER_DISABLE=1"},
	})
	const marionette = "127.0.0.1:2828" // free: the namespace is the test's own
	p.waitPort(t, marionette)
	conn, err := net.Dial("tcp", marionette)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(ioPatience)); err != nil {
		t.Fatal(err)
	}
	f := &firefox{TB: t, conn: conn}
	var greeting object
	f.receive(&greeting)
	f.call("WebDriver:NewSession", object{})
	return f
}

// call sends a command and returns the "value" of its answer.
func (f *firefox) call(name string, parameters object) any {
	f.Helper()
	f.calls++
	data, err := json.Marshal([]any{0, f.calls, name, parameters})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := fmt.Fprintf(f.conn, "%d:%s", len(data), data); err != nil {
		f.Fatal(err)
	}
	var answer [4]json.RawMessage // kind, number, error, result
	f.receive(&answer)
	if fault := string(answer[2]); fault != "null" {
		f.Fatalf("%s: %s", name, fault)
	}
	var result struct{ Value any }
	_ = json.Unmarshal(answer[3], &result) // some results are no objects with a value
	return result.Value
}

// receive reads one message: its length, a colon, JSON.
func (f *firefox) receive(to any) {
	f.Helper()
	size, one := "", make([]byte, 1)
	for {
		if _, err := io.ReadFull(f.conn, one); err != nil {
			f.Fatalf("Firefox: %v", err)
		}
		if one[0] == ':' {
			break
		}
		size += string(one)
	}
	n, err := strconv.Atoi(size)
	if err != nil {
		f.Fatalf("Firefox: a message of %q bytes", size)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(f.conn, data); err != nil {
		f.Fatalf("Firefox: %v", err)
	}
	if err := json.Unmarshal(data, to); err != nil {
		f.Fatalf("Firefox: %v in %s", err, data)
	}
}
