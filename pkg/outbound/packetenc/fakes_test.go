package packetenc

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"vmess-local/pkg/protocol/mux"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

var (
	resolver = addr("192.0.2.53", portDNS)
	anywhere = addr("192.0.2.1", 9000)
	named    = addr("peer.example", 9000)
)

func addr(host string, port uint16) netaddr.Addr {
	a, err := netaddr.FromHost(host, port)
	if err != nil {
		panic(err)
	}
	return a
}

var errNotUnderstood = errors.New("the server does not understand that")

// A fakeServer answers every datagram with itself, by the encodings that it
// understands.
type fakeServer struct {
	understands map[Encoding]bool
	// firstDestination: like V2Ray's, it takes XUDP for a session to the first
	// destination.
	firstDestination bool
	serving          sync.WaitGroup
	mu               sync.Mutex
	opened           []Encoding
}

func newFakeServer(understands ...Encoding) *fakeServer {
	f := &fakeServer{understands: map[Encoding]bool{}}
	for _, e := range understands {
		f.understands[e] = true
	}
	return f
}

func (f *fakeServer) note(e Encoding) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened = append(f.opened, e)
}

// take returns the requests since the last take.
func (f *fakeServer) take() []Encoding {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.opened
	f.opened = nil
	return all
}

func (f *fakeServer) packets(e Encoding) (transport.PacketConn, error) {
	f.note(e)
	near, far := transporttest.PacketPipe(16)
	f.serving.Go(func() {
		for {
			b, p, from, err := far.ReadPacketPooled()
			if err != nil {
				return
			}
			if f.understands[e] {
				_ = far.WritePacket(p, from)
			}
			b.Release()
		}
	})
	return near, nil
}

func (f *fakeServer) DialPacket(context.Context, netaddr.Addr) (transport.PacketConn, error) {
	return f.packets(Plain)
}

func (f *fakeServer) DialPacketAddr(context.Context) (transport.PacketConn, error) {
	return f.packets(PacketAddr)
}

func (f *fakeServer) DialMux(_ context.Context, first []byte) (transport.StreamConn, error) {
	f.note(XUDP)
	if !f.understands[XUDP] && !f.firstDestination {
		return nil, errNotUnderstood
	}
	near, far := transporttest.Pipe(1 << 16)
	f.serving.Go(func() {
		defer far.Close()
		for r := mux.NewReader(far); ; {
			frame, err := r.Next()
			if err != nil {
				return
			}
			p := make([]byte, 512)
			n, _ := r.Read(p)
			answer := mux.Frame{Status: mux.StatusKeep, HasData: true}
			if f.understands[XUDP] {
				answer.Network, answer.Address = mux.NetworkUDP, frame.Address
			}
			if _, err := far.Write(answer.Append(nil, p[:n])); err != nil {
				return
			}
		}
	})
	_, err := near.Write(first)
	return near, err
}

// A rig is a Dialer of a fake server.
type rig struct {
	*Dialer
	kind           atomic.Uint32
	server, prober *fakeServer
	mu             sync.Mutex
	changed        []Encoding
	lines          []string
}

func newRig(t *testing.T, configured Encoding, understands ...Encoding) *rig {
	r := &rig{server: newFakeServer(understands...), prober: newFakeServer(understands...)}
	r.Dialer = New(Options{
		Server: r.server, Prober: r.prober, Configured: configured, Owner: r,
		Kind: func() vmess.ServerKind { return vmess.ServerKind(r.kind.Load()) },
		Changed: func(e Encoding, line string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.changed, r.lines = append(r.changed, e), append(r.lines, line)
		},
	})
	t.Cleanup(func() {
		r.Close()
		r.server.serving.Wait()
		r.prober.serving.Wait()
	})
	return r
}

// logged returns what was logged.
func (r *rig) logged() ([]Encoding, []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.changed), slices.Clone(r.lines)
}

func (r *rig) setKind(k vmess.ServerKind) { r.kind.Store(uint32(k)) }

// echo opens an association, has a datagram answered and closes it.
func (r *rig) echo(t *testing.T, to netaddr.Addr) {
	t.Helper()
	conn, err := r.DialPacket(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	echo(t, conn, to)
}

func echo(t *testing.T, conn transport.PacketConn, to netaddr.Addr) {
	t.Helper()
	if err := conn.WritePacket([]byte("hello"), to); err != nil {
		t.Fatal(err)
	}
	b, p, from, err := transport.ReadPacketPooled(conn)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if string(p) != "hello" || from != to {
		t.Errorf("%q came from %v, want the echo from %v", p, from, to)
	}
}
