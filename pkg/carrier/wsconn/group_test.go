package wsconn

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
)

// TestGroupCheck: a look at all connections ends those whose far end is gone,
// and no others. Without regular pings that takes a system that says so.
func TestGroupCheck(t *testing.T) {
	const within = 5 * time.Second
	for name, every := range map[string]time.Duration{"pings": time.Minute, "no pings": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				group := new(Group)
				open := func(serve func(p *rawPeer)) *Conn {
					return dialWith(t, &Dialer{Host: "h", Ping: every, Group: group, Endpoint: overPipe(serve)}, nil)
				}
				swallow := func(p *rawPeer) { _, _ = io.Copy(io.Discard, p.br) }
				deaf := func(p *rawPeer) { <-t.Context().Done() }
				gone := transport.SendUnknown
				if every == 0 {
					gone = transport.SendTimedOut
				}
				dead := openStanding(t, gone, Dialer{Ping: every, Group: group}, swallow)
				paused, held := open(swallow), openStanding(t, transport.SendBlocked, Dialer{Ping: every, Group: group}, deaf)
				talkative := open(func(p *rawPeer) {
					time.Sleep(checkPause / 2)
					_, _ = p.Write(frame(0x82, []byte("data")))
					if first, _, _ := readFrame(p.br); first == 0x89 {
						t.Error("one that is not silent was pinged")
					}
				})
				alive := open(func(p *rawPeer) {
					if first, _, err := readFrame(p.br); first != 0x89 || err != nil {
						t.Errorf("got %x, %v, want a ping", first, err)
					}
					time.Sleep(within - checkPause - time.Second) // the way back
					_, _ = p.Write(frame(0x8a, nil))
					time.Sleep(within)
					_, _ = p.Write(frame(0x82, []byte("data")))
					_, _ = io.Copy(io.Discard, p.br)
				})
				ended := make(chan error, 1)
				start := time.Now()
				go func() {
					_, err := dead.Read(make([]byte, 1))
					if took := time.Since(start); took != within {
						t.Errorf("noticed after %v", took)
					}
					ended <- err
				}()
				for _, c := range []*Conn{held, talkative} {
					go func() { _, _ = io.Copy(io.Discard, c) }()
				}
				synctest.Wait()
				if n := group.PingAll(within); n != 5 {
					t.Errorf("looks at %d connections", n)
				}
				b := make([]byte, 10)
				if n, err := alive.Read(b); string(b[:n]) != "data" || err != nil {
					t.Errorf("alive: read %q, %v", b[:n], err)
				}
				if err := <-ended; !errors.Is(err, ErrPingTimeout) {
					t.Errorf("dead: %v", err)
				}
				for name, c := range map[string]*Conn{"paused": paused, "held up": held, "talkative": talkative} {
					if c.closed.Load() {
						t.Errorf("%s: it was ended", name)
					}
					_ = c.Reset()
				}
				_ = alive.Close()
				if n := group.PingAll(within); n != 0 {
					t.Errorf("%d connections are still in the group", n)
				}
			})
		})
	}
}
