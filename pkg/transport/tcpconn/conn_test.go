package tcpconn_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/tcpconn"
	"vmess-local/pkg/transport/transporttest"
)

func TestTCPContract(t *testing.T) {
	transporttest.TestStream(t, func(t *testing.T) (a, b transport.StreamConn) { return streamPair(t) })
}

// waiting starts WaitRead and makes sure that it does not return by itself.
func waiting(t *testing.T, c transport.StreamConn) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- c.(transport.ReadWaiter).WaitRead() }()
	if runtime.GOOS == "windows" {
		return done
	}
	select {
	case err := <-done:
		t.Fatalf("WaitRead returned %v with nothing to read", err)
	case <-time.After(20 * time.Millisecond):
	}
	return done
}

func TestTCPWaitRead(t *testing.T) {
	t.Run("data", func(t *testing.T) {
		a, b := streamPair(t)
		done := waiting(t, a)
		mustWrite(t, b, "hello")
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for range 3 { // it takes nothing, and returns at once while something is there
			if err := a.(transport.ReadWaiter).WaitRead(); err != nil {
				t.Fatal(err)
			}
		}
		mustRead(t, a, "hello")
		_ = waiting(t, a)
		_ = a.Close()
	})
	t.Run("end", func(t *testing.T) {
		a, b := streamPair(t)
		done := waiting(t, a)
		if err := b.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		mustEnd(t, a)
	})
	t.Run("reset", func(t *testing.T) {
		a, b := streamPair(t)
		done := waiting(t, a)
		if err := transport.Reset(b); err != nil {
			t.Fatal(err)
		}
		<-done
		// Peeking takes a socket's error away; Read must still tell it.
		for range 2 {
			n, err := a.Read(make([]byte, 1))
			var op *net.OpError
			if n != 0 || !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &op) {
				t.Fatalf("read %d bytes, %v; want a reset", n, err)
			}
		}
	})
	t.Run("data then reset", func(t *testing.T) {
		a, b := streamPair(t)
		mustWrite(t, b, "x")
		if err := a.(transport.ReadWaiter).WaitRead(); err != nil {
			t.Fatal(err)
		}
		mustRead(t, a, "x")
		_ = transport.Reset(b)
		_ = a.(transport.ReadWaiter).WaitRead()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("read %v", err)
		}
	})
	t.Run("close", func(t *testing.T) {
		a, _ := streamPair(t)
		done := waiting(t, a)
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Fatalf("WaitRead returned %v", err)
		}
	})
	t.Run("closed before", func(t *testing.T) {
		x, _ := tcpPair(t)
		_ = x.Close()
		c := tcpconn.New(x)
		_ = c.WaitRead()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("read %v", err)
		}
	})
	t.Run("deadline", func(t *testing.T) {
		if runtime.GOOS == "windows" {
			t.Skip("WaitRead does not wait here")
		}
		a, b := streamPair(t)
		_ = a.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if err := a.(transport.ReadWaiter).WaitRead(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("WaitRead returned %v", err)
		}
		_ = a.SetReadDeadline(time.Time{})
		mustWrite(t, b, "x")
		mustRead(t, a, "x")
	})
}

func TestTCPReset(t *testing.T) {
	a, b := streamPair(t)
	if err := transport.Reset(a); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the peer read %v", err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("wrote after the reset: %v", err)
	}
}

func TestTCPWaitReadAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	a, b := streamPair(t)
	w, p := a.(transport.ReadWaiter), make([]byte, 16)
	for name, f := range map[string]func(){
		"ready": func() { _ = w.WaitRead() },
		"round": func() { // write, wait, read
			if _, err := b.Write(p[:1]); err != nil {
				t.Fatal(err)
			}
			if err := w.WaitRead(); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Read(p[:1]); err != nil {
				t.Fatal(err)
			}
		},
	} {
		if name == "ready" {
			mustWrite(t, b, "x")
		}
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	_ = b.CloseWrite()
	_, _ = io.Copy(io.Discard, struct{ io.Reader }{a})
}

func BenchmarkTCPWaitRead(b *testing.B) {
	x, y := streamPair(b)
	mustWrite(b, y, "x")
	w := x.(transport.ReadWaiter)
	b.ReportAllocs()
	for b.Loop() {
		_ = w.WaitRead()
	}
}

func TestReadLazy(t *testing.T) {
	a, b := streamPair(t)
	lazy := a.(transport.PooledReader)
	if _, err := b.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	p, n, err := lazy.ReadPooled(3, 100)
	if err != nil || string(p[3:3+n]) != "hello" {
		t.Fatalf("read %q, %v", p[3:3+n], err)
	}
	p.Release()
	if _, err := b.Write(make([]byte, 200)); err != nil {
		t.Fatal(err)
	}
	if p, n, err = lazy.ReadPooled(0, 100); err != nil || n != 100 {
		t.Fatalf("read %d bytes, %v; want 100", n, err)
	}
	p.Release()
	if p, n, err = lazy.ReadPooled(0, 150); err != nil || n != 100 {
		t.Fatalf("read %d bytes, %v; want the other 100", n, err)
	}
	p.Release()
	_ = b.CloseWrite()
	if p, n, err := lazy.ReadPooled(0, 100); p != nil || n != 0 || err != io.EOF {
		t.Fatalf("at the end %d bytes, %v", n, err)
	}
}

func TestReadLazyErrors(t *testing.T) {
	a, b := streamPair(t)
	_ = transport.Reset(b)
	if p, _, err := a.(transport.PooledReader).ReadPooled(0, 100); p != nil || !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("after a reset: %v", err)
	}
	c, _ := streamPair(t)
	_ = c.SetReadDeadline(time.Now().Add(-time.Second))
	if p, _, err := c.(transport.PooledReader).ReadPooled(0, 100); p != nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("after the deadline: %v", err)
	}
	_ = c.Close()
	if p, _, err := c.(transport.PooledReader).ReadPooled(0, 100); p != nil || err == nil {
		t.Fatalf("after Close: %v", err)
	}
}

// A reset that a write was told of is no end in order for the reader: what came
// before is read, then the reset. Behind a true end it stays an end.
func TestTCPResetMetByWrite(t *testing.T) {
	read := map[string]func(c transport.StreamConn) (int, error){
		"Read": func(c transport.StreamConn) (int, error) { return c.Read(make([]byte, 100)) },
		"ReadLazy": func(c transport.StreamConn) (int, error) {
			b, n, err := c.(transport.PooledReader).ReadPooled(0, 100)
			if b != nil {
				b.Release()
			}
			return n, err
		},
	}
	for name, read := range read {
		for _, ended := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, ended %v", name, ended), func(t *testing.T) {
				a, b := streamPair(t)
				mustWrite(t, b, "hello")
				if ended {
					if err := b.CloseWrite(); err != nil {
						t.Fatal(err)
					}
				}
				if err := transport.Reset(b); err != nil {
					t.Fatal(err)
				}
				for deadline := time.Now().Add(5 * time.Second); ; {
					if _, err := a.Write([]byte("x")); err != nil {
						break
					}
					if time.Now().After(deadline) {
						t.Fatal("no write met the reset")
					}
				}
				n, err := read(a)
				for n > 0 && err == nil {
					n, err = read(a)
				}
				if wrong := (err == io.EOF) != ended; wrong && runtime.GOOS == "linux" {
					t.Errorf("the stream ended by %v", err)
				}
			})
		}
	}
}

func TestWaitEnd(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("sockets cannot be peeked at")
	}
	for name, tt := range map[string]struct {
		act  func(cancel func(), peer *net.TCPConn)
		want bool
	}{
		"close":      {func(_ func(), peer *net.TCPConn) { _ = peer.Close() }, true},
		"reset":      {func(_ func(), peer *net.TCPConn) { _, _ = peer.SetLinger(0), peer.Close() }, true},
		"half close": {func(_ func(), peer *net.TCPConn) { _ = peer.CloseWrite() }, true},
		"data":       {func(_ func(), peer *net.TCPConn) { _, _ = io.WriteString(peer, "x") }, false},
		"cancel":     {func(cancel func(), _ *net.TCPConn) { cancel() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			here, peer := tcpPair(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan bool, 1)
			go func() { done <- tcpconn.WaitEnd(ctx, here) }()
			select {
			case <-done:
				t.Fatal("it did not wait")
			case <-time.After(20 * time.Millisecond):
			}
			tt.act(cancel, peer)
			if got := <-done; got != tt.want {
				t.Fatalf("ended is %v, want %v", got, tt.want)
			}
			if tt.want {
				return
			}
			if name == "cancel" {
				_, _ = io.WriteString(peer, "x")
			}
			if n, err := here.Read(make([]byte, 2)); n != 1 || err != nil {
				t.Errorf("then read %d, %v", n, err)
			}
		})
	}
}

// A connection whose peer reads has room, one whose peer does not fills up.
func TestTCPRoomy(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("sockets cannot be asked")
	}
	a, _ := streamPair(t)
	if err := a.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	total, part := 0, make([]byte, transport.WriteReadyBytes)
	for transport.WriteReady(a) {
		if _, err := a.Write(part); err != nil {
			t.Fatalf("a write that was not to wait: %v after %d bytes", err, total)
		}
		total += len(part)
	}
	if total == 0 {
		t.Error("no room at the beginning")
	}
	_ = a.Close()
	if transport.WriteReady(a) || transport.WriteReady(struct{}{}) {
		t.Error("what is closed, or cannot tell, has room")
	}
	if !raceEnabled {
		a, _ := streamPair(t)
		if n := testing.AllocsPerRun(100, func() { _ = transport.WriteReady(a) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

// A process that dies closes the connection below without a word.
func TestTCPFrail(t *testing.T) {
	die := func(_ transport.StreamConn, below *net.TCPConn) { _ = below.Close() }
	for _, c := range []struct {
		name    string
		frail   bool
		end     func(c transport.StreamConn, below *net.TCPConn)
		orderly bool
	}{
		{"dies", true, die, false},
		{"dies, not frail", false, die, true},
		{"closes", true, func(c transport.StreamConn, _ *net.TCPConn) { _ = c.Close() }, true},
		{"resets", true, func(c transport.StreamConn, _ *net.TCPConn) { _ = transport.Reset(c) }, false},
		{"ends, then dies", true, func(c transport.StreamConn, below *net.TCPConn) {
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
			_ = below.Close()
		}, true},
		{"ends, then resets", true, func(c transport.StreamConn, _ *net.TCPConn) {
			_ = c.CloseWrite()
			_ = transport.Reset(c)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			below, peer := tcpPair(t)
			_ = below.SetWriteBuffer(1 << 20)
			_ = peer.SetReadBuffer(16 << 10) // so that there is something that an end may lose
			conn := tcpconn.New(below)
			if c.frail {
				transport.ResetOnAbort(conn)
			}
			sent := make([]byte, 256<<10)
			_ = conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			n, _ := conn.Write(sent)
			c.end(conn, below)
			_ = peer.SetReadDeadline(time.Now().Add(10 * time.Second))
			got, err := io.Copy(io.Discard, peer)
			if c.orderly && (err != nil || got != int64(n)) || !c.orderly && (err == nil || errors.Is(err, os.ErrDeadlineExceeded)) {
				t.Errorf("the peer read %d of %d bytes, then %v", got, n, err)
			}
		})
	}
}
