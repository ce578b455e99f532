package wsconn

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
)

// A monitorLog is a Monitor that notes what it hears of.
type monitorLog struct {
	start time.Time
	spare bool // it lets live what is gone

	mu   sync.Mutex
	said []string
}

func (m *monitorLog) note(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.said = append(m.said, fmt.Sprintf("%s %v", what, time.Since(m.start).Round(time.Millisecond)))
}

func (m *monitorLog) Waiting()    { m.note("waiting") }
func (m *monitorLog) Doubt()      { m.note("doubt") }
func (m *monitorLog) Silent(bool) { m.note("silent") }
func (m *monitorLog) Gone(bool) bool {
	m.note("gone")
	return !m.spare
}

// heard returns what the monitor heard of since the last time.
func (m *monitorLog) heard() (said []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	said, m.said = m.said, nil
	return said
}

func newMonitored() (*monitorLog, *Group) {
	m := &monitorLog{start: time.Now()}
	return m, &Group{Monitor: m, RequestWait: 3 * time.Second, PongWait: 5 * time.Second}
}

var allStages = []string{"waiting 3s", "doubt 7s", "silent 8s", "gone 13s"}

// TestRequestToSilentServer: a far end that answers nothing, pings neither, is
// noticed by a request that waits for it, and the connection ends when two pings
// were missed. What may be unable to answer, or is not heard, is not ended.
func TestRequestToSilentServer(t *testing.T) {
	for _, tt := range []struct {
		name     string
		ping     time.Duration
		standing transport.SendState
		write    int
		offline  bool
		used     bool // it was answered before
		final    bool // nothing more will be written
		pings    int  // within 20 s
		want     []string
		ends     bool
	}{
		{name: "frozen", ping: time.Minute, standing: transport.SendAcked, write: 100, pings: 2, want: allStages, ends: true},
		{name: "frozen in use", ping: time.Minute, standing: transport.SendAcked, write: 100, used: true, pings: 2, want: allStages, ends: true},
		{name: "frozen, the system does not know", ping: time.Minute, write: 100, used: true, pings: 2, want: allStages, ends: true},
		{name: "no pings", standing: transport.SendAcked, write: 100, want: allStages, ends: true},
		{name: "much that may not have been read", ping: time.Minute, standing: transport.SendAcked, write: muchWritten, pings: 1, want: allStages[:1]},
		{name: "it takes no more", ping: time.Minute, standing: transport.SendBlocked, write: 100, pings: 1, want: allStages[:1]},
		{name: "the network is lost, before any answer", ping: time.Minute, standing: transport.SendTimedOut, write: 100, pings: 2, want: allStages, ends: true},
		{name: "the network is lost, in use", ping: time.Minute, standing: transport.SendTimedOut, write: 100, used: true, pings: 3, want: append(slices.Clone(allStages), "waiting 18s")},
		{name: "the end was written", ping: time.Minute, standing: transport.SendAcked, write: 100, used: true, final: true},
		{name: "offline", ping: time.Minute, standing: transport.SendAcked, write: 100, offline: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, group := newMonitored()
				group.SetOffline(tt.offline)
				pings := 0
				c := openStanding(t, tt.standing, Dialer{Ping: tt.ping, Group: group}, func(p *rawPeer) {
					if tt.used {
						_, _ = p.Write(frame(0x82, []byte("data")))
					}
					for {
						first, _, err := readFrame(p.br)
						if err != nil {
							return
						}
						if first == 0x89 {
							pings++
						}
					}
				})
				if tt.used {
					if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
						t.Fatal(err)
					}
				}
				ended := make(chan error, 1)
				go func() { _, err := c.Read(make([]byte, 1)); ended <- err }()
				synctest.Wait()
				if tt.final {
					c.NothingFollows()
				}
				if _, err := c.Write(make([]byte, tt.write)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(20 * time.Second)
				synctest.Wait()
				if said := m.heard(); !slices.Equal(said, tt.want) {
					t.Errorf("the monitor heard %q, want %q", said, tt.want)
				}
				select {
				case err := <-ended:
					if !tt.ends || !errors.Is(err, ErrPingTimeout) {
						t.Errorf("ended: %v", err)
					}
				default:
					if tt.ends {
						t.Error("it did not end")
					}
				}
				_ = c.Reset()
				synctest.Wait()
				if pings != tt.pings {
					t.Errorf("%d pings, want %d", pings, tt.pings)
				}
			})
		})
	}
}

// TestRequestToSlowDestination: where the far end answers pings a request may
// wait for as long as it likes; when the far end stops answering that is noticed.
func TestRequestToSlowDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, group := newMonitored()
		stops := time.Now().Add(10 * time.Minute)
		pings := 0
		c := openStanding(t, transport.SendAcked, Dialer{Ping: 30 * time.Second, Group: group}, func(p *rawPeer) {
			for {
				first, b, err := readFrame(p.br)
				if err != nil {
					return
				}
				if first == 0x89 && time.Now().Before(stops) {
					pings++
					_, _ = p.Write(frame(0x8a, b))
				}
			}
		})
		if _, err := c.Write([]byte("request")); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err := c.Read(make([]byte, 1))
		if took := time.Since(start); !errors.Is(err, ErrPingTimeout) || took > 10*time.Minute+40*time.Second || took < 10*time.Minute {
			t.Errorf("%v after %v", err, took)
		}
		if said := m.heard(); len(said) != 4 || said[0] != "waiting 3s" {
			t.Errorf("the monitor heard %q", said)
		}
		if pings > 22 {
			t.Errorf("%d pings in ten minutes", pings)
		}
	})
}

// TestPausedReaderIsNotPinged: an application that takes nothing for an hour, and
// says something meanwhile, causes no ping: its answer could not be read, and
// V2Ray ends such a download over it.
func TestPausedReaderIsNotPinged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, group := newMonitored()
		data := make(chan struct{})
		c := openStanding(t, transport.SendAcked, Dialer{Ping: 30 * time.Second, Group: group}, func(p *rawPeer) {
			go func() {
				<-data
				_, _ = p.Write(frame(0x82, []byte("late")))
			}()
			for {
				first, _, err := readFrame(p.br)
				if err != nil {
					return
				}
				if first == 0x89 {
					t.Error("pinged")
				}
			}
		})
		for range 60 {
			if _, err := c.Write([]byte("still here")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			group.Ping()
		}
		time.Sleep(10 * time.Second) // it does not end in the moment of a ping
		close(data)
		b := make([]byte, 10)
		if n, err := c.Read(b); string(b[:n]) != "late" || err != nil {
			t.Errorf("read %q, %v", b[:n], err)
		}
		if said := m.heard(); len(said) > 0 {
			t.Errorf("the monitor heard %q", said)
		}
		_ = c.Reset()
	})
}

// TestRequestsThatAreAnswered: traffic in both directions causes no ping.
func TestRequestsThatAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, group := newMonitored()
		c := openStanding(t, transport.SendAcked, Dialer{Ping: 30 * time.Second, Group: group}, func(p *rawPeer) {
			for {
				first, b, err := readFrame(p.br)
				if err != nil {
					return
				}
				if first == 0x89 {
					t.Error("pinged")
				}
				time.Sleep(2 * time.Second)
				_, _ = p.Write(frame(0x82, b))
			}
		})
		for range 100 {
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if said := m.heard(); len(said) > 0 {
			t.Errorf("the monitor heard %q", said)
		}
		_ = c.Reset()
	})
}

// TestSpared: a connection that the monitor lets live is judged again, and
// whatever is received ends its check.
func TestSpared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, group := newMonitored()
		m.spare = true
		c := openStanding(t, transport.SendAcked, Dialer{Ping: time.Hour, Group: group}, func(p *rawPeer) {
			go func() { _, _ = io.Copy(io.Discard, p.br) }()
			time.Sleep(20 * time.Second)
			_, _ = p.Write(frame(0x82, []byte("late")))
			<-t.Context().Done()
		})
		if _, err := c.Write([]byte("request")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Error(err)
		}
		go func() { _, _ = c.Read(make([]byte, 1)) }()
		time.Sleep(time.Minute)
		if said, want := m.heard(), append(slices.Clone(allStages), "waiting 18s"); !slices.Equal(said, want) {
			t.Errorf("the monitor heard %q, want %q", said, want)
		}
		_ = c.Reset()
	})
}

// TestSharedConnection: on a connection of many requests the answer to one says
// nothing of another that was sent before it came.
func TestSharedConnection(t *testing.T) {
	for _, frozen := range []bool{true, false} {
		t.Run(fmt.Sprintf("frozen %v", frozen), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, group := newMonitored()
				group.Shared = true
				pings := 0
				c := openStanding(t, transport.SendAcked, Dialer{Ping: 10 * time.Minute, Group: group}, func(p *rawPeer) {
					_, _, _ = readFrame(p.br)
					_, _, _ = readFrame(p.br)
					_, _ = p.Write(frame(0x82, []byte("one")))
					for {
						first, b, err := readFrame(p.br)
						if err != nil {
							return
						}
						if first == 0x89 {
							pings++
							if !frozen {
								_, _ = p.Write(frame(0x8a, b))
							}
						}
					}
				})
				for range 2 {
					if _, err := c.Write([]byte("request")); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := io.ReadFull(c, make([]byte, 3)); err != nil {
					t.Fatal(err)
				}
				ended := make(chan error, 1)
				go func() { _, err := c.Read(make([]byte, 1)); ended <- err }()
				time.Sleep(5 * time.Minute)
				if !frozen {
					_ = c.Reset()
				}
				err := <-ended
				synctest.Wait()
				if errors.Is(err, ErrPingTimeout) != frozen || frozen && pings != 2 || !frozen && pings != 1 {
					t.Errorf("%v after %d pings", err, pings)
				}
				if said := m.heard(); frozen && !slices.Equal(said, allStages) {
					t.Errorf("the monitor heard %q", said)
				}
			})
		})
	}
}

// TestCheckBacksOff: a request that waits for an hour for a far end that answers no
// pings, and that the monitor spares, is checked less and less often.
func TestCheckBacksOff(t *testing.T) {
	for _, every := range []time.Duration{0, 24 * time.Hour} {
		t.Run(fmt.Sprintf("pings every %v", every), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, group := newMonitored()
				m.spare = true
				c := openStanding(t, transport.SendAcked, Dialer{Ping: every, Group: group}, func(p *rawPeer) {
					_, _ = io.Copy(io.Discard, p.br)
				})
				if _, err := c.Write([]byte("request")); err != nil {
					t.Fatal(err)
				}
				go func() { _, _ = c.Read(make([]byte, 1)) }()
				time.Sleep(time.Hour)
				checks := 0
				for _, said := range m.heard() {
					if strings.HasPrefix(said, "waiting") {
						checks++
					}
				}
				if checks < 10 || checks > 20 {
					t.Errorf("%d checks in an hour", checks)
				}
				_ = c.Reset()
			})
		})
	}
}

// TestLearnsThatPingsAreAnswered: a far end that pings us before we would is pinged
// all the same until it has answered one.
func TestLearnsThatPingsAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every = 30 * time.Second
		_, group := newMonitored()
		var mu sync.Mutex
		pings := 0
		c := openStanding(t, transport.SendAcked, Dialer{Ping: every, Group: group}, func(p *rawPeer) {
			go func() {
				for {
					time.Sleep(every - time.Second)
					if _, err := p.Write(frame(0x89, nil)); err != nil {
						return
					}
				}
			}()
			for {
				first, b, err := readFrame(p.br)
				if err != nil {
					return
				}
				if first == 0x89 {
					mu.Lock()
					pings++
					mu.Unlock()
					_, _ = p.Write(frame(0x8a, b))
				}
			}
		})
		go func() { _, _ = c.Read(make([]byte, 1)) }()
		time.Sleep(every + every/4)
		if !group.AnswersPings() {
			t.Error("it is not known that pings are answered")
		}
		time.Sleep(20 * every)
		_ = c.Reset()
		time.Sleep(every) // the far end notices
		mu.Lock()
		defer mu.Unlock()
		if pings != 1 {
			t.Errorf("%d pings to a far end that pings itself, want 1", pings)
		}
	})
}

// TestPingOverdue: a regular ping that stays unanswered for a second shows at once,
// long before it ends the connection, and no longer once it is answered. Of a far
// end that never answered a ping the lack of an answer means nothing.
func TestPingOverdue(t *testing.T) {
	for _, answered := range []bool{true, false} {
		t.Run(fmt.Sprintf("answered before %v", answered), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const every = 10 * time.Second
				_, group := newMonitored()
				group.ponged.Store(answered)
				back := make(chan struct{})
				c := openStanding(t, transport.SendAcked, Dialer{Ping: every, Group: group}, func(p *rawPeer) {
					_, b, _ := readFrame(p.br)
					<-back
					_, _ = p.Write(frame(0x8a, b))
					_, _ = io.Copy(io.Discard, p.br)
				})
				go func() { _ = c.WaitRead() }()
				expect := func(when string, want bool) {
					t.Helper()
					synctest.Wait()
					if got := c.PingOverdue(); got != want {
						t.Errorf("%s: overdue %v, want %v", when, got, want)
					}
				}
				expect("before a ping", false)
				time.Sleep(every + time.Millisecond)
				expect("after the ping", false)
				time.Sleep(time.Second)
				expect("a second later", answered)
				close(back)
				expect("after the pong", false)
				time.Sleep(2 * time.Second)
				expect("later", false)
				_ = c.Reset()
			})
		})
	}
}
