package e2e

import (
	"bytes"
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// TestDatagramForms: each form by each cipher, by MD5 and over TLS.
func TestDatagramForms(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t)
	secure := func(s *config.Server) { s.TLS.CertFile, s.TLS.KeyFile = certs.certFile, certs.keyFile }
	cipher := func(name string) func(*config.Client) {
		return func(c *config.Client) { c.Server.Security = name }
	}
	for _, tt := range []struct {
		name   string
		server func(*config.Server)
		client func(*config.Client)
		env    []string
	}{
		{name: "aes-128-gcm", client: cipher("aes-128-gcm")},
		{name: "chacha20-poly1305", client: cipher("chacha20-poly1305")},
		{name: "none", client: cipher("none")},
		{name: "zero", client: cipher("zero")},
		{name: "MD5", server: func(s *config.Server) { s.AEADForced = false }, env: []string{legacyEnv}},
		{name: "wss", server: secure, client: func(c *config.Client) { c.Server = overTLS(c.Server, certs) }},
		{name: "Mux", client: func(c *config.Client) { c.Mux.Enabled = true }},
		{name: "early data", client: func(c *config.Client) { c.Server = withEarlyData(c.Server) }},
	} {
		for _, mode := range []string{"auto", "plain", "packetaddr", "xudp"} {
			t.Run(tt.name+", "+mode, func(t *testing.T) {
				t.Parallel()
				s := serverConfig()
				if tt.server != nil {
					tt.server(s)
				}
				cfg := clientConfig(remoteAt(t, inProcessServer(t, s, inProcess{}).addr))
				cfg.UDP.Mode = mode
				if tt.client != nil {
					tt.client(cfg)
				}
				near := inProcessClient(t, cfg, tt.env...)
				first, second := echoDatagrams(t), echoDatagrams(t)
				for range 2 { // cold, and with what was found out and ready tunnels
					a := associate(t, near.addr)
					a.echoBurst(t, 10, first, second)
					a.mustEcho(t, first, 1400)
				}
			})
		}
	}
}

// TestDatagramsToNames: names go to the server as they are, by whatever form.
func TestDatagramsToNames(t *testing.T) {
	t.Parallel()
	ours, v2ray := inProcessServer(t, serverConfig(), inProcess{}).addr, labV2ray(t).addr
	for _, tt := range []struct{ server, mode string }{
		{ours, "auto"}, {ours, "plain"}, {ours, "packetaddr"}, {ours, "xudp"}, {v2ray, "auto"}, {v2ray, "plain"},
	} {
		t.Run(map[string]string{ours: "ours", v2ray: "v2ray"}[tt.server]+", "+tt.mode, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labSetup{remote: remoteAt(t, tt.server), change: inMode(tt.mode)})
			to, a := echoDatagrams(t), associate(t, l.addr)
			const name = "localhost"
			p := append([]byte{0, 0, 0, 3, byte(len(name))}, name...)
			p = append(binary.BigEndian.AppendUint16(p, to.Port()), "hello"...)
			if _, err := a.WriteToUDPAddrPort(p, a.relay); err != nil {
				t.Fatal(err)
			}
			_ = a.SetReadDeadline(time.Now().Add(labPatience))
			got := make([]byte, 100)
			n, err := a.Read(got)
			if err != nil || !bytes.HasSuffix(got[:n], []byte("hello")) {
				t.Errorf("%q, %v", got[:n], err)
			}
			l.wantFailures(t, 0)
		})
	}
}

// TestLargestDatagrams: our own ends carry what UDP carries behind a SOCKS
// header. V2Ray takes 1,900 bytes: larger ones are dropped, and it is said once.
func TestLargestDatagrams(t *testing.T) {
	t.Parallel()
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, labSetup{remote: remoteAt(t, inProcessServer(t, serverConfig(), inProcess{}).addr), change: inMode("xudp")})
		a, to := associate(t, l.addr), echoDatagrams(t)
		a.mustEcho(t, to, 64)
		a.mustEcho(t, to, 65497)
		l.wantQuiet(t)
	})
	t.Run("v2ray", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, labSetup{remote: remoteAt(t, labV2ray(t).addr), change: inMode("plain")})
		a, to := associate(t, l.addr), echoDatagrams(t)
		a.mustEcho(t, to, 64) // the kind of server is known now
		for range 5 {
			if err := a.send(to, make([]byte, 1901)); err != nil {
				t.Fatal(err)
			}
		}
		a.mustEcho(t, to, 1900)
		l.text.waitFor(t, "datagram too large")
		if n := strings.Count(l.text.String(), "datagram too large"); n != 1 {
			t.Errorf("it is said %d times:\n%s", n, l.text)
		}
	})
}

// TestDatagramOrder: datagrams to one destination arrive in their order.
func TestDatagramOrder(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"plain", "packetaddr", "xudp"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labSetup{remote: remoteAt(t, inProcessServer(t, serverConfig(), inProcess{}).addr), change: inMode(mode)})
			a, sink := associate(t, l.addr), reflector(t)
			const burst = 50 // fits every queue
			for round := range 20 {
				for i := range burst {
					if err := a.send(addrPortOf(sink), binary.BigEndian.AppendUint32(nil, uint32(round*burst+i))); err != nil {
						t.Fatal(err)
					}
				}
				wantOrder(t, sink, round*burst, burst)
			}
		})
	}
}

// wantOrder reads so many numbers from the first on.
func wantOrder(t *testing.T, sink *net.UDPConn, first, count int) {
	t.Helper()
	_ = sink.SetReadDeadline(time.Now().Add(labPatience))
	p := make([]byte, 10)
	for i := range count {
		n, err := sink.Read(p)
		if err != nil || n != 4 || int(binary.BigEndian.Uint32(p)) != first+i {
			t.Fatalf("% x, %v; want number %d", p[:n], err, first+i)
		}
	}
}
