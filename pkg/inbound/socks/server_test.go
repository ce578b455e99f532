package socks

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/host/fdlimit"
	"vmess-local/pkg/transport"
)

// inBubble runs a server on an in-memory listener on a fake clock.
func inBubble(t *testing.T, s *Server, test func(t *testing.T, d *door, ln *memListener)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ln := newMemListener()
		test(t, openOn(t, s, ln), ln)
	})
}

func TestSlowClient(t *testing.T) {
	for name, send := range map[string]string{
		"socks5": "\x05\x09" + strings.Repeat("\x00", 50),
		"socks4": "\x04\x01\x00\x50\xc0\x00\x02\x01" + strings.Repeat("u", 50),
		"http":   "GET http://example.com/" + strings.Repeat("x", 50),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, &Server{}, func(t *testing.T, d *door, ln *memListener) {
				c := ln.dial()
				defer c.Close()
				start := time.Now()
				for i := range send { // a byte a second
					if _, err := c.Write([]byte{send[i]}); err != nil {
						break
					}
					time.Sleep(time.Second)
				}
				if took := time.Since(start).Round(time.Second); took < 10*time.Second || took > 11*time.Second {
					t.Errorf("cut after %s, want 10s", took)
				}
				d.wantReport(t, ErrHandshakeTimeout)
			})
		})
	}
}

func TestSilentClient(t *testing.T) {
	inBubble(t, &Server{Handshake: 3 * time.Second}, func(t *testing.T, d *door, ln *memListener) {
		c := ln.dial()
		defer c.Close()
		start := time.Now()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read: %v, want %v", err, io.EOF)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("cut after %s, want 3s", took)
		}
		d.wantReport(t, nil) // browsers connect ahead
	})
}

func TestDeadlineEndsWithHandshake(t *testing.T) {
	for name, hello := range map[string]string{
		"socks4": "\x04\x01\x00\x50\xc0\x00\x02\x01\x00",
		"http":   "CONNECT example.com:443 HTTP/1.1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, &Server{}, func(t *testing.T, _ *door, ln *memListener) {
				c := ln.dial()
				defer c.Close()
				write(t, c, hello)
				want := "\x00\x5a\x00\x00\x00\x00\x00\x00"
				if name == "http" {
					want = "HTTP/1.1 200 Connection established\r\n\r\n"
				}
				if got := readN(t, c, len(want)); got != want {
					t.Fatalf("answered %q", got)
				}
				time.Sleep(time.Hour)
				write(t, c, "late")
				if got := readN(t, c, 4); got != "late" {
					t.Errorf("echoed %q", got)
				}
			})
		})
	}
}

// A client that takes no answer holds nothing for longer than the bounds.
func TestClientThatDoesNotRead(t *testing.T) {
	inBubble(t, &Server{Handler: abort(nil)}, func(t *testing.T, d *door, ln *memListener) {
		c := ln.dial()
		defer c.Close()
		write(t, c, "\x04\x01\x00\x50\xc0\x00\x02\x01\x00")
		time.Sleep(lingerTime + time.Millisecond)
		synctest.Wait()
		if n := d.open(); n != 0 {
			t.Errorf("%d connections are still held", n)
		}
	})
}

func (d *door) open() int {
	d.Server.mu.Lock()
	defer d.Server.mu.Unlock()
	return len(d.clients)
}

func TestScanners(t *testing.T) {
	for _, c := range []struct {
		name, send string
		report     error
	}{
		{"connect only", "", nil},
		{"socks5 after a byte", "\x05", ErrBadRequest},
		{"socks5 within the methods", "\x05\x03\x00", ErrBadRequest},
		{"socks5 after the greeting", "\x05\x01\x00", nil},
		{"socks5 within the request", "\x05\x01\x00\x05\x01", ErrBadRequest},
		{"socks5 within the name", "\x05\x01\x00\x05\x01\x00\x03\x0bexamp", ErrBadRequest},
		{"socks4", "\x04\x01", ErrBadRequest},
		{"socks4 within the user", "\x04\x01\x00\x50\xc0\x00\x02\x01us", ErrBadRequest},
		{"http", "GET / HT", ErrBadRequest},
		{"garbage with a letter first", "hello, is there anybody?\r\n\r\n", ErrBadHandshake},
		{"ssh", "SSH-2.0-OpenSSH_9.9\r\n", ErrBadHandshake},
		{"http with an endless head", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", maxHeader+8192), ErrBadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, &Server{})
			client := d.dial(t)
			write(t, client, c.send)
			if err := client.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, client)
			_ = client.Close()
			d.until(t, 0)
			d.wantReport(t, c.report)
		})
	}
}

func TestRoom(t *testing.T) {
	d := open(t, &Server{Room: fdlimit.NewSemaphore(2, nil, 0)})
	first := d.dial(t)
	write(t, first, connect5)
	readN(t, first, len(ok5))
	second := d.dial(t)
	write(t, second, "CONNECT example.com:443 HTTP/1.1\r\n\r\n")
	readN(t, second, len("HTTP/1.1 200 Connection established\r\n\r\n"))
	for range 5 {
		if got := d.talk(t, ""); got != "" {
			t.Errorf("the third connection got %q", got)
		}
	}
	for _, c := range []net.Conn{first, second} { // the old ones go on
		write(t, c, "still")
		if got := readN(t, c, 5); got != "still" {
			t.Errorf("echoed %q", got)
		}
	}
	if err := first.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	readAll(t, first)
	_ = first.Close()
	d.until(t, 1)
	again := d.dial(t)
	write(t, again, connect5)
	if got := readN(t, again, len(ok5)); got != ok5 {
		t.Errorf("with room again: % x", got)
	}
	_, _ = again.Close(), second.Close()
	d.wantReport(t, ErrTooMany) // once
}

// until waits for the server to hold n connections.
func (d *door) until(t *testing.T, n int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 3000 {
		if d.open() == n {
			return
		}
		<-tick.C
	}
	t.Fatalf("%d connections are held, want %d", d.open(), n)
}

func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var th throttle
		check := func(wantN int, wantOK bool) {
			t.Helper()
			if n, ok := th.pass(); n != wantN || ok != wantOK {
				t.Errorf("pass() = %d, %v; want %d, %v", n, ok, wantN, wantOK)
			}
		}
		check(1, true)
		check(0, false)
		check(0, false)
		time.Sleep(reportEvery)
		check(3, true)
	})
}

// A flakyListener fails a few times before it works.
type flakyListener struct {
	*memListener
	fail []error
}

func (l *flakyListener) Accept() (net.Conn, error) {
	if len(l.fail) > 0 {
		err := l.fail[0]
		l.fail = l.fail[1:]
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: err}
	}
	return l.memListener.Accept()
}

func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemListener()
		shortage := []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED, syscall.ENOBUFS, syscall.EMFILE}
		d := openOn(t, &Server{}, &flakyListener{mem, shortage})
		start := time.Now()
		c := mem.dial()
		if took := time.Since(start); took != 155*time.Millisecond { // 5+10+20+40+80
			t.Errorf("accepts again after %s", took)
		}
		_ = c.Close()
		d.wantReport(t, syscall.EMFILE) // once
	})
	synctest.Test(t, func(t *testing.T) {
		mem := newMemListener()
		err := new(Server).Serve(t.Context(), &flakyListener{mem, []error{syscall.EINVAL}})
		if !errors.Is(err, syscall.EINVAL) {
			t.Errorf("Serve: %v, want %v", err, syscall.EINVAL)
		}
		<-mem.done // closed
	})
}

func TestServeClosesListener(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var s Server
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, ln) }()
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v, want nil", err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v, want %v", err, net.ErrClosed)
	}
	if err := s.Drain(t.Context()); err != nil {
		t.Errorf("Drain: %v", err)
	}
	ln, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context(), ln); !errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve after Drain: %v, want %v", err, ErrServerClosed)
	}
}

func TestDrainWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newMemListener()
		ctx, cancel := context.WithCancel(t.Context())
		s := &Server{Handler: HandlerFunc(echo)}
		served := make(chan error, 1)
		go func() { served <- s.Serve(ctx, ln) }()

		tunnels := []net.Conn{ln.dial(), ln.dial()}
		write(t, tunnels[0], "\x04\x01\x00\x50\xc0\x00\x02\x01\x00")
		readN(t, tunnels[0], 8)
		write(t, tunnels[1], "CONNECT example.com:443 HTTP/1.1\r\n\r\n")
		readN(t, tunnels[1], len("HTTP/1.1 200 Connection established\r\n\r\n"))
		silent, idle := ln.dial(), ln.dial()
		write(t, idle, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		for got := ""; !strings.HasSuffix(got, textOrigin); {
			got += readN(t, idle, 1)
		}

		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		for _, c := range tunnels {
			write(t, c, "on")
			if got := readN(t, c, 2); got != "on" {
				t.Errorf("after Serve: %q", got)
			}
		}

		drained := make(chan error, 1)
		limit, stop := context.WithTimeout(t.Context(), 5*time.Second)
		defer stop()
		go func() { drained <- s.Drain(limit) }()
		for _, c := range []net.Conn{silent, idle} { // nothing to wait for
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("read: %v, want %v", err, io.EOF)
			}
		}
		time.Sleep(3 * time.Second)
		select {
		case err := <-drained:
			t.Fatalf("Drain did not wait: %v", err)
		default:
		}
		for _, c := range tunnels {
			write(t, c, "on")
			readN(t, c, 2)
			_ = c.Close()
		}
		if err := <-drained; err != nil {
			t.Errorf("Drain: %v, want nil", err)
		}
		_, _ = silent.Close(), idle.Close()
	})
}

// TestRetireServesNewConnections: a program that has just connected has its request
// served though another server follows: its first bytes may be on their way.
func TestRetireServesNewConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newMemListener()
		ctx, cancel := context.WithCancel(t.Context())
		s := &Server{Handler: HandlerFunc(echo)}
		served := make(chan error, 1)
		go func() { served <- s.Serve(ctx, ln) }()
		viaSOCKS, viaHTTP, silent := ln.dial(), ln.dial(), ln.dial()
		synctest.Wait()
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		retired := make(chan error, 1)
		go func() { retired <- s.Retire(t.Context()) }()
		synctest.Wait()
		write(t, viaSOCKS, "\x04\x01\x00\x50\xc0\x00\x02\x01\x00")
		readN(t, viaSOCKS, 8)
		write(t, viaHTTP, "CONNECT example.com:443 HTTP/1.1\r\n\r\n")
		readN(t, viaHTTP, len("HTTP/1.1 200 Connection established\r\n\r\n"))
		for _, c := range []net.Conn{viaSOCKS, viaHTTP} {
			write(t, c, "on")
			readN(t, c, 2)
			_ = c.Close()
		}
		if _, err := silent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read: %v, want %v", err, io.EOF)
		}
		if err := <-retired; err != nil {
			t.Errorf("Retire: %v", err)
		}
		_ = silent.Close()
	})
}

func TestDrainCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newMemListener()
		ended := make(chan error, 1)
		s := &Server{Handler: HandlerFunc(func(ctx context.Context, r *transport.Request) {
			c, err := r.Pending.Proceed(netip.AddrPort{})
			if err != nil {
				t.Error(err)
				return
			}
			_, err = c.Read(make([]byte, 1))
			ended <- errors.Join(err, ctx.Err())
		})}
		go func() { _ = s.Serve(t.Context(), ln) }()
		c := ln.dial()
		defer c.Close()
		write(t, c, "\x04\x01\x00\x50\xc0\x00\x02\x01\x00")
		readN(t, c, 8)
		half := ln.dial()
		defer half.Close()
		write(t, half, "\x05\x01")

		limit, stop := context.WithTimeout(t.Context(), 5*time.Second)
		defer stop()
		start := time.Now()
		if err := s.Drain(limit); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Drain: %v, want %v", err, context.DeadlineExceeded)
		}
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("drained for %s", took)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the handler saw %v, want %v", err, context.Canceled)
		}
	})
}

func TestDrainNamesStuckHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newMemListener()
		free := make(chan struct{})
		s := &Server{Handler: HandlerFunc(func(context.Context, *transport.Request) { <-free })}
		go func() { _ = s.Serve(t.Context(), ln) }()
		c := ln.dial()
		defer c.Close()
		write(t, c, "\x04\x01\x00\x50\xc0\x00\x02\x01\x00")
		now, stop := context.WithCancel(t.Context())
		stop()
		if err := s.Drain(now); err == nil || !strings.Contains(err.Error(), "still run") {
			t.Errorf("Drain: %v", err)
		}
		close(free)
		if err := s.Drain(t.Context()); err != nil { // again
			t.Errorf("Drain: %v", err)
		}
	})
}
