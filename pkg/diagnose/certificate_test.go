package diagnose_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/diagnose"
)

func moment(text string) time.Time {
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		panic(err)
	}
	return t
}

func certificateCases(t *testing.T) []judged {
	const (
		likely  = diagnose.Likely
		certain = diagnose.Certain
	)
	s := fixture(t, 0, true)
	today := moment("2026-11-23")
	made := func(subject, issuer, from, to string, names ...string) *x509.Certificate {
		return &x509.Certificate{
			Raw: []byte(subject + from), RawSubject: []byte(subject), RawIssuer: []byte(issuer),
			Issuer:    pkix.Name{CommonName: issuer},
			NotBefore: moment(from), NotAfter: moment(to), DNSNames: names,
		}
	}
	good := made("leaf", "R3", "2026-10-01", "2026-12-30", "sni.example.com")
	letsEncrypt := made("leaf", "R3", "2026-10-01", "2026-12-30", "sni.example.com")
	letsEncrypt.Issuer = pkix.Name{Organization: []string{"Let's Encrypt"}, CommonName: "R3"}
	fetchable := made("leaf", "Some CA", "2026-10-01", "2026-12-30", "sni.example.com")
	fetchable.IssuingCertificateURL = []string{"http://ca.example.net/some.crt"}
	intermediate := made("R3", "Root", "2020-01-01", "2030-01-01")
	oldIntermediate := made("R3", "Root", "2016-01-01", "2021-09-30")
	self := made("me", "me", "2026-01-01", "2036-01-01", "me.example")
	expired := made("leaf", "R3", "2026-06-01", "2026-08-30", "sni.example.com")
	future := made("leaf", "R3", "2027-06-01", "2027-08-30", "sni.example.com")
	foreign := made("leaf", "R3", "2026-10-01", "2026-12-30", "www.example.net")
	many := made("leaf", "R3", "2026-10-01", "2026-12-30", "*.example.net", "example.net", "a.example.net", "b.example.net")
	many.IPAddresses = []net.IP{net.ParseIP("192.0.2.7")}
	nasty := made("leaf", "R3", "2026-10-01", "2026-12-30", "evil\"\n\x1b[31m.example")
	nameless := made("leaf", "R3", "2026-10-01", "2026-12-30")

	late := func(c *x509.Certificate) error { return x509.CertificateInvalidError{Cert: c, Reason: x509.Expired} }
	unknown := func(c *x509.Certificate) error { return x509.UnknownAuthorityError{Cert: c} }
	other := func(c *x509.Certificate) error { return x509.HostnameError{Certificate: c, Host: "sni.example.com"} }
	skewed := func(d time.Duration) diagnose.ConnectFacts { return diagnose.ConnectFacts{Now: today, Skew: &d} }
	const dayLong = 24 * time.Hour

	var cases []judged
	add := func(name string, err error, f diagnose.ConnectFacts, c diagnose.Cause, sure diagnose.Confidence, chain ...*x509.Certificate) {
		if f.Now.IsZero() {
			f.Now = today
		}
		v, _ := diagnose.Connect(wrapped(step(netdial.StepTLS, &netdial.CertificateError{Chain: chain, Err: err})), s, f)
		cases = append(cases, judged{"certificate: " + name, c, sure, v})
	}
	none := diagnose.ConnectFacts{}
	add("none", netdial.ErrNoCertificate, none, diagnose.TLSUnknownIssuer, certain)
	add("self-signed", unknown(self), none, diagnose.TLSUnknownIssuer, certain, self)
	add("private authority", unknown(good), none, diagnose.TLSUnknownIssuer, certain, good)
	add("authority sent but not trusted", unknown(letsEncrypt), none, diagnose.TLSUnknownIssuer, certain, letsEncrypt, intermediate)
	add("no roots on this system", x509.SystemRootsError{}, none, diagnose.TLSUnknownIssuer, certain, letsEncrypt, intermediate)
	add("intermediate missing", unknown(letsEncrypt), none, diagnose.TLSIncompleteChain, likely, letsEncrypt)
	add("intermediate missing, to be fetched", unknown(fetchable), none, diagnose.TLSIncompleteChain, likely, fetchable)
	add("intermediate missing, another sent", unknown(letsEncrypt), none, diagnose.TLSIncompleteChain, likely, letsEncrypt, self)
	add("intermediate expired", unknown(good), skewed(0), diagnose.TLSExpired, certain, good, oldIntermediate)
	add("expired", late(expired), skewed(time.Second), diagnose.TLSExpired, certain, expired)
	add("expired, no time from the server", late(expired), none, diagnose.TLSExpired, likely, expired)
	add("not yet valid, no time from the server", late(future), none, diagnose.TLSExpired, likely, future)
	add("not yet valid, the server's clock agrees", late(future), skewed(time.Second), diagnose.TLSExpired, certain, future)
	add("expired, our clock is a little off", late(expired), skewed(80*time.Second), diagnose.TLSExpired, certain, expired)
	add("expired, our clock is off but not so far", late(expired), skewed(time.Hour), diagnose.TLSExpired, certain, expired)
	add("looks expired, our clock is ahead", late(expired), skewed(90*dayLong), diagnose.VMessClockSkew, likely, expired)
	add("looks too new, our clock is behind", late(future), skewed(-200*dayLong), diagnose.VMessClockSkew, likely, future)
	add("other name", other(foreign), none, diagnose.TLSWrongName, certain, foreign)
	add("other names", other(many), none, diagnose.TLSWrongName, certain, many)
	add("other name, hostile", other(nasty), none, diagnose.TLSWrongName, certain, nasty)
	add("no name", other(nameless), none, diagnose.TLSWrongName, certain, nameless)
	add("pin", &netdial.PinError{}, none, diagnose.TLSPinMismatch, certain, self)
	add("constraint", x509.CertificateInvalidError{Cert: good, Reason: x509.NameConstraintsWithoutSANs}, none, diagnose.TLSUnknownIssuer, likely, good)
	return cases
}

// TestRealCertificates holds what crypto/x509 really says against the cases
// above, which are made up.
func TestRealCertificates(t *testing.T) {
	now := time.Now()
	root := issue(t, nil, "Root", now.Add(-time.Hour), now.Add(time.Hour), true)
	middle := issue(t, root, "Let's Encrypt Fake", now.Add(-time.Hour), now.Add(time.Hour), true)
	old := issue(t, root, "Old", now.Add(-2*time.Hour), now.Add(-time.Hour), true)
	leaf := issue(t, middle, "sni.example.com", now.Add(-time.Hour), now.Add(time.Hour), false)
	ofOld := issue(t, old, "sni.example.com", now.Add(-time.Hour), now.Add(time.Hour), false)
	expired := issue(t, middle, "sni.example.com", now.Add(-2*time.Hour), now.Add(-time.Hour), false)
	foreign := issue(t, middle, "www.example.net", now.Add(-time.Hour), now.Add(time.Hour), false)
	self := issue(t, nil, "sni.example.com", now.Add(-time.Hour), now.Add(time.Hour), false)
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	for _, c := range []struct {
		name  string
		chain []*signer
		want  diagnose.Cause
	}{
		{"self-signed", []*signer{self}, diagnose.TLSUnknownIssuer},
		{"no intermediate", []*signer{leaf}, diagnose.TLSIncompleteChain},
		{"old intermediate", []*signer{ofOld, old}, diagnose.TLSExpired},
		{"expired", []*signer{expired, middle}, diagnose.TLSExpired},
		{"expired without intermediate", []*signer{expired}, diagnose.TLSExpired},
		{"other name", []*signer{foreign, middle}, diagnose.TLSWrongName},
	} {
		chain, pool := []*x509.Certificate{}, x509.NewCertPool()
		for _, s := range c.chain {
			chain = append(chain, s.cert)
			pool.AddCert(s.cert)
		}
		_, err := chain[0].Verify(x509.VerifyOptions{DNSName: "sni.example.com", Roots: roots, Intermediates: pool, CurrentTime: now})
		v, _ := diagnose.Connect(step(netdial.StepTLS, &netdial.CertificateError{Chain: chain, Err: err}), fixture(t, 0, true), diagnose.ConnectFacts{Now: now})
		if v.Cause != c.want {
			t.Errorf("%s: got %s, want %s: %v", c.name, v.Cause, c.want, err)
		}
	}
}

type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func issue(t *testing.T, by *signer, name string, from, to time.Time, ca bool) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(from.UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: from, NotAfter: to, IsCA: ca, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if !ca {
		template.DNSNames = []string{name}
	}
	parent, parentKey := template, key
	if by != nil {
		parent, parentKey = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{cert, key}
}
