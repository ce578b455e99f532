package e2e

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// curl runs curl through our client's proxy and returns its exit code and what
// it printed. A configuration file of the user's does not count.
func curl(t *testing.T, args ...string) (exit int, stdout, stderr string) {
	t.Helper()
	return curlIn(t, nil, args...)
}

// curlIn is curl with more in its environment, NAME=value.
func curlIn(t *testing.T, env []string, args ...string) (exit int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), need(t, "curl"), append([]string{"-q", "-sS", "--max-time", "30"}, args...)...)
	cmd.Env = append(cleanEnv(), env...)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	_ = cmd.Run() // the exit code tells
	if cmd.ProcessState == nil {
		t.Fatal("curl did not run")
	}
	return cmd.ProcessState.ExitCode(), out.String(), talk.String()
}

// webOrigin is a web server on host (an IP address), by TLS when certs is not
// nil. It answers a GET with webText, and a PUT with the SHA-256 of the body. It
// returns its port.
func webOrigin(t *testing.T, host string, certs *certificates) string {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		leaveOut(t, "%v", err)
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if certs != nil {
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{certs.cert}})
	}
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut {
			_, _ = io.WriteString(w, webText)
			return
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, r.Body); err == nil {
			_, _ = fmt.Fprintf(w, "%x", sum.Sum(nil))
		}
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return port
}

const webText = "a page that came through\n"

// The proxy's user. A password may hold what would end one in a URL.
const (
	proxyUser     = "jane"
	proxyPassword = "pass:w%rd @/"
)

func withAuth(c *config.Client) *config.Client {
	c.Auth = config.Auth{Username: proxyUser, Password: proxyPassword}
	return c
}

// TestCurl has curl as the application: each kind of proxy, for plain and
// encrypted pages, down and up, without and with a password.
func TestCurl(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	certs := newCertificates(t)
	plain, encrypted := webOrigin(t, "127.0.0.1", nil), webOrigin(t, "127.0.0.1", certs)
	far := ourServer(t, serverConfig()).addr
	open := ourClient(t, clientConfig(remoteAt(t, far))).addr
	closed := ourClient(t, withAuth(clientConfig(remoteAt(t, far)))).addr

	upload := filepath.Join(t.TempDir(), "upload")
	data := bytes.Repeat([]byte("five MiB of it. "), 5<<20/16)
	writeFile(t, upload, data)
	sum := fmt.Sprintf("%x", sha256.Sum256(data))

	for _, scheme := range []string{"socks5h", "socks5", "socks4a", "http"} {
		for _, auth := range []bool{false, true} {
			if auth && scheme == "socks4a" {
				continue // SOCKS4a has no password: see TestCurlWrongPassword
			}
			for _, url := range []string{"http://localhost:" + plain + "/", "https://localhost:" + encrypted + "/", "http://127.0.0.1:" + plain + "/"} {
				name := scheme + " " + url[:strings.LastIndex(url, ":")]
				args := []string{"-4", "--cacert", certs.caFile, "-x", scheme + "://" + open}
				if auth {
					name += " with password"
					args = []string{"-4", "--cacert", certs.caFile, "-x", scheme + "://" + closed, "-U", proxyUser + ":" + proxyPassword}
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					if exit, out, talk := curl(t, append(args, url)...); exit != 0 || out != webText {
						t.Errorf("GET: exit code %d, got %q\n%s", exit, out, talk)
					}
					if exit, out, talk := curl(t, append(args, "-T", upload, url)...); exit != 0 || out != sum {
						t.Errorf("PUT: exit code %d, got %q, want %q\n%s", exit, out, sum, talk)
					}
				})
			}
		}
	}
}

// proxyURL is a proxy's address as applications take it from the environment,
// with its password when auth is set.
func proxyURL(scheme, addr string, auth bool) string {
	u := url.URL{Scheme: scheme, Host: addr}
	if auth {
		u.User = url.UserPassword(proxyUser, proxyPassword)
	}
	return u.String()
}

// TestCurlByEnvironment has curl read where the proxy is, as a shell exports it.
func TestCurlByEnvironment(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	certs := newCertificates(t)
	plain, encrypted := webOrigin(t, "127.0.0.1", nil), webOrigin(t, "127.0.0.1", certs)
	far := ourServer(t, serverConfig()).addr
	open := ourClient(t, clientConfig(remoteAt(t, far)))
	closed := ourClient(t, withAuth(clientConfig(remoteAt(t, far))))
	for i, tt := range []struct {
		variable, scheme string
		auth, https      bool
	}{
		{"http_proxy", "http", false, false},
		{"http_proxy", "http", true, false},
		{"https_proxy", "http", true, true},
		{"ALL_PROXY", "socks5h", false, true},
		{"ALL_PROXY", "socks5h", true, true},
		{"http_proxy", "socks5h", true, false},
		{"ALL_PROXY", "socks4a", false, true},
		{"http_proxy", "socks4a", false, false},
	} {
		near, page, port := open, "http://localhost:"+plain, plain
		if tt.auth {
			near = closed
		}
		if tt.https {
			page, port = "https://localhost:"+encrypted, encrypted
		}
		setting := tt.variable + "=" + proxyURL(tt.scheme, near.addr, tt.auth)
		before := strings.Count(near.log.String(), "to=localhost:"+port)
		exit, out, talk := curlIn(t, []string{setting}, "--cacert", certs.caFile, fmt.Sprintf("%s/%d", page, i))
		if exit != 0 || out != webText {
			t.Errorf("%s: exit code %d, got %q\n%s", setting, exit, out, talk)
		}
		near.log.waitCount(t, "to=localhost:"+port, before+1)
	}
}

// TestCurlWrongPassword shows that only the right name with the right password
// gets through, and what curl says of it.
func TestCurlWrongPassword(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	certs := newCertificates(t)
	plain, encrypted := webOrigin(t, "127.0.0.1", nil), webOrigin(t, "127.0.0.1", certs)
	near := ourClient(t, withAuth(clientConfig(remoteAt(t, ourServer(t, serverConfig()).addr)))).addr
	const cannotConnect, receiveError, proxyRefused = 7, 56, 97 // of curl(1)
	for _, tt := range []struct {
		scheme, user string
		https        bool
		exit         int
		status       string
	}{
		{"socks5h", proxyUser + ":wrong", false, proxyRefused, "000"},
		{"socks5h", "john:" + proxyPassword, true, proxyRefused, "000"},
		{"socks5", proxyUser + ":" + proxyPassword + "x", false, proxyRefused, "000"},
		{"socks5h", "", false, proxyRefused, "000"},
		{"socks4a", proxyUser, false, proxyRefused, "000"},
		{"http", proxyUser + ":wrong", false, 0, "407"},
		{"http", "john:" + proxyPassword, true, receiveError, "000"},
		{"http", "", false, 0, "407"},
		{"http", "", true, receiveError, "000"},
	} {
		url := "http://localhost:" + plain + "/"
		if tt.https {
			url = "https://localhost:" + encrypted + "/"
		}
		args := []string{"-4", "--cacert", certs.caFile, "-x", tt.scheme + "://" + near, "-o", "-", "-w", "\n%{http_code}", url}
		if tt.user != "" {
			args = append(args, "-U", tt.user)
		}
		exit, out, talk := curl(t, args...)
		if exit != tt.exit || !strings.HasSuffix(out, "\n"+tt.status) || strings.Contains(out, webText) {
			t.Errorf("%s as %q: exit code %d, got %q, want %d and status %s\n%s", tt.scheme, tt.user, exit, out, tt.exit, tt.status, talk)
		}
	}
}

// TestCurlIPv6 has a destination that is an IPv6 address.
func TestCurlIPv6(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	certs := newCertificates(t)
	port, encrypted := webOrigin(t, "::1", nil), webOrigin(t, "::1", certs)
	near := viaOurServer(t)
	for _, scheme := range []string{"socks5h", "socks5", "http"} {
		for _, url := range []string{"http://[::1]:" + port + "/", "https://[::1]:" + encrypted + "/"} {
			if exit, out, talk := curl(t, "--cacert", certs.caFile, "-x", scheme+"://"+near, url); exit != 0 || out != webText {
				t.Errorf("%s %s: exit code %d, got %q\n%s", scheme, url, exit, out, talk)
			}
		}
	}
}

// TestCurlThroughV2ray is curl on the main job's way.
func TestCurlThroughV2ray(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	certs := newCertificates(t)
	near := viaV2rayServer(t)
	url := "https://localhost:" + webOrigin(t, "127.0.0.1", certs) + "/"
	for _, scheme := range []string{"socks5h", "socks4a", "http"} {
		if exit, out, talk := curl(t, "--cacert", certs.caFile, "-x", scheme+"://"+near, url); exit != 0 || out != webText {
			t.Errorf("%s: exit code %d, got %q\n%s", scheme, exit, out, talk)
		}
	}
}

// TestTruthfulReplies has applications told what is the matter on the way to
// the server, by the words of each protocol.
func TestTruthfulReplies(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	nobody := freePort(t)
	near := ourClient(t, clientConfig(remoteAt(t, nobody)))
	_, port := splitAddr(t, nobody)
	url := "http://localhost:" + strconv.Itoa(port) + "/"
	if exit, _, talk := curl(t, "-x", "socks5h://"+near.addr, url); exit != 97 || !strings.Contains(talk, "(5)") {
		t.Errorf("SOCKS5: exit code %d and %q, want 97 and reply 5, connection refused", exit, talk)
	}
	if exit, out, _ := curl(t, "-x", "http://"+near.addr, "-o", filepath.Join(t.TempDir(), "page"), "-w", "%{http_code}", url); exit != 0 || out != "502" {
		t.Errorf("HTTP: exit code %d and status %s, want 0 and 502", exit, out)
	}
	near.log.waitFor(t, "error: tcp.refused: ")
}

// TestWildcardNeedsPassword has a proxy that everybody could reach: it does
// not start without a password.
func TestWildcardNeedsPassword(t *testing.T) {
	t.Parallel()
	for _, listen := range []string{"0.0.0.0:0", "[::]:0", ":0"} {
		cfg := clientConfig(remoteAt(t, "127.0.0.1:1"))
		cfg.Listen = listen
		p := startOurs(t, "vmess-local", config.MarshalClient(cfg), nil)
		if code := p.exitCode(t); code != 2 {
			t.Errorf("%s: exit code %d, want 2", listen, code)
		}
		if !p.log.contains("auth") || p.log.contains("ready:") {
			t.Errorf("%s: the program says %q", listen, p.log)
		}
	}
	cfg := withAuth(clientConfig(remoteAt(t, "127.0.0.1:1")))
	cfg.Listen = "0.0.0.0:0"
	ourClient(t, cfg) // waits until it is ready
}
