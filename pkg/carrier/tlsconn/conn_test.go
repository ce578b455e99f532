package tlsconn

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/transporttest"
)

// lows are what a Conn may stand on.
var lows = map[string]func(testing.TB) (a, b net.Conn){
	"tcp":  tcpPair,
	"pipe": func(testing.TB) (a, b net.Conn) { return transporttest.Pipe(64 << 10) },
	"deaf": func(testing.TB) (a, b net.Conn) { a, b = transporttest.Pipe(64 << 10); return deaf{a}, deaf{b} },
}

func TestContract(t *testing.T) {
	for name, version := range versions {
		for low, pair := range lows {
			t.Run(name+" over "+low, func(t *testing.T) {
				config := serverConfig(t, version)
				transporttest.TestStream(t, func(t *testing.T) (transport.StreamConn, transport.StreamConn) {
					a, b := pair(t)
					client, server := newClient(a, clientConfig()), newServer(b, config)
					shake(t, client, server)
					return client, server
				})
			})
		}
	}
}

// reads are the ways to read.
var reads = map[string]func(c *Conn, p []byte) (int, error){
	"Read":     (*Conn).Read,
	"WaitRead": func(c *Conn, p []byte) (int, error) { _ = c.WaitRead(); return c.Read(p) },
	"ReadLazy": func(c *Conn, p []byte) (int, error) {
		const head = 7
		b, n, err := c.ReadPooled(head, min(len(p), transport.BufferSize-head))
		if b != nil {
			copy(p, b[head:head+n])
			b.Release()
		}
		return n, err
	},
}

// eachWay runs f in a bubble for each version, way of reading, and thing below.
func eachWay(t *testing.T, f func(t *testing.T, r *rig, read func(p []byte) (int, error))) {
	for name, version := range versions {
		for way, read := range reads {
			for _, bare := range []bool{false, true} {
				low, under := func(c net.Conn) net.Conn { return c }, ""
				if bare {
					low, under = func(c net.Conn) net.Conn { return deaf{c} }, ", deaf"
				}
				t.Run(name+", "+way+under, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						r := newRig(t, version, low)
						f(t, r, func(p []byte) (int, error) { return read(r.client, p) })
					})
				})
			}
		}
	}
}

func TestReadJoinsRecords(t *testing.T) {
	eachWay(t, func(t *testing.T, r *rig, read func([]byte) (int, error)) {
		var many []string
		for i := range 60 {
			many = append(many, strings.Repeat(string(rune('A'+i)), 1+i*13))
		}
		want := strings.Join(many, "")
		stream := r.records(t, many...)
		r.deliver(t, stream[:len(stream)-1]) // the last is not complete
		p := make([]byte, 60<<10)
		n, err := read(p)
		if err != nil {
			t.Fatal(err)
		}
		if r.client.records.lazy == nil && r.client.records.waiter == nil {
			// What is below gives the first bytes alone.
			for n < len(want)-len(many[59]) && err == nil {
				var m int
				m, err = read(p[n:])
				n += m
			}
		}
		if got := string(p[:n]); got != want[:len(want)-len(many[59])] {
			t.Fatalf("got %d bytes of %d", n, len(want)-len(many[59]))
		}
		r.deliver(t, stream[len(stream)-1:])
		if n, err = read(p); string(p[:n]) != many[59] || err != nil {
			t.Fatalf("the last: %d bytes, %v", n, err)
		}
		if r.client.records.pool != nil {
			t.Error("a buffer is held though there is nothing in it")
		}
	})
}

func TestRecordsSplitAtEveryByte(t *testing.T) {
	eachWay(t, func(t *testing.T, r *rig, read func([]byte) (int, error)) {
		payloads := []string{"a", strings.Repeat("b", 70), "cc"}
		for at, size := 0, 1; at <= size; at++ {
			var stream []byte
			var ends []int
			for _, p := range payloads {
				stream = append(stream, r.records(t, p)...)
				ends = append(ends, len(stream))
			}
			size = len(stream)
			want := ""
			for i, end := range ends {
				if at >= end {
					want += payloads[i]
				}
			}
			r.deliver(t, stream[:at])
			p, got := make([]byte, 100), ""
			readUpTo := func(n int) {
				for len(got) < n {
					n, err := read(p)
					if err != nil {
						t.Fatal(err)
					}
					got += string(p[:n])
				}
			}
			if readUpTo(len(want)); got != want {
				t.Fatalf("split at %d: got %q, want %q", at, got, want)
			}
			_ = r.client.SetReadDeadline(time.Now().Add(time.Second))
			if n, err := read(p); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("split at %d: %q, %v", at, p[:n], err)
			}
			_ = r.client.SetReadDeadline(time.Time{})
			r.deliver(t, stream[at:])
			if readUpTo(len(strings.Join(payloads, ""))); got != strings.Join(payloads, "") {
				t.Fatalf("split at %d: got %q", at, got)
			}
		}
	})
}

func TestTicketsAreNoPayload(t *testing.T) {
	for way, read := range reads {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, tls.VersionTLS13, func(c net.Conn) net.Conn { return c }) // the server's ticket is unread
				p, got := make([]byte, 100), make(chan string, 1)
				next := func() {
					n, err := read(r.client, p)
					if err != nil {
						t.Error(err)
					}
					got <- string(p[:n])
				}
				want := func(s string) {
					t.Helper()
					synctest.Wait()
					select {
					case seen := <-got:
						if s == "" || seen != s {
							t.Fatalf("read %q, want %q", seen, s)
						}
					default:
						if s != "" {
							t.Fatalf("nothing was read, want %q", s)
						}
					}
				}
				go next()
				want("")
				r.deliver(t, r.sealer.ticket())
				want("")
				r.deliver(t, r.sealer.keyUpdate(t, false))
				want("")
				r.deliver(t, r.sealer.data("one"))
				want("one")

				// Behind payload, too, and none of it makes Read wait.
				r.deliver(t, bytes.Join([][]byte{
					r.sealer.data("two"), r.sealer.ticket(), r.sealer.data("three"),
					r.sealer.keyUpdate(t, true), r.sealer.data("four"), r.sealer.ticket(),
				}, nil))
				go next()
				want("twothreefour")
				go next()
				want("")

				// The end comes after what was before it.
				r.deliver(t, append(r.sealer.data("five"), r.sealer.closeNotify()...))
				want("five")
				for range 2 {
					if n, err := read(r.client, p); n != 0 || err != io.EOF {
						t.Fatalf("after close_notify: %d, %v", n, err)
					}
				}
			})
		})
	}
}

func TestSmallReads(t *testing.T) {
	eachWay(t, func(t *testing.T, r *rig, read func([]byte) (int, error)) {
		want := strings.Repeat("0123456789", 300)
		r.deliver(t, r.records(t, want[:1000], want[1000:1001], want[1001:]))
		var got []byte
		for i := 0; len(got) < len(want); i++ {
			p := make([]byte, 1+i%50)
			n, err := read(p)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, p[:n]...)
		}
		if string(got) != want {
			t.Fatal("other bytes than were sent")
		}
	})
}

func TestDeadlineCanBeMoved(t *testing.T) {
	eachWay(t, func(t *testing.T, r *rig, read func([]byte) (int, error)) {
		record := r.records(t, "late")
		for at := range record {
			r.deliver(t, record[at:at+1])
			if at == len(record)-1 {
				break
			}
			_ = r.client.SetReadDeadline(time.Now().Add(time.Second))
			if n, err := read(make([]byte, 9)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("byte %d: %d, %v", at, n, err)
			}
			_ = r.client.SetReadDeadline(time.Time{})
		}
		p := make([]byte, 9)
		if n, err := read(p); string(p[:n]) != "late" || err != nil {
			t.Fatalf("read %q, %v", p[:n], err)
		}
	})
}

func TestEnds(t *testing.T) {
	broken := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	for _, c := range []struct {
		name string
		send func(t *testing.T, r *rig) []byte
		end  func(r *rig) // after it; may be nil
		is   func(err error) bool
	}{
		{"close_notify", func(_ *testing.T, r *rig) []byte { _ = r.server.CloseWrite(); return r.out.taken() }, nil, func(err error) bool { return err == io.EOF }},
		{"end between records", nothing, hangUp, func(err error) bool { return err == io.EOF }},
		{"end in a header", part(3), hangUp, func(err error) bool { return err == io.ErrUnexpectedEOF }},
		{"end in a record", part(20), hangUp, func(err error) bool { return err == io.ErrUnexpectedEOF }},
		{"reset", nothing, func(r *rig) { _ = r.out.Conn.(transport.Resetter).Reset() }, func(err error) bool { return err == transporttest.ErrReset }},
		{"reset in a record", part(20), func(r *rig) { _ = r.out.Conn.(transport.Resetter).Reset() }, func(err error) bool { return err == transporttest.ErrReset }},
		{"broken record", func(t *testing.T, r *rig) []byte { return broken(r.records(t, "x")) }, nil, func(err error) bool { return strings.Contains(err.Error(), "bad record MAC") }},
		{"record too long", func(*testing.T, *rig) []byte { return []byte{23, 3, 3, 0xff, 0xff} }, nil, isRecordHeader},
		{"no record", func(*testing.T, *rig) []byte { return []byte("HTTP/") }, nil, isRecordHeader},
		{"other version", func(*testing.T, *rig) []byte { return []byte{23, 4, 0, 0, 1} }, nil, isRecordHeader},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, r *rig, read func([]byte) (int, error)) {
				before := r.records(t, "before")
				r.deliver(t, append(before, c.send(t, r)...))
				if c.end != nil && !strings.HasPrefix(c.name, "reset") {
					c.end(r)
				}
				p := make([]byte, 100)
				n, err := io.ReadFull(readerFunc(read), p[:6])
				if string(p[:n]) != "before" || err != nil {
					t.Fatalf("read %q, %v", p[:n], err)
				}
				if c.end != nil && strings.HasPrefix(c.name, "reset") {
					c.end(r)
				}
				for range 2 { // it is final
					if n, err := read(p); n != 0 || err == nil || !c.is(err) {
						t.Fatalf("read %q, %v", p[:n], err)
					}
				}
			})
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func nothing(*testing.T, *rig) []byte { return nil }

func part(n int) func(t *testing.T, r *rig) []byte {
	return func(t *testing.T, r *rig) []byte { return r.records(t, strings.Repeat("x", 100))[:n] }
}

func hangUp(r *rig) { _ = r.out.Conn.Close() }

func isRecordHeader(err error) bool {
	var header tls.RecordHeaderError
	return errors.As(err, &header)
}

func TestWriteSendsRecordsTogether(t *testing.T) {
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			near, far := transporttest.Pipe(1 << 20)
			out := &tap{Conn: near}
			config := serverConfig(t, version)
			client, server := newClient(out, clientConfig()), tls.Server(far, config)
			defer client.Close()
			shake(t, client, server)
			for _, c := range []struct{ size, writes int }{
				{0, 0},
				{1, 1},
				{maxPlaintext, 1},
				{maxPlaintext + 1, 1},
				{transport.BufferSize + 14, 1}, // the largest WebSocket message
				{corkedText, 1},
				{corkedText + 1, 2},
				{3 * corkedText, 3},
			} {
				out.mu.Lock()
				out.size = nil
				out.mu.Unlock()
				p := bytes.Repeat([]byte{byte(c.size)}, c.size)
				if n, err := client.Write(p); n != c.size || err != nil {
					t.Fatalf("%d bytes: %d, %v", c.size, n, err)
				}
				if got := len(out.sizes()); got != c.writes {
					t.Errorf("%d bytes: %d writes, want %d", c.size, got, c.writes)
				}
				got := make([]byte, c.size)
				if _, err := io.ReadFull(server, got); err != nil || !bytes.Equal(got, p) {
					t.Fatalf("%d bytes: other ones arrived, %v", c.size, err)
				}
			}
		})
	}
}

func TestWriteErrorsAreFinal(t *testing.T) {
	for _, size := range []int{100, 70000} {
		synctest.Test(t, func(t *testing.T) {
			near, far := transporttest.Pipe(8 << 10)
			client, server := newClient(near, clientConfig()), tls.Server(far, serverConfig(t, tls.VersionTLS13))
			defer far.Close()
			shake(t, client, server)
			_ = client.SetWriteDeadline(time.Now().Add(time.Second))
			var err error
			sent := 0
			for err == nil {
				var n int
				n, err = client.Write(make([]byte, size))
				sent += n
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%d bytes: %v", size, err)
			}
			if sent > 8<<10 {
				t.Errorf("%d bytes are said to be written to a pipe of 8 KiB", sent)
			}
			if sent == 0 {
				t.Error("none are said to be written, but some can be read")
			}
			_ = client.SetWriteDeadline(time.Time{})
			_, err = io.CopyN(io.Discard, far, 8<<10) // there is room again
			if err != nil {
				t.Fatal(err)
			}
			if n, err := client.Write([]byte("x")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("after it: %d, %v", n, err)
			}
			_ = client.Close()
			if rest, err := io.ReadAll(far); len(rest) > 0 || err != nil {
				t.Errorf("%d bytes behind a record that was cut, %v", len(rest), err)
			}
		})
	}
}

func TestCloseFreesWrite(t *testing.T) {
	for _, size := range []int{100, 70000} {
		synctest.Test(t, func(t *testing.T) {
			near, far := transporttest.Pipe(8 << 10)
			client, server := newClient(near, clientConfig()), tls.Server(far, serverConfig(t, tls.VersionTLS13))
			defer far.Close()
			shake(t, client, server)
			blocked := make(chan error, 1)
			go func() {
				var err error
				for err == nil {
					_, err = client.Write(make([]byte, size))
				}
				blocked <- err
			}()
			synctest.Wait()
			began := time.Now()
			if err := client.Close(); err != nil {
				t.Error(err)
			}
			if err := <-blocked; err == nil || time.Since(began) > 0 {
				t.Errorf("%v after %s", err, time.Since(began))
			}
			if err := client.Close(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the second Close: %v", err)
			}
		})
	}
}

func TestReset(t *testing.T) {
	a, b := tcpPair(t)
	client, server := newClient(a, clientConfig()), newServer(b, serverConfig(t, tls.VersionTLS13))
	shake(t, client, server)
	if err := client.Reset(); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the far end read %v, want a reset", err)
	}
	_ = server.Close()
}

func TestHandshakeIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := transporttest.Pipe(64 << 10)
		defer far.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		client := newClient(near, clientConfig())
		if err := client.HandshakeContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if _, err := near.Write(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the connection is still open: %v", err)
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			a, b := tcpPair(t)
			client, server := newClient(a, clientConfig()), newServer(b, serverConfig(t, version))
			shake(t, client, server)
			const writers, writes, size = 3, 20, 20000
			var all sync.WaitGroup
			for _, c := range []*Conn{client, server} {
				for i := range writers {
					all.Go(func() {
						p := bytes.Repeat([]byte{byte(i)}, size)
						for range writes {
							if _, err := c.Write(p); err != nil {
								t.Error(err)
								return
							}
						}
					})
				}
				all.Go(func() {
					var seen [writers]int
					for total := 0; total < writers*writes*size; {
						buf, n, err := c.ReadPooled(0, 5000)
						if err != nil {
							t.Error(err)
							return
						}
						for _, b := range buf[:n] {
							seen[b]++
						}
						total += n
						buf.Release()
					}
					for i, n := range seen {
						if n != writes*size {
							t.Errorf("%d bytes of writer %d", n, i)
						}
					}
				})
			}
			all.Wait()
			all.Go(func() { _ = client.Close() })
			all.Go(func() { _ = client.CloseWrite() })
			all.Go(func() { _, _ = client.Write(make([]byte, 70000)) })
			all.Go(func() { _, _ = client.Read(make([]byte, 1)) })
			_, _ = io.Copy(io.Discard, server)
			_ = server.Close()
			all.Wait()
		})
	}
}

// What a reader who takes much is given in turns is much each time: nothing
// small is left over that he would have to fetch by itself.
func TestLargeReadsLeaveNothingSmall(t *testing.T) {
	for _, size := range []int{1000, 4096, 16384} {
		eachWay(t, func(t *testing.T, r *rig, read func([]byte) (int, error)) {
			total := 800 << 10 / size * size
			many := make([]string, total/size)
			for i := range many {
				many[i] = strings.Repeat("x", size)
			}
			r.deliver(t, r.records(t, many...))
			p := make([]byte, 4*16368)
			for at, turn := 0, 0; at < total; turn++ {
				n, err := read(p)
				if err != nil {
					t.Fatal(err)
				}
				if at += n; n < len(p)/2 && at < total && turn > 0 {
					t.Fatalf("records of %d bytes: %d bytes at %d of %d", size, n, at, total)
				}
			}
		})
	}
}
