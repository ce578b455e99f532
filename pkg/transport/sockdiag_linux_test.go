package transport_test

import (
	"io"
	"testing"
	"time"

	"vmess-local/pkg/transport"
)

func TestTCPLeft(t *testing.T) {
	for name, tt := range map[string]struct {
		do   func(b transport.StreamConn)
		want bool
	}{
		"open":             {func(transport.StreamConn) {}, false},
		"ended by peer":    {func(b transport.StreamConn) { _ = b.CloseWrite() }, false},
		"closed by peer":   {func(b transport.StreamConn) { _ = b.Close() }, true},
		"ended and closed": {func(b transport.StreamConn) { _ = b.CloseWrite(); _ = b.Close() }, true},
		"said and closed":  {func(b transport.StreamConn) { _, _ = b.Write([]byte("x")); _ = b.Close() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := streamPair(t)
			tt.do(b)
			for deadline := time.Now().Add(5 * time.Second); transport.PeerClosed(a) != tt.want; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("left: %v", !tt.want)
				}
			}
			time.Sleep(20 * time.Millisecond) // for a false one
			if transport.PeerClosed(a) != tt.want {
				t.Errorf("left: %v", !tt.want)
			}
		})
	}
	if transport.PeerClosed(struct{}{}) {
		t.Error("who does not know has left")
	}
}

// TestRelayLocalLeft: an application that says something and closes is not
// waited for by a far end that does not answer, and what it said arrives.
func TestRelayLocalLeft(t *testing.T) {
	d := start(t, transport.Relay{Idle: time.Hour}, streamPair)
	if _, err := io.WriteString(d.app, "last words"); err != nil {
		t.Fatal(err)
	}
	_ = d.app.Close()
	select {
	case o := <-d.done:
		if o.Err() != nil || o.Up != 10 {
			t.Errorf("%+v", o)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the relay goes on for nobody")
	}
	if got, err := io.ReadAll(d.far); string(got) != "last words" || err != nil {
		t.Errorf("%q arrived, %v", got, err)
	}
}

// TestRelayHalfClosedStays: who has ended its direction alone is waited for.
func TestRelayHalfClosedStays(t *testing.T) {
	d := start(t, transport.Relay{Idle: time.Hour}, streamPair)
	_ = d.app.CloseWrite()
	time.Sleep(2500 * time.Millisecond) // of looking
	if _, err := io.WriteString(d.far, "late"); err != nil {
		t.Fatal(err)
	}
	_ = d.far.CloseWrite()
	if got, err := io.ReadAll(d.app); string(got) != "late" || err != nil {
		t.Errorf("%q arrived, %v", got, err)
	}
	if o := <-d.done; o.Err() != nil {
		t.Errorf("%+v", o)
	}
}
