package mux

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

// A handPeer is the far end of a client's tunnels, by hand.
type handPeer struct {
	*transporttest.Conn
	in *Reader
}

// clientOf returns a client whose tunnels are handed to the test.
func clientOf(t *testing.T) (*Client, chan *handPeer) {
	tunnels := make(chan *handPeer, 16)
	c := &Client{Dial: func(_ context.Context, first []byte) (transport.StreamConn, error) {
		a, b := transporttest.Pipe(1 << 20)
		_, err := a.Write(first)
		tunnels <- &handPeer{b, NewReader(b)}
		return a, err
	}}
	t.Cleanup(func() { _ = c.Close() })
	return c, tunnels
}

// opened reads a New and its data.
func (h *handPeer) opened(t *testing.T) (id uint16, data string) {
	t.Helper()
	f, err := h.in.Next()
	if err != nil || f.Status != StatusNew {
		t.Fatalf("got %+v, %v, want a New", f, err)
	}
	p, err := io.ReadAll(h.in)
	if err != nil {
		t.Fatal(err)
	}
	return f.Session, string(p)
}

func (h *handPeer) say(t *testing.T, f Frame, data string) {
	t.Helper()
	if _, err := h.Write(f.Append(nil, []byte(data))); err != nil {
		t.Fatal(err)
	}
}

var drainMark = Frame{Status: StatusKeepAlive, Draining: true}

// TestOpenedAgain: sessions that a draining server did not take are opened again
// with all that was said, and only those.
func TestOpenedAgain(t *testing.T) {
	broken := func(err error) bool { return errors.As(err, new(*TunnelError)) }
	for _, c := range []struct {
		name  string
		more  string // is written behind the first bytes
		close bool   // the application ends its direction
		end   func(t *testing.T, h *handPeer, id uint16)
		again bool
		want  func(err error) bool
	}{
		{"not taken", "", false, func(t *testing.T, h *handPeer, id uint16) {
			h.say(t, Frame{Session: id, Status: StatusEnd, Error: true, Draining: true}, "")
		}, true, nil},
		{"not taken, after more", "more", true, func(t *testing.T, h *handPeer, id uint16) {
			h.say(t, Frame{Session: id, Status: StatusEnd, Error: true, Draining: true}, "")
		}, true, nil},
		{"not taken, too much to keep", string(make([]byte, maxKept)), false, func(t *testing.T, h *handPeer, id uint16) {
			h.say(t, Frame{Session: id, Status: StatusEnd, Error: true, Draining: true}, "")
		}, false, func(err error) bool { return errors.Is(err, ErrDraining) }},
		{"on its way while the tunnel ended", "more", false, func(t *testing.T, h *handPeer, _ uint16) {
			h.say(t, drainMark, "")
			_ = h.CloseWrite()
		}, true, nil},
		{"tunnel broken while it drains", "", false, func(t *testing.T, h *handPeer, _ uint16) {
			h.say(t, drainMark, "")
			_ = h.Reset()
		}, false, broken},
		{"tunnel ended without a mark", "", false, func(_ *testing.T, h *handPeer, _ uint16) {
			_ = h.CloseWrite()
		}, false, broken},
		{"given up", "", false, func(t *testing.T, h *handPeer, id uint16) {
			h.say(t, Frame{Session: id, Status: StatusEnd, Error: true}, "")
		}, false, func(err error) bool { return err == ErrFailed }},
		{"ended", "", false, func(t *testing.T, h *handPeer, id uint16) {
			h.say(t, Frame{Session: id, Status: StatusEnd}, "")
		}, false, func(err error) bool { return err == io.EOF }},
		{"answered", "", false, func(t *testing.T, h *handPeer, id uint16) {
			h.say(t, Frame{Session: id, Status: StatusKeep, HasData: true}, "part")
			h.say(t, Frame{Session: id, Status: StatusEnd, Error: true, Draining: true}, "")
		}, false, func(err error) bool { return errors.Is(err, ErrDraining) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, tunnels := clientOf(t)
				fresh, fars := transporttest.Pipe(1 << 20)
				var said bytes.Buffer
				client.Again = func(_ context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
					if dst != addr(t, "example.com:80") {
						t.Errorf("opened again to %v", dst)
					}
					said.Write(first)
					return fresh, nil
				}
				s, err := client.DialStream(t.Context(), addr(t, "example.com:80"), []byte("first"))
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				h := <-tunnels
				id, data := h.opened(t)
				if data != "first" {
					t.Errorf("the server got %q", data)
				}
				if c.more != "" {
					mustWrite(t, s, c.more)
				}
				if c.close {
					_ = s.CloseWrite()
				}
				c.end(t, h, id)
				synctest.Wait()
				if !c.again {
					_, err := io.Copy(io.Discard, onlyReader{eofMark{s}})
					var end endedBy
					if !errors.As(err, &end) || !c.want(end.error) || said.Len() > 0 {
						t.Errorf("ended with %v; opened again with %q", err, said.Bytes())
					}
					return
				}
				got := make(chan []byte, 1)
				go func() {
					p, _ := io.ReadAll(onlyReader{s})
					got <- p
				}()
				synctest.Wait()
				want := "first" + c.more
				if !c.close {
					mustWrite(t, s, " and on")
					want += " and on"
					_ = s.CloseWrite()
				}
				mustWrite(t, fars, "answer")
				_ = fars.CloseWrite()
				if p := <-got; string(p) != "answer" {
					t.Errorf("the application got %q", p)
				}
				rest, err := io.ReadAll(fars)
				if all := said.String() + string(rest); all != want || err != nil {
					t.Errorf("the other server got %q, %v, want %q", all, err, want)
				}
			})
		})
	}
}

type eofMark struct{ io.Reader }

type endedBy struct{ error }

func (e eofMark) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err != nil {
		err = endedBy{err}
	}
	return n, err
}

// TestDrainedTunnelTakesNoMore: after the mark new sessions get a tunnel of their
// own, and those that run go on.
func TestDrainedTunnelTakesNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, tunnels := clientOf(t)
		s, err := client.DialStream(t.Context(), addr(t, "example.com:80"), []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		h := <-tunnels
		id, _ := h.opened(t)
		h.say(t, drainMark, "")
		synctest.Wait()
		if _, err := client.DialStream(t.Context(), addr(t, "example.com:81"), []byte("y")); err != nil {
			t.Fatal(err)
		}
		if _, data := (<-tunnels).opened(t); data != "y" {
			t.Errorf("the second tunnel got %q", data)
		}
		h.say(t, Frame{Session: id, Status: StatusKeep, HasData: true}, "on")
		mustRead(t, s, "on")
	})
}

// TestOpenedAgainEndlessly: servers that all drain are not asked for ever.
func TestOpenedAgainEndlessly(t *testing.T) {
	l := newLab(t)
	var attempts atomic.Int64
	l.Client.Dial = func(_ context.Context, first []byte) (transport.StreamConn, error) {
		attempts.Add(1)
		a, b := transporttest.Pipe(1 << 16)
		go func() { // says that it drains, whatever comes
			in := NewReader(b)
			for f, err := in.Next(); err == nil; f, err = in.Next() {
				_, _ = b.Write(Frame{Session: f.Session, Status: StatusEnd, Error: true, Draining: true}.Append(nil, nil))
			}
		}()
		_, err := a.Write(first)
		return a, err
	}
	l.Client.Again = l.Client.DialStream
	s := l.open(t, "x")
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, ErrDraining) {
		t.Errorf("read: %v", err)
	}
	if n := attempts.Load(); n > maxAttempts+1 {
		t.Errorf("%d attempts", n)
	}
}

// TestClosedWhileOpenedAgain: who closes does not wait for another server.
func TestClosedWhileOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, tunnels := clientOf(t)
		client.Again = func(ctx context.Context, _ netaddr.Addr, _ []byte) (transport.StreamConn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		s, err := client.DialStream(t.Context(), addr(t, "example.com:80"), []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		h := <-tunnels
		id, _ := h.opened(t)
		h.say(t, Frame{Session: id, Status: StatusEnd, Error: true, Draining: true}, "")
		read := make(chan error, 1)
		go func() { _, err := s.Read(make([]byte, 1)); read <- err }()
		synctest.Wait()
		_ = s.Close()
		if err := <-read; !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("read: %v", err)
		}
	})
}
