package vmess

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// loop is a Conn that reads what it writes, over a carrier that allocates
// nothing.
func loop(m Method, command Command, client bool) *Conn {
	h := requestHeader{security: m.Security, option: m.Option, command: command}
	copy(h.key[:], pattern(16, 1))
	copy(h.iv[:], pattern(16, 2))
	format, e := requestFormat(&h, false), &echo{}
	c := &Conn{carrier: e, writer: newBodyWriter(format, nil)}
	c.reader.in = newInbuf(e)
	c.reader.start(format, nil)
	if client {
		c.delayedEnd = &delayedEnd{patience: time.Minute}
	}
	return c
}

func methods() map[string]Method {
	all := map[string]Method{"zero": {Security: SecurityNone}}
	for _, st := range styles() {
		if name, aead := strings.CutPrefix(st.name, "aead/"); aead {
			all[name] = st.method
		}
	}
	return all
}

// Once a stream runs, a chunk costs no allocation, on neither side and in
// neither direction.
func TestChunkAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for name, m := range methods() {
		for _, client := range []bool{false, true} {
			for _, size := range []int{1, 2 << 10, maxChunk, 60000} {
				c := loop(m, CommandTCP, client)
				p, q := make([]byte, size), make([]byte, 70000)
				round := func() {
					if _, err := c.Write(p); err != nil {
						t.Fatal(err)
					}
					for n := 0; n < size; {
						if err := c.WaitRead(); err != nil {
							t.Fatal(err)
						}
						m, err := c.Read(q)
						if err != nil {
							t.Fatal(err)
						}
						n += m
					}
				}
				if n := testing.AllocsPerRun(100, round); n != 0 {
					t.Errorf("%s, client %v, %d bytes: %v allocations", name, client, size, n)
				}
				q = q[:100] // smaller than a chunk: what does not fit is kept
				if n := testing.AllocsPerRun(20, round); n != 0 {
					t.Errorf("%s, client %v, %d bytes in pieces: %v allocations", name, client, size, n)
				}
			}
		}
	}
}

func TestHeldReadAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	c := loop(Method{SecurityAESGCM, padded}, CommandTCP, true)
	other := loop(Method{SecurityAESGCM, padded}, CommandTCP, false)
	other.carrier = c.carrier
	_ = c.CloseWrite()
	defer c.delayedEnd.stop()
	p := make([]byte, 1000)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = other.Write(p)
		_, _ = c.Read(p)
	}); n != 0 {
		t.Errorf("%v allocations a chunk while the end mark is held back", n)
	}
}

func TestDatagramAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for name, m := range methods() {
		if name == "zero" {
			continue
		}
		c := &PacketConn{conn: loop(m, CommandUDP, false), peer: destination}
		p, q := make([]byte, 1400), make([]byte, 2000)
		if n := testing.AllocsPerRun(100, func() {
			if err := c.WritePacket(p, netaddr.Addr{}); err != nil {
				t.Fatal(err)
			}
			if n, _, err := c.ReadPacket(q); n != len(p) || err != nil {
				t.Fatal(n, err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations a datagram", name, n)
		}
	}
}

func chunkBenchmarks(b *testing.B, f func(b *testing.B, m Method, plain []byte)) {
	for _, s := range []Security{SecurityAESGCM, SecurityChaCha20Poly1305} {
		for _, o := range []struct {
			name   string
			option Option
		}{{"SM", masked}, {"SMP", padded}, {"SMPA", padded | sealed}} {
			for _, size := range []int{2 << 10, maxChunk} {
				b.Run(fmt.Sprintf("%s/%s/%d", s, o.name, size), func(b *testing.B) {
					b.SetBytes(int64(size))
					b.ReportAllocs()
					f(b, Method{s, o.option}, make([]byte, size))
				})
			}
		}
	}
}

func BenchmarkSealChunk(b *testing.B) {
	chunkBenchmarks(b, func(b *testing.B, m Method, plain []byte) {
		w := loop(m, CommandTCP, false).writer
		buf := make([]byte, 0, transport.BufferSize)
		for b.Loop() {
			w.seal(buf, plain)
		}
	})
}

func BenchmarkOpenChunk(b *testing.B) {
	chunkBenchmarks(b, func(b *testing.B, m Method, plain []byte) {
		// The counters wrap at 65,536, so a stream of as many chunks could be
		// read again and again; 1,000 are enough to make new readers rare.
		const chunks = 1000
		w := loop(m, CommandTCP, false).writer
		var wire []byte
		for range chunks {
			wire = w.seal(wire, plain)
		}
		p, src := make([]byte, 1<<16), bytes.NewReader(wire)
		r := &loop(m, CommandTCP, false).reader
		left := 0
		for b.Loop() {
			if left < len(plain) { // what is opened at a time is more than a chunk
				n, err := 0, error(nil)
				if n, err = r.read(p); err == io.EOF || n == 0 {
					src.Reset(wire)
					r = &loop(m, CommandTCP, false).reader
					r.in = newInbuf(src)
					n, err = r.read(p)
				}
				if err != nil {
					b.Fatal(err)
				}
				left += n
			}
			left -= len(plain)
		}
	})
}

func benchmarkConn(b *testing.B, up bool) {
	for _, s := range []Security{SecurityAESGCM, SecurityChaCha20Poly1305, SecurityNone} {
		for _, size := range []int{2 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("%s/%dKiB", s, size>>10), func(b *testing.B) {
				c := loop(Method{s, masked}, CommandTCP, up)
				p, q := make([]byte, size), make([]byte, transport.BufferSize)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := c.Write(p); err != nil {
						b.Fatal(err)
					}
					for n := 0; n < size; {
						m, err := c.Read(q)
						if err != nil {
							b.Fatal(err)
						}
						n += m
					}
				}
			})
		}
	}
}

// BenchmarkConnUp seals as a client and opens what was sealed.
func BenchmarkConnUp(b *testing.B) { benchmarkConn(b, true) }

// BenchmarkConnDown is the same on the server's side.
func BenchmarkConnDown(b *testing.B) { benchmarkConn(b, false) }

func BenchmarkSealHeader(b *testing.B) {
	for _, legacy := range []bool{false, true} {
		b.Run(map[bool]string{false: "aead", true: "legacy"}[legacy], func(b *testing.B) {
			c := style{legacy: legacy, method: gcm.method}.client(testID)
			b.ReportAllocs()
			for b.Loop() {
				c.request(CommandTCP, destination, 0)
			}
		})
	}
}

func BenchmarkOpenHeader(b *testing.B) {
	for _, users := range []int{1, 100, 10000} {
		for _, kind := range []string{"aead", "legacy", "noise"} {
			b.Run(fmt.Sprintf("%s/%d users", kind, users), func(b *testing.B) {
				c := ServerConfig{Now: at(noon.Unix())}
				for range users {
					c.Users = append(c.Users, User{ID: NewID()})
				}
				s := newTestServer(b, c)
				f := forger{id: c.Users[users-1].ID}
				switch kind {
				case "legacy":
					f.legacy = f.id
				case "noise":
					f.id = testID
				}
				wire := f.wire()
				r := bytes.NewReader(wire)
				b.ReportAllocs()
				for b.Loop() {
					s.authIDs, s.sessions = newReplayFilter[[16]byte](authIDMemory, memorySpare, memoryLimit), newReplayFilter[sessionID](sessionMemory, memorySpare, memoryLimit)
					r.Reset(wire)
					in := newInbuf(r)
					in.small = openingBuffer
					o := requestParser{server: s, in: &in}
					if _, err := o.open(); (err == nil) != (kind != "noise") {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkDial(b *testing.B) {
	d := Dialer{Client: gcm.client(testID), Endpoint: handOver(&sink{})}
	first := make([]byte, 500)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.DialStream(context.Background(), destination, first); err != nil {
			b.Fatal(err)
		}
	}
}

// A sink takes everything.
type sink struct{ recorder }

func (*sink) Write(p []byte) (int, error) { return len(p), nil }

// Who takes much is not given a small rest of what was read ahead for him.
func TestReadsLeaveNoCrumbs(t *testing.T) {
	for name, m := range methods() {
		h := requestHeader{security: m.Security, option: m.Option, command: CommandTCP}
		format := requestFormat(&h, false)
		w := newBodyWriter(format, nil)
		var wire []byte
		const chunks, size = 1000, 2 << 10
		for range chunks {
			wire = w.seal(wire, make([]byte, size))
		}
		var r bodyReader
		r.in = newInbuf(bytes.NewReader(wire))
		r.start(format, nil)
		p := make([]byte, 4*maxChunk)
		for left := chunks * size; left > 0; {
			n, err := r.read(p)
			if err != nil {
				t.Fatalf("%s: %v with %d bytes left", name, err, left)
			}
			if left -= n; left > 0 && n < len(p)/2 {
				t.Fatalf("%s: a read of %d bytes with %d left", name, n, left)
			}
		}
	}
}
