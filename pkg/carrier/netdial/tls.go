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
	"sync/atomic"
	"time"

	"vmess-local/pkg/carrier/tlsconn"
	"vmess-local/pkg/transport"
)

const (
	// sessionsKept bounds the sessions that a Dialer keeps to resume: it knows
	// one server. A resumed session's certificate is checked like any other.
	sessionsKept = 4
	// alpn is the only protocol offered.
	alpn = "http/1.1"
)

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

	// AllowInsecure accepts any certificate if there are no pins.
	AllowInsecure bool

	// Fingerprint is the program that the ClientHello looks like; the zero
	// value is Go. Whatever it is, certificates are checked alike.
	Fingerprint Fingerprint

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

// A session is a TLS implementation's connection to the server.
type session interface {
	tlsconn.Secure
	ConnectionState() tls.ConnectionState
}

// newSession makes a session over a connection. It sends nothing yet.
type newSession func(below net.Conn) session

// secure performs the handshake over raw, which ctx ending closes.
func (d *Dialer) secure(ctx context.Context, raw net.Conn) (transport.StreamConn, error) {
	run := d.begin(StepTLS, d.Server.String(), false)
	over := d.tlsSessions()
	var secure session
	conn := tlsconn.New(streamOf(raw), func(below net.Conn) tlsconn.Secure {
		secure = over(below)
		return secure
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, run.end(ctx, exposeAlert(err))
	}
	state := secure.ConnectionState()
	run.facts.TLS = &state
	return conn, run.end(ctx, nil)
}

// tlsSessions returns what makes the sessions. They share a configuration and
// what is remembered of the server.
func (d *Dialer) tlsSessions() newSession {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sessions == nil {
		d.sessions = d.TLS.sessions(d.Server.Host())
	}
	return d.sessions
}

// sessions chooses the TLS implementation. The checks of both are turned off
// and done here: only so the certificates of a failed check can be told, and
// pins replace the chain.
func (t *TLS) sessions(host string) newSession {
	name := t.ServerName
	if name == "" {
		name = host
	}
	known := new(atomic.Pointer[verified])
	verify := func(chain []*x509.Certificate) error { return t.verify(name, chain, known) }
	if t.Fingerprint.isGo() {
		return goSessions(name, t.now, verify)
	}
	return browserSessions(t.Fingerprint, name, t.now, verify)
}

// goSessions makes connections of crypto/tls. A server that has just shown that
// it exchanges no post-quantum keys is not offered any for a while: they are
// most of the hello's length and of what it costs to make. That what it chose
// was its own choice is part of what the handshake authenticates.
func goSessions(name string, now func() time.Time, verify func([]*x509.Certificate) error) newSession {
	var classicUntil atomic.Int64 // Unix nanoseconds
	classic := &tls.Config{
		ServerName:         name,
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{alpn},
		ClientSessionCache: tls.NewLRUClientSessionCache(sessionsKept),
		Time:               now,
		InsecureSkipVerify: true,
		CurvePreferences:   []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521},
		// Full records from the start: many small ones cost more than they gain.
		DynamicRecordSizingDisabled: true,
		VerifyConnection:            func(state tls.ConnectionState) error { return verify(state.PeerCertificates) },
	}
	full := classic.Clone()
	full.CurvePreferences = nil // crypto/tls's own
	full.VerifyConnection = func(state tls.ConnectionState) error {
		err := verify(state.PeerCertificates)
		if err == nil && state.Version >= tls.VersionTLS13 && slices.Contains(classic.CurvePreferences, state.CurveID) {
			classicUntil.Store(now().Add(verifiedFor).UnixNano())
		}
		return err
	}
	return func(below net.Conn) session {
		if now().UnixNano() < classicUntil.Load() {
			return tls.Client(below, classic)
		}
		return tls.Client(below, full)
	}
}

func (t *TLS) now() time.Time {
	if t.Now != nil {
		return t.Now()
	}
	return time.Now()
}

// verify checks the server's certificates, its own first. It depends on no
// particular TLS implementation. known is what it remembers for that name.
func (t *TLS) verify(name string, chain []*x509.Certificate, known *atomic.Pointer[verified]) error {
	var err error
	switch {
	case t.AllowInsecure && len(t.Pins) == 0:
		return nil
	case len(chain) == 0:
		err = ErrNoCertificate
	case len(t.Pins) > 0:
		err = t.verifyPin(chain[0])
	default:
		err = t.verifyChain(name, chain, known)
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

// verifyChain checks that an authority vouches for the server's certificate.
// The signatures may cost as much as the rest of a handshake, so they are not
// checked again for a certificate that was found good a moment ago.
func (t *TLS) verifyChain(name string, chain []*x509.Certificate, known *atomic.Pointer[verified]) error {
	now := t.now()
	if known.Load().covers(chain[0], now) {
		return nil
	}
	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	good, err := chain[0].Verify(x509.VerifyOptions{
		DNSName:       name,
		Roots:         t.RootCAs,
		Intermediates: intermediates,
		CurrentTime:   now,
	})
	if err == nil {
		known.Store(newVerified(good[0], now))
	}
	return err
}

// verifiedFor is how long a certificate that was found good counts as such.
// crypto/tls trusts in the same way for as long as it resumes sessions.
const verifiedFor = 10 * time.Minute

// A verified is a server's certificate that was found good for one name.
type verified struct {
	leaf        *x509.Certificate
	from, until time.Time // when all of its chain is valid, and the check fresh
}

// newVerified remembers a chain that was found good at now.
func newVerified(chain []*x509.Certificate, now time.Time) *verified {
	v := &verified{leaf: chain[0], from: now, until: now.Add(verifiedFor)}
	for _, cert := range chain {
		if cert.NotAfter.Before(v.until) {
			v.until = cert.NotAfter
		}
	}
	return v
}

// covers reports whether leaf is known to be good at a time.
func (v *verified) covers(leaf *x509.Certificate, at time.Time) bool {
	return v != nil && leaf.Equal(v.leaf) && !at.Before(v.from) && !at.After(v.until)
}

// AlertOf returns the alert that the server ended a TLS connection with, and
// whether there was one. It may come after the handshake: TLS 1.3 servers look
// at a client's certificate only then.
func AlertOf(err error) (alert tls.AlertError, ok bool) {
	if errors.As(err, &alert) {
		return alert, true
	}
	// TLS implementations report it in a type of their own.
	var remote *net.OpError
	if !errors.As(err, &remote) || remote.Op != "remote error" {
		return 0, false
	}
	code := reflect.ValueOf(remote.Err)
	if code.Kind() != reflect.Uint8 {
		return 0, false
	}
	return tls.AlertError(code.Uint()), true
}

// exposeAlert gives the alert that the server refused the handshake with the
// public type.
func exposeAlert(err error) error {
	if alert, ok := AlertOf(err); ok {
		return fmt.Errorf("the server's alert: %w", alert)
	}
	return err
}
