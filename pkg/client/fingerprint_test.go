package client

import (
	"errors"
	"testing"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/config"
)

// TestFingerprintOfEveryLook: a second look at a way that failed must not give
// away by its ClientHello what the first hid.
func TestFingerprintOfEveryLook(t *testing.T) {
	for _, name := range append(config.Fingerprints(), "") {
		cfg := config.DefaultClient()
		cfg.Server.Address, cfg.Server.Port, cfg.Server.TLS.Fingerprint = "192.0.2.1", 443, name
		for _, enabled := range []bool{true, false} {
			cfg.Server.TLS.Enabled = enabled
			w, err := newPath(cfg, &cfg.Server, Options{})
			if err != nil {
				t.Fatalf("%q: %v", name, err)
			}
			first, second := w.plain.Endpoint.(*netdial.Dialer).TLS, w.unverified.TLS
			if !enabled {
				first, second = w.other.TLS, w.other.TLS
			}
			if first.Fingerprint != second.Fingerprint || (first.Fingerprint == netdial.Fingerprint{}) != (name == "") {
				t.Errorf("%q: %v and then %v", name, first.Fingerprint, second.Fingerprint)
			}
		}
	}
	cfg := config.DefaultClient()
	cfg.Server.Address, cfg.Server.Port, cfg.Server.TLS.Fingerprint = "192.0.2.1", 443, "netscape"
	if _, err := newPath(cfg, &cfg.Server, Options{}); !errors.Is(err, netdial.ErrFingerprint) {
		t.Errorf("an unknown one: %v", err)
	}
}
