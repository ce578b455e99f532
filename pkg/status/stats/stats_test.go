package stats

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

func request(t testing.TB, host string) *transport.Request {
	t.Helper()
	dst, err := netaddr.FromHost(host, 443)
	if err != nil {
		t.Fatal(err)
	}
	return &transport.Request{Destination: dst, Inbound: "socks5"}
}

func TestBoard(t *testing.T) {
	b := NewRegistry()
	cut := 0
	up, _, end := b.Begin(request(t, "a.example"), func() { cut++ })
	_, down, end2 := b.Begin(request(t, "b.example"), func() {})
	up.Add(10)
	down.Add(20)
	flows := b.Flows(0)
	if len(flows) != 2 || flows[0].Destination != "b.example:443" || flows[1].Up != 10 || flows[0].Source != "" {
		t.Errorf("flows %+v", flows)
	}
	if one := b.Flows(1); len(one) != 1 || one[0].ID != flows[0].ID {
		t.Errorf("the newest is %+v", one)
	}
	if !b.Close(flows[1].ID) || cut != 1 || b.Close(99) {
		t.Errorf("cut %d times", cut)
	}
	end(true)
	end(true) // once more does nothing
	if got := b.Totals(); got.Open != 1 || got.Opened != 2 || got.Failed != 1 || got.Up != 10 || got.Down != 20 {
		t.Errorf("totals %+v", got)
	}
	end2(false)
	if got := b.Totals(); got.Open != 0 || got.Down != 20 || got.Failed != 1 {
		t.Errorf("totals %+v", got)
	}
}

func TestBoardOfMany(t *testing.T) {
	b := NewRegistry()
	var up, down atomic.Int64
	places := 1
	end := b.BeginMany(request(t, "ignored.example"), func() string { return fmt.Sprintf("%d places", places) }, &up, &down, func() { places = 0 })
	up.Add(5)
	down.Add(6)
	places = 3
	if f := b.Flows(0); len(f) != 1 || f[0].Destination != "3 places" || f[0].Up != 5 || f[0].Down != 6 {
		t.Errorf("%+v", f)
	}
	if !b.Close(1) || places != 0 {
		t.Error("it was not cut")
	}
	end(false)
	if got := b.Totals(); got.Open != 0 || got.Up != 5 || got.Down != 6 {
		t.Errorf("totals %+v", got)
	}
}

func TestFailuresAreBoundedAndCounted(t *testing.T) {
	b := NewRegistry()
	for i := range 3 * keptFailures {
		b.AddFailure(Failure{Cause: fmt.Sprintf("cause.%d", i%(2*keptFailures)), Count: 1})
	}
	all := b.Failures()
	if len(all) != keptFailures || all[0].Cause != fmt.Sprintf("cause.%d", keptFailures-1) {
		t.Fatalf("%d failures, the last %+v", len(all), all[0])
	}
	b.AddFailure(Failure{Cause: all[5].Cause, Count: 3})
	if again := b.Failures(); len(again) != keptFailures || again[0].Cause != all[5].Cause || again[0].Count != all[5].Count+3 {
		t.Errorf("counted: %+v", again[0])
	}
}

func TestBoardFromMany(t *testing.T) {
	b := NewRegistry()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				up, _, end := b.Begin(request(t, "a.example"), func() {})
				up.Add(1)
				b.Flows(3)
				end(false)
			}
		})
	}
	all.Wait()
	if got := b.Totals(); got.Open != 0 || got.Opened != 1600 || got.Up != 1600 {
		t.Errorf("%+v", got)
	}
}

func TestUsers(t *testing.T) {
	b := NewRegistry()
	for i, name := range []string{"bob", "alice", "bob"} {
		r := request(t, "a.example")
		r.User = name
		up, _, end := b.Begin(r, func() {})
		up.Add(10)
		if i < 2 {
			end(false)
		}
	}
	want := []User{{Name: "alice", Opened: 1, Up: 10}, {Name: "bob", Open: 1, Opened: 2, Up: 20}}
	if got := b.Users(); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

// What is put right again is counted, with the newest words, and bounded.
func TestHealings(t *testing.T) {
	b := NewRegistry()
	b.AddHealing(Healing{Cause: "clock", Server: "a", Sentence: "one"})
	b.AddHealing(Healing{Cause: "clock", Server: "b", Sentence: "two"})
	b.AddHealing(Healing{Cause: "clock", Server: "a", Sentence: "three"})
	want := []Healing{{Cause: "clock", Server: "a", Sentence: "three", Count: 2}, {Cause: "clock", Server: "b", Sentence: "two", Count: 1}}
	if got := b.Healings(); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	for i := range 2 * keptFailures {
		b.AddHealing(Healing{Cause: fmt.Sprint(i)})
	}
	if got := b.Healings(); len(got) != keptFailures {
		t.Errorf("%d are kept", len(got))
	}
}

// A look that finds more data than the last one says when; the first cannot
// know.
func TestMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewRegistry()
		_, down, end := b.Begin(request(t, "a.example"), func() {})
		down.Add(10)
		if got := b.Totals().Moved; !got.IsZero() {
			t.Errorf("at the first look: %v", got)
		}
		down.Add(10)
		time.Sleep(time.Minute)
		now := time.Now()
		if got := b.View().Moved; !got.Equal(now) {
			t.Errorf("%v, want %v", got, now)
		}
		time.Sleep(time.Minute)
		end(false)
		if got := b.View().Moved; !got.Equal(now) {
			t.Errorf("without more data: %v, want %v", got, now)
		}
	})
}

// TestSitesDoNotPushOutServers: the failures of sites are counted by site, and do
// not take the place of others.
func TestSitesDoNotPushOutServers(t *testing.T) {
	b := NewRegistry()
	b.AddFailure(Failure{Cause: "tcp.refused", Count: 1})
	for i := range 3 * keptFailures {
		b.AddFailure(Failure{Cause: "destination.refused", Site: fmt.Sprint("site", i/2), Count: 1})
	}
	all := b.Failures()
	if len(all) != keptFailures+1 || all[len(all)-1].Cause != "tcp.refused" || all[0].Count != 2 || all[0].Site != fmt.Sprint("site", (3*keptFailures-1)/2) {
		t.Errorf("%+v", all)
	}
}
