package e2e

import (
	"errors"
	"flag"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/config"
)

// The Windows build under Wine, as .ci/windows starts it for "make windows".
var (
	wine            = flag.String("wine", "", "run TestWindows with this command, which runs Windows programs")
	windowsPrograms = flag.String("windows.programs", "", "directory of vmess-local.exe and vmess-server.exe")
)

// windows is the command of one of our Windows programs. It works in dir, so
// that paths need no translation.
func windows(dir, name string, args ...string) command {
	return command{path: *wine, args: append([]string{filepath.Join(*windowsPrograms, name+".exe")}, args...), dir: dir}
}

// runWindows runs a Windows program to its end, which must have the exit code
// want, and returns what it printed.
func runWindows(t *testing.T, want int, dir, name string, args ...string) string {
	t.Helper()
	p := start(t, windows(dir, name, args...))
	if code := p.exitCode(t); code != want {
		t.Errorf("%s %s: exit code %d, want %d:\n%s", name, strings.Join(args, " "), code, want, p.log)
	}
	return strings.ReplaceAll(p.log.String(), "\r\n", "\n")
}

func wantText(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("%q is missing in:\n%s", w, got)
		}
	}
}

// TestWindows runs both programs as they are built for Windows.
func TestWindows(t *testing.T) {
	if *wine == "" {
		t.Skip(`"make windows" runs it`)
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "server.json"), config.MarshalServer(serverConfig()))
	server := readyServer(t, start(t, windows(dir, "vmess-server", "run", "-c", "server.json")))
	remote := remoteAt(t, server.addr)
	web := "127.0.0.1:" + webOrigin(t, "127.0.0.1", nil)

	dead := remote
	dead.Port = 1
	for name, r := range map[string]config.Remote{"config.json": remote, "dead.json": dead} {
		cfg := clientConfig(r)
		cfg.Log.Level, cfg.Status.Enabled = "info", true
		writeFile(t, filepath.Join(dir, name), config.MarshalClient(cfg))
	}
	run := func(t *testing.T, args ...string) *end {
		t.Helper()
		return readyClient(t, start(t, windows(dir, "vmess-local", append([]string{"run"}, args...)...)))
	}

	t.Run("demo", func(t *testing.T) {
		wantText(t, runWindows(t, 0, dir, "vmess-local", "demo", "--once", "--listen", "127.0.0.1:0"), "200 OK", "\nok: ")
	})
	t.Run("traffic and a status port that is taken", func(t *testing.T) {
		// Another program may have it, which is as good.
		ln, err := net.Listen("tcp", config.DefaultClient().Status.Listen)
		if err == nil {
			defer ln.Close()
		} else if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
		client := run(t, "-c", "config.json")
		for _, scheme := range []string{"socks5h://", "socks5://", "http://"} {
			if exit, out, talk := curl(t, "--proxy", scheme+client.addr, "http://"+web); exit != 0 || out != webText {
				t.Errorf("curl by %s: exit code %d, %q, %s", scheme, exit, out, talk)
			}
		}
		exchange(t, client.addr, bulkOrigin(t), 1<<20, 1<<20)
		client.log.waitFor(t, `shell: $env:ALL_PROXY = "socks5h://`+client.addr+`"`)
		page := client.proc.waitLine(t, regexp.MustCompile(`status: http://127\.0\.0\.1:(\d+)/\?token=(\S+)`))
		if page[1] == "1081" {
			t.Errorf("the status page is on a port that was taken: %s", page[0])
		}
		base := "http://127.0.0.1:" + page[1]
		if exit, out, talk := curl(t, "--noproxy", "*", base+"/?token="+page[2]); exit != 0 || !strings.Contains(out, "<title>") {
			t.Errorf("the page: exit code %d, %q, %s", exit, out, talk)
		}
		if exit, out, talk := curl(t, "--noproxy", "*", base+"/api/state?token="+page[2]); exit != 0 || !strings.Contains(out, `"state":"well"`) {
			t.Errorf("the page's state: exit code %d, %q, %s", exit, out, talk)
		}
		if log := client.log.String(); strings.Contains(log, "error: ") {
			t.Errorf("healthy traffic logs an error:\n%s", log)
		}
	})
	t.Run("the port is taken", func(t *testing.T) {
		wantText(t, runWindows(t, 1, dir, "vmess-local", "run", "-c", "config.json", "--listen", web), "error: listen.in-use: ", web, "\nfix: ")
	})
	t.Run("a failure is named", func(t *testing.T) {
		client := run(t, "-c", "dead.json")
		if exit, _, _ := curl(t, "--proxy", "socks5h://"+client.addr, "http://"+web); exit == 0 {
			t.Error("curl succeeds without a server")
		}
		client.log.waitFor(t, "error: tcp.refused: ")
		client.log.waitFor(t, `fix: check "port" at dead.json:`)
	})
	t.Run("check", func(t *testing.T) {
		runWindows(t, 0, dir, "vmess-local", "check", "-c", "config.json", "--target", web)
		wantText(t, runWindows(t, 1, dir, "vmess-local", "check", "-c", "dead.json"), "tcp.refused: ")
		runWindows(t, 0, dir, "vmess-server", "check", "-c", "server.json")
	})
	t.Run("links", func(t *testing.T) {
		link := strings.TrimSpace(runWindows(t, 0, dir, "vmess-local", "link", "export", "-c", "config.json"))
		imported := runWindows(t, 0, dir, "vmess-local", "link", "import", link)
		writeFile(t, filepath.Join(dir, "imported.json"), []byte(imported))
		if again := strings.TrimSpace(runWindows(t, 0, dir, "vmess-local", "link", "export", "-c", "imported.json")); again != link {
			t.Errorf("exported %s\nimported and exported %s", link, again)
		}
		bad := runWindows(t, 2, dir, "vmess-local", "link", "import", "vmess://!")
		wantText(t, bad, "error: ", "\nfix: ")
	})
	t.Run("log rotation", func(t *testing.T) {
		full := strings.Repeat(strings.Repeat("x", 1023)+"\n", logging.MaxFileSize>>10)
		writeFile(t, filepath.Join(dir, "log.txt"), []byte(full))
		run(t, "-c", "config.json", "--log-file", "log.txt")
		if old, err := os.ReadFile(filepath.Join(dir, "log.txt.1")); err != nil || string(old) != full {
			t.Errorf("log.txt.1 has %d bytes, want %d: %v", len(old), len(full), err)
		}
		now, err := os.ReadFile(filepath.Join(dir, "log.txt"))
		if err != nil || len(now) > 64<<10 {
			t.Errorf("log.txt has %d bytes, %v", len(now), err)
		}
		wantText(t, string(now), "ready: ")
	})
}
