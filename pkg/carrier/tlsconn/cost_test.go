package tlsconn

import (
	"crypto/tls"
	"io"
	"net"
	"testing"

	"vmess-local/pkg/transport"
)

// A loop is a connection that gives the same stream again and again.
type loop struct {
	net.Conn
	stream []byte
	at     int
	writes int
}

func (l *loop) Read(p []byte) (int, error) {
	n := copy(p, l.stream[l.at:])
	l.at = (l.at + n) % len(l.stream)
	return n, nil
}

func (l *loop) Write(p []byte) (int, error) { l.writes++; return len(p), nil }

// sized is a TLS record of n bytes of nothing.
func sized(n int) []byte {
	return append([]byte{23, 3, 3, byte(n >> 8), byte(n)}, make([]byte, n)...)
}

func TestRecordsAllocateNothing(t *testing.T) {
	var r records
	source := &loop{stream: sized(3000)}
	r.init(lazyLoop{source})
	b := make([]byte, 20000)
	if n := testing.AllocsPerRun(1000, func() {
		for range 8 {
			if _, err := r.Read(b); err != nil {
				t.Fatal(err)
			}
		}
	}); n > 0 && !raceEnabled {
		t.Errorf("%v allocations for four records read", n)
	}
	record := sized(maxPlaintext)
	if n := testing.AllocsPerRun(1000, func() {
		r.collect()
		for range 5 {
			_, _ = r.Write(record)
		}
		if _, err := r.release(); err != nil {
			t.Fatal(err)
		}
	}); n > 0 && !raceEnabled {
		t.Errorf("%v allocations for five records written", n)
	}
}

type lazyLoop struct{ *loop }

func (l lazyLoop) ReadPooled(head, most int) (*transport.Buffer, int, error) {
	b := transport.GetBuffer()
	n, err := l.Read(b[head : head+most])
	return b, n, err
}

// A bareConn is crypto/tls over TCP with nothing around it: what there was
// before this package, to measure against.
func bareConn(raw net.Conn, config *tls.Config) io.Reader { return tls.Client(raw, config) }

// BenchmarkRead reads what a far end sends in records of some sizes, over TCP.
func BenchmarkRead(b *testing.B) {
	for _, bare := range []bool{true, false} {
		for _, size := range []int{2 << 10, 4 << 10, 16 << 10} {
			name := map[bool]string{true: "crypto/tls", false: "tlsconn"}[bare] + "/records of " + map[int]string{2 << 10: "2 KiB", 4 << 10: "4 KiB", 16 << 10: "16 KiB"}[size]
			b.Run(name, func(b *testing.B) {
				near, far := tcpPair(b)
				config := serverConfig(b, tls.VersionTLS13)
				go func() {
					server := tls.Server(far, config)
					p := make([]byte, size)
					for {
						if _, err := server.Write(p); err != nil {
							return
						}
					}
				}()
				var client io.Reader
				if client = newClient(near, clientConfig()); bare {
					client = bareConn(near, clientConfig())
				}
				p := make([]byte, 64<<10)
				const lot = 1 << 20
				b.SetBytes(lot)
				b.ReportAllocs()
				calls := 0
				for b.Loop() {
					for n := 0; n < lot; calls++ {
						m, err := client.Read(p)
						if err != nil {
							b.Fatal(err)
						}
						n += m
					}
				}
				b.ReportMetric(float64(calls)/float64(b.N), "reads/op")
				_ = near.Close()
				_ = far.Close()
			})
		}
	}
}

// BenchmarkWrite writes 64 KiB at a time.
func BenchmarkWrite(b *testing.B) {
	for _, bare := range []bool{true, false} {
		b.Run(map[bool]string{true: "crypto/tls", false: "tlsconn"}[bare], func(b *testing.B) {
			near, far := tcpPair(b)
			server := tls.Server(far, serverConfig(b, tls.VersionTLS13))
			var client interface {
				Secure
			}
			if client = newClient(near, clientConfig()); bare {
				client = tls.Client(near, clientConfig())
			}
			shake(b, client, server)
			go func() { _, _ = io.Copy(io.Discard, far) }() // nothing is opened
			p := make([]byte, 64<<10)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := client.Write(p); err != nil {
					b.Fatal(err)
				}
			}
			_ = near.Close()
			_ = far.Close()
		})
	}
}
