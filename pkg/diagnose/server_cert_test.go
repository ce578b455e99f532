package diagnose_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/diagnose"
)

// mint makes a certificate by an issuer, or a self-signed one without.
func mint(t *testing.T, template, by *x509.Certificate, byKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if by == nil {
		by, byKey = template, key
	}
	template.SerialNumber = big.NewInt(1)
	der, err := x509.CreateCertificate(rand.Reader, template, by, &key.PublicKey, byKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// TestOwnCertificate judges certificates as a server's owner would want it.
func TestOwnCertificate(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	authority := func(name string) *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
			NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(1, 0, 0),
		}
	}
	leaf := func(from, until time.Time) *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{CommonName: "leaf"}, DNSNames: []string{"vps.example.com"}, NotBefore: from, NotAfter: until,
			IssuingCertificateURL: []string{"http://ca.example.com/between.der"},
		}
	}
	root, rootKey := mint(t, authority("root"), nil, nil)
	between, betweenKey := mint(t, authority("between"), root, rootKey)
	oldTemplate := authority("between")
	oldTemplate.NotAfter = now.AddDate(0, 0, -1)
	old, _ := mint(t, oldTemplate, root, rootKey)
	good, _ := mint(t, leaf(now.AddDate(0, -1, 0), now.AddDate(0, 2, 0)), between, betweenKey)
	short, _ := mint(t, leaf(now.AddDate(0, -1, 0), now.AddDate(0, 0, 5)), between, betweenKey)
	expired, _ := mint(t, leaf(now.AddDate(0, -1, 0), now.AddDate(0, 0, -1)), between, betweenKey)
	early, _ := mint(t, leaf(now.AddDate(0, 0, 1), now.AddDate(0, 2, 0)), between, betweenKey)
	self, _ := mint(t, leaf(now.AddDate(0, -1, 0), now.AddDate(0, 2, 0)), nil, nil)
	private := leaf(now.AddDate(0, -1, 0), now.AddDate(0, 2, 0))
	private.IssuingCertificateURL = nil
	own, _ := mint(t, private, between, betweenKey)
	roots := x509.NewCertPool()
	roots.AddCert(root)

	for _, c := range []struct {
		name   string
		chain  []*x509.Certificate
		host   string
		status diagnose.Status
		detail string // begins so
		cause  diagnose.Cause
		text   string // stands in sentence and fix
	}{
		{"good", []*x509.Certificate{good, between}, "", diagnose.Pass, "for vps.example.com, valid until 2026-07-01", "", ""},
		{"its host", []*x509.Certificate{good, between}, "vps.example.com:443", diagnose.Pass, "for vps.example.com", "", ""},
		{"another host", []*x509.Certificate{good, between}, "cdn.example.com", diagnose.Fail, "", diagnose.TLSWrongName, `for vps.example.com, not for cdn.example.com, the only host that is accepted|set "ws.host" to a name of the certificate`},
		{"ends soon", []*x509.Certificate{short, between}, "", diagnose.Warn, "for vps.example.com, valid until 2026-05-06: renew it, it expires in 5 days", "", ""},
		{"expired", []*x509.Certificate{expired, between}, "", diagnose.Fail, "", diagnose.TLSExpired, "the certificate expired on 2026-04-30|renew it; the new one is loaded automatically"},
		{"not valid yet", []*x509.Certificate{early, between}, "", diagnose.Fail, "", diagnose.TLSExpired, "not valid before 2026-05-02; this computer's clock says 2026-05-01|set this computer's clock"},
		{"the issuer's expired", []*x509.Certificate{good, old}, "", diagnose.Fail, "", diagnose.TLSExpired, `the intermediate certificate of "between" expired on 2026-04-30|renew`},
		{"an old one besides", []*x509.Certificate{good, between, old}, "", diagnose.Pass, "for vps.example.com", "", ""},
		{"without its issuer", []*x509.Certificate{good}, "", diagnose.Fail, "", diagnose.TLSIncompleteChain, `does not contain the intermediate certificate "between"|set "tls.certFile" to the full chain (fullchain.pem, not cert.pem)`},
		{"self-signed", []*x509.Certificate{self}, "", diagnose.Warn, `for vps.example.com, valid until 2026-07-01; self-signed: clients need "tls.pin": ["`, "", ""},
		{"by an unknown authority", []*x509.Certificate{own}, "", diagnose.Warn, `for vps.example.com, valid until 2026-07-01; not issued by a CA that this computer trusts: clients need "tls.pin": ["`, "", ""},
	} {
		status, detail, v := diagnose.ServerCertificate{Chain: c.chain, Host: c.host, Now: now, Roots: roots, CertKey: `"tls.certFile"`, HostKey: `"ws.host"`}.Check()
		if status != c.status || !strings.HasPrefix(detail, c.detail) || (detail == "") != (c.detail == "") || v.Cause != c.cause {
			t.Errorf("%s: %s, %q, %+v", c.name, status, detail, v)
		}
		sentence, fix, _ := strings.Cut(c.text, "|")
		if !strings.Contains(v.Sentence, sentence) || !strings.Contains(v.Fix, fix) {
			t.Errorf("%s: %q, %q", c.name, v.Sentence, v.Fix)
		}
	}
}
