package vmess

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

// packets makes both ends of a request for datagrams, of which the first has
// been sent.
func packets(t testing.TB, c *Account, first []byte) (client transport.PacketConn, server *PacketConn) {
	t.Helper()
	near, far := transporttest.Pipe(1 << 20)
	client, err := (&Dialer{Client: c, Endpoint: handOver(near)}).DialPacket(t.Context(), destination)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.WritePacket(first, netaddr.Addr{}); err != nil {
		t.Fatal(err)
	}
	in, err := newTestServer(t, ServerConfig{}).Accept(t.Context(), far)
	if err != nil {
		t.Fatal(err)
	}
	if in.Command != CommandUDP || in.Destination != destination {
		t.Fatalf("accepted %+v", in)
	}
	server = in.Packets()
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

func mustReadPacket(t *testing.T, c transport.PacketConn, want []byte) {
	t.Helper()
	p := make([]byte, transport.BufferSize)
	if n, from, err := c.ReadPacket(p); err != nil || from != destination || !bytes.Equal(p[:n], want) {
		t.Fatalf("read %d bytes from %s, %v; want %d", n, from, err, len(want))
	}
}

func TestDatagrams(t *testing.T) {
	zero, rounds := rawStyles()[:2], 8
	if raceEnabled {
		rounds = 2
	}
	for _, st := range append(styles(), zero...) {
		t.Run(st.name, func(t *testing.T) {
			largest := 65497
			if st.method.Option.has(OptionPadding) {
				largest = 65456
				if st.method.Security == SecurityAESCFB {
					largest = 65468 // its overhead is smaller
				}
			}
			client, server := packets(t, st.client(testID), []byte("first"))
			mustReadPacket(t, server, []byte("first"))
			for _, ends := range [][2]transport.PacketConn{{client, server}, {server, client}} {
				for round := range rounds { // padding is drawn anew each time
					for _, size := range []int{1, 1900, largest} {
						if round > 0 && size == 1900 {
							continue
						}
						p := pattern(size, uint64(size+round))
						if err := ends[0].WritePacket(p, netaddr.Addr{}); err != nil {
							t.Fatalf("%d bytes: %v", size, err)
						}
						mustReadPacket(t, ends[1], p)
					}
				}
				for _, size := range []int{0, largest + 1, 65498, 1 << 17} {
					if err := ends[0].WritePacket(make([]byte, size), netaddr.Addr{}); !errors.Is(err, ErrDatagramSize) {
						t.Errorf("%d bytes: %v", size, err)
					}
				}
				// A refused one leaves the stream in order; borders are kept.
				for _, s := range []string{"a", "bc", "d"} {
					if err := ends[0].WritePacket([]byte(s), netaddr.Addr{}); err != nil {
						t.Fatal(err)
					}
				}
				for _, s := range []string{"a", "bc", "d"} {
					mustReadPacket(t, ends[1], []byte(s))
				}
			}
		})
	}
}

func TestDatagramCutToTheReadersRoom(t *testing.T) {
	client, server := packets(t, gcm.client(testID), []byte("longer than the room"))
	p := make([]byte, 6)
	if n, _, err := server.ReadPacket(p); n != 6 || err != nil || string(p) != "longer" {
		t.Errorf("read %q, %v", p[:n], err)
	}
	if err := client.WritePacket([]byte("next"), netaddr.Addr{}); err != nil {
		t.Fatal(err)
	}
	if n, _, err := server.ReadPacket(p); n != 4 || err != nil {
		t.Errorf("then read %q, %v", p[:n], err)
	}
}

func TestDatagramsEnd(t *testing.T) {
	client, server := packets(t, gcm.client(testID), []byte("x"))
	mustReadPacket(t, server, []byte("x"))
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if n, _, err := server.ReadPacket(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("read %d, %v", n, err)
		}
	}
	if err := client.WritePacket([]byte("x"), netaddr.Addr{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("wrote behind the end: %v", err)
	}
	if err := client.Close(); err != nil {
		t.Errorf("the second close: %v", err)
	}
}

// An association that was never used is no request.
func TestDatagramsUnused(t *testing.T) {
	near, far := transporttest.Pipe(1 << 16)
	c, err := (&Dialer{Client: gcm.client(testID), Endpoint: handOver(near)}).DialPacket(t.Context(), destination)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if p, err := io.ReadAll(far); len(p) != 0 || err != nil {
		t.Errorf("sent %d bytes, %v", len(p), err)
	}
}

func TestDatagramsCloseFrees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, _ := packets(t, gcm.client(testID), []byte("x"))
		go func() {
			time.Sleep(time.Second)
			_ = client.Close()
		}()
		if _, _, err := client.ReadPacket(make([]byte, 1)); err == nil {
			t.Error("a read succeeded on a closed association")
		}
	})
}

func TestDatagramsNoAnswer(t *testing.T) {
	near, far := transporttest.Pipe(1 << 16)
	c, err := (&Dialer{Client: gcm.client(testID), Endpoint: handOver(near)}).DialPacket(t.Context(), destination)
	if err != nil {
		t.Fatal(err)
	}
	_ = far.Close()
	if _, _, err := c.ReadPacket(make([]byte, 1)); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("read %v", err)
	}
	_ = c.Close()
}

// A write that must not wait is made where the carrier has room, whoever holds
// the other direction, and otherwise leaves nothing behind.
func TestTryWritePacket(t *testing.T) {
	near, far := transporttest.Pipe(3 * transport.WriteReadyBytes)
	c, err := (&Dialer{Client: styles()[0].client(testID), Endpoint: handOver(near)}).DialPacket(t.Context(), destination)
	if err != nil {
		t.Fatal(err)
	}
	client, payload := c.(*PacketConn), pattern(1000, 1)
	sent := 0
	for ; ; sent++ {
		ok, err := client.TryWritePacket(payload, netaddr.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
	}
	if sent < 2 || sent > 9 {
		t.Fatalf("%d datagrams of 1,000 bytes were written to a carrier of %d", sent, 3*transport.WriteReadyBytes)
	}
	in, err := newTestServer(t, ServerConfig{}).Accept(t.Context(), far)
	if err != nil {
		t.Fatal(err)
	}
	server := in.Packets()
	for range sent {
		mustReadPacket(t, server, payload)
	}
	if ok, err := client.TryWritePacket(pattern(transport.WriteReadyBytes, 2), netaddr.Addr{}); ok || err != nil {
		t.Errorf("a large datagram was written: %v, %v", ok, err)
	}
	if ok, err := client.TryWritePacket([]byte("again"), netaddr.Addr{}); !ok || err != nil {
		t.Fatalf("with room: %v, %v", ok, err)
	}
	mustReadPacket(t, server, []byte("again"))
	client.conn.write.Lock()
	if ok, err := client.TryWritePacket(payload, netaddr.Addr{}); ok || err != nil {
		t.Errorf("beside another writer: %v, %v", ok, err)
	}
	client.conn.write.Unlock()
	if ok, err := client.TryWritePacket(nil, netaddr.Addr{}); !ok || !errors.Is(err, ErrDatagramSize) {
		t.Errorf("an empty one: %v, %v", ok, err)
	}
	_ = client.Close()
	if ok, err := client.TryWritePacket(payload, netaddr.Addr{}); !ok || err == nil {
		t.Errorf("after Close: %v, %v", ok, err)
	}
	_ = server.Close()
}
