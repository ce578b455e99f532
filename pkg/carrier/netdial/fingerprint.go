package netdial

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	utls "github.com/refraction-networking/utls"
)

// ErrFingerprint is wrapped by [ParseFingerprint] for a name it does not know.
var ErrFingerprint = errors.New("unknown TLS fingerprint")

// A Fingerprint is the ClientHello that a client shows (RFC 8446 section
// 4.1.2), by which those on the way tell programs apart. The zero Fingerprint
// is that of Go. It holds what [ParseFingerprint] drew, so that all
// connections with it look like the same program. It may be copied and used
// concurrently.
type Fingerprint struct{ hello utls.ClientHelloID }

// ParseFingerprint returns the fingerprint of a name: "chrome", "firefox",
// "safari", "ios", "android" and "edge" are the newest that is known of each,
// "random" is one of these, "randomized" a hello of no program, both drawn
// anew at each call; "" is Go's own.
func ParseFingerprint(name string) (Fingerprint, error) {
	browsers := map[string]utls.ClientHelloID{
		"chrome":  utls.HelloChrome_Auto,
		"firefox": utls.HelloFirefox_Auto,
		"safari":  utls.HelloSafari_Auto,
		"ios":     utls.HelloIOS_Auto,
		"android": utls.HelloAndroid_11_OkHttp,
		"edge":    utls.HelloEdge_Auto,
	}
	switch name {
	case "":
		return Fingerprint{}, nil
	case "random":
		var all []utls.ClientHelloID
		for _, hello := range browsers {
			all = append(all, hello)
		}
		return Fingerprint{all[rand.IntN(len(all))]}, nil
	case "randomized":
		return newRandomized()
	}
	hello, ok := browsers[name]
	if !ok {
		return Fingerprint{}, fmt.Errorf("%w %q", ErrFingerprint, name)
	}
	return Fingerprint{hello}, nil
}

// newRandomized draws a hello that always has ALPN and TLS 1.3: there is
// hardly a program left without them.
func newRandomized() (Fingerprint, error) {
	seed, err := utls.NewPRNGSeed()
	if err != nil {
		return Fingerprint{}, fmt.Errorf("draw a TLS fingerprint: %w", err)
	}
	weights := utls.DefaultWeights
	weights.TLSVersMax_Set_VersionTLS13 = 1
	hello := utls.HelloRandomizedALPN
	hello.Seed, hello.Weights = seed, &weights
	return Fingerprint{hello}, nil
}

func (f Fingerprint) isGo() bool { return f.hello == utls.ClientHelloID{} }

// spec returns the hello for one connection, which keeps its keys in it.
func (f Fingerprint) spec() (*utls.ClientHelloSpec, error) {
	spec, err := utls.UTLSIdToSpec(f.hello)
	if err != nil {
		return nil, err
	}
	// A browser may still offer less than TLS 1.2, but here it is not accepted.
	spec.TLSVersMin, spec.TLSVersMax = tls.VersionTLS12, tls.VersionTLS12
	spec.Extensions = slices.DeleteFunc(spec.Extensions, isALPS)
	var (
		groups *utls.SupportedCurvesExtension
		shares *utls.KeyShareExtension
	)
	for _, extension := range spec.Extensions {
		switch e := extension.(type) {
		case *utls.ALPNExtension:
			e.AlpnProtocols = []string{alpn} // as browsers do for a WebSocket
		case *utls.RenegotiationInfoExtension:
			e.Renegotiation = utls.RenegotiateNever // it is sent all the same
		case *utls.SupportedVersionsExtension:
			if slices.Contains(e.Versions, tls.VersionTLS13) {
				spec.TLSVersMax = tls.VersionTLS13
			}
		case *utls.SupportedCurvesExtension:
			groups = e
		case *utls.KeyShareExtension:
			shares = e
		}
	}
	if groups != nil && shares != nil {
		agree(groups, shares)
	}
	return &spec, nil
}

// agree drops key shares of groups that are not offered (RFC 8446 section
// 4.2.8), and the hybrid group without one: it cannot be had later, by a
// HelloRetryRequest. What is drawn may have either.
func agree(groups *utls.SupportedCurvesExtension, shares *utls.KeyShareExtension) {
	shares.KeyShares = slices.DeleteFunc(shares.KeyShares, func(s utls.KeyShare) bool {
		return !slices.Contains(groups.Curves, s.Group)
	})
	groups.Curves = slices.DeleteFunc(groups.Curves, func(group utls.CurveID) bool {
		return group == utls.X25519MLKEM768 && !slices.ContainsFunc(shares.KeyShares, func(s utls.KeyShare) bool { return s.Group == group })
	})
}

// isALPS reports whether an extension holds settings for h2, which is not offered.
func isALPS(e utls.TLSExtension) bool {
	switch e.(type) {
	case *utls.ApplicationSettingsExtension, *utls.ApplicationSettingsExtensionNew:
		return true
	}
	return false
}

// browserSessions makes TLS connections that look like f's. They share the
// sessions to resume.
func browserSessions(f Fingerprint, name string, now func() time.Time, verify func([]*x509.Certificate) error) newSession {
	config := &utls.Config{
		ServerName:                  name,
		ClientSessionCache:          utls.NewLRUClientSessionCache(sessionsKept),
		Time:                        now,
		InsecureSkipVerify:          true,
		DynamicRecordSizingDisabled: true,
		VerifyConnection:            func(state utls.ConnectionState) error { return verify(state.PeerCertificates) },
		// Only TLS 1.2 is resumed, by hellos with room for a ticket. In TLS 1.3
		// that would save no round trip, and fail after a HelloRetryRequest.
		PreferSkipResumptionOnNilExtension: true,
	}
	return func(below net.Conn) session {
		conn := utls.UClient(below, config.Clone(), utls.HelloCustom) // which writes into it
		return browserConn{conn, f.applyHello(conn)}
	}
}

// applyHello gives conn the hello.
func (f Fingerprint) applyHello(conn *utls.UConn) error {
	spec, err := f.spec()
	if err == nil {
		err = conn.ApplyPreset(spec)
	}
	if err != nil {
		return fmt.Errorf("TLS fingerprint: %w", err)
	}
	return nil
}

// A browserConn is a connection that tells of itself in the types of crypto/tls.
type browserConn struct {
	*utls.UConn
	undressed error // why there is no hello
}

// HandshakeContext makes the handshake unless it was made.
func (c browserConn) HandshakeContext(ctx context.Context) error {
	if c.undressed != nil {
		return c.undressed
	}
	err := c.UConn.HandshakeContext(ctx)
	var record utls.RecordHeaderError
	if errors.As(err, &record) {
		return tls.RecordHeaderError{Msg: record.Msg, RecordHeader: record.RecordHeader, Conn: record.Conn}
	}
	return err
}

// ConnectionState has no TLSUnique and exports no key material.
func (c browserConn) ConnectionState() tls.ConnectionState {
	s := c.UConn.ConnectionState()
	return tls.ConnectionState{
		Version:                     s.Version,
		HandshakeComplete:           s.HandshakeComplete,
		DidResume:                   s.DidResume,
		CipherSuite:                 s.CipherSuite,
		NegotiatedProtocol:          s.NegotiatedProtocol,
		ServerName:                  s.ServerName,
		PeerCertificates:            s.PeerCertificates,
		SignedCertificateTimestamps: s.SignedCertificateTimestamps,
		OCSPResponse:                s.OCSPResponse,
	}
}
