package failover

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

var (
	errDown = errors.New("down")
	errSent = errors.New("sent, and no answer")
)

// A fake is a Server as the tests set it.
type fake struct {
	name  string
	group *Group

	mu       sync.Mutex
	err      error // of its requests, and of connecting
	hangs    bool  // connecting takes as long as it may
	recent   bool
	notReady bool
	probe    ProbeResult
	requests int
	probes   int
}

func (s *fake) Name() string { return s.name }

func (s *fake) DialStream(context.Context, netaddr.Addr, []byte) (transport.StreamConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	if errors.Is(s.err, errDown) {
		s.group.MarkDown(s, "tcp.refused")
	}
	return nil, s.err
}

func (s *fake) DialPacket(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	_, err := s.DialStream(ctx, dst, nil)
	return nil, err
}

func (s *fake) RecentlyUp() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.recent }
func (s *fake) Ready() bool      { s.mu.Lock(); defer s.mu.Unlock(); return !s.notReady }

func (s *fake) Prepare(ctx context.Context) error {
	if s.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.err
}

func (s *fake) Probe(context.Context) ProbeResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.probes++
	return s.probe
}

func (s *fake) Classify(err error, _ []byte) Failure {
	return Failure{NotExecuted: !errors.Is(err, errSent), Restarting: errors.Is(err, errDown) && s.RecentlyUp()}
}

// set changes a fake.
func (s *fake) set(change func(*fake)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// newGroup returns a group of n servers that work.
func newGroup(t *testing.T, n int) (f *Group, fakes []*fake) {
	t.Helper()
	var servers []Server
	for i := range n {
		s := &fake{name: string(rune('a' + i))}
		fakes, servers = append(fakes, s), append(servers, s)
	}
	f = New(slog.New(slog.DiscardHandler), servers, 10*time.Second)
	for _, s := range fakes {
		s.group = f
	}
	t.Cleanup(func() { f.Close(); f.Wait() })
	return f, fakes
}

func ask(ctx context.Context, f *Group) error {
	_, err := f.DialStream(ctx, netaddr.Addr{}, nil)
	return err
}

// expect holds how many requests each server has had.
func expect(t *testing.T, when string, fakes []*fake, want ...int) {
	t.Helper()
	for i, s := range fakes {
		s.mu.Lock()
		if s.requests != want[i] {
			t.Errorf("%s: %s had %d requests, want %d", when, s.name, s.requests, want[i])
		}
		s.mu.Unlock()
	}
}

func TestRequestGoesToNextServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newGroup(t, 3)
		s[0].err = errDown
		for range 2 {
			if err := ask(t.Context(), f); err != nil {
				t.Error(err)
			}
		}
		expect(t, "the first is down", s, 1, 2, 0)
		if f.Current() != s[1] || !f.IsDown(s[0]) || f.IsDown(s[1]) {
			t.Errorf("%s is used", f.Current().Name())
		}
		if _, err := f.DialPacket(t.Context(), netaddr.Addr{}); err != nil {
			t.Error(err)
		}
		expect(t, "datagrams", s, 1, 3, 0)
	})
}

// TestExecutedRequestIsNotRepeated: what may have been delivered goes to no other
// server.
func TestExecutedRequestIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newGroup(t, 2)
		s[0].err = errSent
		if err := ask(t.Context(), f); !errors.Is(err, errSent) {
			t.Error(err)
		}
		expect(t, "once", s, 1, 0)
	})
}

// TestEjectedServerIsProbed: a server that failed is probed by the request after its
// rest, which doubles while it stays down, and is used again when it recovered.
func TestEjectedServerIsProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newGroup(t, 2)
		s[0].err = errDown
		after := func(d time.Duration, probes int) {
			t.Helper()
			time.Sleep(d)
			if err := ask(t.Context(), f); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			if s[0].probes != probes {
				t.Errorf("%d probes, want %d", s[0].probes, probes)
			}
		}
		after(0, 0)
		after(firstRest, 0)
		after(1, 1)
		after(2*firstRest, 1)
		after(1, 2)
		after(firstRest, 2)
		f.NetworkChanged()
		after(1, 3)
		s[0].set(func(s *fake) { s.err, s.probe = nil, ProbeAccepted })
		after(firstRest+1, 4)
		if f.IsDown(s[0]) || f.Current() != s[0] {
			t.Errorf("%s is used", f.Current().Name())
		}
	})
}

// TestInconclusiveProbeDoesNotEject: of the new network a probe begun on the old one
// says nothing, so the next request probes again.
func TestInconclusiveProbeDoesNotEject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newGroup(t, 2)
		s[0].err, s[0].probe = errDown, ProbeInconclusive
		_ = ask(t.Context(), f)
		time.Sleep(firstRest + 1)
		for probes := range 3 {
			_ = ask(t.Context(), f)
			synctest.Wait()
			if s[0].probes != probes+1 {
				t.Errorf("%d probes, want %d", s[0].probes, probes+1)
			}
		}
	})
}

// TestRequestsWaitForRecovery: where all are down that worked a moment ago, requests
// wait for one, within the group's time.
func TestRequestsWaitForRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newGroup(t, 2)
		for _, one := range s {
			one.err, one.recent = errDown, true
		}
		const away = 3 * time.Second
		back := time.AfterFunc(away, func() { s[1].set(func(s *fake) { s.err = nil }) })
		defer back.Stop()
		start := time.Now()
		if err := ask(t.Context(), f); err != nil || time.Since(start) < away || time.Since(start) > away+2*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		s[1].set(func(s *fake) { s.err = errDown })
		start = time.Now()
		if err := ask(t.Context(), f); !errors.Is(err, errDown) || time.Since(start) != 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// TestOnlyServerIsNotEjected: it decides itself what to wait for.
func TestOnlyServerIsNotEjected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newGroup(t, 1)
		s[0].err, s[0].recent = errDown, true
		if err := ask(t.Context(), f); !errors.Is(err, errDown) || f.IsDown(s[0]) {
			t.Error(err)
		}
		expect(t, "once", s, 1)
	})
}

// TestSilentServerLosesRace: the request does not wait for a preferred server that
// does not answer, which stays preferred.
func TestSilentServerLosesRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newGroup(t, 2)
		s[0].notReady, s[0].hangs = true, true
		start := time.Now()
		if err := ask(t.Context(), f); err != nil || time.Since(start) != raceHeadStart {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		expect(t, "the race", s, 0, 1)
		if f.Current() != s[0] {
			t.Errorf("%s is used", f.Current().Name())
		}
	})
}

func TestPinnedServerComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newGroup(t, 3)
		if !f.Pin(s[2]) || f.Pin(new(fake)) || f.Current() != s[2] {
			t.Errorf("%s is used", f.Current().Name())
		}
		if all := f.Servers(); all[0] != s[2] || all[1] != s[0] || all[2] != s[1] {
			t.Error("the order is wrong")
		}
		if err := ask(t.Context(), f); err != nil {
			t.Error(err)
		}
		expect(t, "pinned", s, 0, 0, 1)
	})
}
