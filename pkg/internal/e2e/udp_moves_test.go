package e2e

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// TestLongAssociation: an association of more datagrams than half of what a
// tunnel has nonces for goes on over another, from the same port of the server, and
// nothing is lost or told. Where the server cannot let it move, it stays.
func TestLongAssociation(t *testing.T) {
	t.Parallel()
	const count, window = 33_500, 32
	for mode, tunnels := range map[string]int{"xudp": 2, "packetaddr": 1} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			way := newRoad(t, inProcessServer(t, serverConfig(), inProcess{}).addr, 0, 0)
			l := newLab(t, labSetup{remote: remoteAt(t, way.addr), change: func(c *config.Client) { c.UDP.Mode, c.Warm.Max = mode, 0 }})
			mustEcho(t, mustDialVia(t, l.addr, echoOrigin(t)), "hello\n") // the server is known
			r := reflector(t)
			seen := map[netip.AddrPort]bool{}
			go func() {
				p := make([]byte, 100)
				for {
					n, from, err := r.ReadFromUDPAddrPort(p)
					if err != nil {
						return
					}
					_, _ = r.WriteToUDPAddrPort(append(p[:n], from.String()...), from)
				}
			}()
			wantTunnels(t, way, tunnels, func() {
				a := associate(t, l.addr)
				to, lost := addrPortOf(r), 0
				for sent := 0; sent < count; sent += window {
					for range window {
						if err := a.send(to, []byte("#")); err != nil {
							t.Fatal(err)
						}
					}
					for range window {
						_, data, err := a.receive(2 * time.Second)
						if errors.Is(err, os.ErrDeadlineExceeded) {
							lost++ // the system drops some, too
							break
						}
						if err != nil {
							t.Fatal(err)
						}
						if at, err := netip.ParseAddrPort(string(data[1:])); err == nil {
							seen[at] = true
						}
					}
				}
				if lost > 5 {
					t.Errorf("answers were missing %d times", lost)
				}
			})
			if len(seen) != 1 {
				t.Errorf("the destination saw %v", seen)
			}
			l.wantQuiet(t)
		})
	}
}
