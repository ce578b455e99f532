package e2e

import (
	"testing"

	"vmess-local/pkg/config"
)

// TestFingerprints goes all the way with the ClientHello of every browser, to
// nginx and to our own server.
func TestFingerprints(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t)
	plain := inProcessServer(t, serverConfig(), inProcess{})
	secured := serverConfig()
	secured.TLS.CertFile, secured.TLS.KeyFile = certs.certFile, certs.keyFile
	for name, far := range map[string]string{
		"nginx": startNginx(t, plain.addr, certs, 0).addr,
		"ours":  inProcessServer(t, secured, inProcess{}).addr,
	} {
		for _, fingerprint := range config.Fingerprints() {
			t.Run(name+", "+fingerprint, func(t *testing.T) {
				r := overTLS(remoteAt(t, far), certs)
				r.TLS.Fingerprint = fingerprint
				exchanges(t, inProcessClient(t, clientConfig(r)).addr, medium)
			})
		}
	}
}
