package e2e

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// TestDatagramsThroughV2ray sends datagrams through real V2Ray 4.34, which
// understands the plain form only: auto finds that out without losing any.
func TestDatagramsThroughV2ray(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t)
	for _, tt := range []struct {
		name   string
		server v2rayServer
		change func(*config.Client)
		env    []string
	}{
		{name: "auto", change: func(*config.Client) {}},
		{name: "plain", change: func(c *config.Client) { c.UDP.Mode = "plain" }},
		{name: "chacha20-poly1305", change: func(c *config.Client) { c.Server.Security = "chacha20-poly1305" }},
		{name: "none", change: func(c *config.Client) { c.Server.Security = "none" }},
		{name: "MD5", change: func(*config.Client) {}, env: []string{legacyEnv}},
		{name: "alterId", server: v2rayServer{alterID: 4}, change: func(c *config.Client) { c.Server.AlterID = 4 }},
		{name: "wss", server: v2rayServer{tls: certs}, change: func(c *config.Client) { c.Server = overTLS(c.Server, certs) }},
		{name: "Mux", change: func(c *config.Client) { c.Mux.Enabled, c.UDP.Mode = true, "plain" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			far := startV2rayServer(t, tt.server)
			cfg := clientConfig(remoteAt(t, far.addr))
			tt.change(cfg)
			near := inProcessClient(t, cfg, tt.env...)
			first, second := echoDatagrams(t), echoDatagrams(t)
			for range 2 { // the second association knows what the first found out
				a := associate(t, near.addr)
				for _, to := range []netip.AddrPort{first, second} {
					for _, size := range []int{1, 64, 1400, 1900} {
						a.mustEcho(t, to, size)
					}
				}
			}
		})
	}
}

// TestDatagramsThroughOurServer: every form, sizes up to what IP carries, names
// resolved by the server.
func TestDatagramsThroughOurServer(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"auto", "plain", "packetaddr", "xudp"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			far := inProcessServer(t, serverConfig(), inProcess{})
			cfg := clientConfig(remoteAt(t, far.addr))
			cfg.UDP.Mode = mode
			near := inProcessClient(t, cfg)
			exchange(t, near.addr, bulkOrigin(t), 100, 100) // now the kind of server is known
			to := echoDatagrams(t)
			a := associate(t, near.addr)
			for _, size := range []int{1, 64, 1400, 1900, 8 << 10, 60_000} {
				a.mustEcho(t, to, size)
			}
		})
	}
}

// TestFullCone: two destinations see one source; a third that was never
// written to can answer it; the client sees the true source of each datagram.
func TestFullCone(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"packetaddr", "xudp"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			far := inProcessServer(t, serverConfig(), inProcess{})
			cfg := clientConfig(remoteAt(t, far.addr))
			cfg.UDP.Mode = mode
			near := inProcessClient(t, cfg)
			a := associate(t, near.addr)
			one, two, three := reflector(t), reflector(t), reflector(t)
			seen := map[netip.AddrPort]bool{}
			for _, r := range []*net.UDPConn{one, two} {
				to := addrPortOf(r)
				if err := a.send(to, []byte("who am I")); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 100)
				_ = r.SetReadDeadline(time.Now().Add(5 * time.Second))
				n, from, err := r.ReadFromUDPAddrPort(buf)
				if err != nil || string(buf[:n]) != "who am I" {
					t.Fatalf("%q, %v", buf[:n], err)
				}
				seen[from] = true
			}
			if len(seen) != 1 {
				t.Fatalf("two destinations see %v", seen)
			}
			for mapped := range seen {
				if _, err := three.WriteToUDPAddrPort([]byte("a call"), mapped); err != nil {
					t.Fatal(err)
				}
			}
			from, data, err := a.receive(5 * time.Second)
			if err != nil || string(data) != "a call" || from != addrPortOf(three) {
				t.Errorf("%s from %v, want from %v; %v", data, from, addrPortOf(three), err)
			}
		})
	}
}

// reflector is a UDP socket on loopback.
func reflector(t testing.TB) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func addrPortOf(c *net.UDPConn) netip.AddrPort {
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// TestForeignDatagrams: another program can neither use nor read an
// association.
func TestForeignDatagrams(t *testing.T) {
	t.Parallel()
	far := inProcessServer(t, serverConfig(), inProcess{})
	near := inProcessClient(t, clientConfig(remoteAt(t, far.addr)))
	to := echoDatagrams(t)
	a := associate(t, near.addr)
	a.mustEcho(t, to, 64) // the port is bound now
	thief := reflector(t)
	victim := reflector(t)
	forged := append([]byte{0, 0, 0, 1, 127, 0, 0, 1}, binary.BigEndian.AppendUint16(nil, addrPortOf(victim).Port())...)
	if _, err := thief.WriteToUDPAddrPort(append(forged, "stolen"...), a.relay); err != nil {
		t.Fatal(err)
	}
	a.mustEcho(t, to, 100) // it would have overtaken this
	_ = victim.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, _, err := victim.ReadFromUDPAddrPort(make([]byte, 100)); err == nil {
		t.Errorf("a foreign datagram of %d bytes went through", n)
	}
	_ = thief.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, _, err := thief.ReadFromUDPAddrPort(make([]byte, 100)); err == nil {
		t.Errorf("a foreign program got %d bytes", n)
	}
}

// TestDatagramsFromAnotherAddress: a program that sends its datagrams from another
// address of this computer than it connects from is told why they are dropped, in
// one line.
func TestDatagramsFromAnotherAddress(t *testing.T) {
	t.Parallel()
	l := newLab(t, labSetup{remote: remoteAt(t, inProcessServer(t, serverConfig(), inProcess{}).addr)})
	a := associate(t, l.addr)
	elsewhere, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)})
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	to := echoDatagrams(t)
	for range 5 {
		datagram := append([]byte{0, 0, 0, 1, 127, 0, 0, 1}, binary.BigEndian.AppendUint16(nil, to.Port())...)
		if _, err := elsewhere.WriteToUDPAddrPort(append(datagram, "hello"...), a.relay); err != nil {
			t.Fatal(err)
		}
	}
	is := func(r record) bool { return r.Level == "WARN" && r.Msg == "UDP datagrams dropped" }
	l.await(t, "a warning", is)
	a.mustEcho(t, to, 64)
	count := 0
	for _, r := range l.records(t) {
		if is(r) {
			count++
		}
	}
	if text := l.text.String(); count != 1 || !strings.Contains(text, "from 127.0.0.2") || !strings.Contains(text, "the association is that of 127.0.0.1") {
		t.Errorf("%d lines:\n%s", count, text)
	}
}

// TestDNSQuery asks a test server on loopback, in a form that resolvers use.
func TestDNSQuery(t *testing.T) {
	t.Parallel()
	far := startV2rayServer(t, v2rayServer{})
	near := inProcessClient(t, clientConfig(remoteAt(t, far.addr)))
	server := reflector(t)
	go func() {
		buf := make([]byte, 512)
		for {
			_, from, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			// The same question, with an A record of 192.0.2.7.
			const question = len("\x04host\x07example\x00") + 4
			answer := append([]byte{buf[0], buf[1], 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0}, buf[12:12+question]...)
			answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7)
			_, _ = server.WriteToUDPAddrPort(answer, from)
		}
	}()
	a := associate(t, near.addr)
	resolver := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return shim{a, addrPortOf(server)}, nil
	}}
	addrs, err := resolver.LookupNetIP(t.Context(), "ip4", "host.example.")
	if err != nil || len(addrs) != 1 || addrs[0].Unmap().String() != "192.0.2.7" {
		t.Errorf("%v, %v", addrs, err)
	}
}

// TestMuxThroughV2ray puts 200 connections and 64 MiB into few tunnels to real
// V2Ray, with datagrams beside them.
func TestMuxThroughV2ray(t *testing.T) {
	t.Parallel()
	far := startV2rayServer(t, v2rayServer{})
	cfg := clientConfig(remoteAt(t, far.addr))
	cfg.Mux.Enabled = true
	near := inProcessClient(t, cfg)
	origin, to := bulkOrigin(t), echoDatagrams(t)
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			if err := tryExchange(near.addr, origin, 64<<10, 256<<10); err != nil {
				t.Error(err)
			}
		})
	}
	a := associate(t, near.addr)
	a.mustEcho(t, to, 1400)
	all.Wait()
}

// TestMuxForms: sessions by each authentication, cipher and carrier, to V2Ray
// and to our server, by a first tunnel and by ready ones.
func TestMuxForms(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t)
	cipher := func(name string) func(*config.Remote) {
		return func(r *config.Remote) { r.Security = name }
	}
	for _, tt := range []struct {
		name   string
		tls    *certificates
		client func(*config.Remote)
		env    []string
	}{
		{name: "aes-128-gcm", client: cipher("aes-128-gcm")},
		{name: "chacha20-poly1305", client: cipher("chacha20-poly1305")},
		{name: "none", client: cipher("none")},
		{name: "MD5", client: cipher("auto"), env: []string{legacyEnv}},
		{name: "wss", tls: certs, client: func(r *config.Remote) { *r = overTLS(*r, certs) }},
		{name: "wss, MD5", tls: certs, client: func(r *config.Remote) { *r = overTLS(*r, certs) }, env: []string{legacyEnv}},
	} {
		for name, serve := range map[string]func(t *testing.T) string{
			"v2ray": func(t *testing.T) string { return startV2rayServer(t, v2rayServer{tls: tt.tls}).addr },
			"ours": func(t *testing.T) string {
				s := serverConfig()
				s.AEADForced = false
				if tt.tls != nil {
					s.TLS.CertFile, s.TLS.KeyFile = tt.tls.certFile, tt.tls.keyFile
				}
				return inProcessServer(t, s, inProcess{}).addr
			},
		} {
			t.Run(tt.name+", "+name, func(t *testing.T) {
				t.Parallel()
				r := remoteAt(t, serve(t))
				tt.client(&r)
				cfg := clientConfig(r)
				cfg.Mux.Enabled = true
				near, origin := inProcessClient(t, cfg, tt.env...), bulkOrigin(t)
				for range 2 {
					var all sync.WaitGroup
					for range 6 {
						all.Go(func() { exchange(t, near.addr, origin, 100_000, 300_000) })
					}
					all.Wait()
				}
			})
		}
	}
}

// TestMuxThroughOurServer is the same with both ends ours: few tunnels carry many sessions.
func TestMuxThroughOurServer(t *testing.T) {
	t.Parallel()
	far := inProcessServer(t, serverConfig(), inProcess{})
	way := newRoad(t, far.addr, 0, 0)
	l := newLab(t, labSetup{remote: remoteAt(t, way.addr), change: func(c *config.Client) { c.Mux.Enabled = true }})
	origin := echoOrigin(t)
	var conns []*net.TCPConn
	for range 20 {
		c := mustDialVia(t, l.addr, origin)
		defer c.Close()
		mustEcho(t, c, "hello\n")
		conns = append(conns, c)
	}
	if tunnels, _ := way.counts(); tunnels > 4 {
		t.Errorf("20 sessions took %d tunnels", tunnels)
	}
	for _, c := range conns {
		mustEcho(t, c, strings.Repeat("x", 1000)+"\n")
	}
	l.wantQuiet(t)
}

// A shim is an association as the datagram connection of a resolver.
type shim struct {
	*associated
	to netip.AddrPort
}

// Write implements net.Conn.
func (s shim) Write(p []byte) (int, error) { return len(p), s.send(s.to, p) }

// Read implements net.Conn.
func (s shim) Read(p []byte) (int, error) {
	_, data, err := s.receive(5 * time.Second)
	return copy(p, data), err
}
