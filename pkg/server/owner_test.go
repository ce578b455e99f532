package server

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vmess-local/pkg/config"
	"vmess-local/pkg/transport"
)

// writeCertificate makes a certificate with a serial number.
func writeCertificate(t *testing.T, cfg config.ServerTLS, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		cfg.CertFile: {Type: "CERTIFICATE", Bytes: der}, cfg.KeyFile: {Type: "EC PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The certificate is read again when its files change; files that cannot be
// used leave the old one in use.
func TestCertificateIsReread(t *testing.T) {
	dir := t.TempDir()
	cfg := config.ServerTLS{CertFile: filepath.Join(dir, "c.pem"), KeyFile: filepath.Join(dir, "k.pem")}
	if _, err := newCertificate(cfg, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("no files were no mistake")
	}
	writeCertificate(t, cfg, 1)
	c, err := newCertificate(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	serial := func() int64 {
		t.Helper()
		c.looked = time.Time{} // a while later
		got, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return got.Leaf.SerialNumber.Int64()
	}
	change := func(at time.Time) { _ = os.Chtimes(cfg.CertFile, at, at) }
	if got := serial(); got != 1 {
		t.Errorf("serial %d", got)
	}
	writeCertificate(t, cfg, 2)
	change(time.Now().Add(time.Minute))
	if got := serial(); got != 2 {
		t.Errorf("after a change: serial %d", got)
	}
	if err := os.WriteFile(cfg.CertFile, []byte("half a certif"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 2 {
		t.Errorf("after a mistake: serial %d", got)
	}
	writeCertificate(t, cfg, 3)
	change(time.Now().Add(2 * time.Minute))
	if got := serial(); got != 3 {
		t.Errorf("mended: serial %d", got)
	}
}

func TestFallback(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "secret")
	for name, text := range map[string]string{
		outside: "secret", filepath.Join(dir, "index.html"): "welcome", filepath.Join(dir, ".hidden"): "hidden",
		filepath.Join(dir, "sub", "page.txt"): "a page",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_ = os.Symlink(outside, filepath.Join(dir, "link"))
	h, err := newFallback(dir)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]struct {
		code int
		body string
	}{
		"/": {200, "welcome"}, "/sub/page.txt": {200, "a page"}, "/sub/": {404, ""}, "/sub": {404, ""},
		"/.hidden": {404, ""}, "/link": {404, ""}, "/../secret": {404, ""}, "/none": {404, ""},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, &http.Request{Method: "GET", URL: mustURL(path), Header: http.Header{}})
		if w.Code != want.code && !(path == "/link" && w.Code >= 400) || want.body != "" && w.Body.String() != want.body || bytes.Contains(w.Body.Bytes(), []byte("secret")) {
			t.Errorf("%s: %d %q", path, w.Code, w.Body)
		}
	}
	if h, err := newFallback(""); h != nil || err != nil {
		t.Errorf("none: %v, %v", h, err)
	}
	if _, err := newFallback(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a directory that is not there was taken")
	}
}

func TestVisitor(t *testing.T) {
	trust, err := newTrusted([]string{"127.0.0.1", "10.0.0.0/8", "::1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		peer string
		said []string
		want string
	}{
		{"127.0.0.1:9", []string{"203.0.113.5"}, "203.0.113.5"},
		{"203.0.113.1:9", []string{"203.0.113.5"}, "203.0.113.1"},
		{"127.0.0.1:9", []string{"6.6.6.6, 203.0.113.5, 10.1.2.3"}, "203.0.113.5"},
		{"127.0.0.1:9", []string{"6.6.6.6", "203.0.113.5"}, "203.0.113.5"},
		{"127.0.0.1:9", []string{"203.0.113.5, garbage"}, "127.0.0.1"},
		{"127.0.0.1:9", nil, "127.0.0.1"},
		{"[::1]:9", []string{"2001:db8::5"}, "2001:db8::5"},
		{"[::ffff:127.0.0.1]:9", []string{"203.0.113.5"}, "203.0.113.5"},
	} {
		header := http.Header{"X-Forwarded-For": c.said}
		if got := trust.visitor(netip.MustParseAddrPort(c.peer), header); got.Addr() != netip.MustParseAddr(c.want) {
			t.Errorf("%s says %q: %v, want %s", c.peer, c.said, got, c.want)
		}
	}
}

func TestProxyHeader(t *testing.T) {
	v2 := func(kind byte, addresses string) string {
		return string(proxyV2Start) + "\x21" + string(kind) + string([]byte{0, byte(len(addresses))}) + addresses
	}
	for _, c := range []struct {
		in   string
		want string
		size int
		err  error
	}{
		{"PROXY TCP4 203.0.113.5 192.0.2.1 4711 443\r\nGET /", "203.0.113.5:4711", 43, nil},
		{"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", "[2001:db8::1]:1", 40, nil},
		{"PROXY UNKNOWN\r\nGET", "", 15, nil},
		{"PROXY TCP4 203.0.113.5", "", 0, errProxyShort},
		{"PRO", "", 0, errProxyShort},
		{"", "", 0, errProxyShort},
		{"PROXY TCP4 x y 1 2\r\n", "", 0, errProxyHeader},
		{"PROXY " + string(bytes.Repeat([]byte("x"), 200)), "", 0, errProxyHeader},
		{"POST / HTTP/1.1\r\n", "", 0, nil},
		{"GET / HTTP/1.1\r\n", "", 0, nil},
		{"\x16\x03\x01", "", 0, nil},
		{v2(0x11, "\xcb\x00\x71\x05\xc0\x00\x02\x01\x12\x67\x01\xbb") + "GET", "203.0.113.5:4711", 28, nil},
		{v2(0x11, "\xcb\x00\x71\x05\xc0\x00\x02\x01\x12\x67\x01\xbb")[:20], "", 0, errProxyShort},
		{string(proxyV2Start) + "\x20\x00\x00\x00", "", 16, nil},
		{string(proxyV2Start) + "\x31\x11\x00\x00", "", 0, errProxyHeader},
		{string(proxyV2Start) + "\x21\x11\xff\xff", "", 0, errProxyHeader},
	} {
		got, size, err := parseProxyHeader([]byte(c.in))
		if size != c.size || !errors.Is(err, c.err) || got.IsValid() != (c.want != "") || got.IsValid() && got.String() != c.want {
			t.Errorf("%q: %v, %d, %v", c.in, got, size, err)
		}
	}
}

func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 203.0.113.5 192.0.2.1 4711 443\r\nGET /"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add(append(append([]byte(nil), proxyV2Start...), 0x21, 0x11, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12))
	f.Fuzz(func(t *testing.T, p []byte) {
		source, size, err := parseProxyHeader(p)
		if size < 0 || size > len(p) || err != nil && (size != 0 || source.IsValid()) {
			t.Errorf("%v, %d, %v", source, size, err)
		}
	})
}

// A connection from a trusted proxy has its visitor's address, wherever the
// header is cut, and none of the header in its data.
func TestProxied(t *testing.T) {
	header := "PROXY TCP4 203.0.113.5 192.0.2.1 4711 443\r\n"
	for cut := range len(header) + 4 {
		near, far := net.Pipe()
		go func() {
			data := header + "data"
			_, _ = io.WriteString(far, data[:cut])
			_, _ = io.WriteString(far, data[cut:])
			_ = far.Close()
		}()
		c := &proxied{StreamConn: noHalfClose{near}, patience: 5 * time.Second}
		if got := c.RemoteAddr().String(); got != "203.0.113.5:4711" {
			t.Fatalf("cut at %d: from %s", cut, got)
		}
		b, n, err := transport.ReadPooled(c, 0, 1)
		if err != nil || n != 1 || b[0] != 'd' {
			t.Fatalf("cut at %d: %d bytes, %v", cut, n, err)
		}
		b.Release()
		if rest, err := io.ReadAll(c); err != nil || string(rest) != "ata" {
			t.Fatalf("cut at %d: %q, %v", cut, rest, err)
		}
		_ = near.Close()
	}
}

func mustURL(path string) *url.URL { return &url.URL{Path: path} }
