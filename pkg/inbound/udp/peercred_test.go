package udp

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// asSender is set in the environment of the program that is another user's
// sender: the relay's address.
const asSender = "UDP_TEST_SENDS_TO"

// sendAs sends to the address of the environment until standard input ends,
// and then tells whether anything came back.
func sendAs(to string) error {
	c, err := net.Dial("udp", to)
	if err != nil {
		return err
	}
	if _, err := c.Write(pack(addr("192.0.2.66:53"), []byte("stolen"))); err != nil {
		return err
	}
	fmt.Println("sent")
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	n, _ := c.Read(make([]byte, 2000))
	fmt.Printf("got %d bytes\n", n)
	return nil
}

// A fakeSystem has sockets that exist here only.
type fakeSystem struct {
	mu       sync.Mutex
	tcp, udp map[netip.AddrPort]uint32
	looked   int
}

func (f *fakeSystem) users() *users {
	look := func(sockets map[netip.AddrPort]uint32) func(to, from netip.AddrPort) (uint32, bool) {
		return func(to, _ netip.AddrPort) (uint32, bool) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.looked++
			uid, ok := sockets[to]
			return uid, ok
		}
	}
	return &users{look(f.tcp), look(f.udp)}
}

// looks returns how often somebody looked.
func (f *fakeSystem) looks() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.looked
}

// own gives the socket at an address to a user.
func (f *fakeSystem) own(at net.Addr, uid uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.udp[at.(*net.UDPAddr).AddrPort()] = uid
}

const alice, mallory = 1000, 1001

// control is where join says that the control connection comes from.
func control() netip.AddrPort { return loopback(40000) }

// What another user of this computer sends is not the association's, however
// early it comes, and its owner can go on.
func TestAnotherUser(t *testing.T) {
	for _, c := range []struct {
		name   string
		closed bool // the sender's socket, by the time that somebody looks
		named  bool // the port that the client named is the thief's now
	}{{"open", false, false}, {"closed", true, false}, {"at a port that was named", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			system := &fakeSystem{tcp: map[netip.AddrPort]uint32{control(): alice}, udp: map[netip.AddrPort]uint32{}}
			tunnel, log := newPipes(16), new(record)
			s := &Server{Dialer: tunnel, Report: log.report, system: system.users()}
			thief, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback(0)))
			if err != nil {
				t.Fatal(err)
			}
			defer thief.Close()
			if !c.closed {
				system.own(thief.LocalAddr(), mallory)
			}
			sender := anywhere
			if c.named {
				sender = netaddr.FromAddrPort(thief.LocalAddr().(*net.UDPAddr).AddrPort())
			}
			u, pending := ask(s, control(), loopback(1080), sender)
			relay := <-pending.bound
			u.UDPConn = dialFrom(t, "127.0.0.1", relay)
			defer u.leave(t)
			system.own(u.LocalAddr(), alice)
			system.own(net.UDPAddrFromAddrPort(relay), alice)

			for n := range int64(3) {
				if _, err := thief.WriteToUDPAddrPort(pack(addr("192.0.2.66:53"), []byte("stolen")), relay); err != nil {
					t.Fatal(err)
				}
				until(t, "the thief's datagram is dropped", func() bool { return s.Stats.Dropped[DropForeign].Load() == n+1 })
			}
			if log.count(ErrForeign) != 1 || log.count(ErrOtherUser) != 1 {
				t.Errorf("said %v", log.errs)
			}
			if c.named {
				return
			}
			u.send(t, "192.0.2.1:53", "own")
			far := <-tunnel.far
			wantRead(t, far, "192.0.2.1:53", "own")
			_ = far.WritePacket([]byte("answer"), addr("192.0.2.1:53"))
			u.want(t, "192.0.2.1:53", "answer")

			// The rest is told by address and port alone.
			looked := system.looks()
			u.send(t, "192.0.2.1:53", "more")
			wantRead(t, far, "192.0.2.1:53", "more")
			if system.looks() != looked {
				t.Error("looked again")
			}
		})
	}
}

// Where nobody can tell whose a sender is, the first one is the client.
func TestUserUnknown(t *testing.T) {
	for name, system := range map[string]*fakeSystem{
		"of neither": {}, "of the sender": {tcp: map[netip.AddrPort]uint32{control(): alice}},
	} {
		t.Run(name, func(t *testing.T) {
			tunnel := newPipes(16)
			u := join(t, &Server{Dialer: tunnel, system: system.users()}, "127.0.0.1")
			u.send(t, "192.0.2.1:53", "own")
			wantRead(t, <-tunnel.far, "192.0.2.1:53", "own")
		})
	}
}

// Whoever is on another computer is not looked for here; on this one a client
// may come by another address than loopback's.
func TestUserElsewhere(t *testing.T) {
	for source, want := range map[string]int{"192.0.2.7": 0, "192.0.2.1": 1, "127.0.0.1": 1} {
		system := new(fakeSystem)
		a := &association{server: &Server{system: system.users()}, request: &transport.Request{
			Source: netip.MustParseAddrPort(source + ":5"), Local: netip.MustParseAddrPort("192.0.2.1:1080"),
		}}
		if err := a.checkPeer(netip.MustParseAddrPort(source + ":6")); err != nil || system.looked != want {
			t.Errorf("%s: %v, looked %d times", source, err, system.looked)
		}
	}
}
