package e2e

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"vmess-local/pkg/config"
)

// TestServerAsService: the commands of the server's unit, in its environment,
// serve and reload; a mistake is the reload's failure, and changes nothing.
func TestServerAsService(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unit := installExample(t, "systemd/vmess-server.service", "%t", dir, "/etc/vmess-server", dir)
	set := func(key string) []string {
		m := regexp.MustCompile(`(?m)^` + key + `=(.*)$`).FindStringSubmatch(unit)
		if m == nil {
			t.Fatalf("the unit has no %s", key)
		}
		return strings.Fields(m[1])
	}
	cfg, file := serverConfig(), filepath.Join(dir, "server.json")
	cfg.Listen = freePort(t)
	writeFile(t, file, config.MarshalServer(cfg))
	run := func(key string) *process {
		words := set(key)
		return start(t, command{path: program(t, words[0]), args: words[1:], env: set("Environment")})
	}
	p := run("ExecStart")
	p.waitPort(t, cfg.Listen)
	near := inProcessClient(t, clientConfig(remoteAt(t, cfg.Listen)))
	exchange(t, near.addr, bulkOrigin(t), 10, 10)

	cfg.Users = append(cfg.Users, config.User{ID: "0c1d9a60-3d0c-4a3e-9c0e-6f1d2f7a8b99", Name: "other"})
	writeFile(t, file, config.MarshalServer(cfg))
	if code := run("ExecReload").exitCode(t); code != 0 {
		t.Errorf("reload ends with %d", code)
	}
	p.log.waitFor(t, "reloaded: 2 users")
	writeFile(t, file, []byte("{}"))
	if code := run("ExecReload").exitCode(t); code != 2 {
		t.Errorf("reload of a mistake ends with %d", code)
	}
	exchange(t, near.addr, bulkOrigin(t), 10, 10)
}
