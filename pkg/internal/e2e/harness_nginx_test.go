package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// startNginx runs nginx with TLS in front of the WebSocket server at backend,
// and returns its address. readTimeout is how long it lets a tunnel be silent,
// in whole seconds; 0 is nginx's own default of 60 s.
func startNginx(t testing.TB, backend string, c *certificates, readTimeout time.Duration) *end {
	t.Helper()
	if readTimeout == 0 {
		readTimeout = time.Minute
	}
	addr := freePort(t)
	return runNginx(t, addr, strings.NewReplacer(
		"LISTEN", addr, "BACKEND", backend, "PATH", wsPath,
		"CERT", c.certFile, "KEY", c.keyFile, "TIMEOUT", strconv.Itoa(int(readTimeout.Seconds()))+"s",
	).Replace(nginxFront))
}

// runNginx runs nginx with some server blocks, of which one listens on addr.
func runNginx(t testing.TB, addr, servers string) *end {
	t.Helper()
	p := start(t, nginxWith(t, servers))
	p.waitPort(t, addr)
	return &end{addr: addr, log: p.log, proc: p}
}

// nginxWith is the command of nginx with some server blocks.
func nginxWith(t testing.TB, servers string) command {
	t.Helper()
	path := need(t, "nginx")
	dir := t.TempDir()
	for _, d := range []string{"tmp", "logs"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, "nginx.conf"), []byte(strings.Replace(nginxConf, "SERVERS", servers, 1)))
	return command{path: path, args: []string{"-p", dir, "-c", "nginx.conf", "-e", "stderr"}, dir: dir}
}

const nginxConf = `
daemon off;
master_process off;
pid nginx.pid;
error_log stderr info;
events { worker_connections 16384; }
http {
  access_log off;
  client_body_temp_path tmp/body;
  proxy_temp_path tmp/proxy;
  fastcgi_temp_path tmp/fastcgi;
  uwsgi_temp_path tmp/uwsgi;
  scgi_temp_path tmp/scgi;
SERVERS
}
`

const nginxFront = `
  server {
    listen LISTEN ssl;
    server_name localhost;
    ssl_certificate CERT;
    ssl_certificate_key KEY;
    location PATH {
      proxy_pass http://BACKEND;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
      proxy_set_header Host $http_host;
      proxy_read_timeout TIMEOUT;
    }
  }
`
