package mux

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
)

func newTCP(t testing.TB, id uint16) Frame {
	return Frame{Session: id, Status: StatusNew, Network: NetworkTCP, Address: addr(t, "example.com:80")}
}

func withData(f Frame) Frame { f.HasData = true; return f }

func keep(id uint16) Frame { return Frame{Session: id, Status: StatusKeep, HasData: true} }

func end(id uint16, failed bool) Frame {
	return Frame{Session: id, Status: StatusEnd, Error: failed}
}

func TestRequest(t *testing.T) {
	l := newLab(t)
	got := make(chan transport.Request, 1)
	l.Server.HandleStream = func(ctx context.Context, r *transport.Request) {
		got <- *r
		echo(ctx, r)
	}
	mustRead(t, l.open(t, "x"), "x")
	r := <-got
	if r.Destination != addr(t, "example.com:80") || r.User != "alice" || r.Inbound != "mux" ||
		r.Source != netip.MustParseAddrPort("192.0.2.7:4321") || len(r.First) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestServedFrames(t *testing.T) {
	synctest.Test(t, servedFrames)
}

func servedFrames(t *testing.T) {
	r := newRaw(t, &Server{HandleStream: echo})
	r.send(t, withData(newTCP(t, 1)), "one")
	r.expect(t, keep(1), "one")
	r.send(t, newTCP(t, 2), "")
	r.send(t, Frame{Session: 9, Status: StatusKeepAlive, HasData: true}, "dropped")
	r.send(t, keep(2), "two")
	r.expect(t, keep(2), "two")
	r.send(t, keep(7), "of nobody")
	r.expect(t, end(7, false), "")
	r.send(t, end(7, false), "") // is not answered
	r.send(t, keep(1), "more")
	r.expect(t, keep(1), "more")
	last := end(1, false)
	last.HasData = true
	r.send(t, last, "with the end")
	r.send(t, keep(2), "after")
	r.expect(t, keep(2), "after")
	_ = r.CloseWrite()
	if err := <-r.done; !errors.As(err, new(*TunnelError)) {
		t.Errorf("left with a session: %v", err)
	}
}

// An aborted session, and one whose handler returns without a word, end with
// the error bit.
func TestAbort(t *testing.T) {
	r := newRaw(t, &Server{HandleStream: func(_ context.Context, r *transport.Request) {
		if r.Destination.Port() == 80 {
			_ = r.Pending.Abort(errors.New("no such thing"))
		}
	}})
	r.send(t, newTCP(t, 1), "")
	r.expect(t, end(1, true), "")
	other := newTCP(t, 2)
	other.Address = other.Address.WithPort(81)
	r.send(t, other, "")
	r.expect(t, end(2, true), "")
	r.send(t, newTCP(t, 1), "") // the id is free again
	r.expect(t, end(1, true), "")
	_ = r.CloseWrite()
	if err := <-r.done; err != nil {
		t.Errorf("an orderly end: %v", err)
	}
}

// Whoever only asks whether it is accepted is answered without a handler.
func TestProbe(t *testing.T) {
	r := newRaw(t, &Server{HandleStream: func(context.Context, *transport.Request) { t.Error("handled") }})
	for i, name := range []string{"probe.invalid:80", "PROBE.Invalid.:80", "invalid:1"} {
		f := newTCP(t, uint16(i))
		f.Address = addr(t, name)
		r.send(t, f, "")
		r.expect(t, end(uint16(i), true), "")
	}
	udp := newTCP(t, 9)
	udp.Network = NetworkUDP
	r.send(t, udp, "") // not served
	r.expect(t, end(9, true), "")
}

func TestTooManySessions(t *testing.T) {
	hold := make(chan struct{})
	r := newRaw(t, &Server{Sessions: 2, HandleStream: func(context.Context, *transport.Request) { <-hold }})
	for id := range uint16(3) {
		r.send(t, newTCP(t, id), "")
	}
	r.expect(t, end(2, true), "")
	r.send(t, end(0, false), "") // its handler is still there
	r.send(t, newTCP(t, 3), "")
	r.expect(t, end(3, true), "")
	close(hold)
	r.expect(t, end(1, true), "")
}

// A peer that opens sessions and reads nothing does not fill our memory.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t, &Server{HandleStream: func(_ context.Context, r *transport.Request) { _ = r.Pending.Abort(nil) }})
		probe := newTCP(t, 1)
		probe.Address = addr(t, "probe.invalid:80")
		open := probe.Append(nil, nil)
		for range 1 << 20 {
			if _, err := r.Write(open); err != nil {
				break
			}
		}
		if err := <-r.done; !errors.Is(err, errTooMany) {
			t.Errorf("%v", err)
		}
	})
}

// Data of sessions that are gone is no reason to end the others.
func TestFloodOfUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t, &Server{HandleStream: echo})
		r.send(t, newTCP(t, 1), "")
		for range 300_000 { // more than the answers fit
			r.send(t, keep(7), "x")
		}
		r.send(t, keep(1), "here")
		for {
			f, err := r.in.Next()
			if err != nil {
				t.Fatal(err)
			}
			if f == keep(1) {
				break
			}
		}
		_ = r.Close()
		<-r.done
	})
}

func TestSessionTwice(t *testing.T) {
	r := newRaw(t, &Server{HandleStream: echo})
	r.send(t, newTCP(t, 1), "")
	r.send(t, newTCP(t, 1), "")
	if err := <-r.done; !errors.Is(err, errReused) {
		t.Errorf("%v", err)
	}
}

func TestGarbage(t *testing.T) {
	r := newRaw(t, &Server{HandleStream: echo})
	r.send(t, withData(newTCP(t, 1)), "x")
	r.expect(t, keep(1), "x")
	mustWrite(t, r, "GET / HTTP/1.1\r\n\r\n")
	if err := <-r.done; !errors.Is(err, ErrBadFrame) {
		t.Errorf("%v", err)
	}
}

func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t, &Server{HandleStream: echo})
		start := time.Now()
		if _, err := r.in.Next(); err != io.EOF || time.Since(start) != DefaultPatience {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if err := <-r.done; err != nil {
			t.Error(err)
		}
	})
}

// A server that takes no more sessions says so, and ends a tunnel without any at
// once, and another with its last one.
func TestServerRetires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accepting, stop := context.WithCancel(context.Background())
		v := &Server{HandleStream: echo, Accepting: accepting}
		unused, used, busy := newRaw(t, v), newRaw(t, v), newRaw(t, v)
		for _, r := range []*raw{used, busy} {
			r.send(t, newTCP(t, 1), "")
			r.send(t, keep(1), "before")
			r.expect(t, keep(1), "before")
		}
		used.send(t, end(1, false), "")
		synctest.Wait()
		stopped := time.Now()
		stop()
		mark := Frame{Status: StatusKeepAlive, Draining: true}
		for _, r := range []*raw{unused, used} {
			r.expect(t, mark, "")
			if _, err := r.in.Next(); err != io.EOF {
				t.Errorf("a tunnel without sessions ended with %v", err)
			}
			if err := <-r.done; err != nil {
				t.Error(err)
			}
		}
		busy.expect(t, mark, "")
		busy.send(t, newTCP(t, 2), "")
		busy.expect(t, Frame{Session: 2, Status: StatusEnd, Error: true, Draining: true}, "")
		busy.send(t, keep(1), "after")
		busy.expect(t, keep(1), "after")
		busy.send(t, end(1, false), "")
		if _, err := busy.in.Next(); err != io.EOF {
			t.Errorf("the tunnel ended with %v", err)
		}
		if err := <-busy.done; err != nil {
			t.Error(err)
		}
		if took := time.Since(stopped); took != 0 {
			t.Errorf("it took %v", took)
		}
	})
}

func TestServeIsCancelled(t *testing.T) {
	l := newLab(t)
	l.hand()
	c := l.open(t, "x")
	s := <-l.streams
	mustRead(t, s, "x")
	l.cancel()
	l.serving.Wait()
	if err := l.errs[0]; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve: %v", err)
	}
	if _, err := s.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the server's side: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.As(err, new(*TunnelError)) {
		t.Errorf("the client's side: %v", err)
	}
}

// A handler has some time to deliver what a client sent before its End; what
// it writes then goes nowhere.
func TestWindUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cancelled := make(chan error, 1)
		streams := make(chan transport.StreamConn, 1)
		r := newRaw(t, &Server{HandleStream: func(ctx context.Context, r *transport.Request) {
			c, _ := r.Pending.Proceed(netip.AddrPort{})
			streams <- c
			<-ctx.Done()
			cancelled <- context.Cause(ctx)
		}})
		r.send(t, withData(newTCP(t, 1)), "upload")
		r.send(t, end(1, false), "")
		start := time.Now()
		s := <-streams
		if p, err := io.ReadAll(s); string(p) != "upload" || err != nil {
			t.Errorf("%q, %v", p, err)
		}
		gone := make(chan bool, 1)
		go func() { gone <- s.(transport.PeerWaiter).WaitPeerClose() }()
		time.Sleep(endGrace / 2)
		if len(gone) > 0 {
			t.Error("the handler was told that it has no time left")
		}
		if _, err := s.Write([]byte("x")); err != ErrEnded || time.Since(start) != endGrace {
			t.Errorf("write: %v after %v", err, time.Since(start))
		}
		if err := <-cancelled; err != ErrEnded {
			t.Errorf("cancelled by %v", err)
		}
		if !<-gone {
			t.Error("a session that is over goes on")
		}

		r.send(t, newTCP(t, 2), "")
		<-streams
		start = time.Now()
		r.send(t, end(2, true), "")
		if err := <-cancelled; err != ErrFailed || time.Since(start) != 0 {
			t.Errorf("cancelled by %v after %v", err, time.Since(start))
		}
		_ = r.Close()
		<-r.done
	})
}

func drain(_ context.Context, r *transport.Request) {
	c, _ := r.Pending.Proceed(netip.AddrPort{})
	_, _ = io.Copy(io.Discard, onlyReader{c})
	_ = c.Close()
}

// Arbitrary bytes end a tunnel, or not, but do no harm.
func FuzzServer(f *testing.F) {
	var all []byte
	for _, v := range vectors(f) {
		f.Add(mustHex(f, v.Wire))
		all = append(all, mustHex(f, v.Wire)...)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := newRaw(t, &Server{HandleStream: drain, HandlePackets: echoPackets})
		go func() { _, _ = io.Copy(io.Discard, r) }()
		_, _ = r.Write(wire)
		_ = r.CloseWrite()
		<-r.done
	})
}

// Nor does a server that sends such.
func FuzzClient(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(mustHex(f, v.Wire))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		far := &scripted{answer: wire}
		c := &Client{Dial: far.dial}
		defer c.Close()
		s, err := c.DialStream(t.Context(), addr(t, "example.com:80"), []byte("x"))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, onlyReader{s})
		_ = s.Close()
		u := &XUDP{Dial: far.dial}
		p, err := u.DialPacket(t.Context(), addr(t, "example.com:80"))
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, _, err = p.ReadPacket(make([]byte, 100))
		}
		_ = p.Close()
	})
}
