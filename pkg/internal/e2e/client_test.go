package e2e

import (
	"sync"
	"testing"

	"vmess-local/pkg/config"
)

// large is the exchange of the main ways, medium that of the others.
const (
	large  = 64 << 20
	medium = 2 << 20
)

// exchanges runs exchanges of the sizes where chunks begin and end, and one of
// bulk bytes each way, by IP address and by name. They run beside each other,
// for V2Ray's client takes a second to end each.
func exchanges(t *testing.T, proxyAddr string, bulk int64) {
	t.Helper()
	origin := bulkOrigin(t)
	var all sync.WaitGroup
	for _, n := range []int64{1, 16<<10 - 1, 16 << 10, 16<<10 + 1} {
		all.Go(func() { exchange(t, proxyAddr, origin, n, n) })
	}
	all.Go(func() { exchange(t, proxyAddr, byName(origin), bulk, bulk) })
	all.Wait()
}

// TestOurClientWithV2rayServer is the main job: every way of authentication,
// every cipher and every carrier, against real V2Ray.
func TestOurClientWithV2rayServer(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t)
	security := func(name string) func(*config.Remote) {
		return func(r *config.Remote) { r.Security = name }
	}
	for _, tt := range []struct {
		name   string
		server v2rayServer
		nginx  bool
		client func(*config.Remote) // nil: plain ws, AEAD, security auto
		env    []string
		says   string // at the client's start
		bulk   int64
	}{
		{name: "AEAD", says: "using VMessAEAD authentication", bulk: large},
		{name: "MD5 by the variable", env: []string{legacyEnv}, says: "because V2RAY_VMESS_AEAD_DISABLED is true", bulk: large},
		{name: "MD5 by the dotted variable", env: []string{"v2ray.vmess.aead.disabled=true"}, says: "using legacy MD5 authentication", bulk: medium},
		{
			name: "alterId 4", server: v2rayServer{alterID: 4}, says: `because "alterId" is 4`,
			client: func(r *config.Remote) { r.AlterID = 4 }, bulk: medium,
		},
		{name: "AEAD with a server of alterId 4", server: v2rayServer{alterID: 4}, bulk: medium},
		{name: "aes-128-gcm", client: security("aes-128-gcm"), bulk: medium},
		{name: "chacha20-poly1305", client: security("chacha20-poly1305"), bulk: medium},
		{name: "none", client: security("none"), says: "nothing encrypts the traffic", bulk: medium},
		{name: "none, MD5", client: security("none"), env: []string{legacyEnv}, bulk: medium},
		{name: "chacha20-poly1305, MD5", client: security("chacha20-poly1305"), env: []string{legacyEnv}, bulk: medium},
		{name: "no padding", client: func(r *config.Remote) { r.GlobalPadding = false }, bulk: medium},
		{
			name: "wss by authority", server: v2rayServer{tls: certs}, bulk: large,
			client: func(r *config.Remote) { *r = overTLS(*r, certs) },
		},
		{
			name: "wss by pin", server: v2rayServer{tls: certs}, bulk: medium,
			client: func(r *config.Remote) { r.TLS.Enabled, r.TLS.Pin = true, []string{certs.pin} },
		},
		{
			name: "nginx with TLS in front", nginx: true, bulk: large,
			client: func(r *config.Remote) { *r = overTLS(*r, certs) },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			far := startV2rayServer(t, tt.server).addr
			if tt.nginx {
				far = startNginx(t, far, certs, 0).addr
			}
			r := remoteAt(t, far)
			if tt.client != nil {
				tt.client(&r)
			}
			near := ourClient(t, clientConfig(r), tt.env...)
			if !near.log.contains(tt.says) {
				t.Errorf("the client does not say %q at its start", tt.says)
			}
			exchanges(t, near.addr, tt.bulk)
		})
	}
}

// TestOurClientWithOurServer is about what V2Ray 4.34 does not know.
func TestOurClientWithOurServer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		client func(*config.Remote)
		bulk   int64
	}{
		{"AEAD", func(*config.Remote) {}, large},
		{"authenticated length, aes-128-gcm", func(r *config.Remote) {
			r.Security, r.AuthenticatedLength = "aes-128-gcm", true
		}, medium},
		{"authenticated length, chacha20-poly1305", func(r *config.Remote) {
			r.Security, r.AuthenticatedLength = "chacha20-poly1305", true
		}, medium},
		{"authenticated length without padding", func(r *config.Remote) {
			r.AuthenticatedLength, r.GlobalPadding = true, false
		}, medium},
		{"zero", func(r *config.Remote) { r.Security = "zero" }, medium},
		{"early data in the header", func(r *config.Remote) { r.WS.EarlyData = 2048 }, medium},
		{"early data in the path", func(r *config.Remote) {
			r.WS.EarlyData, r.WS.EarlyDataHeader = 2048, ""
		}, medium},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := remoteAt(t, ourServer(t, serverConfig()).addr)
			tt.client(&r)
			exchanges(t, ourClient(t, clientConfig(r)).addr, tt.bulk)
		})
	}
}

// TestEarlyDataTravels looks at the upgrade requests themselves: once the
// server is known to be well, the first bytes are in them.
func TestEarlyDataTravels(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, header, in string }{
		{"header", "Sec-WebSocket-Protocol", "\r\nSec-WebSocket-Protocol: [A-Za-z0-9_-]{150,}\r\n"},
		{"path", "", "^GET " + wsPath + "[A-Za-z0-9_-]{150,} HTTP/1.1\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tap := newTap(t, inProcessServer(t, serverConfig(), inProcess{}).addr)
			r := remoteAt(t, tap.addr)
			r.WS.EarlyData, r.WS.EarlyDataHeader = 2048, tt.header
			cfg := clientConfig(r)
			cfg.Warm.Max = 0 // a ready tunnel has its upgrade behind it, without early data
			near := inProcessClient(t, cfg)
			origin := bulkOrigin(t)
			// The application's first bytes must come within 5 ms of the
			// proxy's answer, which a loaded machine may need some tries for.
			for range 50 {
				exchange(t, near.addr, origin, 100, 100)
				if tap.saw(tt.in) {
					return
				}
			}
			t.Errorf("no upgrade request carried early data; the last one was\n%s", tap.last())
		})
	}
}
