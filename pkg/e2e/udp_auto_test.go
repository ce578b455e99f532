package e2e

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// echoBurst sends so many datagrams to each of the destinations without waiting
// for an answer, and wants each back, once.
func (a *associated) echoBurst(t testing.TB, each int, destinations ...netip.AddrPort) {
	t.Helper()
	missing := map[uint32]netip.AddrPort{}
	for range each {
		for _, to := range destinations {
			a.serial++
			missing[a.serial] = to
			if err := a.send(to, binary.BigEndian.AppendUint32(nil, a.serial)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for deadline := time.Now().Add(labPatience); len(missing) > 0; {
		from, data, err := a.receive(time.Until(deadline))
		if err != nil || len(data) != 4 {
			t.Fatalf("of %d datagrams to each of %v, %d did not come back: %d bytes, %v", each, destinations, len(missing), len(data), err)
		}
		n := binary.BigEndian.Uint32(data)
		if to, ok := missing[n]; !ok || to != from {
			t.Errorf("datagram %d came from %v, want it once from %v", n, from, to)
		}
		delete(missing, n)
	}
}

// says are the lines that tell how UDP travels.
func (l *lab) says() (all []string) {
	for line := range strings.Lines(l.text.String()) {
		if strings.HasPrefix(line, "UDP by ") {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return all
}

const (
	fullConeSaid = ": full cone: every program that knows your port can reach you, as calls and games need"
	boundSaid    = ": each destination sees a port of its own, and only it can answer: calls and games that connect people directly may fail"
)

// wantSaid waits for the one line that tells what NAT the user gets.
func (l *lab) wantSaid(t testing.TB, line string) {
	t.Helper()
	l.text.waitFor(t, line+"\n")
	if got := l.says(); !slices.Equal(got, []string{line}) {
		t.Errorf("the user reads %q, want %q alone", got, line)
	}
}

// TestAutoFindsXUDP: towards our server, which speaks all forms, the first
// association loses nothing, and all further ones are XUDP: a tunnel each.
func TestAutoFindsXUDP(t *testing.T) {
	t.Parallel()
	for _, cipher := range []string{"auto", "zero"} { // by zero a kind of server shows in its answer all the same
		t.Run(cipher, func(t *testing.T) {
			t.Parallel()
			way := newRoad(t, inProcessServer(t, serverConfig(), inProcess{}).addr, 0, 0)
			l := newLab(t, labSetup{remote: with(remoteAt(t, way.addr), func(r *config.Remote) { r.Security = cipher })})
			first, second := echoDatagrams(t), echoDatagrams(t)
			wantTunnels(t, way, 2+2, func() { // a request for each destination, and the two that are tried
				associate(t, l.addr).echoBurst(t, 20, first, second)
			})
			l.wantSaid(t, "UDP by XUDP"+fullConeSaid)
			wantTunnels(t, way, 1, func() { associate(t, l.addr).echoBurst(t, 20, first, second) })
			l.wantSaid(t, "UDP by XUDP"+fullConeSaid)
			if got := l.causes(t); cipher == "auto" && len(got) > 0 { // zero is warned of
				t.Errorf("told were %q", got)
			}
		})
	}
}

// wantTunnels wants that f opens so many. What is tried beside the user's own
// datagrams may take longer than they do.
func wantTunnels(t testing.TB, way *road, want int, f func()) {
	t.Helper()
	before, _ := way.counts()
	f()
	wantCount(t, "tunnels", want, func() int { after, _ := way.counts(); return after - before })
}

// wantCount waits until a count is what it must be.
func wantCount(t testing.TB, what string, want int, count func() int) {
	t.Helper()
	for deadline := time.Now().Add(labPatience); count() < want && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond) // a pause between two looks
	}
	if n := count(); n != want {
		t.Errorf("%d %s, want %d", n, what, want)
	}
}

// TestAutoFindsPacketAddr: V2Ray 5 answers XUDP, too, but sends all datagrams
// to the first destination: only packetaddr will do.
func TestAutoFindsPacketAddr(t *testing.T) {
	t.Parallel()
	far := startFakeV2Ray5(t)
	l := newLab(t, labSetup{remote: plainAES(remoteAt(t, far.addr))})
	first, second := echoDatagrams(t), echoDatagrams(t)
	associate(t, l.addr).echoBurst(t, 20, first, second)
	l.wantSaid(t, "UDP by packetaddr"+fullConeSaid)
	want := func(form string, n int) {
		t.Helper()
		wantCount(t, form+" requests", n, func() int { return far.requests(form) })
	}
	want("plain", 2)
	want("XUDP", 1)
	want("packetaddr", 1)
	associate(t, l.addr).echoBurst(t, 20, second, first)
	want("plain", 2) // the second association goes straight
	want("XUDP", 1)
	want("packetaddr", 2)
	l.wantSaid(t, "UDP by packetaddr"+fullConeSaid)
	l.wantQuiet(t)
}

// TestAutoSettlesForPlain: V2Ray 4.34 understands neither. After some
// associations the user is told what that means, and nothing is tried any more.
func TestAutoSettlesForPlain(t *testing.T) {
	t.Parallel()
	way := newRoad(t, labV2ray(t).addr, 0, 0)
	l := newLab(t, labSetup{remote: remoteAt(t, way.addr)})
	first, second := echoDatagrams(t), echoDatagrams(t)
	for range 4 {
		wantTunnels(t, way, 2+2, func() { // a request for each destination, and the two that are tried
			associate(t, l.addr).echoBurst(t, 20, first, second)
		})
	}
	l.wantSaid(t, "UDP by plain VMess"+boundSaid)
	wantTunnels(t, way, 2, func() { associate(t, l.addr).echoBurst(t, 20, first, second) })
	l.wantSaid(t, "UDP by plain VMess"+boundSaid)
	l.wantQuiet(t)
}
