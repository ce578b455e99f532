package socks

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/proxy"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// through is a server whose requests all end at addr.
func through(auth *Auth, addr string) *Server {
	dialer := dialerTo(func(netaddr.Addr) string { return addr })
	return &Server{Auth: auth, Dialer: dialer, Handler: HandlerFunc(func(ctx context.Context, r *transport.Request) {
		far, err := dialer.DialStream(ctx, r.Destination, nil)
		if err != nil {
			_ = r.Pending.Abort(err)
			return
		}
		defer far.Close()
		near, err := r.Pending.Proceed(netip.AddrPort{})
		if err != nil {
			return
		}
		defer near.Close()
		_, _ = far.Write(r.First)
		go func() {
			_, _ = io.Copy(far, near)
			_ = far.CloseWrite()
		}()
		_, _ = io.Copy(near, far)
	})}
}

func TestSOCKSClient(t *testing.T) {
	origin := echoOrigin(t, "origin")
	for _, c := range []struct {
		name   string
		server *Auth
		client *proxy.Auth
		ok     bool
	}{
		{"none", nil, nil, true},
		{"password", &secret, &proxy.Auth{User: "anna", Password: "s3cret"}, true},
		{"needless password", nil, &proxy.Auth{User: "anna", Password: "s3cret"}, true},
		{"wrong password", &secret, &proxy.Auth{User: "anna", Password: "no"}, false},
		{"no password", &secret, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, through(c.server, origin.Listener.Addr().String()))
			dialer, err := proxy.SOCKS5("tcp", d.addr, c.client, nil)
			if err != nil {
				t.Fatal(err)
			}
			client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: dialer.(proxy.ContextDialer).DialContext}}
			defer client.CloseIdleConnections()
			resp, err := client.Post("http://site.example:8080/", "text/plain", strings.NewReader("hi"))
			if (err == nil) != c.ok {
				t.Fatalf("got %v", err)
			}
			if err != nil {
				return
			}
			defer resp.Body.Close()
			if got := readAll(t, resp.Body); got != "origin POST site.example:8080 [] hi" {
				t.Errorf("got %q", got)
			}
			if dst := d.asked()[0].Destination.String(); dst != "site.example:8080" {
				t.Errorf("asked for %s: the name must arrive as it is", dst)
			}
		})
	}
}

func TestHTTPClient(t *testing.T) {
	plain := echoOrigin(t, "plain")
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "secure "+r.Host)
	}))
	defer secure.Close()
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	for _, c := range []struct {
		name string
		auth *Auth
		user *url.Userinfo
		ok   bool
	}{
		{"none", nil, nil, true},
		{"password", &secret, url.UserPassword("anna", "s3cret"), true},
		{"needless password", nil, url.UserPassword("anna", "s3cret"), true},
		{"wrong password", &secret, url.UserPassword("anna", "no"), false},
		{"no password", &secret, nil, false},
	} {
		for _, scheme := range []string{"http", "https", "socks5"} {
			t.Run(c.name+"/"+scheme, func(t *testing.T) {
				origin, target, want := plain, "http://example.com/", "plain GET example.com [] "
				via := "http"
				switch scheme {
				case "https":
					origin, target, want = secure, "https://example.com/", "secure example.com"
				case "socks5":
					via = "socks5"
				}
				d := open(t, through(c.auth, origin.Listener.Addr().String()))
				client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
					Proxy:           http.ProxyURL(&url.URL{Scheme: via, User: c.user, Host: d.addr}),
					TLSClientConfig: &tls.Config{RootCAs: roots},
				}}
				defer client.CloseIdleConnections()
				resp, err := client.Get(target)
				if err != nil {
					if c.ok {
						t.Error(err)
					}
					return
				}
				defer resp.Body.Close()
				got := readAll(t, resp.Body)
				if ok := resp.StatusCode == 200 && got == want; ok != c.ok {
					t.Errorf("answered %s %q", resp.Status, got)
				}
			})
		}
	}
}

// The listener may be on IPv6 too.
func TestIPv6Listener(t *testing.T) {
	ln, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("not tested, but CI=true asks for all tests: %v", err)
		}
		t.Skipf("not tested: %v", err)
	}
	d := openOn(t, &Server{Handler: greet(netip.AddrPort{})}, ln)
	if got := d.talk(t, connect5); got != ok5+"hello" {
		t.Errorf("answered % x", got)
	}
}
