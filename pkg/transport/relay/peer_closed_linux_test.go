package relay_test

import (
	"io"
	"testing"
	"time"

	"vmess-local/pkg/transport/relay"
)

// TestRelayLocalLeft: an application that says something and closes is not
// waited for by a far end that does not answer, and what it said arrives.
func TestRelayLocalLeft(t *testing.T) {
	d := start(t, relay.Relay{Idle: time.Hour}, streamPair)
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
	d := start(t, relay.Relay{Idle: time.Hour}, streamPair)
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
