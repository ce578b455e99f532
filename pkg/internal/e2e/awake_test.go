package e2e

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vmess-local/pkg/config"
	"vmess-local/pkg/host/netmon"
)

// A mover is a computer that can move to another network.
type mover struct {
	moved   atomic.Bool
	notices chan struct{}
}

func newMover() *mover { return &mover{notices: make(chan struct{}, 1)} }

func (m *mover) watcher() *netmon.Monitor {
	return &netmon.Monitor{Notices: m.notices, Addresses: func() netmon.Addresses {
		addr := "10.0.0.1"
		if m.moved.Load() {
			addr = "10.0.0.2"
		}
		return netmon.Addresses{netip.MustParseAddr(addr): true}
	}}
}

func (m *mover) move() {
	m.moved.Store(!m.moved.Load())
	m.notices <- struct{}{}
}

// A swamp passes connections on to a server, and can swallow all that those it
// has do from then on, ends too, without a word to either side.
type swamp struct {
	addr string
	mu   sync.Mutex
	now  *atomic.Bool // whether the connections of now are swallowed
}

func newSwamp(t testing.TB, server string) *swamp {
	t.Helper()
	s := &swamp{now: new(atomic.Bool)}
	stop := make(chan struct{})
	s.addr = serveOrigin(t, func(c *net.TCPConn) {
		s.mu.Lock()
		swallowed := s.now
		s.mu.Unlock()
		far, err := net.DialTimeout("tcp", server, 5*time.Second)
		if err != nil {
			return
		}
		defer far.Close()
		ended := make(chan struct{}, 2)
		pass := func(dst io.Writer, src io.Reader) {
			_, _ = io.Copy(sink{dst, swallowed}, src)
			if !swallowed.Load() {
				ended <- struct{}{}
			}
		}
		go pass(far, c)
		go pass(c, far)
		select {
		case <-ended:
		case <-stop:
		}
	})
	t.Cleanup(func() { close(stop) })
	return s
}

// swallow swallows the connections that there are.
func (s *swamp) swallow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Store(true)
	s.now = new(atomic.Bool)
}

// A sink is a writer that can begin to swallow.
type sink struct {
	io.Writer
	swallows *atomic.Bool
}

// Write implements io.Writer.
func (s sink) Write(p []byte) (int, error) {
	if s.swallows.Load() {
		return len(p), nil
	}
	return s.Writer.Write(p)
}

// TestMove: on another network the tunnels of the old one are dead, and nobody
// says so. Unused ones are not used again, those in use end with their cause
// long before the pings would tell.
func TestMove(t *testing.T) {
	t.Parallel()
	for name, mux := range map[string]bool{"own tunnels": false, "mux": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			echo := echoOrigin(t)
			road := newSwamp(t, inProcessServer(t, serverConfig(), inProcess{}).addr)
			computer := newMover()
			l := newLab(t, labSetup{remote: remoteAt(t, road.addr), watcher: computer.watcher(), change: func(c *config.Client) {
				c.Warm.Max, c.Mux.Enabled = 4, mux
			}})
			l.hold(t, echo)
			held := l.hold(t, echo) // now there are unused ones, too
			since := time.Now()
			road.swallow()
			computer.move()
			l.json.waitFor(t, `"moved":true`)
			l.ask(echo, "hello\n", 6).wantData(t, "hello\n")
			wantCut(t, held, 10*time.Second)
			l.expect(t, expected{
				cause: "tunnel.server-gone", sentence: "stopped answering: the server or the network path to it is down",
				fix: "check this computer's network connection", confidence: "likely", since: since, within: 7 * time.Second,
			})
		})
	}
}

// TestMoveInVain: tunnels that outlive a move stay, also those whose answer
// nobody reads at that moment.
func TestMoveInVain(t *testing.T) {
	t.Parallel()
	endless := serveOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, pattern(1, 1<<40)) })
	computer := newMover()
	l := newLab(t, labSetup{
		remote:  remoteAt(t, inProcessServer(t, serverConfig(), inProcess{}).addr),
		watcher: computer.watcher(),
	})
	held, paused := l.hold(t, echoOrigin(t)), mustDialVia(t, l.addr, endless)
	if _, err := io.CopyN(io.Discard, paused, 1<<10); err != nil {
		t.Fatal(err)
	}
	computer.move()
	l.json.waitFor(t, `"moved":true`)
	time.Sleep(7 * time.Second) // for the test of the tunnels to be over
	echoOn(t, held, "still there\n")
	if _, err := io.CopyN(io.Discard, paused, 20<<20); err != nil {
		t.Errorf("the paused download: %v", err)
	}
	l.wantQuiet(t)
}
