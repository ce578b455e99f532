package e2e

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// A chain is a server's certificate and those above it, the root last.
type chain struct {
	ders [][]byte
	key  *ecdsa.PrivateKey
}

// newChain makes a certificate for localhost, below an intermediate and a root
// of the laboratory. change is for what is to be wrong with it.
func newChain(t testing.TB, change func(leaf *x509.Certificate)) chain {
	t.Helper()
	var serial int64
	next := func(name string, ca bool) *x509.Certificate {
		serial++
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-30 * 24 * time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
			IsCA: ca, BasicConstraintsValid: ca, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		}
	}
	root, middle, leaf := next("Laboratory Root", true), next("Laboratory R3", true), next("localhost", false)
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	leaf.DNSNames, leaf.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	// As public authorities do, so that a chain can be completed.
	leaf.IssuingCertificateURL = []string{"http://r3.authority.example/"}
	if change != nil {
		change(leaf)
	}
	rootKey, middleKey, leafKey := newKey(t), newKey(t), newKey(t)
	return chain{
		ders: [][]byte{
			sign(t, leaf, middle, leafKey, middleKey),
			sign(t, middle, root, middleKey, rootKey),
			sign(t, root, root, rootKey, rootKey),
		},
		key: leafKey,
	}
}

// selfSigned is a certificate that nobody vouches for.
func selfSigned(t testing.TB) chain {
	t.Helper()
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	key := newKey(t)
	return chain{[][]byte{sign(t, leaf, leaf, key, key)}, key}
}

// serve runs our server with the first n certificates, and returns how a
// client that trusts the root would reach it.
func (c chain) serve(t testing.TB, n int) config.Remote {
	t.Helper()
	keyDER, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var sent []byte
	for _, der := range c.ders[:n] {
		sent = append(sent, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	cfg := serverConfig()
	cfg.TLS = config.ServerTLS{CertFile: filepath.Join(dir, "sent.pem"), KeyFile: writePEM(t, dir, "key.pem", "PRIVATE KEY", keyDER)}
	writeFile(t, cfg.TLS.CertFile, sent)
	r := remoteAt(t, inProcessServer(t, cfg, inProcess{}).addr)
	r.Address, r.TLS.Enabled = "localhost", true
	r.TLS.CAFile = writePEM(t, dir, "root.pem", "CERTIFICATE", c.ders[len(c.ders)-1])
	return r
}

func (c chain) pin() string {
	sum := sha256.Sum256(c.ders[0])
	return hex.EncodeToString(sum[:])
}

// localhost is the resolver of a name that not every machine knows.
func localhost() resolverFunc { return answers(nil, "127.0.0.1") }

// TestFaultCertificate: what is wrong with a certificate is named; doing what
// the fix says helps.
func TestFaultCertificate(t *testing.T) {
	t.Parallel()
	origin := echoOrigin(t)
	years := 2 * 365 * 24 * time.Hour
	good := newChain(t, nil)
	self := selfSigned(t)
	selfRemote := with(self.serve(t, 1), func(r *config.Remote) { r.TLS.CAFile = "" })
	other := newChain(t, func(leaf *x509.Certificate) { leaf.DNSNames, leaf.IPAddresses = []string{"other.example"}, nil })
	many := newChain(t, func(leaf *x509.Certificate) {
		leaf.DNSNames, leaf.IPAddresses = []string{"a.example", "b.example", "c.example"}, nil
	})
	expired := newChain(t, func(leaf *x509.Certificate) { leaf.NotAfter = time.Now().Add(-48 * time.Hour) })
	early := newChain(t, func(leaf *x509.Certificate) { leaf.NotBefore = time.Now().Add(48 * time.Hour) })
	oldPin := func(r *config.Remote) { r.TLS.Pin = []string{hex.EncodeToString(make([]byte, sha256.Size))} }

	for _, f := range []struct {
		wayFault
		pins bool // the fix offers a pin
	}{
		{wayFault{
			name: "self-signed", remote: selfRemote,
			want: expected{cause: "tls.unknown-issuer", sentence: "is self-signed", fix: `set "tls.pin": ["` + self.pin() + `"] in "server" of config.json`, confidence: "certain"},
		}, true},
		{wayFault{
			name: "unknown authority", remote: with(good.serve(t, 2), func(r *config.Remote) { r.TLS.CAFile = newCertificates(t).caFile }),
			want: expected{cause: "tls.unknown-issuer", sentence: `is issued by "Laboratory R3", which this computer does not trust`, fix: `set "tls.pin": ["` + good.pin() + `"]`, confidence: "certain"},
		}, true},
		{wayFault{
			name: "missing intermediate", remote: good.serve(t, 1),
			want: expected{cause: "tls.incomplete-chain", sentence: `does not send the intermediate certificate "Laboratory R3"`, fix: "configure the server to send the full chain (fullchain.pem", confidence: "likely"},
		}, true},
		{wayFault{
			name: "expired", remote: expired.serve(t, 2),
			want: expected{cause: "tls.expired", sentence: "expired on " + time.Now().Add(-48*time.Hour).UTC().Format(time.DateOnly), fix: "renew the certificate on the server", confidence: "certain"},
		}, false},
		{wayFault{
			name: "not valid yet", remote: early.serve(t, 2),
			want: expected{cause: "tls.expired", sentence: "is not valid before " + time.Now().Add(48*time.Hour).UTC().Format(time.DateOnly), fix: "wait until then", confidence: "certain"},
		}, false},
		{wayFault{
			name: "other name", remote: other.serve(t, 2),
			want: expected{cause: "tls.wrong-name", sentence: "is for other.example, not for localhost", fix: `set "tls.serverName": "other.example" in "server" of config.json`, confidence: "certain"},
		}, false},
		{wayFault{
			name: "other names", remote: many.serve(t, 2),
			want: expected{cause: "tls.wrong-name", sentence: "is for a.example, b.example and 1 more, not for localhost", fix: `set "tls.pin": ["` + many.pin() + `"]`, confidence: "certain"},
		}, true},
		{wayFault{
			name: "pin mismatch", remote: with(good.serve(t, 2), oldPin),
			want: expected{cause: "tls.pin-mismatch", sentence: "is not one of the pinned ones", fix: `only if you renewed it: set "tls.pin": ["` + good.pin() + `"] at config.json:`, confidence: "certain"},
		}, true},
		{wayFault{
			name: "our clock is ahead", remote: good.serve(t, 2), setup: labSetup{now: clockOff(years)},
			want: expected{cause: "vmess.clock-skew", sentence: "this computer's clock is 730 days ahead: according to it the certificate expired on", fix: "set this computer's clock"},
		}, false},
		{wayFault{
			name: "our clock is behind", remote: good.serve(t, 2), setup: labSetup{now: clockOff(-years)},
			want: expected{cause: "vmess.clock-skew", sentence: "this computer's clock is 730 days behind: according to it the certificate is not valid before", fix: "set this computer's clock"},
		}, false},
	} {
		f.code = replyGeneral
		f.setup.resolver = localhost()
		t.Run(f.name, func(t *testing.T) {
			f.run(t)
			if f.pins {
				wantFine(t, labSetup{remote: with(f.remote, func(r *config.Remote) { r.TLS.Pin = []string{offeredPin(t, f.wayFault)} }), resolver: localhost()}, origin)
			}
		})
	}
	t.Run("fine", func(t *testing.T) {
		t.Parallel()
		for _, r := range []config.Remote{
			good.serve(t, 2),
			good.serve(t, 3),
			with(other.serve(t, 2), func(r *config.Remote) { r.TLS.ServerName = "other.example" }),
			with(expired.serve(t, 2), func(r *config.Remote) { r.TLS.Pin = []string{expired.pin()} }),
		} {
			wantFine(t, labSetup{remote: r, resolver: localhost()}, origin)
		}
	})
}

var pinInFix = regexp.MustCompile(`"tls\.pin": \["([0-9a-f]{64})"\]`)

// offeredPin is what the fix tells to write.
func offeredPin(t testing.TB, f wayFault) string {
	t.Helper()
	l := newLab(t, labSetup{remote: f.remote, resolver: localhost()})
	l.ask("somewhere.example:80", "", 0)
	m := pinInFix.FindStringSubmatch(l.await(t, "an error", func(r record) bool { return r.Level == "ERROR" }).Fix)
	if m == nil {
		t.Fatal("the fix offers no pin")
	}
	return m[1]
}
