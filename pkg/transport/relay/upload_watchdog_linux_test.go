package relay_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/relay"
	"vmess-local/pkg/transport/tcpconn"
)

// mustFill writes to c until it takes no more.
func mustFill(t *testing.T, c transport.StreamConn) {
	t.Helper()
	p := make([]byte, 1<<20)
	for {
		_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := c.Write(p); err != nil {
			_ = c.SetWriteDeadline(time.Time{})
			return
		}
	}
}

// TestRelayLocalGoneBehindStuckUpload: an application that breaks off while the
// far end takes nothing is noticed though nobody reads it, and the far end sees
// that it was cut.
func TestRelayLocalGoneBehindStuckUpload(t *testing.T) {
	d := start(t, relay.Relay{Idle: time.Hour}, streamPair)
	mustFill(t, d.app)
	_ = transport.Reset(d.app)
	select {
	case o := <-d.done:
		if o.UpErr == nil && o.DownErr == nil {
			t.Errorf("%+v", o)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the relay goes on for nobody")
	}
	if _, err := io.Copy(io.Discard, d.far); err == nil {
		t.Error("the far end saw an orderly end")
	}
}

// TestRelayLeavesStuckUpload: one who has sent all and has read the whole
// answer may leave in order, and what it sent arrives, however late.
func TestRelayLeavesStuckUpload(t *testing.T) {
	a, b := tcpPair(t)
	remote, far := tcpPair(t)
	const few, sent = 32 << 10, 192 << 10 // so that some is read, and watched, some not
	const many = 4 * sent                 // so that the end is there, whatever is read
	if err := errors.Join(b.SetReadBuffer(many), remote.SetWriteBuffer(few), far.SetReadBuffer(few)); err != nil {
		t.Fatal(err)
	}
	app, local := tcpconn.New(a), tcpconn.New(b)
	d := startOn(t, relay.Relay{Idle: time.Hour}, app, local, tcpconn.New(remote), tcpconn.New(far))
	if _, err := app.Write(make([]byte, sent)); err != nil {
		t.Fatal(err)
	}
	_ = d.far.CloseWrite()
	if _, err := io.Copy(io.Discard, app); err != nil {
		t.Fatal(err)
	}
	_ = app.Close()
	for deadline := time.Now().Add(5 * time.Second); !transport.ResetByPeer(local); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the system does not count both ends")
		}
	}
	time.Sleep(3 * time.Second) // of looking
	if n, err := io.Copy(io.Discard, far); n != sent || err != nil {
		t.Errorf("%d of %d bytes arrived, %v", n, sent, err)
	}
}
