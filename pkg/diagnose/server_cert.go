package diagnose

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// renewBefore is how long before its end a certificate should be renewed:
// authorities' clients do it 30 days before.
const renewBefore = 14 * 24 * time.Hour

// An ServerCertificate is the one that a server is about to show.
type ServerCertificate struct {
	Chain []*x509.Certificate // as in the file; not empty
	Host  string              // the only name clients come by; "" is any
	Now   time.Time
	Roots *x509.CertPool // nil is the system's
	// CertKey and HostKey name the keys of the configuration, with their
	// places: `"tls.certFile" at server.json:4:21`.
	CertKey, HostKey string
}

// Check tells what clients will make of the certificate: a verdict where they
// will refuse it, else Pass or Warn and what they see.
func (c ServerCertificate) Check() (Status, string, Verdict) {
	if v := c.dates("the certificate", c.Chain[0]); !v.IsZero() {
		return Fail, "", v
	}
	if v := c.name(); !v.IsZero() {
		return Fail, "", v
	}
	advice, v := c.trust()
	if !v.IsZero() {
		return Fail, "", v
	}
	leaf, status := c.Chain[0], Pass
	seen := "for " + listed(names(leaf), 2) + ", valid until " + day(leaf.NotAfter)
	if left := leaf.NotAfter.Sub(c.Now); left < renewBefore {
		seen, status = seen+": renew it, it expires in "+spoken(left), Warn
	}
	if advice != "" {
		seen, status = seen+"; "+advice, Warn
	}
	return status, seen, Verdict{}
}

func (c ServerCertificate) dates(what string, cert *x509.Certificate) Verdict {
	v := Verdict{Cause: TLSExpired, Confidence: Certain, Fix: "renew it; the new one is loaded automatically, without a restart"}
	switch {
	case c.Now.After(cert.NotAfter):
		v.Sentence = fmt.Sprintf("%s expired on %s", what, day(cert.NotAfter))
	case c.Now.Before(cert.NotBefore):
		v.Sentence = fmt.Sprintf("%s is not valid before %s; this computer's clock says %s", what, day(cert.NotBefore), day(c.Now))
		v.Fix = "set this computer's clock if that is wrong; otherwise wait until then"
	default:
		return Verdict{}
	}
	return v
}

func (c ServerCertificate) name() Verdict {
	host := c.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	leaf := c.Chain[0]
	if host == "" || leaf.VerifyHostname(host) == nil {
		return Verdict{}
	}
	return Verdict{
		Cause: TLSWrongName, Confidence: Certain,
		Sentence: fmt.Sprintf("the certificate is for %s, not for %s, the only host that is accepted", listed(names(leaf), 3), host),
		Fix:      "set " + c.HostKey + " to a name of the certificate, or " + c.CertKey + " to a certificate for " + host,
	}
}

// trust says what clients need besides a system's root certificates, or why
// they cannot trust the chain.
func (c ServerCertificate) trust() (advice string, v Verdict) {
	leaf, between := c.Chain[0], x509.NewCertPool()
	for _, cert := range c.Chain[1:] {
		between.AddCert(cert)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Intermediates: between, Roots: c.Roots, CurrentTime: c.Now})
	var noRoots x509.SystemRootsError
	sum := sha256.Sum256(leaf.Raw)
	if cert := outdatedIssuer(c.Chain, c.Now); err != nil && cert != nil {
		return "", c.dates("the intermediate certificate of "+subject(cert), cert)
	}
	pin := `clients need "tls.pin": ["` + hex.EncodeToString(sum[:]) + `"]`
	switch {
	case err == nil:
		return "", Verdict{}
	case errors.As(err, &noRoots):
		return "this computer has no root certificates to verify it with", Verdict{}
	case isIssuer(leaf, leaf):
		return "self-signed: " + pin, Verdict{}
	case !issuerSent(c.Chain) && publicIssuer(leaf):
		return "", Verdict{
			Cause: TLSIncompleteChain, Confidence: Likely,
			Sentence: "the file does not contain the intermediate certificate " + issuer(leaf) + ": many clients will reject the certificate",
			Fix:      "set " + c.CertKey + " to the full chain (fullchain.pem, not cert.pem)",
		}
	}
	return "not issued by a CA that this computer trusts: " + pin, Verdict{}
}

// subject is what an authority's certificate is called.
func subject(cert *x509.Certificate) string {
	return strconv.Quote(clean(first(cert.Subject.CommonName, cert.Subject.String()), 50))
}
