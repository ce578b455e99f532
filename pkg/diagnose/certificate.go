package diagnose

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"vmess-local/pkg/carrier/netdial"
)

// certificate judges a certificate that was not accepted.
func certificate(e *netdial.CertificateError, s ServerContext, f ConnectFacts) Verdict {
	v := certificateVerdict(e, s, f)
	if len(e.Chain) > 0 {
		v.Evidence = append(v.Evidence, describe(e)...)
	}
	return v
}

func certificateVerdict(e *netdial.CertificateError, s ServerContext, f ConnectFacts) Verdict {
	var (
		pin     *netdial.PinError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		unknown x509.UnknownAuthorityError
		roots   x509.SystemRootsError
	)
	switch {
	case len(e.Chain) == 0:
		return Verdict{
			Cause: TLSUnknownIssuer, Confidence: Certain,
			Sentence: s.server() + " presented no certificate",
			Fix:      "check " + s.at("port") + ", and the certificate in the server's configuration",
		}
	case errors.As(e.Err, &pin):
		return Verdict{
			Cause: TLSPinMismatch, Confidence: Certain,
			Sentence: "the certificate of " + s.server() + " is not one of the pinned ones (valid from " + day(e.Chain[0].NotBefore) + ")",
			Fix:      "only if you renewed it: " + s.set("tls.pin", pinned(e)),
		}
	case errors.As(e.Err, &name):
		return wrongName(e, s)
	case errors.As(e.Err, &invalid) && invalid.Reason == x509.Expired:
		return outOfDate(invalid.Cert, "the certificate", s, f)
	case errors.As(e.Err, &roots):
		return Verdict{
			Cause: TLSUnknownIssuer, Confidence: Certain,
			Sentence: "this computer has no root certificates, so no certificate is trusted",
			Fix:      `install them (the package ca-certificates on Linux), or set "tls.caFile" to a CA file`,
		}
	case errors.As(e.Err, &unknown):
		if cert := outdatedIssuer(e.Chain, f.now()); cert != nil {
			return outOfDate(cert, "the intermediate certificate", s, f)
		}
		return unknownIssuer(e, s)
	}
	return Verdict{
		Cause: TLSUnknownIssuer, Confidence: Likely,
		Sentence: "the certificate of " + s.server() + " was rejected: " + clean(e.Err.Error(), 80),
		Fix:      "renew it on the server; if it is yours and correct: " + s.set("tls.pin", pinned(e)),
	}
}

// pinned is the value of tls.pin that accepts the certificate seen.
func pinned(e *netdial.CertificateError) string { return `["` + e.Fingerprint() + `"]` }

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func describe(e *netdial.CertificateError) []string {
	leaf := e.Chain[0]
	return []string{
		"certificate for " + listed(names(leaf), 10),
		"issued by " + issuer(leaf),
		"valid from " + leaf.NotBefore.UTC().Format(time.DateTime) + " to " + leaf.NotAfter.UTC().Format(time.DateTime) + " UTC",
		"SHA-256 " + e.Fingerprint(),
	}
}

// names are those that the certificate is for.
func names(cert *x509.Certificate) []string {
	var all []string
	for _, n := range cert.DNSNames {
		all = append(all, clean(n, 60))
	}
	for _, ip := range cert.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		all = append(all, "no name at all")
	}
	return all
}

func issuer(cert *x509.Certificate) string {
	name := strings.Join(cert.Issuer.Organization, " ")
	if cn := cert.Issuer.CommonName; cn != "" && !strings.Contains(name, cn) {
		name = strings.TrimSpace(name + " " + cn)
	}
	return strconv.Quote(clean(name, 50))
}

func wrongName(e *netdial.CertificateError, s ServerContext) Verdict {
	leaf := e.Chain[0]
	fix := s.at("tls.serverName") + " must be a name of the certificate; if this is your server: " + s.set("tls.pin", pinned(e))
	if len(leaf.DNSNames) == 1 && plainName(leaf.DNSNames[0]) {
		fix = "if this is your server: " + s.set("tls.serverName", strconv.Quote(leaf.DNSNames[0]))
	}
	return Verdict{
		Cause: TLSWrongName, Confidence: Certain,
		Sentence: fmt.Sprintf("the certificate of %s is for %s, not for %s", s.server(), listed(names(leaf), 2), s.ServerName),
		Fix:      fix,
	}
}

// plainName reports whether a certificate's name can be written to a file as
// it is: it is a stranger's text.
func plainName(name string) bool {
	return name != "" && len(name) <= 100 && !strings.ContainsFunc(name, func(r rune) bool {
		return r != '-' && r != '.' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// outOfDate judges dates. A certificate that would be valid at the server's
// time tells of a wrong clock.
func outOfDate(cert *x509.Certificate, what string, s ServerContext, f ConnectFacts) Verdict {
	now := f.now()
	early := now.Before(cert.NotBefore)
	when := "expired on " + day(cert.NotAfter)
	if early {
		when = "is not valid before " + day(cert.NotBefore)
	}
	if f.Skew != nil && f.Skew.Abs() > margin {
		if there := now.Add(-*f.Skew); !there.Before(cert.NotBefore) && !there.After(cert.NotAfter) {
			return Verdict{
				Cause: VMessClockSkew, Confidence: Likely,
				Sentence: "this computer's clock is " + ahead(*f.Skew) + ": according to it " + what + " " + when,
				Fix:      "set this computer's clock (turn on automatic time)",
			}
		}
	}
	v := Verdict{
		Cause: TLSExpired, Confidence: Certain,
		Sentence: fmt.Sprintf("%s of %s %s", what, s.server(), when),
		Fix:      "renew the certificate on the server and reload the web server",
	}
	if early {
		v.Fix = "wait until then, or install a certificate on the server that is valid now"
	}
	if f.Skew == nil {
		v.Confidence = Likely
		v.Sentence += ", and this computer's clock says " + day(now)
		v.Fix = "if that date is wrong, set this computer's clock; otherwise renew the certificate on the server"
		if early {
			v.Fix = "most likely this computer's clock is behind: set it (turn on automatic time); otherwise wait until then"
		}
	}
	return v
}

// outdatedIssuer finds a certificate behind the server's own that is out of
// date: x509 reports only that no way to a root was found.
func outdatedIssuer(chain []*x509.Certificate, now time.Time) *x509.Certificate {
	for _, cert := range chain[1:] {
		if isIssuer(cert, chain[0]) && (now.After(cert.NotAfter) || now.Before(cert.NotBefore)) {
			return cert
		}
	}
	return nil
}

func isIssuer(ca, cert *x509.Certificate) bool {
	return string(ca.RawSubject) == string(cert.RawIssuer)
}

func unknownIssuer(e *netdial.CertificateError, s ServerContext) Verdict {
	leaf := e.Chain[0]
	pin := "if this is your own server: " + s.set("tls.pin", pinned(e))
	switch {
	case isIssuer(leaf, leaf):
		return Verdict{
			Cause: TLSUnknownIssuer, Confidence: Certain,
			Sentence: "the certificate of " + s.server() + " is self-signed and not trusted",
			Fix:      pin,
		}
	case !issuerSent(e.Chain) && publicIssuer(leaf):
		return Verdict{
			Cause: TLSIncompleteChain, Confidence: Likely,
			Sentence: s.server() + " does not send the intermediate certificate " + issuer(leaf),
			Fix:      "configure the server to send the full chain (fullchain.pem, not cert.pem); until then " + s.set("tls.pin", pinned(e)),
		}
	}
	if publicIssuer(leaf) {
		pin = "update this computer's root certificates; " + pin
	}
	return Verdict{
		Cause: TLSUnknownIssuer, Confidence: Certain,
		Sentence: "the certificate of " + s.server() + " is issued by " + issuer(leaf) + ", which this computer does not trust",
		Fix:      pin + `, or set "tls.caFile" to the CA's file`,
	}
}

func issuerSent(chain []*x509.Certificate) bool {
	for _, cert := range chain[1:] {
		if isIssuer(cert, chain[0]) {
			return true
		}
	}
	return false
}

// publicIssuer reports whether a certificate looks like a public authority's:
// it tells where its issuer can be fetched, or the name is well known.
func publicIssuer(cert *x509.Certificate) bool {
	for _, at := range cert.IssuingCertificateURL {
		if host, _, _ := strings.Cut(strings.TrimPrefix(at, "http://"), "/"); strings.Contains(host, ".") && net.ParseIP(host) == nil {
			return true
		}
	}
	by := strings.ToLower(issuer(cert))
	for _, known := range [...]string{
		"let's encrypt", "zerossl", "sectigo", "comodo", "digicert", "geotrust", "rapidssl", "globalsign", "google trust services",
		"cloudflare", "amazon", "godaddy", "entrust", "buypass", "ssl.com", "trustasia", "certum", "microsoft azure", "actalis",
	} {
		if strings.Contains(by, known) {
			return true
		}
	}
	return false
}
