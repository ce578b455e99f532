package e2e

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"sync"
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
	boundSaid    = ": each destination sees a port of its own, and only it can answer: calls and games that connect people directly may fail" +
		`; for one port to all of them set "udp.mode" to "xudp" if the server is Xray, to "packetaddr" if it is V2Ray 5`
	nextSaid = " from the next association on"
)

// wantSaid waits for the last of the lines that tell what NAT the user gets.
func (l *lab) wantSaid(t testing.TB, lines ...string) {
	t.Helper()
	l.text.waitFor(t, lines[len(lines)-1]+"\n")
	if got := l.says(); !slices.Equal(got, lines) {
		t.Errorf("the user reads %q, want %q", got, lines)
	}
}

// TestAutoWaitsForKind: before the first answer of our server, which speaks all
// forms, an association is plain and loses nothing; all further ones are XUDP: a
// tunnel each. Where a request showed the kind before, the first one is, too.
func TestAutoWaitsForKind(t *testing.T) {
	t.Parallel()
	for _, cipher := range []string{"auto", "zero"} { // by zero a kind of server shows in its answer all the same
		t.Run(cipher, func(t *testing.T) {
			t.Parallel()
			way := newRoad(t, inProcessServer(t, serverConfig(), inProcess{}).addr, 0, 0)
			l := newLab(t, labSetup{remote: with(remoteAt(t, way.addr), func(r *config.Remote) { r.Security = cipher })})
			first, second := echoDatagrams(t), echoDatagrams(t)
			wantTunnels(t, way, 2, func() { // a request for each destination
				associate(t, l.addr).echoBurst(t, 20, first, second)
			})
			l.wantSaid(t, "UDP by XUDP"+nextSaid+fullConeSaid)
			wantTunnels(t, way, 1, func() { associate(t, l.addr).echoBurst(t, 20, first, second) })
			l.wantSaid(t, "UDP by XUDP"+nextSaid+fullConeSaid)
			if got := l.causes(t); cipher == "auto" && len(got) > 0 { // zero is warned of
				t.Errorf("told were %q", got)
			}
		})
	}
	t.Run("known", func(t *testing.T) {
		t.Parallel()
		way := newRoad(t, inProcessServer(t, serverConfig(), inProcess{}).addr, 0, 0)
		l := newLab(t, labSetup{remote: remoteAt(t, way.addr)})
		mustEcho(t, mustDialVia(t, l.addr, echoOrigin(t)), "hello\n")
		wantTunnels(t, way, 1, func() { associate(t, l.addr).echoBurst(t, 20, echoDatagrams(t), echoDatagrams(t)) })
		l.wantSaid(t, "UDP by XUDP"+fullConeSaid)
	})
}

// wantTunnels wants that f opens so many.
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

// TestAutoAsksResolver: which forms V2Ray 5 and Xray understand shows by a
// question to the resolver that the user's datagrams go to. V2Ray answers XUDP,
// too, but sends all datagrams to the first destination. The association that
// is open stays plain, and the next ones have the form that was found.
func TestAutoAsksResolver(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		brand, form string
		asked       map[string]int
	}{
		{fakeV2Ray5, "packetaddr", map[string]int{"XUDP": 1, "packetaddr": 1}},
		{fakeXray, "XUDP", map[string]int{"XUDP": 1}},
		{fakeV2Ray4, "", map[string]int{"XUDP": 1, "packetaddr": 1}},
	} {
		t.Run(tt.brand, func(t *testing.T) {
			t.Parallel()
			far := startFakeCore(t, tt.brand, echoDatagrams(t))
			l := newLab(t, labSetup{remote: plainAES(remoteAt(t, far.addr))})
			first, second := echoDatagrams(t), echoDatagrams(t)
			want := func(plain int, once string) {
				t.Helper()
				for form, n := range map[string]int{"plain": plain, "XUDP": tt.asked["XUDP"], "packetaddr": tt.asked["packetaddr"]} {
					if form == once {
						n++
					}
					wantCount(t, form+" requests", n, func() int { return far.requests(form) })
				}
			}
			a := associate(t, l.addr)
			a.echoBurst(t, 20, first, second)
			lines := []string{"UDP by plain VMess" + boundSaid}
			l.wantSaid(t, lines...)
			if n := far.requests("XUDP") + far.requests("packetaddr"); n != 0 {
				t.Errorf("%d questions without a resolver", n)
			}
			a.echoBurst(t, 5, fakeResolver)
			if tt.form != "" {
				lines = append(lines, "UDP by "+tt.form+nextSaid+fullConeSaid)
			}
			l.wantSaid(t, lines...)
			want(3, "")
			a.echoBurst(t, 5, fakeResolver, first)
			want(3, "")
			next := associate(t, l.addr)
			next.echoBurst(t, 20, second, first, fakeResolver)
			if tt.form == "" {
				want(6, "")
			} else {
				want(3, tt.form)
			}
			l.wantSaid(t, lines...)
			l.wantQuiet(t)
		})
	}
}

// TestUserDatagramGoesOnce: whatever is found out meanwhile, each datagram of
// the user arrives once, and nobody gets one of ours but a resolver.
func TestUserDatagramGoesOnce(t *testing.T) {
	t.Parallel()
	for _, brand := range []string{"ours", fakeV2Ray4, fakeV2Ray5, fakeXray} {
		t.Run(brand, func(t *testing.T) {
			t.Parallel()
			destination, resolver := countDatagrams(t), countDatagrams(t)
			addr, targets := "", []netip.AddrPort{destination.addr, fakeResolver}
			if brand == "ours" {
				addr, targets = inProcessServer(t, serverConfig(), inProcess{}).addr, targets[:1]
			} else {
				addr = startFakeCore(t, brand, resolver.addr).addr
			}
			l := newLab(t, labSetup{remote: plainAES(remoteAt(t, addr))})
			for range 3 {
				associate(t, l.addr).echoBurst(t, 4, targets...)
			}
			l.text.waitFor(t, "UDP by ")
			time.Sleep(300 * time.Millisecond) // a copy would be there
			destination.want(t, 12, 0)
			if brand != "ours" {
				resolver.want(t, 12, 2)
			}
		})
	}
}

// A datagramCounter is an echo that counts.
type datagramCounter struct {
	addr         netip.AddrPort
	mu           sync.Mutex
	user, others int
}

func countDatagrams(t testing.TB) *datagramCounter {
	c := reflector(t)
	d := &datagramCounter{addr: addrPortOf(c)}
	go func() {
		p := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(p)
			if err != nil {
				return
			}
			d.mu.Lock()
			if n == 4 { // as those of echoBurst
				d.user++
			} else {
				d.others++
			}
			d.mu.Unlock()
			_, _ = c.WriteToUDPAddrPort(p[:n], from)
		}
	}()
	return d
}

// want wants so many datagrams of the user, and so many others at most.
func (d *datagramCounter) want(t testing.TB, user, others int) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.user != user || d.others > others {
		t.Errorf("%d datagrams of the user arrived, want %d, and %d others, want %d at most", d.user, user, d.others, others)
	}
}

// TestAutoStaysPlain: with V2Ray 4.34 associations are plain from the first on,
// the user is told what that means, and nothing is tried where no resolver is
// asked.
func TestAutoStaysPlain(t *testing.T) {
	t.Parallel()
	way := newRoad(t, labV2ray(t).addr, 0, 0)
	l := newLab(t, labSetup{remote: remoteAt(t, way.addr)})
	first, second := echoDatagrams(t), echoDatagrams(t)
	for range 4 {
		wantTunnels(t, way, 2, func() { associate(t, l.addr).echoBurst(t, 20, first, second) })
	}
	l.wantSaid(t, "UDP by plain VMess"+boundSaid)
	l.wantQuiet(t)
}
