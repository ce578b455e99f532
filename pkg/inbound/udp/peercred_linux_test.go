package udp

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"vmess-local/pkg/transport/tcpconn"
	"vmess-local/pkg/transport/transporttest"
)

// realAsk asks for an association, until the test ends, over a TCP connection
// of its own, so that the system knows whose it is.
func realAsk(t *testing.T, s *Server, ip string) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	u, pending := ask(s, far.RemoteAddr().(*net.TCPAddr).AddrPort(), far.LocalAddr().(*net.TCPAddr).AddrPort(), anywhere)
	t.Cleanup(func() {
		_ = c.Close()
		_ = far.Close()
		_ = u.control.Close()
		<-u.over
		u.cut()
	})
	return <-pending.bound
}

// A real program of a real other user takes no association, and gets nothing.
func TestRealOtherUser(t *testing.T) {
	if os.Getuid() != 0 {
		lacking(t, "only root can be two users")
	}
	tunnel, log := newPipes(16), new(record)
	s := &Server{Dialer: tunnel, Report: log.report}
	relay := realAsk(t, s, "127.0.0.1")

	thief := exec.Command("/proc/self/exe")
	thief.Env = append(os.Environ(), asSender+"="+relay.String())
	thief.Stderr = os.Stderr
	thief.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}}
	hold, err := thief.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	says, err := thief.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := thief.Start(); err != nil {
		lacking(t, fmt.Sprintf("a program of another user does not start: %v", err))
	}
	lines := bufio.NewScanner(says)
	if !lines.Scan() || lines.Text() != "sent" {
		t.Fatalf("the other user's program says %q", lines.Text())
	}
	until(t, "its datagram is dropped", func() bool { return s.Stats.Dropped[DropForeign].Load() == 1 })

	own := dialFrom(t, "127.0.0.1", relay)
	if _, err := own.Write(pack(addr("192.0.2.1:53"), []byte("own"))); err != nil {
		t.Fatal(err)
	}
	far := <-tunnel.far
	wantRead(t, far, "192.0.2.1:53", "own")
	_ = far.WritePacket([]byte("answer"), addr("192.0.2.1:53"))
	(&user{UDPConn: own}).want(t, "192.0.2.1:53", "answer")
	_ = hold.Close()
	if !lines.Scan() || lines.Text() != "got 0 bytes" {
		t.Errorf("the other user's program says %q", lines.Text())
	}
	if err := thief.Wait(); err != nil {
		t.Error(err)
	}
	if log.count(ErrOtherUser) != 1 {
		t.Errorf("said %v", log.errs)
	}
}

// Programs send from sockets of all kinds; their own user's are let in.
func TestOwnSockets(t *testing.T) {
	for _, c := range []struct{ network, listen, relay string }{
		{"udp4", "127.0.0.1:0", "127.0.0.1"},
		{"udp4", "0.0.0.0:0", "127.0.0.1"},
		{"udp6", "[::1]:0", "::1"},
		{"udp6", "[::]:0", "::1"},
		{"udp", "[::]:0", "127.0.0.1"}, // speaks both
		{"udp", "[::ffff:127.0.0.1]:0", "127.0.0.1"},
	} {
		t.Run(c.network+" "+c.listen, func(t *testing.T) {
			tunnel := newPipes(16)
			s := &Server{Dialer: tunnel}
			relay := realAsk(t, s, c.relay)
			own, err := net.ListenPacket(c.network, c.listen)
			if err != nil {
				t.Fatal(err)
			}
			defer own.Close()
			if _, err := own.WriteTo(pack(addr("192.0.2.1:53"), []byte("own")), net.UDPAddrFromAddrPort(relay)); err != nil {
				t.Fatal(err)
			}
			var far *transporttest.PacketEnd
			select {
			case far = <-tunnel.far:
			case <-time.After(patience):
				t.Fatalf("dropped as foreign: %d", s.Stats.Dropped[DropForeign].Load())
			}
			wantRead(t, far, "192.0.2.1:53", "own")
			from := netip.AddrPortFrom(relay.Addr(), own.LocalAddr().(*net.UDPAddr).AddrPort().Port())
			if uid, ok := tcpconn.UDPUser(from, relay); !ok || uid != uint32(os.Getuid()) {
				t.Errorf("user %d, %v", uid, ok)
			}
		})
	}
}

// lacking leaves out a test that cannot be done here, or fails it with CI=true.
func lacking(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("not tested, but CI=true asks for all tests: %s", what)
	}
	t.Skipf("not tested: %s", what)
}
