package netdial_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/transporttest"
)

// fingerprints are all names but Go's own, "".
var fingerprints = []string{"chrome", "firefox", "safari", "ios", "android", "edge", "random", "randomized"}

func fingerprint(t testing.TB, name string) netdial.Fingerprint {
	t.Helper()
	f, err := netdial.ParseFingerprint(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// eachFingerprint runs f for every name, and for Go's own.
func eachFingerprint(t *testing.T, f func(t *testing.T, look netdial.Fingerprint)) {
	for _, name := range append([]string{""}, fingerprints...) {
		t.Run("fingerprint "+name, func(t *testing.T) { f(t, fingerprint(t, name)) })
	}
}

// eachTLS runs f for every name but "random", which is one of the others, with
// servers of either version.
func eachTLS(t *testing.T, f func(t *testing.T, look string, version uint16)) {
	for _, name := range append([]string{""}, fingerprints...) {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			if name != "random" {
				t.Run("fingerprint "+name+", "+tls.VersionName(version), func(t *testing.T) { f(t, name, version) })
			}
		}
	}
}

func TestParseFingerprint(t *testing.T) {
	if fingerprint(t, "") != (netdial.Fingerprint{}) {
		t.Error("no name is not Go's own")
	}
	for _, name := range []string{"Chrome", "netscape", " "} {
		if _, err := netdial.ParseFingerprint(name); !errors.Is(err, netdial.ErrFingerprint) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A clientHello is one as it was sent (RFC 8446 section 4.1.2).
type clientHello struct {
	version           uint16
	ciphers           []uint16
	extensions        []uint16 // in their order
	bodies            map[uint16][]byte
	sessionID, random []byte
}

// reader takes a message apart.
type reader []byte

func (r *reader) next(n int) []byte {
	b := (*r)[:n]
	*r = (*r)[n:]
	return b
}

func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.next(2)) }

func (r *reader) uint16s() (all []uint16) {
	for list := reader(r.next(int(r.uint16()))); len(list) > 0; {
		all = append(all, list.uint16())
	}
	return all
}

func parseHello(record []byte) clientHello {
	r := reader(record[5+4:]) // the headers of the record and of the message
	h := clientHello{version: r.uint16(), random: r.next(32), bodies: map[uint16][]byte{}}
	h.sessionID = r.next(int(r.next(1)[0]))
	h.ciphers = r.uint16s()
	r.next(int(r.next(1)[0])) // compression
	for list := reader(r.next(int(r.uint16()))); len(list) > 0; {
		id := list.uint16()
		h.extensions = append(h.extensions, id)
		h.bodies[id] = list.next(int(list.uint16()))
	}
	return h
}

// IANA's numbers of extensions.
const (
	extServerName        = 0
	extALPN              = 16
	extCompress          = 27
	extRecordSizeLimit   = 28
	extPSK               = 41
	extSupportedVersions = 43
	extKeyShare          = 51
	extECH               = 0xfe0d
)

func isGREASE(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff } // RFC 8701

func plain(all []uint16) []uint16 {
	return slices.DeleteFunc(slices.Clone(all), isGREASE)
}

// helloOf returns what a dialer sends first.
func helloOf(t *testing.T, server, name string, look netdial.Fingerprint) clientHello {
	t.Helper()
	sent := make(chan []byte, 1)
	far := serve(t, func(c net.Conn) {
		record := make([]byte, 5)
		_, _ = io.ReadFull(c, record)
		body := make([]byte, binary.BigEndian.Uint16(record[3:]))
		_, _ = io.ReadFull(c, body)
		sent <- append(record, body...)
	})
	d := &netdial.Dialer{Server: addr(t, server), TLS: &netdial.TLS{ServerName: name, Fingerprint: look}, Resolver: answers("192.0.2.1")}
	d.DialTCP = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, far.String())
	}
	failed(t, t.Context(), d, netdial.StepTLS)
	return parseHello(<-sent)
}

// TestFingerprints looks at the bytes sent for the marks by which a browser is
// told from others.
func TestFingerprints(t *testing.T) {
	goHello := helloOf(t, "server.example:443", "", netdial.Fingerprint{})
	chromium := []uint16{0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x9c, 0x9d, 0x2f, 0x35}
	apple := []uint16{0x1301, 0x1302, 0x1303, 0xc02c, 0xc02b, 0xcca9, 0xc030, 0xc02f, 0xcca8}
	for _, c := range []struct {
		name     string
		grease   bool
		ciphers  []uint16 // how the list begins, without GREASE
		has      []uint16
		shuffled bool // the extensions come in another order each time
	}{
		{"chrome", true, chromium, []uint16{extALPN, extCompress, extECH, extKeyShare}, true},
		{"edge", true, chromium, []uint16{extALPN, extCompress, extKeyShare}, false},
		{"firefox", false, []uint16{0x1301, 0x1303, 0x1302, 0xc02b, 0xc02f, 0xcca9, 0xcca8}, []uint16{extALPN, extRecordSizeLimit, extECH}, false},
		{"safari", true, apple, []uint16{extALPN, extCompress}, false},
		{"ios", true, apple, []uint16{extALPN}, false},
		{"android", false, []uint16{0xc02b, 0xc02c, 0xcca9, 0xc02f, 0xc030, 0xcca8}, nil, false},
		{"random", false, nil, nil, true},
		{"randomized", false, nil, []uint16{extALPN, extSupportedVersions}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			look := fingerprint(t, c.name)
			h := helloOf(t, "server.example:443", "front.example", look)
			if slices.Equal(h.ciphers, goHello.ciphers) || slices.Equal(h.extensions, goHello.extensions) {
				t.Error("it looks like Go")
			}
			if h.version != tls.VersionTLS12 || len(h.sessionID) != 32 {
				t.Errorf("version %x, session id of %d bytes", h.version, len(h.sessionID))
			}
			if name := h.bodies[extServerName]; string(name[5:]) != "front.example" {
				t.Errorf("server name %q", name)
			}
			if alpn, ok := h.bodies[extALPN]; ok && string(alpn) != "\x00\x09\x08http/1.1" {
				t.Errorf("ALPN %q", alpn)
			}
			for _, id := range []uint16{17513, 17613} {
				if slices.Contains(h.extensions, id) {
					t.Errorf("settings for h2 are sent: %d", id)
				}
			}
			if slices.Contains(h.extensions, extPSK) {
				t.Error("a session is resumed that never was")
			}
			for _, id := range c.has {
				if !slices.Contains(h.extensions, id) {
					t.Errorf("extension %d is not there: %v", id, h.extensions)
				}
			}
			if c.ciphers != nil {
				if got := plain(h.ciphers); len(got) < len(c.ciphers) || !slices.Equal(got[:len(c.ciphers)], c.ciphers) {
					t.Errorf("cipher suites %x", got)
				}
				if isGREASE(h.ciphers[0]) != c.grease || isGREASE(h.extensions[0]) != c.grease {
					t.Errorf("GREASE: %x, %x", h.ciphers[0], h.extensions[0])
				}
			}

			again := helloOf(t, "server.example:443", "front.example", look)
			if bytes.Equal(again.random, h.random) {
				t.Error("the random is the same")
			}
			if !slices.Equal(plain(again.ciphers), plain(h.ciphers)) {
				t.Error("the cipher suites change from one connection to the next")
			}
			if !c.shuffled && !slices.Equal(plain(again.extensions), plain(h.extensions)) {
				t.Error("the extensions change from one connection to the next")
			}
			if ip := helloOf(t, "192.0.2.1:443", "", look); ip.bodies[extServerName] != nil {
				t.Errorf("an address is sent as the server's name: %q", ip.bodies[extServerName])
			}
		})
	}
}

func TestRandomizedIsDrawnAnew(t *testing.T) {
	var seen [][]uint16
	for range 8 {
		h := helloOf(t, "server.example:443", "", fingerprint(t, "randomized"))
		seen = append(seen, append(slices.Clone(h.ciphers), h.extensions...))
	}
	if !slices.ContainsFunc(seen, func(h []uint16) bool { return !slices.Equal(h, seen[0]) }) {
		t.Error("eight times the same")
	}
}

// TestOldTLSRefused answers with a version that some hellos still offer.
func TestOldTLSRefused(t *testing.T) {
	self := issue(t, nil, false, "server.example")
	eachFingerprint(t, func(t *testing.T, look netdial.Fingerprint) {
		config := self.presents()
		config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		failed(t, t.Context(), &netdial.Dialer{
			Server: serveTLS(t, config), TLS: &netdial.TLS{AllowInsecure: true, Fingerprint: look},
		}, netdial.StepTLS)
	})
}

// TestRetriedHello asks for a hello with another key share, also of a client
// that was there before and has a ticket.
func TestRetriedHello(t *testing.T) {
	self := issue(t, nil, false, "server.example")
	eachFingerprint(t, func(t *testing.T, look netdial.Fingerprint) {
		config := self.presents()
		config.CurvePreferences = []tls.CurveID{tls.CurveP384}
		server := serve(t, func(c net.Conn) {
			s := tls.Server(c, config)
			_, _ = io.WriteString(s, "x")
			drain(s)
		})
		d := &netdial.Dialer{Server: server, TLS: &netdial.TLS{Pins: [][32]byte{self.pin()}, Fingerprint: look}}
		for i := range 3 {
			conn, err := d.ConnectStream(t.Context(), nil)
			if err != nil {
				t.Fatalf("dial %d: %v", i+1, err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
		}
	})
}

// TestFingerprintStream holds the other TLS implementation to the contract of
// streams, with either version.
func TestFingerprintStream(t *testing.T) {
	self := issue(t, nil, false, "server.example")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := self.presents()
		config.MaxVersion = version
		transporttest.TestStream(t, func(t *testing.T) (a, b transport.StreamConn) {
			far := make(chan *tls.Conn, 1)
			server := serve(t, func(c net.Conn) {
				s := tls.Server(c, config)
				if err := s.Handshake(); err != nil {
					t.Errorf("the server's handshake: %v", err)
				}
				far <- s
				<-t.Context().Done()
			})
			d := &netdial.Dialer{Server: server, TLS: &netdial.TLS{Pins: [][32]byte{self.pin()}, Fingerprint: fingerprint(t, "chrome")}}
			conn, err := d.ConnectStream(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			return conn, <-far
		})
	}
}
