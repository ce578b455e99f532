package e2e

import (
	"io"
	"net"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// forcedWords are what V2Ray's own log says of a legacy client.
const forcedWords = "VMessAEAD is enforced and a non VMessAEAD connection is received"

// TestV2rayClientWithOurServer is the other direction: real V2Ray as the
// client of our server.
func TestV2rayClientWithOurServer(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t)
	legacyAllowed := func(s *config.Server) { s.AEADForced = false }
	for _, tt := range []struct {
		name      string
		client    v2rayClient
		server    func(*config.Server)
		serverEnv []string
		nginx     bool
		bulk      int64
	}{
		{name: "AEAD", bulk: large},
		{name: "MD5", client: v2rayClient{env: []string{legacyEnv}}, server: legacyAllowed, bulk: large},
		{
			name: "MD5 by the server's variable", client: v2rayClient{env: []string{legacyEnv}},
			serverEnv: []string{"V2RAY_VMESS_AEAD_FORCED=false"}, bulk: medium,
		},
		{
			name: "MD5 by the server's dotted variable", client: v2rayClient{env: []string{legacyEnv}},
			serverEnv: []string{"v2ray.vmess.aead.forced=false"}, bulk: medium,
		},
		{
			name: "alterId 4", client: v2rayClient{alterID: 4}, bulk: medium,
			server: func(s *config.Server) { s.AEADForced, s.Users[0].AlterID = false, 4 },
		},
		{name: "AEAD where MD5 is allowed", server: legacyAllowed, bulk: medium},
		{name: "aes-128-gcm", client: v2rayClient{security: "aes-128-gcm"}, bulk: medium},
		{name: "chacha20-poly1305", client: v2rayClient{security: "chacha20-poly1305"}, bulk: medium},
		{name: "none", client: v2rayClient{security: "none"}, bulk: medium},
		{name: "none, MD5", client: v2rayClient{security: "none", env: []string{legacyEnv}}, server: legacyAllowed, bulk: medium},
		{
			name: "chacha20-poly1305, MD5", client: v2rayClient{security: "chacha20-poly1305", env: []string{legacyEnv}},
			server: legacyAllowed, bulk: medium,
		},
		{
			name: "wss", client: v2rayClient{tls: certs}, bulk: large,
			server: func(s *config.Server) { s.TLS.CertFile, s.TLS.KeyFile = certs.certFile, certs.keyFile },
		},
		{name: "nginx with TLS in front", client: v2rayClient{tls: certs}, nginx: true, bulk: medium},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := serverConfig()
			if tt.server != nil {
				tt.server(cfg)
			}
			far := ourServer(t, cfg, tt.serverEnv...).addr
			if tt.nginx {
				far = startNginx(t, far, certs, 0).addr
			}
			exchanges(t, startV2rayClient(t, far, tt.client).addr, tt.bulk)
		})
	}
}

// TestLegacyRefusedWhereAEADIsForced shows both clients' legacy requests to a
// server that enforces AEAD. It also proves that what these clients send in
// the other tests is MD5 indeed.
func TestLegacyRefusedWhereAEADIsForced(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		near      func(t *testing.T, far string) *end
		server    func(*config.Server)
		serverEnv []string
	}{
		{"V2Ray by the variable", func(t *testing.T, far string) *end {
			return startV2rayClient(t, far, v2rayClient{env: []string{legacyEnv}})
		}, nil, nil},
		{"V2Ray with alterId 4", func(t *testing.T, far string) *end {
			return startV2rayClient(t, far, v2rayClient{alterID: 4})
		}, func(s *config.Server) { s.Users[0].AlterID = 4 }, nil},
		{"V2Ray, forced by the variable", func(t *testing.T, far string) *end {
			return startV2rayClient(t, far, v2rayClient{env: []string{legacyEnv}})
		}, func(s *config.Server) { s.AEADForced = false }, []string{"V2RAY_VMESS_AEAD_FORCED=true"}},
		{"ours by the variable", func(t *testing.T, far string) *end {
			return ourClient(t, clientConfig(remoteAt(t, far)), legacyEnv)
		}, nil, nil},
		{"ours by the dotted variable", func(t *testing.T, far string) *end {
			return ourClient(t, clientConfig(remoteAt(t, far)), "v2ray.vmess.aead.disabled=true")
		}, nil, nil},
		{"ours with alterId 4", func(t *testing.T, far string) *end {
			r := remoteAt(t, far)
			r.AlterID = 4
			cfg := clientConfig(r)
			cfg.Heal.AEAD = false // see TestRefusedAlterIDIsHealed
			return ourClient(t, cfg)
		}, func(s *config.Server) { s.Users[0].AlterID = 4 }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := serverConfig()
			if tt.server != nil {
				tt.server(cfg)
			}
			far := ourServer(t, cfg, tt.serverEnv...)
			near := tt.near(t, far.addr)
			reached := make(chan struct{}, 16)
			origin := serveOrigin(t, func(*net.TCPConn) { reached <- struct{}{} })
			c := mustDialVia(t, near.addr, origin)
			if _, err := io.WriteString(c, "hello\n"); err != nil {
				t.Fatal(err)
			}
			far.log.waitFor(t, forcedWords)
			// More than the server's secret number of bytes ends it.
			_, _ = c.Write(make([]byte, 8<<10))
			if got, err := io.ReadAll(c); len(got) > 0 {
				t.Errorf("got %q, %v from a server that refuses", got, err)
			}
			select {
			case <-reached:
				t.Error("a refused request reached its destination")
			default:
			}
		})
	}
}

// TestRefusedAlterIDIsHealed has an old configuration, alterId 4, for a server
// that accepts MD5 no more: the application gets through, and the user is told.
func TestRefusedAlterIDIsHealed(t *testing.T) {
	t.Parallel()
	cfg := serverConfig()
	cfg.Users[0].AlterID = 4
	far := ourServer(t, cfg)
	r := remoteAt(t, far.addr)
	r.AlterID = 4
	near := ourClient(t, clientConfig(r))
	origin := bulkOrigin(t)
	// What was sent before the refusal was known may be lost.
	for range 3 {
		if tryExchange(near.addr, origin, 1000, 1000) == nil {
			break
		}
	}
	far.log.waitFor(t, forcedWords)
	near.log.waitFor(t, "healed: vmess.aead-required: ")
	exchange(t, near.addr, origin, 1000, 1000)
}

// TestPrivateDestinationsRefused shows that a server as it is installed does
// not lead into its own machine: by address or by name.
func TestPrivateDestinationsRefused(t *testing.T) {
	t.Parallel()
	cfg := serverConfig()
	cfg.Egress.AllowPrivate = false
	near := ourClient(t, clientConfig(remoteAt(t, ourServer(t, cfg).addr)))
	reached := make(chan string, 16)
	origin := serveOrigin(t, func(c *net.TCPConn) { reached <- c.RemoteAddr().String() })
	_, port, err := net.SplitHostPort(origin)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "localhost", "127.1.2.3", "::ffff:127.0.0.1", "0.0.0.0", "::1"} {
		c := mustDialVia(t, near.addr, net.JoinHostPort(host, port))
		start := time.Now()
		_, _ = io.WriteString(c, "hello\n")
		got, _ := io.ReadAll(c)
		if took := time.Since(start); len(got) > 0 || took > 3*time.Second {
			t.Errorf("%s: got %q after %v, want nothing at once", host, got, took)
		}
	}
	select {
	case from := <-reached:
		t.Errorf("the origin was reached from %s", from)
	default:
	}
}
