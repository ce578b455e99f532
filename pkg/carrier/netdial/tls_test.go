package netdial_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

// An identity is a certificate with its key.
type identity struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate valid from an hour ago to an hour ahead; issuer nil
// signs it with its own key.
func issue(t testing.TB, issuer *identity, ca bool, names ...string) *identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: names[0]},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  ca,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
	}
	if ca {
		template.KeyUsage = x509.KeyUsageCertSign
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if !ca {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	if issuer == nil {
		issuer = &identity{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.cert, &key.PublicKey, issuer.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &identity{cert, key}
}

// presents is the server's configuration that shows id and then others.
func (id *identity) presents(others ...*identity) *tls.Config {
	chain := [][]byte{id.cert.Raw}
	for _, o := range others {
		chain = append(chain, o.cert.Raw)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: chain, PrivateKey: id.key}}, NextProtos: []string{"h2", "http/1.1"}}
}

func (id *identity) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(id.cert)
	return pool
}

func (id *identity) pin() [32]byte { return sha256.Sum256(id.cert.Raw) }

// serveTLS serves an echo over TLS.
func serveTLS(t *testing.T, config *tls.Config) netaddr.Addr {
	return serve(t, func(c net.Conn) { echo(tls.Server(c, config)) })
}

func TestCertificates(t *testing.T) {
	root := issue(t, nil, true, "Test Root")
	other := issue(t, nil, true, "Other Root")
	middle := issue(t, root, true, "Test Intermediate")
	leaf := issue(t, root, false, "server.example", "127.0.0.1")
	deep := issue(t, middle, false, "server.example")
	self := issue(t, nil, false, "server.example")
	pinned := [][32]byte{other.pin(), self.pin()}
	later := func() time.Time { return time.Now().Add(48 * time.Hour) }

	isA := func(err error, target any) bool { return errors.As(err, target) }
	unknown := func(err error) bool { return isA(err, new(x509.UnknownAuthorityError)) }
	wrongName := func(err error) bool { return isA(err, new(x509.HostnameError)) }
	expired := func(err error) bool {
		var invalid x509.CertificateInvalidError
		return errors.As(err, &invalid) && invalid.Reason == x509.Expired
	}
	mismatch := func(err error) bool {
		var pin *netdial.PinError
		return errors.As(err, &pin) && pin.Seen == self.pin()
	}
	for _, c := range []struct {
		name   string
		server *tls.Config
		client netdial.TLS
		bad    func(error) bool // nil: all is well
	}{
		{"own authority", leaf.presents(), netdial.TLS{ServerName: "server.example", RootCAs: root.pool()}, nil},
		{"name with a final dot", leaf.presents(), netdial.TLS{ServerName: "Server.Example.", RootCAs: root.pool()}, nil},
		{"IP address, from the server's address", leaf.presents(), netdial.TLS{RootCAs: root.pool()}, nil},
		{"intermediate", deep.presents(middle), netdial.TLS{ServerName: "server.example", RootCAs: root.pool()}, nil},
		{"missing intermediate", deep.presents(), netdial.TLS{ServerName: "server.example", RootCAs: root.pool()}, unknown},
		{"self-signed", self.presents(), netdial.TLS{ServerName: "server.example", RootCAs: root.pool()}, unknown},
		{"unknown to the system", leaf.presents(), netdial.TLS{ServerName: "server.example"}, unknown},
		{"other authority", leaf.presents(), netdial.TLS{ServerName: "server.example", RootCAs: other.pool()}, unknown},
		{"other name", leaf.presents(), netdial.TLS{ServerName: "other.example", RootCAs: root.pool()}, wrongName},
		{"other IP address", leaf.presents(), netdial.TLS{ServerName: "127.0.0.2", RootCAs: root.pool()}, wrongName},
		{"IP address not in the certificate", deep.presents(middle), netdial.TLS{RootCAs: root.pool()}, wrongName},
		{"expired", leaf.presents(), netdial.TLS{ServerName: "server.example", RootCAs: root.pool(), Now: later}, expired},
		{"pin in place of all checks", self.presents(), netdial.TLS{ServerName: "other.example", Pins: pinned, Now: later}, nil},
		{"pin mismatch", self.presents(), netdial.TLS{ServerName: "server.example", Pins: [][32]byte{other.pin()}, RootCAs: self.pool()}, mismatch},
		{"pin of the issuer is none", self.presents(other), netdial.TLS{Pins: [][32]byte{other.pin()}}, mismatch},
		{"insecure", self.presents(), netdial.TLS{ServerName: "other.example", AllowInsecure: true}, nil},
		{"insecure with a pin", self.presents(), netdial.TLS{ServerName: "other.example", Pins: pinned, AllowInsecure: true}, nil},
		{"insecure with another pin", self.presents(), netdial.TLS{Pins: [][32]byte{other.pin()}, AllowInsecure: true}, mismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachTLS(t, func(t *testing.T, look string, version uint16) {
				server, client := c.server.Clone(), c.client
				server.MaxVersion = version
				client.Fingerprint = fingerprint(t, look)
				seen := new(steps)
				d := &netdial.Dialer{Server: serveTLS(t, server), TLS: &client, OnStep: seen.add}
				if c.bad != nil {
					e := failed(t, t.Context(), d, netdial.StepTLS)
					var cert *netdial.CertificateError
					if !c.bad(e) || !errors.As(e, &cert) {
						t.Fatalf("got %v", e)
					}
					want := sha256.Sum256(c.server.Certificates[0].Certificate[0])
					if len(cert.Chain) != len(c.server.Certificates[0].Certificate) || cert.Fingerprint() != hex.EncodeToString(want[:]) {
						t.Errorf("chain of %d, fingerprint %s", len(cert.Chain), cert.Fingerprint())
					}
					return
				}
				conn, err := d.ConnectStream(t.Context(), []byte("first "))
				if err != nil {
					t.Fatal(err)
				}
				roundTrip(t, conn, "first ", "and more")
				_ = conn.Close()
				protocol := "http/1.1"
				if look == "android" { // it has neither
					version, protocol = tls.VersionTLS12, ""
				}
				if p := seen.ended(t, netdial.StepTLS); p.TLS.Version != version || p.TLS.NegotiatedProtocol != protocol {
					t.Errorf("agreed on version %x, protocol %q", p.TLS.Version, p.TLS.NegotiatedProtocol)
				}
			})
		})
	}
}

func TestHello(t *testing.T) {
	for _, c := range []struct{ server, name, sent string }{
		{"server.example:443", "", "server.example"},
		{"server.example:443", "front.example", "front.example"},
		{"192.0.2.1:443", "", ""},
	} {
		hello := make(chan *tls.ClientHelloInfo, 1)
		config := &tls.Config{GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
			hello <- info
			return nil, errors.New("enough seen")
		}}
		far := serveTLS(t, config)
		d := &netdial.Dialer{Server: addr(t, c.server), TLS: &netdial.TLS{ServerName: c.name}, Resolver: answers("192.0.2.1")}
		d.DialTCP = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, far.String())
		}
		failed(t, t.Context(), d, netdial.StepTLS)
		info := <-hello
		if info.ServerName != c.sent || !slices.Equal(info.SupportedProtos, []string{"http/1.1"}) || slices.Min(info.SupportedVersions) < tls.VersionTLS12 {
			t.Errorf("%s, %q: sent %q, %v, %x", c.server, c.name, info.ServerName, info.SupportedProtos, info.SupportedVersions)
		}
	}
}

func TestResumption(t *testing.T) {
	eachTLS(t, testResumption)
}

func testResumption(t *testing.T, look string, version uint16) {
	self := issue(t, nil, false, "server.example")
	config := self.presents()
	config.MaxVersion = version
	server := serve(t, func(c net.Conn) {
		s := tls.Server(c, config)
		_, _ = io.WriteString(s, "x")
		drain(s)
	})
	seen := new(steps)
	settings := &netdial.TLS{Pins: [][32]byte{self.pin()}, Fingerprint: fingerprint(t, look)}
	d := &netdial.Dialer{Server: server, TLS: settings, OnStep: seen.add}
	for i, resumed := range []bool{false, true, true} {
		conn, err := d.ConnectStream(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil { // session tickets come before it
			t.Fatal(err)
		}
		_ = conn.Close()
		resumed = resumed && (look == "" || version == tls.VersionTLS12 && !slices.Contains([]string{"safari", "ios", "android"}, look))
		if got := seen.ended(t, netdial.StepTLS).TLS.DidResume; got != resumed {
			t.Errorf("dial %d: resumed %v", i+1, got)
		}
	}

	settings.Pins = [][32]byte{{1}} // a session is no way round the pin
	var pin *netdial.PinError
	if e := failed(t, t.Context(), d, netdial.StepTLS); !errors.As(e, &pin) || pin.Seen != self.pin() {
		t.Errorf("got %v", e)
	}
}

// TestVerifiedCertificates dials several times with one Dialer, which need not
// check the same certificate every time, but any other, and its dates.
func TestVerifiedCertificates(t *testing.T) {
	eachFingerprint(t, testVerifiedCertificates)
}

func testVerifiedCertificates(t *testing.T, look netdial.Fingerprint) {
	root, other := issue(t, nil, true, "Test Root"), issue(t, nil, true, "Other Root")
	good := issue(t, root, false, "server.example")
	wrongName := issue(t, root, false, "other.example")
	wrongRoot := issue(t, other, false, "server.example")
	var shown atomic.Pointer[identity]
	config := &tls.Config{
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &shown.Load().presents().Certificates[0], nil
		},
	}
	now := time.Now()
	d := &netdial.Dialer{Server: serveTLS(t, config), TLS: &netdial.TLS{
		ServerName: "server.example", RootCAs: root.pool(), Fingerprint: look, Now: func() time.Time { return now },
	}}
	for i, step := range []struct {
		id    *identity
		after time.Duration
		good  bool
	}{
		{good, 0, true},
		{good, time.Minute, true},
		{wrongName, time.Minute, false},
		{wrongRoot, time.Minute, false},
		{good, 30 * time.Minute, true},
		{good, 59 * time.Minute, true},
		{good, 61 * time.Minute, false},
		{good, -61 * time.Minute, false},
		{good, 0, true},
	} {
		now = time.Now().Add(step.after)
		shown.Store(step.id)
		conn, err := d.ConnectStream(t.Context(), nil)
		if err == nil {
			_ = conn.Close()
		}
		var bad *netdial.CertificateError
		if step.good != (err == nil) || err != nil && !errors.As(err, &bad) {
			t.Errorf("dial %d: %v", i+1, err)
		}
	}
}

// TestKeyExchangeIsLearnt: a server that exchanges no post-quantum keys is not
// offered any for ten minutes, and one that does always is.
func TestKeyExchangeIsLearnt(t *testing.T) {
	root := issue(t, nil, true, "Test Root")
	for _, c := range []struct {
		name   string
		curves []tls.CurveID // of the server
		want   []bool        // whether a dial offers them
	}{
		{"classic", []tls.CurveID{tls.X25519}, []bool{true, false, false, true, false}},
		{"post-quantum", nil, []bool{true, true, true, true, true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := issue(t, root, false, "server.example").presents()
			config.CurvePreferences = c.curves
			var offered atomic.Bool
			config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				offered.Store(slices.Contains(hello.SupportedCurves, tls.X25519MLKEM768))
				return nil, nil
			}
			now := time.Now()
			d := &netdial.Dialer{Server: serveTLS(t, config), TLS: &netdial.TLS{
				ServerName: "server.example", RootCAs: root.pool(), Now: func() time.Time { return now },
			}}
			for i, after := range []time.Duration{0, time.Minute, 8 * time.Minute, 2 * time.Minute, time.Minute} {
				now = now.Add(after)
				conn, err := d.ConnectStream(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.Close()
				if got := offered.Load(); got != c.want[i] {
					t.Errorf("dial %d offers them: %v", i+1, got)
				}
			}
		})
	}
}

func TestNotTLS(t *testing.T) {
	server := serve(t, func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 100))
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		drain(c)
	})
	eachFingerprint(t, func(t *testing.T, look netdial.Fingerprint) {
		e := failed(t, t.Context(), &netdial.Dialer{Server: server, TLS: &netdial.TLS{Fingerprint: look}}, netdial.StepTLS)
		var record tls.RecordHeaderError
		if !errors.As(e, &record) || string(record.RecordHeader[:]) != "HTTP/" {
			t.Errorf("got %v", e)
		}
	})
}

func TestTLSRefused(t *testing.T) {
	eachFingerprint(t, testTLSRefused)
}

func testTLSRefused(t *testing.T, look netdial.Fingerprint) {
	t.Run("alert", func(t *testing.T) {
		config := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, errors.New("no") }}
		e := failed(t, t.Context(), &netdial.Dialer{Server: serveTLS(t, config), TLS: &netdial.TLS{Fingerprint: look}}, netdial.StepTLS)
		var alert tls.AlertError
		if !errors.As(e, &alert) || alert != 80 { // internal_error, RFC 8446 section 6.2
			t.Errorf("got %v", e)
		}
	})
	t.Run("closed", func(t *testing.T) {
		server := serve(t, func(c net.Conn) { _, _ = io.ReadFull(c, make([]byte, 5)); _ = c.(*net.TCPConn).SetLinger(0) })
		e := failed(t, t.Context(), &netdial.Dialer{Server: server, TLS: &netdial.TLS{Fingerprint: look}}, netdial.StepTLS)
		if !errors.Is(e, syscall.ECONNRESET) && !errors.Is(e, io.EOF) {
			t.Errorf("got %v", e)
		}
	})
	t.Run("silent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			network := newNet(map[string]fate{"192.0.2.1": {after: 100 * time.Millisecond}})
			d := &netdial.Dialer{Server: addr(t, "192.0.2.1:443"), TLS: &netdial.TLS{Fingerprint: look}, DialTCP: network.dial, Timeout: 2 * time.Second}
			e := failed(t, t.Context(), d, netdial.StepTLS)
			if !errors.Is(e, context.DeadlineExceeded) || !strings.HasPrefix(e.Error(), "tls 192.0.2.1:443: timed out after 1.9s: ") {
				t.Errorf("got %v", e)
			}
			if left := network.left(); len(left) != 0 {
				t.Errorf("still open: %v", left)
			}
		})
	})
}

func TestLoadCAFile(t *testing.T) {
	root := issue(t, nil, true, "Test Root")
	leaf := issue(t, root, false, "127.0.0.1")
	path := filepath.Join(t.TempDir(), "ca.pem")
	if _, err := netdial.LoadCAFile(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	write := func(b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(root.cert.Raw)
	if _, err := netdial.LoadCAFile(path); !errors.Is(err, netdial.ErrNoCertificate) || !strings.Contains(err.Error(), path) {
		t.Errorf("a DER file: %v", err)
	}
	write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.cert.Raw}))
	pool, err := netdial.LoadCAFile(path)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := (&netdial.Dialer{Server: serveTLS(t, leaf.presents()), TLS: &netdial.TLS{RootCAs: pool}}).ConnectStream(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

// TestTLSStream holds TLS to the contract of streams.
func TestTLSStream(t *testing.T) {
	self := issue(t, nil, false, "server.example")
	transporttest.TestStream(t, func(t *testing.T) (a, b transport.StreamConn) {
		far := make(chan *tls.Conn, 1)
		server := serve(t, func(c net.Conn) {
			s := tls.Server(c, self.presents())
			if err := s.Handshake(); err != nil {
				t.Errorf("the server's handshake: %v", err)
			}
			far <- s
			<-t.Context().Done()
		})
		d := &netdial.Dialer{Server: server, TLS: &netdial.TLS{Pins: [][32]byte{self.pin()}}}
		conn, err := d.ConnectStream(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return conn, <-far
	})
}

func TestTLSReset(t *testing.T) {
	self := issue(t, nil, false, "server.example")
	got := make(chan error, 1)
	server := serve(t, func(c net.Conn) {
		s := tls.Server(c, self.presents())
		_, err := io.Copy(io.Discard, s)
		got <- err
	})
	d := &netdial.Dialer{Server: server, TLS: &netdial.TLS{AllowInsecure: true}}
	conn, err := d.ConnectStream(t.Context(), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.(transport.Resetter).Reset(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server read %v, want a reset", err)
	}
}
