package e2e

import (
	"net"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// datagramModes are the ways in which datagrams alone must be enough to name
// what is wrong with the account.
var datagramModes = []string{"auto", "plain", "packetaddr", "xudp"}

func inMode(mode string) func(*config.Client) {
	return func(c *config.Client) { c.UDP.Mode = mode }
}

// TestFaultDatagramsWrongID: who sends nothing but datagrams is told, too, and
// once, however many there are.
func TestFaultDatagramsWrongID(t *testing.T) {
	t.Parallel()
	for _, mode := range datagramModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			onEach(t, func(t *testing.T, addr string) {
				l := newLab(t, labSetup{remote: withID(remoteAt(t, addr), strangerID), change: inMode(mode)})
				a, first, second := associate(t, l.addr), reflector(t), reflector(t)
				start := time.Now()
				for range 5 {
					for _, to := range []*net.UDPConn{first, second} {
						if err := a.send(addrPortOf(to), []byte("hello")); err != nil {
							t.Fatal(err)
						}
					}
				}
				l.expect(t, expected{
					cause: "vmess.unknown-user", fix: `compare "id" at config.json:`, confidence: "likely", since: start, within: soon,
				})
			})
		})
	}
}

// TestFaultDatagramsMD5: a server that enforces VMessAEAD.
func TestFaultDatagramsMD5(t *testing.T) {
	t.Parallel()
	for name, addr := range map[string]func(t *testing.T) string{
		"ours":     func(t *testing.T) string { return inProcessServer(t, serverConfig(), inProcess{}).addr },
		"asV2Ray5": labServer{aeadForced: true, muxPause: time.Second}.startT,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labSetup{remote: remoteAt(t, addr(t)), change: inMode("plain"), env: []string{legacyEnv}})
			start := time.Now()
			if err := associate(t, l.addr).send(echoDatagrams(t), []byte("hello")); err != nil {
				t.Fatal(err)
			}
			l.expect(t, expected{
				cause: "vmess.aead-required", fix: "unset V2RAY_VMESS_AEAD_DISABLED", confidence: "certain", since: start, within: soonLegacy,
			})
		})
	}
}

// TestFaultDatagramsClock: a wrong clock is healed, and none of the datagrams
// that found it is lost.
func TestFaultDatagramsClock(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"auto", "plain", "xudp"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			onEach(t, func(t *testing.T, addr string) {
				l := newLab(t, labSetup{remote: remoteAt(t, addr), change: inMode(mode), now: clockOff(5 * time.Minute)})
				to := echoDatagrams(t)
				if mode == "xudp" { // to one destination V2Ray understands it
					associate(t, l.addr).echoBurst(t, 20, to)
				} else {
					associate(t, l.addr).echoBurst(t, 20, to, echoDatagrams(t))
				}
				l.expectHealed(t, "vmess.clock-skew", "signing with the server's time, this clock is ")
				l.wantFailures(t, 0)
			})
		})
	}
}

// TestDatagramsUnanswered: a destination that never answers is nobody's fault.
func TestDatagramsUnanswered(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, addr string) {
		l := newLab(t, labSetup{remote: remoteAt(t, addr), change: inMode("plain")})
		to := reflector(t)
		if err := associate(t, l.addr).send(addrPortOf(to), []byte("hello")); err != nil {
			t.Fatal(err)
		}
		_ = to.SetReadDeadline(time.Now().Add(labPatience))
		if n, err := to.Read(make([]byte, 10)); n != 5 {
			t.Fatalf("%d bytes arrived, %v", n, err)
		}
		time.Sleep(5 * time.Second) // the silence itself is tested: after 3 s somebody asks the server
		l.wantQuiet(t)
	})
}
