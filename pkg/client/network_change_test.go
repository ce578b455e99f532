package client_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/client"
	"vmess-local/pkg/host/netmon"
	"vmess-local/pkg/server"
)

// A cable is the way of a computer to a server: what is sent while it is pulled
// arrives later, as by TCP.
type cable struct {
	behind  *pipeListener
	notices chan struct{}

	mu     sync.Mutex
	pulled bool          // the computer has no way to the world
	mends  chan struct{} // closed when bytes get through again; nil: they do
}

func newCable(behind *pipeListener) *cable {
	return &cable{behind: behind, notices: make(chan struct{}, 1)}
}

// set tells the computer whether it has a way, and lets bytes through.
func (c *cable) set(pulled, through bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pulled = pulled
	switch {
	case through && c.mends != nil:
		close(c.mends)
		c.mends = nil
	case !through && c.mends == nil:
		c.mends = make(chan struct{})
	}
	select {
	case c.notices <- struct{}{}:
	default:
	}
}

// wait waits until bytes get through.
func (c *cable) wait() {
	c.mu.Lock()
	mends := c.mends
	c.mu.Unlock()
	if mends != nil {
		<-mends
	}
}

// watcher sees the cable.
func (c *cable) watcher() *netmon.Monitor {
	return &netmon.Monitor{Notices: c.notices, Addresses: func() netmon.Addresses {
		c.mu.Lock()
		defer c.mu.Unlock()
		return netmon.Addresses{netip.MustParseAddr("10.0.0.1"): !c.pulled}
	}}
}

func (c *cable) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	far, err := c.behind.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	near, mine := net.Pipe()
	pass := func(dst, src net.Conn) {
		defer func() { _, _ = dst.Close(), src.Close() }()
		buf := make([]byte, 4<<10)
		for {
			n, err := src.Read(buf)
			c.wait()
			if _, werr := dst.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	}
	go pass(far, mine)
	go pass(mine, far)
	return near, nil
}

// TestNetworkLost: a session outlives the loss of the network, as it does
// without a proxy, also where its bytes come through a while after the address
// is back. When they do not it ends soon.
func TestNetworkLost(t *testing.T) {
	for _, tt := range []struct {
		name       string
		lost, late time.Duration
		lives      bool
	}{
		{"for 6 s", 6 * time.Second, 0, true},
		{"for 20 s", 20 * time.Second, 0, true},
		{"for 10 s, and TCP takes as long again", 10 * time.Second, 10 * time.Second, true},
		{"for 10 s, and the way is another", 10 * time.Second, 17 * time.Second, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, between := newPipeListener(), newPipeListener()
				var serving sync.WaitGroup
				defer serving.Wait()
				log := tellOnFailure(t)
				s, err := server.New(inMemoryServer(t), server.Options{Listener: between, Dialer: destination{&serving, echo}, Log: log})
				if err != nil {
					t.Fatal(err)
				}
				line := newCable(between)
				c, err := client.New(inMemoryClient(t), client.Options{Listener: near, DialTCP: line.dial, Watcher: line.watcher(), Log: log})
				if err != nil {
					t.Fatal(err)
				}
				defer runAll(t, s.Run, c.Run)()
				app, err := near.dial(t.Context(), "", "")
				if err != nil {
					t.Fatal(err)
				}
				defer app.Close()
				askBySOCKS(t, app)
				echoOver(t, app, "before")
				time.Sleep(40 * time.Second) // the server has answered a ping
				synctest.Wait()              // the watcher has begun
				line.set(true, false)
				time.Sleep(tt.lost)
				line.set(false, tt.late == 0)
				time.Sleep(tt.late)
				line.set(false, true)
				time.Sleep(3 * time.Second)
				_, err = io.WriteString(app, "after")
				if err == nil {
					_ = app.SetReadDeadline(time.Now().Add(time.Second))
					_, err = io.ReadFull(app, make([]byte, len("after")))
				}
				if (err == nil) != tt.lives {
					t.Errorf("after a loss of %v and %v more: %v", tt.lost, tt.late, err)
				}
			})
		})
	}
}
