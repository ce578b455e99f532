package netdial

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"slices"
	"time"

	"vmess-local/pkg/transport"
)

// sessionsKept bounds a Dialer's own session cache: it knows one server.
const sessionsKept = 4

// ErrNoCertificate is returned by [LoadCAFile] for a file without certificates,
// and wrapped by a [*CertificateError] without chain.
var ErrNoCertificate = errors.New("no certificate")

// TLS says how TLS is spoken with the server: TLS 1.2 or later, ALPN http/1.1
// only (an h2 choice would break the WebSocket upgrade).
type TLS struct {
	// ServerName is sent (SNI) and checked; empty is the server's host. An IP
	// address is checked against the certificate's IP addresses and not sent.
	ServerName string

	// Pins are SHA-256 sums of certificates in DER. When there are any, the
	// server's own certificate must be one of them, in place of the chain,
	// name and date checks.
	Pins [][sha256.Size]byte

	// RootCAs are the only authorities trusted; nil are those of the system.
	RootCAs *x509.CertPool

	// AllowInsecure accepts any certificate, whatever the pins.
	AllowInsecure bool

	// SessionCache keeps sessions to resume; nil is one of the Dialer's own.
	// A resumed session's certificate is checked like any other.
	SessionCache tls.ClientSessionCache

	// Now is the time that certificates must be valid at; nil is time.Now.
	Now func() time.Time
}

// A CertificateError tells that the server's certificate was not accepted. Err
// is an error of crypto/x509 or a [*PinError].
type CertificateError struct {
	Chain []*x509.Certificate // as sent, the server's own first
	Err   error
}

// Error returns the reason.
func (e *CertificateError) Error() string { return "certificate: " + e.Err.Error() }

// Unwrap returns the reason.
func (e *CertificateError) Unwrap() error { return e.Err }

// Fingerprint returns the SHA-256 of the server's own certificate in hex, as a
// pin is written; "" without certificate.
func (e *CertificateError) Fingerprint() string {
	if len(e.Chain) == 0 {
		return ""
	}
	sum := sha256.Sum256(e.Chain[0].Raw)
	return hex.EncodeToString(sum[:])
}

// A PinError tells that the server's certificate is none of those pinned.
type PinError struct {
	Seen [sha256.Size]byte // SHA-256 of the certificate it has
}

// Error names the certificate seen.
func (e *PinError) Error() string {
	return "its SHA-256 is none of the pins but " + hex.EncodeToString(e.Seen[:])
}

// LoadCAFile reads a PEM file of authorities to trust in place of the system's.
func LoadCAFile(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the CA file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read the CA file %s: %w in PEM form", path, ErrNoCertificate)
	}
	return pool, nil
}

// secure performs the handshake over raw, which ctx ending closes.
func (d *Dialer) secure(ctx context.Context, raw net.Conn) (transport.StreamConn, error) {
	run := d.begin(StepTLS, d.Server.String(), false)
	name := d.TLS.ServerName
	if name == "" {
		name = d.Server.Host()
	}
	conn := tls.Client(raw, d.TLS.config(name, d.sessionCache()))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, run.end(ctx, exposeAlert(err))
	}
	state := conn.ConnectionState()
	run.facts.TLS = &state
	return &tlsStream{secureConn: conn, raw: raw}, run.end(ctx, nil)
}

// config turns off the checks of crypto/tls and does them itself: only so the
// certificates of a failed check can be told, and pins replace the chain.
func (t *TLS) config(name string, sessions tls.ClientSessionCache) *tls.Config {
	return &tls.Config{
		ServerName:         name,
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: sessions,
		Time:               t.now,
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return t.verify(name, state.PeerCertificates)
		},
	}
}

func (t *TLS) now() time.Time {
	if t.Now != nil {
		return t.Now()
	}
	return time.Now()
}

// verify checks the server's certificates, its own first. It depends on no
// particular TLS implementation.
func (t *TLS) verify(name string, chain []*x509.Certificate) error {
	var err error
	switch {
	case t.AllowInsecure:
		return nil
	case len(chain) == 0:
		err = ErrNoCertificate
	case len(t.Pins) > 0:
		err = t.verifyPin(chain[0])
	default:
		err = t.verifyChain(name, chain)
	}
	if err != nil {
		return &CertificateError{Chain: chain, Err: err}
	}
	return nil
}

func (t *TLS) verifyPin(leaf *x509.Certificate) error {
	seen := sha256.Sum256(leaf.Raw)
	if slices.Contains(t.Pins, seen) {
		return nil
	}
	return &PinError{Seen: seen}
}

func (t *TLS) verifyChain(name string, chain []*x509.Certificate) error {
	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName:       name,
		Roots:         t.RootCAs,
		Intermediates: intermediates,
		CurrentTime:   t.now(),
	})
	return err
}

// exposeAlert gives the alert that the server refused the handshake with the
// public type tls.AlertError: crypto/tls reports it in a type of its own.
func exposeAlert(err error) error {
	var remote *net.OpError
	if !errors.As(err, &remote) || remote.Op != "remote error" {
		return err
	}
	if code := reflect.ValueOf(remote.Err); code.Kind() == reflect.Uint8 {
		return fmt.Errorf("the server's alert: %w", tls.AlertError(code.Uint()))
	}
	return err
}
