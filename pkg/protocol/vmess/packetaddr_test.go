package vmess

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"testing"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

type packetAddrCase struct {
	ID, IP     string
	Port       uint16
	Data, Wire hexBytes
}

func packetAddrCases(t testing.TB) []packetAddrCase { return cases[packetAddrCase](t, "packetaddr", 4) }

func (c packetAddrCase) addr() netaddr.Addr { return netaddr.FromIP(netip.MustParseAddr(c.IP), c.Port) }

func TestVectorPacketAddr(t *testing.T) {
	for _, c := range packetAddrCases(t) {
		head, err := appendPacketAddr(nil, c.addr())
		if wire := append(head, c.Data...); err != nil || !bytes.Equal(wire, c.Wire) {
			t.Errorf("%s: wrote %x, %v", c.ID, wire, err)
		}
		a, payload, err := readPacketAddr(c.Wire)
		if err != nil || a != c.addr() || !bytes.Equal(payload, c.Data) {
			t.Errorf("%s: read %s, %x, %v", c.ID, a, payload, err)
		}
	}
}

// The vectors as datagrams on a whole connection, both ways.
func TestPacketAddrVectorsTravel(t *testing.T) {
	client, server := packetAddrs(t, gcm.client(testID))
	for _, c := range packetAddrCases(t) {
		for _, ends := range [][2]transport.PacketConn{{client, server}, {server, client}} {
			if err := ends[0].WritePacket(c.Data, c.addr()); err != nil {
				t.Fatalf("%s: %v", c.ID, err)
			}
			mustReadFrom(t, ends[1], c.Data, c.addr())
		}
	}
}

func FuzzPacketAddr(f *testing.F) {
	for _, c := range packetAddrCases(f) {
		f.Add([]byte(c.Wire))
		f.Add([]byte(c.Wire[:5]))
	}
	f.Add([]byte{})
	f.Add([]byte("\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x7f\x00\x00\x01\x00\x35mapped"))
	f.Add([]byte{3, 1, 'x', 0, 1})
	f.Fuzz(func(t *testing.T, p []byte) {
		a, payload, err := readPacketAddr(p)
		if err != nil {
			if a.IsValid() || payload != nil {
				t.Fatalf("%s, %x with %v", a, payload, err)
			}
			return
		}
		head, err := appendPacketAddr(nil, a)
		if err != nil {
			t.Fatalf("%s was read but cannot be written: %v", a, err)
		}
		if wire := append(head, payload...); !bytes.Equal(wire, p) && (len(p) != len(wire)+12 || !a.IP().Is4()) {
			t.Fatalf("%x was read, %x written", p, wire)
		}
	})
}

// packetAddrs makes both ends of a packetaddr association.
func packetAddrs(t testing.TB, c *Account) (client transport.PacketConn, server *PacketConn) {
	t.Helper()
	near, far := transporttest.Pipe(1 << 20)
	client, err := (&Dialer{Client: c, Endpoint: handOver(near)}).DialPacketAddr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := netaddr.FromIP(netip.MustParseAddr("192.0.2.1"), 1)
	if err := client.WritePacket([]byte("first"), first); err != nil {
		t.Fatal(err)
	}
	in, err := newTestServer(t, ServerConfig{}).Accept(t.Context(), far)
	if err != nil {
		t.Fatal(err)
	}
	if !in.AnyPeer() || in.Command != CommandUDP {
		t.Fatalf("accepted %+v", in)
	}
	server = in.Packets()
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	mustReadFrom(t, server, []byte("first"), first)
	return client, server
}

func mustReadFrom(t testing.TB, c transport.PacketConn, want []byte, addr netaddr.Addr) {
	t.Helper()
	p := make([]byte, transport.BufferSize)
	if n, from, err := c.ReadPacket(p); err != nil || from != addr || !bytes.Equal(p[:n], want) {
		t.Fatalf("read %d bytes from %s, %v; want %d from %s", n, from, err, len(want), addr)
	}
}

func TestPacketAddr(t *testing.T) {
	v4, v6 := netaddr.FromIP(netip.MustParseAddr("198.51.100.7"), 53), netaddr.FromIP(netip.MustParseAddr("2001:db8::7"), 65535)
	for _, st := range append(styles(), rawStyles()[:2]...) {
		t.Run(st.name, func(t *testing.T) {
			overhead := tagSize
			switch st.method.Security {
			case SecurityNone:
				overhead = 0
			case SecurityAESCFB:
				overhead = 4
			}
			if st.method.Option.has(OptionPadding) {
				overhead += maxPadding
			}
			client, server := packetAddrs(t, st.client(testID))
			for _, ends := range [][2]transport.PacketConn{{client, server}, {server, client}} {
				for _, to := range []netaddr.Addr{v4, v6} {
					head := 7
					if to == v6 {
						head = 19
					}
					largest := min(maxDatagram, 65535-overhead-head)
					for _, size := range []int{0, 1, 1900, largest} {
						p := pattern(size, uint64(size))
						if err := ends[0].WritePacket(p, to); err != nil {
							t.Fatalf("%d bytes: %v", size, err)
						}
						mustReadFrom(t, ends[1], p, to)
					}
					for _, size := range []int{largest + 1, 1 << 17} {
						err := ends[0].WritePacket(make([]byte, size), to)
						if !errors.Is(err, transport.ErrPacketTooLarge) || !errors.Is(err, ErrDatagramSize) || !transport.PacketLost(err) {
							t.Errorf("%d bytes: %v", size, err)
						}
					}
				}
			}
		})
	}
}

func TestPacketAddrNeedsAddresses(t *testing.T) {
	client, server := packetAddrs(t, gcm.client(testID))
	name, _ := netaddr.FromHost("game.example", 1)
	for _, to := range []netaddr.Addr{name, {}} {
		if err := client.WritePacket([]byte("x"), to); !errors.Is(err, transport.ErrPacketAddress) || !transport.PacketLost(err) {
			t.Errorf("to %q: %v", to, err)
		}
	}
	// The association goes on.
	to := netaddr.FromIP(netip.MustParseAddr("192.0.2.9"), 9)
	if err := client.WritePacket([]byte("next"), to); err != nil {
		t.Fatal(err)
	}
	mustReadFrom(t, server, []byte("next"), to)
}

// A datagram whose address is no address is lost alone.
func TestPacketAddrDamaged(t *testing.T) {
	client, server := packetAddrs(t, gcm.client(testID))
	plain := &PacketConn{conn: client.(*PacketConn).conn, peer: destination}
	for _, p := range []string{"\x01", "\x01\x7f\x00\x00\x01\x00", "\x03\x01x\x00\x35data", "\x02" + string(make([]byte, 17))} {
		if err := plain.WritePacket([]byte(p), netaddr.Addr{}); err != nil {
			t.Fatal(err)
		}
	}
	to := netaddr.FromIP(netip.MustParseAddr("192.0.2.9"), 9)
	if err := client.WritePacket([]byte("whole"), to); err != nil {
		t.Fatal(err)
	}
	mustReadFrom(t, server, []byte("whole"), to)
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := server.ReadPacket(make([]byte, 1)); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// What V2Ray would cut or drop is not sent to it.
func TestDatagramsKnowTheServer(t *testing.T) {
	c := NewAccount(AccountConfig{ID: testID, Method: Method{SecurityAESGCM, masked}})
	client, _ := packets(t, c, []byte("x"))
	for kind, most := range map[ServerKind]int{KindV2Ray: 1900, KindSingBox: 14900, KindNative: 65497} {
		c.kind.Store(uint32(kind))
		if kind.MaxDatagram() != most {
			t.Errorf("kind %d: %d bytes", kind, kind.MaxDatagram())
		}
		if err := client.WritePacket(make([]byte, most), netaddr.Addr{}); err != nil {
			t.Errorf("kind %d, %d bytes: %v", kind, most, err)
		}
		if err := client.WritePacket(make([]byte, most+1), netaddr.Addr{}); !errors.Is(err, transport.ErrPacketTooLarge) {
			t.Errorf("kind %d, %d bytes: %v", kind, most+1, err)
		}
	}
	if err := client.WritePacket(nil, netaddr.Addr{}); !errors.Is(err, ErrDatagramSize) || !transport.PacketLost(err) || errors.Is(err, transport.ErrPacketTooLarge) {
		t.Errorf("an empty one: %v", err)
	}
}

func TestPacketAddrAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	to := netaddr.FromIP(netip.MustParseAddr("2001:db8::9"), 9)
	c := &PacketConn{conn: loop(gcm.method, CommandUDP, false)}
	p := make([]byte, 1400)
	if n := testing.AllocsPerRun(100, func() {
		if err := c.WritePacket(p, to); err != nil {
			t.Fatal(err)
		}
		b, q, from, err := c.ReadPacketPooled()
		if len(q) != len(p) || from != to || err != nil {
			t.Fatal(len(q), from, err)
		}
		b.Release()
	}); n != 0 {
		t.Errorf("%v allocations a datagram", n)
	}
}

// An association that waits holds no buffer.
func TestPacketAddrIdleHoldsNothing(t *testing.T) {
	_, server := packetAddrs(t, gcm.client(testID))
	if server.conn.reader.in.buf != nil || server.conn.reader.rest != nil {
		t.Error("a buffer is held for nothing")
	}
}
