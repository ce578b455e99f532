package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"vmess-local/pkg/config"
)

const (
	userID = "5b1d9a60-3d0c-4a3e-9c0e-6f1d2f7a8b21"
	wsPath = "/tunnel"
)

// A passage is how a client reaches its server.
type passage string

const (
	ws  passage = "ws"
	wss passage = "wss"
)

var passages = []passage{ws, wss}

// A lab is all that the measurements need: the programs, built or found, a
// directory and a certificate, and the destinations.
type lab struct {
	*origins
	closers
	dir          string
	cert         *certificate
	local        string // our client
	server       string // our server
	v2ray, nginx string
	self         string
}

// newLab builds our programs as releases are and looks for the others. Close
// ends and removes all.
func newLab(ctx context.Context) (_ *lab, err error) {
	l := new(lab)
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if l.dir, err = os.MkdirTemp("", "vmess-bench-"); err != nil {
		return nil, err
	}
	l.add(func() error { return os.RemoveAll(l.dir) })
	if l.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if l.v2ray, err = lookProgram("v2ray"); err != nil {
		return nil, err
	}
	if l.nginx, err = lookProgram("nginx"); err != nil {
		return nil, err
	}
	if l.cert, err = newCertificate(l.dir); err != nil {
		return nil, err
	}
	if err = l.build(ctx); err != nil {
		return nil, err
	}
	if l.origins, err = newOrigins(); err != nil {
		return nil, err
	}
	l.add(l.origins.Close)
	return l, nil
}

// Close ends what was started.
func (l *lab) Close() error { return l.closers.Close() }

// lookProgram finds a program, also where only root looks.
func lookProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed; on Debian: apt-get install %s", name, name)
}

// build builds our programs as `make build` does.
func (l *lab) build(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "nethttpomithttp2", "-ldflags", "-s -w",
		"-o", l.dir+string(filepath.Separator), "vmess-local/cmd/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build our programs (inside this repository): %w\n%s", err, out)
	}
	l.local, l.server = filepath.Join(l.dir, "vmess-local"), filepath.Join(l.dir, "vmess-server")
	return nil
}

// A stage is what one measurement has started. Whoever opens it closes it.
type stage struct {
	*lab
	closers
}

func (l *lab) stage() *stage { return &stage{lab: l} }

// Close ends what was started on the stage.
func (s *stage) Close() error { return s.closers.Close() }

// start runs a program until the stage is closed.
func (s *stage) start(addr, path string, args ...string) (*process, error) {
	p, err := start(s.dir, addr, path, args...)
	if err == nil {
		s.add(func() error { p.kill(); return nil })
	}
	return p, err
}

// startWith runs a program with a configuration file.
func (s *stage) startWith(cfg []byte, addr, path string, args ...string) (*process, error) {
	file, err := os.CreateTemp(s.dir, "*.json")
	if err != nil {
		return nil, err
	}
	_, err = file.Write(cfg)
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	return s.start(addr, path, append(args, file.Name())...)
}

// ourClientConfig is our client's configuration: defaults, but for the
// addresses, the status page, of which there could be only one, and what
// change does.
func (s *stage) ourClientConfig(way passage, server string, change ...func(*config.Client)) (cfg []byte, addr string, err error) {
	c := config.DefaultClient()
	if c.Listen, err = freePort(); err != nil {
		return nil, "", err
	}
	c.Status.Enabled = false
	r := &c.Server
	if r.Address, r.Port, err = splitAddr(server); err != nil {
		return nil, "", err
	}
	r.ID, r.WS.Path, r.TLS.Enabled = userID, wsPath, false
	if way == wss {
		r.Address, r.TLS.Enabled, r.TLS.CAFile = "localhost", true, s.cert.certFile
	}
	for _, f := range change {
		f(c)
	}
	return config.MarshalClient(c), c.Listen, nil
}

// withUDP has datagrams travel in one form.
func withUDP(mode string) func(*config.Client) {
	return func(c *config.Client) { c.UDP.Mode = mode }
}

// withMux is Mux with as many connections in each tunnel as the rival's.
func withMux(c *config.Client) { c.Mux.Enabled, c.Mux.Concurrency = true, muxConcurrency }

// muxConcurrency is what is usual.
const muxConcurrency = 8

// ourClient starts vmess-local towards a server.
func (s *stage) ourClient(way passage, server string, change ...func(*config.Client)) (*process, error) {
	cfg, addr, err := s.ourClientConfig(way, server, change...)
	if err != nil {
		return nil, err
	}
	return s.startWith(cfg, addr, s.local, "run", "-c")
}

// ourServer starts vmess-server with defaults; over wss it does TLS itself.
func (s *stage) ourServer(way passage) (*process, error) {
	c := config.DefaultServer()
	var err error
	if c.Listen, err = freePort(); err != nil {
		return nil, err
	}
	c.WS.Path, c.Users, c.Egress.AllowPrivate = wsPath, []config.User{{ID: userID}}, true
	if way == wss {
		c.TLS.CertFile, c.TLS.KeyFile = s.cert.certFile, s.cert.keyFile
	}
	return s.startWith(config.MarshalServer(c), c.Listen, s.server, "run", "-c")
}

// object is a piece of a V2Ray configuration.
type object = map[string]any

// rivalServer starts V2Ray as a server; over wss it does TLS itself.
func (s *stage) rivalServer(way passage) (*process, error) {
	stream := v2rayStream(way)
	if way == wss {
		stream["tlsSettings"] = object{
			"alpn":         []string{"http/1.1"},
			"certificates": []object{{"certificateFile": s.cert.certFile, "keyFile": s.cert.keyFile}},
		}
	}
	return s.startV2ray(object{
		"protocol":       "vmess",
		"settings":       object{"clients": []object{{"id": userID, "alterId": 0}}},
		"streamSettings": stream,
	}, object{"protocol": "freedom"})
}

// rivalClient starts V2Ray as a client, which serves UDP, as ours does. muxed
// is its Mux with the usual connections in each tunnel.
func (s *stage) rivalClient(way passage, server string, muxed bool) (*process, error) {
	host, port, err := splitAddr(server)
	if err != nil {
		return nil, err
	}
	stream := v2rayStream(way)
	if way == wss {
		stream["tlsSettings"] = object{"serverName": "localhost", "alpn": []string{"http/1.1"}, "allowInsecure": true}
	}
	user := object{"id": userID, "alterId": 0, "security": "auto"}
	return s.startV2ray(object{
		"protocol": "socks",
		"settings": object{"auth": "noauth", "udp": true, "ip": "127.0.0.1"},
	}, object{
		"protocol":       "vmess",
		"settings":       object{"vnext": []object{{"address": host, "port": port, "users": []object{user}}}},
		"streamSettings": stream,
		"mux":            object{"enabled": muxed, "concurrency": muxConcurrency},
	})
}

func v2rayStream(way passage) object {
	stream := object{"network": "ws", "wsSettings": object{"path": wsPath}}
	if way == wss {
		stream["security"] = "tls"
	}
	return stream
}

// startV2ray runs V2Ray with one inbound and one outbound, and without the
// line that it writes for every connection. There is no DNS, routing or
// geodata in its configuration: it contacts nobody else.
func (s *stage) startV2ray(inbound, outbound object) (*process, error) {
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	if inbound["listen"], inbound["port"], err = splitAddr(addr); err != nil {
		return nil, err
	}
	cfg, err := json.Marshal(object{
		"log":       object{"access": "none", "loglevel": "warning"},
		"inbounds":  []object{inbound},
		"outbounds": []object{outbound},
	})
	if err != nil {
		return nil, err
	}
	return s.startWith(cfg, addr, s.v2ray, "-config")
}

// front starts nginx with TLS before a WebSocket server and returns it.
func (s *stage) front(backend string) (*process, error) {
	dir, err := os.MkdirTemp(s.dir, "nginx-")
	if err != nil {
		return nil, err
	}
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	conf := strings.NewReplacer("LISTEN", addr, "BACKEND", backend, "PATH", wsPath,
		"CERT", s.cert.certFile, "KEY", s.cert.keyFile).Replace(nginxConf)
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(conf), 0o600); err != nil {
		return nil, err
	}
	return s.start(addr, s.nginx, "-p", dir, "-c", "nginx.conf", "-e", "stderr")
}

const nginxConf = `
daemon off;
master_process off;
pid nginx.pid;
error_log stderr error;
events { worker_connections 19000; }
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server {
    listen LISTEN ssl backlog=4096;
    server_name localhost;
    ssl_certificate CERT;
    ssl_certificate_key KEY;
    ssl_protocols TLSv1.2 TLSv1.3;
    location PATH {
      proxy_pass http://BACKEND;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
      proxy_set_header Host $http_host;
      proxy_read_timeout 1h;
    }
  }
}
`

// floor starts the relay of [runRelay].
func (s *stage) floor() (*process, error) {
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	return s.start(addr, s.self, modeRelay, addr)
}

// far starts V2Ray as a server, for wss behind nginx, and returns where
// clients reach it.
func (s *stage) far() (map[passage]string, error) {
	server, err := s.rivalServer(ws)
	if err != nil {
		return nil, err
	}
	front, err := s.front(server.addr)
	if err != nil {
		return nil, err
	}
	return map[passage]string{ws: server.addr, wss: front.addr}, nil
}

// A pair is both sides of a comparison.
type pair struct{ ours, rival *process }

// clients starts both clients for a server.
func (s *stage) clients(way passage, server string) (p pair, err error) {
	if p.ours, err = s.ourClient(way, server); err != nil {
		return p, err
	}
	p.rival, err = s.rivalClient(way, server, false)
	return p, err
}

func splitAddr(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(text)
	return host, port, err
}
