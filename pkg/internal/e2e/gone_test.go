package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// A silence is where a server stops to say anything.
type silence int

const (
	noSilence   silence = iota
	inUpgrade           // before it answers HTTP
	inHandshake         // before the answer of VMess
	inAnswer            // behind the first bytes of it
)

// String returns the silence's name.
func (s silence) String() string {
	return [...]string{"nowhere", "in the upgrade", "in the handshake", "in the answer"}[s]
}

// A muteServer is a fakeServer that falls silent, and reads on until its peer
// is gone.
type muteServer struct {
	addr   string
	silent atomic.Int32 // a silence
	open   atomic.Int32 // connections
	come   chan struct{}
}

func newMuteServer(t testing.TB) *muteServer {
	m := &muteServer{come: make(chan struct{}, 100)}
	m.addr = serveOrigin(t, func(c *net.TCPConn) {
		m.open.Add(1)
		defer m.open.Add(-1)
		m.serve(c, silence(m.silent.Load()))
	})
	return m
}

func (m *muteServer) serve(c *net.TCPConn, s silence) {
	defer func() {
		m.come <- struct{}{}
		_, _ = io.Copy(io.Discard, c)
	}()
	buffered := bufio.NewReader(c)
	if s == inUpgrade || fakeUpgrade(c, buffered) != nil || s == inHandshake {
		return
	}
	ws := &fakeFrames{r: buffered}
	q, err := openFakeRequest(ws)
	if err != nil {
		return
	}
	_, _ = c.Write(fakeFrame(nil, 2, q.seal([]byte("hello\n"))))
}

// TestNothingIsHeldForTheGone has servers fall silent, and applications go away
// meanwhile: each request is over within seconds, and its tunnel too.
func TestNothingIsHeldForTheGone(t *testing.T) {
	t.Parallel()
	const within = 5 * time.Second
	for _, s := range []silence{inUpgrade, inHandshake, inAnswer} {
		for _, well := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, of a server known to be well: %v", s, well), func(t *testing.T) {
				t.Parallel()
				m := newMuteServer(t)
				r := remoteAt(t, m.addr)
				r.Security, r.GlobalPadding = "aes-128-gcm", false
				cfg := clientConfig(r)
				cfg.Warm.Max, cfg.Limits.Dial = 0, config.Duration(time.Minute)
				near := inProcessClient(t, cfg)
				over := func() int { return strings.Count(near.log.String(), "to="+silentTarget) }
				if well {
					c, err := request(near.addr, dialVia)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := readLine(c); err != nil {
						t.Fatal(err)
					}
					_ = c.Close()
					<-m.come
					awaitGone(t, within, func() bool { return m.open.Load() == 0 && over() == 1 })
				}
				before := over()
				m.silent.Store(int32(s))
				var apps []*net.TCPConn
				for _, app := range applications {
					for range 4 {
						var c *net.TCPConn
						var err error
						if s == inUpgrade && !well { // it is not answered
							c, err = app.begin(near.addr, silentTarget)
						} else {
							c, err = request(near.addr, app.dial)
						}
						if err != nil {
							t.Fatal(err)
						}
						apps = append(apps, c)
						<-m.come
					}
				}
				for i, c := range apps {
					// What was said by one that closes may be meant to arrive: that is
					// dialled for on.
					if i%2 == 0 || s == inUpgrade && well {
						_ = c.SetLinger(0)
					}
					_ = c.Close()
				}
				awaitGone(t, within, func() bool { return m.open.Load() == 0 && over()-before == len(apps) })
			})
		}
	}
}

// awaitGone waits until all is gone.
func awaitGone(t *testing.T, within time.Duration, gone func() bool) {
	t.Helper()
	for start := time.Now(); !gone(); time.Sleep(10 * time.Millisecond) { // a pause between two looks
		if time.Since(start) > within+slowness {
			t.Fatalf("something is held after %v", time.Since(start))
		}
	}
}

const silentTarget = "somewhere.example:80"

// request makes one, and says something once it is answered.
func request(proxyAddr string, dial func(proxyAddr, target string) (*net.TCPConn, error)) (*net.TCPConn, error) {
	c, err := dial(proxyAddr, silentTarget)
	if err == nil {
		_, err = io.WriteString(c, "hello\n")
	}
	return c, err
}
