package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// TestV2rayDatagramsThroughOurServer has real V2Ray send datagrams to our
// server, as requests of their own and as sessions of Mux.Cool.
func TestV2rayDatagramsThroughOurServer(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t)
	for _, tt := range []struct {
		name   string
		client v2rayClient
		server func(*config.Server)
		mux    int
	}{
		{name: "AEAD"},
		{name: "MD5", client: v2rayClient{env: []string{legacyEnv}}, server: func(s *config.Server) { s.AEADForced = false }},
		{name: "chacha20-poly1305", client: v2rayClient{security: "chacha20-poly1305"}},
		{name: "none", client: v2rayClient{security: "none"}},
		{name: "wss", client: v2rayClient{tls: certs}, server: func(s *config.Server) { s.TLS.CertFile, s.TLS.KeyFile = certs.certFile, certs.keyFile }},
		{name: "Mux", mux: 8},
		{name: "Mux, MD5", mux: 8, client: v2rayClient{env: []string{legacyEnv}}, server: func(s *config.Server) { s.AEADForced = false }},
		{name: "Mux, wss", mux: 8, client: v2rayClient{tls: certs}, server: func(s *config.Server) { s.TLS.CertFile, s.TLS.KeyFile = certs.certFile, certs.keyFile }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := serverConfig()
			if tt.server != nil {
				tt.server(cfg)
			}
			far := inProcessServer(t, cfg, inProcess{})
			tt.client.udp, tt.client.mux = true, tt.mux
			near := startV2rayClient(t, far.addr, tt.client)
			first, second := echoDatagrams(t), echoDatagrams(t)
			a := associate(t, near.addr)
			for _, to := range []netip.AddrPort{first, second} {
				for _, size := range []int{1, 64, 1400, 1900} {
					a.mustEcho(t, to, size)
				}
			}
			// Both tell how they went once they are over.
			near.proc.kill()
			way := "inbound=vmess"
			if tt.mux > 0 {
				way = "inbound=mux"
			}
			far.log.waitFor(t, way+" user=tester to="+first.String())
			far.log.waitFor(t, way+" user=tester to="+second.String())
		})
	}
}

// TestV2rayMuxThroughOurServer has real V2Ray put many connections into few
// tunnels: 200 of them, 64 MiB and datagrams beside.
func TestV2rayMuxThroughOurServer(t *testing.T) {
	t.Parallel()
	far := inProcessServer(t, serverConfig(), inProcess{})
	near := startV2rayClient(t, far.addr, v2rayClient{udp: true, mux: 8})
	origin, to := bulkOrigin(t), echoDatagrams(t)
	const connections = 200
	var all sync.WaitGroup
	start := make(chan struct{})
	errs := make(chan error, connections)
	for range connections {
		all.Go(func() {
			<-start
			errs <- tryExchange(near.addr, origin, 16<<10, 64<<20/connections)
		})
	}
	close(start)
	a := associate(t, near.addr)
	for range 20 {
		a.mustEcho(t, to, 1000)
	}
	all.Wait()
	for range connections {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	far.log.waitFor(t, "inbound=mux user=tester to="+origin)
	// And a long one, beside which a short one gets its turn.
	exchange(t, near.addr, origin, 8<<20, 32<<20)
}

// echoDatagrams is an origin that sends datagrams back to where they came from.
func echoDatagrams(t testing.TB) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	t.Cleanup(func() { _ = c.Close(); done.Wait() })
	done.Go(func() {
		p := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(p)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(p[:n], from)
		}
	})
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// An associated is an application with a SOCKS5 UDP association.
type associated struct {
	*net.UDPConn
	control net.Conn // what it ends with
	relay   netip.AddrPort
	serial  uint32
}

// associate asks a SOCKS5 proxy for an association (RFC 1928 section 7), which
// ends with the test.
func associate(t testing.TB, proxyAddr string) *associated {
	t.Helper()
	c, err := boundedDialer{}.Dial("tcp", proxyAddr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := c.Write([]byte{5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	var reply [2 + 10]byte
	if _, err := io.ReadFull(c, reply[:]); err != nil || reply[1] != 0 || reply[3] != 0 || reply[5] != 1 {
		t.Fatalf("the proxy answers % x, %v", reply, err)
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = udp.Close() })
	relay := netip.AddrPortFrom(netip.AddrFrom4([4]byte(reply[6:])), binary.BigEndian.Uint16(reply[10:]))
	return &associated{UDPConn: udp, control: c, relay: relay}
}

// send sends a datagram to an IPv4 address.
func (a *associated) send(to netip.AddrPort, data []byte) error {
	ip := to.Addr().As4()
	p := append([]byte{0, 0, 0, 1}, ip[:]...)
	p = append(binary.BigEndian.AppendUint16(p, to.Port()), data...)
	_, err := a.WriteToUDPAddrPort(p, a.relay)
	return err
}

// receive reads one datagram that came by way of an IPv4 address.
func (a *associated) receive(patience time.Duration) (netip.AddrPort, []byte, error) {
	_ = a.SetReadDeadline(time.Now().Add(patience))
	p := make([]byte, 1<<16)
	n, from, err := a.ReadFromUDPAddrPort(p)
	switch {
	case err != nil:
		return netip.AddrPort{}, nil, err
	case from != a.relay || n < 10 || !bytes.Equal(p[:4], []byte{0, 0, 0, 1}):
		return netip.AddrPort{}, nil, fmt.Errorf("% x… from %s", p[:min(n, 10)], from)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[4:])), binary.BigEndian.Uint16(p[8:])), p[10:n], nil
}

// mustEcho sends size bytes to an echo and has them back: datagrams may be
// lost, so it tries a few times.
func (a *associated) mustEcho(t testing.TB, to netip.AddrPort, size int) {
	t.Helper()
	a.serial++
	data := bytes.Repeat(binary.BigEndian.AppendUint32(nil, a.serial), size/4+1)[:size]
	var last error
	for range 5 {
		if err := a.send(to, data); err != nil {
			t.Fatal(err)
		}
		for last = nil; last == nil; {
			var from netip.AddrPort
			var got []byte
			if from, got, last = a.receive(3 * time.Second); last == nil && from == to && bytes.Equal(got, data) {
				return
			}
		}
		if !errors.Is(last, os.ErrDeadlineExceeded) {
			break
		}
	}
	t.Fatalf("%d bytes to %s did not come back: %v", size, to, last)
}
