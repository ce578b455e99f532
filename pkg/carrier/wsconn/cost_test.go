package wsconn

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"vmess-local/pkg/transport"
)

// A loop is a connection that gives the same bytes for ever, or blocks, and
// swallows what is written.
type loop struct {
	net.Conn
	data  []byte
	at    int
	limit int // the most a Read gives; 0: all
	reads int
}

func (l *loop) Read(p []byte) (int, error) {
	l.reads++
	if l.at == len(l.data) {
		l.at = 0
	}
	if l.limit > 0 {
		p = p[:min(len(p), l.limit)]
	}
	n := copy(p, l.data[l.at:])
	l.at += n
	return n, nil
}
func (l *loop) Write(p []byte) (int, error)      { return len(p), nil }
func (l *loop) SetWriteDeadline(time.Time) error { return nil }
func (l *loop) Close() error                     { return nil }

// looped is a Conn, upgraded over a pipe, that then goes on over l.
func looped(t testing.TB, l *loop) *Conn {
	c, done := pipeConn(t, nil)
	_ = c.carrier.conn.Close()
	done()
	c.carrier.init(l)
	return c
}

func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops at random under the race detector")
	}
	message := pattern(16 << 10)
	c := looped(t, &loop{data: frame(0x82, message)})
	// gorilla's: the message writer and the pool's value.
	if n := testing.AllocsPerRun(1000, func() { _, _ = c.Write(message) }); n > 2 {
		t.Errorf("Write: %v allocations", n)
	}
	// gorilla's: the message reader.
	b := make([]byte, transport.BufferSize)
	if n := testing.AllocsPerRun(1000, func() { _, _ = c.Read(b) }); n > 1 {
		t.Errorf("Read: %v allocations", n)
	}
	small := looped(t, &loop{data: bytes.Repeat(frame(0x82, pattern(2<<10)), 32)})
	if n := testing.AllocsPerRun(1000, func() { _ = small.WaitRead(); _, _ = small.Read(b) }); n > 33 {
		t.Errorf("WaitRead and Read of many messages: %v allocations", n)
	}
	piece := make([]byte, 100)
	if n := testing.AllocsPerRun(1000, func() { _, _ = small.Read(piece) }); n > 1 {
		t.Errorf("Read of pieces: %v allocations", n)
	}
}

// Small reads by the caller, as of a chunk's length, are not small reads of
// the connection.
func TestReadsAreLarge(t *testing.T) {
	const messages = 31
	l := &loop{data: bytes.Repeat(frame(0x82, pattern(2<<10)), messages)}
	c := looped(t, l)
	got := 0
	for got < 10*messages<<11 {
		n, _ := c.Read(make([]byte, 500))
		got += n
	}
	if l.reads > 40 {
		t.Errorf("%d reads for %d bytes", l.reads, got)
	}
}

// Idle connections hold no buffers, whichever way they came to be idle.
func TestIdleConnHoldsNoBuffer(t *testing.T) {
	ping := frame(0x89, nil)
	for name, burst := range map[string][]byte{
		"fresh":          nil,
		"message":        frame(0x82, pattern(5000)),
		"ping":           append(frame(0x82, pattern(5000)), ping...),
		"partial header": append(frame(0x82, pattern(5000)), 0x82),
		"partial ping":   append(frame(0x82, pattern(5000)), frame(0x89, pattern(100))[:50]...),
		"partial data":   frame(0x82, pattern(6000))[:5000+4],
		"many pings":     append(frame(0x82, pattern(5000)), bytes.Repeat(ping, 1000)...),
	} {
		for _, wait := range []bool{true, false} {
			for _, size := range []int{3000, 64 << 10} {
				c, _ := pipeConn(t, burst)
				if burst != nil {
					for got := 0; got < 5000; {
						if wait && c.WaitRead() != nil {
							t.Fatal("WaitRead fails")
						}
						n, err := c.Read(make([]byte, size))
						if got += n; err != nil {
							t.Fatal(err)
						}
					}
				}
				// Now idle: waiting until nothing more comes.
				_ = c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
				held := false
				c.carrier.conn = watched{c.carrier.conn, func() { held = c.carrier.pool != nil }}
				_ = c.WaitRead()
				if held {
					t.Errorf("%s, wait %v, size %d: a buffer is held while idle", name, wait, size)
				}
			}
		}
	}
}

// watched calls before ahead of each Read.
type watched struct {
	net.Conn
	before func()
}

func (w watched) Read(p []byte) (int, error) { w.before(); return w.Conn.Read(p) }

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

func TestIdleMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has its own memory")
	}
	const conns = 1000
	bare, _ := net.Pipe()
	pipes := func() int {
		before := heap()
		var keep []net.Conn
		for range conns {
			a, b := net.Pipe()
			keep = append(keep, a, b)
		}
		size := heap() - before
		runtime.KeepAlive(keep)
		return size
	}()
	_ = bare.Close()

	before := heap()
	var all []*Conn
	for range conns {
		// The far end's goroutine ends after the upgrade; the pipe stays.
		var far net.Conn
		upgradedPipe := make(chan struct{})
		endpoint := transport.EndpointFunc(func(context.Context, []byte) (transport.StreamConn, error) {
			near, peer := net.Pipe()
			far = peer
			go func() {
				p := &rawPeer{Conn: peer}
				_ = p.accept()
				_, _ = p.Write(p.switching("Date: Mon, 02 Nov 2026 03:04:05 GMT\r\nX-Long: " + string(bytes.Repeat([]byte("x"), 5000)) + "\r\n"))
				close(upgradedPipe)
			}()
			return memConn{near}, nil
		})
		d := &Dialer{Endpoint: endpoint, Host: "h", Ping: time.Minute}
		s, err := d.ConnectStream(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		<-upgradedPipe
		_ = far
		all = append(all, s.(*Conn))
	}
	perConn := (heap() - before - pipes) / conns
	t.Logf("%d bytes for each idle client connection, of %d for the pipe", perConn, pipes/conns)
	if perConn > 3<<10 {
		t.Errorf("an idle connection holds %d bytes", perConn)
	}
	for _, c := range all {
		_ = c.Reset()
	}
}

// What an idle stream costs the server, with its goroutine and net/http.
func TestIdleServerMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has its own memory")
	}
	const conns = 300
	var idle, ended sync.WaitGroup
	ended.Add(conns)
	idle.Add(conns)
	addr := serving(t, &Server{Serve: func(_ context.Context, c *Conn, _ *http.Request) {
		defer ended.Done()
		idle.Done()
		_ = c.WaitRead()
		_ = c.Close()
	}})
	before := heap()
	var far []net.Conn
	b := make([]byte, 1000)
	for range conns {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\n"+upgradeHeaders+"\r\n")
		_, _ = conn.Read(b)
		far = append(far, conn)
	}
	idle.Wait()
	perConn := (heap() - before) / conns
	t.Logf("%d bytes for each idle server connection, both sockets included", perConn)
	if perConn > 12<<10 {
		t.Errorf("an idle connection holds %d bytes", perConn)
	}
	for _, c := range far {
		_ = c.Close()
	}
	ended.Wait()
}

func BenchmarkRead(b *testing.B) {
	for _, size := range []int{2 << 10, 64 << 10} {
		burst := bytes.Repeat(frame(0x82, pattern(size)), max(1, (64<<10)/size))
		for _, wait := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dKiB/wait=%v", size>>10, wait), func(b *testing.B) {
				c := dial(b, upgraded(b, func(p *rawPeer) {
					_ = p.SetDeadline(time.Time{})
					for {
						if _, err := p.Write(burst); err != nil {
							return
						}
					}
				}))
				buf := transport.GetBuffer()
				b.ReportAllocs()
				b.SetBytes(64 << 10)
				b.ResetTimer()
				reads := 0
				for left := b.N * 64 << 10; left > 0; reads++ {
					if wait {
						_ = c.WaitRead()
					}
					n, err := c.Read(buf[:])
					if left -= n; err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N*64<<10)/float64(reads), "B/read")
			})
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{2 << 10, 16 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			c := dial(b, upgraded(b, func(p *rawPeer) {
				_ = p.SetDeadline(time.Time{})
				buf := make([]byte, 256<<10)
				for {
					if _, err := p.br.Read(buf); err != nil {
						return
					}
				}
			}))
			message := pattern(size)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := c.Write(message); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A lazyLoop is a loop that can wait without a buffer.
type lazyLoop struct{ *loop }

func (l lazyLoop) WaitRead() error { return nil }

func (l lazyLoop) ReadPooled(head, most int) (*transport.Buffer, int, error) {
	b := transport.GetBuffer()
	n, err := l.Read(b[head : head+most])
	return b, n, err
}

// What is read ahead while waiting is less than a large Read takes: nothing
// small is left over for the next, and it reads into the caller's buffer.
func TestReadAfterWaitFillsBuffer(t *testing.T) {
	l := &loop{data: bytes.Repeat(frame(0x82, pattern(2<<10)), 1000)}
	c := looped(t, l)
	c.carrier.init(lazyLoop{l})
	b := make([]byte, 64<<10)
	for i := range 10 {
		if err := c.WaitRead(); err != nil {
			t.Fatal(err)
		}
		for j := range 3 {
			if n, err := c.Read(b); n < len(b)/2 || err != nil {
				t.Fatalf("round %d, read %d: %d bytes, %v", i, j, n, err)
			}
			if c.carrier.pool != nil {
				t.Fatalf("round %d, read %d: something is left over", i, j)
			}
		}
	}
}
