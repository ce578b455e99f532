package packetenc

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/protocol/vmess"
)

func TestEncodingByServerKind(t *testing.T) {
	for _, c := range []struct {
		name             string
		configured       Encoding
		kind             vmess.ServerKind
		encoding, opened Encoding
	}{
		{"auto before the first answer", Unknown, vmess.KindUnknown, Unknown, Plain},
		{"auto, vmess-server", Unknown, vmess.KindNative, XUDP, XUDP},
		{"auto, sing-box", Unknown, vmess.KindSingBox, XUDP, XUDP},
		{"auto, V2Ray", Unknown, vmess.KindV2Ray, Plain, Plain},
		{"plain, vmess-server", Plain, vmess.KindNative, Plain, Plain},
		{"packetaddr before the first answer", PacketAddr, vmess.KindUnknown, PacketAddr, PacketAddr},
		{"xudp, V2Ray", XUDP, vmess.KindV2Ray, XUDP, XUDP},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, c.configured, Plain, PacketAddr, XUDP)
				r.setKind(c.kind)
				if e := r.Encoding(); e != c.encoding {
					t.Errorf("the next association is sent as %v, want %v", e, c.encoding)
				}
				r.echo(t, anywhere)
				if opened := r.server.take(); !slices.Equal(opened, []Encoding{c.opened}) {
					t.Errorf("opened %v, want %v", opened, c.opened)
				}
				synctest.Wait()
				if asked := r.prober.take(); asked != nil {
					t.Errorf("asked a destination that is not a resolver by %v", asked)
				}
			})
		})
	}
}

func TestNamesGoPlainBesidePacketAddr(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, PacketAddr, Plain, PacketAddr)
		conn, err := r.DialPacket(t.Context(), anywhere)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		echo(t, conn, anywhere)
		echo(t, conn, named)
		if opened := r.server.take(); !slices.Equal(opened, []Encoding{PacketAddr, Plain}) {
			t.Errorf("opened %v", opened)
		}
	})
}

// TestResolverIsAsked holds that a resolver's answer to the user has V2Ray and
// Xray asked which encoding they understand, once in a while.
func TestResolverIsAsked(t *testing.T) {
	for _, c := range []struct {
		name        string
		understands []Encoding
		asked       []Encoding
		then        Encoding
	}{
		{"Xray", []Encoding{Plain, XUDP}, []Encoding{XUDP}, XUDP},
		{"V2Ray 5", []Encoding{Plain, PacketAddr}, []Encoding{XUDP, PacketAddr}, PacketAddr},
		{"V2Ray 4", []Encoding{Plain}, []Encoding{XUDP, PacketAddr}, Plain},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Unknown, c.understands...)
				r.setKind(vmess.KindV2Ray)
				r.echo(t, resolver)
				time.Sleep(2 * answerTimeout)
				if asked := r.prober.take(); !slices.Equal(asked, c.asked) {
					t.Errorf("asked by %v, want %v", asked, c.asked)
				}
				if e := r.Encoding(); e != c.then {
					t.Errorf("the next association is sent as %v, want %v", e, c.then)
				}
				r.echo(t, resolver)
				time.Sleep(2 * answerTimeout)
				if asked := r.prober.take(); asked != nil {
					t.Errorf("asked again by %v, within %v", asked, probePause)
				}
				if opened := r.server.take(); !slices.Equal(opened, []Encoding{Plain, c.then}) {
					t.Errorf("the user's datagrams went by %v", opened)
				}
				time.Sleep(probePause)
				r.echo(t, resolver)
				time.Sleep(2 * answerTimeout)
				if asked, want := r.prober.take(), c.then == Plain; (asked != nil) != want {
					t.Errorf("asked again by %v after %v, want that: %v", asked, probePause, want)
				}
			})
		})
	}
}

func TestNothingIsAskedAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Unknown, Plain, XUDP)
		r.setKind(vmess.KindV2Ray)
		r.Close()
		r.echo(t, resolver)
		time.Sleep(answerTimeout)
		if asked := r.prober.take(); asked != nil {
			t.Errorf("asked by %v", asked)
		}
	})
}

// TestCloseEndsQuestion: the fake does not answer by packetaddr, and Close does
// not wait until that is given up.
func TestCloseEndsQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Unknown, Plain)
		r.setKind(vmess.KindV2Ray)
		r.echo(t, resolver)
		synctest.Wait()
		start := time.Now()
		r.Close()
		if took := time.Since(start); took != 0 {
			t.Errorf("Close took %v", took)
		}
		if asked := r.prober.take(); !slices.Contains(asked, PacketAddr) {
			t.Errorf("asked by %v: no question was under way", asked)
		}
	})
}

func TestNATBehaviorIsLoggedOnChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Unknown, Plain, XUDP)
		r.echo(t, resolver)
		if _, lines := r.logged(); lines != nil {
			t.Errorf("logged %q before an answer showed the kind", lines)
		}
		r.setKind(vmess.KindV2Ray)
		for range 3 {
			r.echo(t, resolver)
			time.Sleep(answerTimeout)
		}
		encodings, lines := r.logged()
		if !slices.Equal(encodings, []Encoding{Plain, XUDP}) {
			t.Fatalf("logged %v, want plain and then XUDP", encodings)
		}
		if !strings.Contains(lines[0], `set "udp.mode" to "xudp"`) || !strings.HasPrefix(lines[1], "UDP by XUDP from the next association on: full cone") {
			t.Errorf("logged %q", lines)
		}
	})
}

func TestProbe(t *testing.T) {
	for _, c := range []struct {
		name       string
		configured Encoding
		server     *fakeServer
		best       Encoding
		misled     bool
	}{
		{"all", Unknown, newFakeServer(Plain, PacketAddr, XUDP), XUDP, false},
		{"plain only", Unknown, newFakeServer(Plain), Plain, false},
		{"packetaddr", Unknown, newFakeServer(Plain, PacketAddr), PacketAddr, false},
		{"nothing", Unknown, newFakeServer(), Unknown, false},
		{"the configured one only", Plain, newFakeServer(Plain, XUDP), Plain, false},
		{"the configured one is not understood", PacketAddr, newFakeServer(Plain), Unknown, false},
		{"XUDP taken for a session", XUDP, &fakeServer{firstDestination: true}, Unknown, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, c.configured)
				r.prober = c.server
				r.opt.Prober = c.server
				if best, misled := r.Probe(context.Background(), resolver); best != c.best || misled != c.misled {
					t.Errorf("best %v, misled %v; want %v, %v", best, misled, c.best, c.misled)
				}
				if opened := r.server.take(); opened != nil {
					t.Errorf("opened %v as if for a user", opened)
				}
			})
		})
	}
}

func TestQuestion(t *testing.T) {
	if q := Question(anywhere); q != nil {
		t.Errorf("a question to a port of which nothing is known: %x", q)
	}
	for _, to := range []uint16{portDNS, portSTUN} {
		if a, b := Question(addr("192.0.2.1", to)), Question(addr("192.0.2.1", to)); len(a) == 0 || slices.Equal(a, b) {
			t.Errorf("questions to port %d: %x and %x, want two that differ in their ids", to, a, b)
		}
	}
}
