package tcpconn_test

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/tcpconn"
)

// goDeaf makes the system drop all that comes in for c, as a path does that has
// died: no acknowledgements, no resets.
func goDeaf(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
	}); e != nil || err != nil {
		t.Fatal(e, err)
	}
}

// mustFill writes to c until it takes no more.
func mustFill(t *testing.T, c transport.StreamConn) {
	t.Helper()
	p := make([]byte, 1<<20)
	for {
		_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := c.Write(p); err != nil {
			_ = c.SetWriteDeadline(time.Time{})
			return
		}
	}
}

// TestTCPStanding: who takes nothing at the moment is told from who is gone.
func TestTCPStanding(t *testing.T) {
	await := func(t *testing.T, c transport.StreamConn, want transport.SendState) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); transport.SendStateOf(c) != want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the standing is %d, want %d", transport.SendStateOf(c), want)
			}
		}
	}
	for name, fill := range map[string]func(t *testing.T, c transport.StreamConn){
		"idle": func(*testing.T, transport.StreamConn) {},
		"full": mustFill,
	} {
		t.Run(name, func(t *testing.T) {
			near, peer := tcpPair(t)
			c := tcpconn.New(near)
			await(t, c, transport.SendAcked)
			fill(t, c)
			if name == "full" {
				await(t, c, transport.SendBlocked)
				time.Sleep(time.Second) // the system probes the closed window, and is answered
				await(t, c, transport.SendBlocked)
			}
			goDeaf(t, peer)
			if name == "idle" {
				if _, err := c.Write([]byte("is anybody there?")); err != nil {
					t.Fatal(err)
				}
			}
			await(t, c, transport.SendTimedOut)
		})
	}
	near, peer := tcpPair(t)
	c := tcpconn.New(near)
	_ = peer.Close()
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	await(t, c, transport.SendUnknown)
	_ = c.Close()
	await(t, c, transport.SendUnknown)
	await(t, struct{ transport.StreamConn }{}, transport.SendUnknown)
}
