package client

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestSiteFailureIsNotTheState: what a site did does not colour the client's state,
// nor does it hide what the server did.
func TestSiteFailureIsNotTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, g := newFarEnd(t, 0)
		gen := &generation{fleet: newServerGroup(nil, []*guard{g}, 0)}
		c := dialGuarded(t, g, "hello")
		if _, err := c.Read(make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		time.Sleep(time.Second)
		site := pageFailure{Time: time.Now(), Cause: "destination.refused", Sentence: "dead.example refused it", Site: "dead.example:443"}
		server := pageFailure{Time: time.Now(), Cause: "tcp.refused", Sentence: "nothing listens there"}
		for _, tt := range []struct {
			failures     []pageFailure
			state, words string
		}{
			{[]pageFailure{site}, "well", "192.0.2.1 is well"},
			{[]pageFailure{site, server}, "failing", "nothing listens there"},
			{[]pageFailure{server, site}, "failing", "nothing listens there"},
		} {
			if state, words := gen.condition(tt.failures, time.Time{}); state != tt.state || words != tt.words {
				t.Errorf("%+v: %s, %q", tt.failures, state, words)
			}
		}
	})
}
