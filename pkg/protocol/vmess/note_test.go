package vmess

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/transporttest"
)

// ownPair is a client and a server of this package at the two ends of a pipe,
// with a request between them whose destination is silent.
func ownPair(t *testing.T, c *Account) (client *Conn, server *Incoming, cut *transporttest.Conn) {
	t.Helper()
	s, err := NewServer(ServerConfig{Users: []User{{ID: testID, Name: "alice"}}})
	if err != nil {
		t.Fatal(err)
	}
	near, far := transporttest.Pipe(1 << 16)
	d := &Dialer{Client: c, Endpoint: transport.EndpointFunc(func(_ context.Context, first []byte) (transport.StreamConn, error) {
		_, err := near.Write(first)
		return near, err
	})}
	conn, err := d.DialStream(t.Context(), destination, []byte("question"))
	if err != nil {
		t.Fatal(err)
	}
	in, err := s.Accept(t.Context(), far)
	if err != nil {
		t.Fatal(err)
	}
	return conn.(*Conn), in, near
}

func newAEADClient() *Account {
	return NewAccount(AccountConfig{ID: testID, Method: Method{SecurityAESGCM, padded}})
}

// A client that does not know the server is told at once, before the
// destination says anything, and does not hold its end mark back then.
func TestUnknownClientIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAEADClient()
		conn, in, _ := ownPair(t, c)
		start := time.Now()
		go func() { _, _ = conn.Read(make([]byte, 1)) }()
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if all, err := io.ReadAll(in.conn); string(all) != "question" || err != nil {
			t.Fatalf("the server read %q, %v", all, err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("the end took %v", took)
		}
		if c.ServerKind() != KindNative || !conn.Answered() {
			t.Errorf("kind %v, answered %v", c.ServerKind(), conn.Answered())
		}
		_ = in.conn.Close()
		_ = conn.Close()
	})
}

// One that knows it costs no extra message.
func TestKnownClientIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newAEADClient()
		c.kind.Store(uint32(KindNative))
		conn, in, near := ownPair(t, c)
		_ = near.SetReadDeadline(time.Now().Add(time.Second))
		if n, err := near.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("the server sent something by itself: %v", err)
		}
		_ = in.conn.Close()
		_ = conn.Close()
	})
}

// A request of this package's client that breaks off is not taken for whole.
func TestBrokenRequestIsNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, in, near := ownPair(t, newAEADClient())
		_ = near.CloseWrite() // as when a proxy passes a reset on as an end
		if all, err := io.ReadAll(in.conn); string(all) != "question" || !errors.Is(err, ErrTruncated) {
			t.Errorf("the server read %q, %v", all, err)
		}
		_ = in.conn.Close()
		_ = conn.Close()
	})
}

func TestNote(t *testing.T) {
	for _, c := range []struct {
		rest  string
		flags byte
		own   bool
	}{
		{"vml\x01\x00\x00", 1, true}, {"vml\x00", 0, true}, {"vml", 0, false}, {"", 0, false}, {"\x00\x00\x00\x00\x00", 0, false}, {"vmx\x01", 0, false},
	} {
		if flags, own := readNote([]byte(c.rest)); flags != c.flags || own != c.own {
			t.Errorf("%q: %d, %v", c.rest, flags, own)
		}
	}
}
