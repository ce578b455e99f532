package e2e

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/carrier/wsconn"
	"vmess-local/pkg/config"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// strangerID is an id that no server here knows.
const strangerID = "0d5c0b1e-77aa-4d1c-8a55-90c1b3a1f0de"

// How fast a refusal must be named on loopback, where a round trip takes no
// time: at once for what was refused at once, after the first 3 s of silence
// for MD5.
const (
	soon       = 2 * time.Second
	soonLegacy = 5 * time.Second
)

// withID changes a remote's id.
func withID(r config.Remote, id string) config.Remote {
	r.ID = config.Secret(id)
	return r
}

// withAlterID changes a remote's alterId.
func withAlterID(r config.Remote, n int) config.Remote {
	r.AlterID = n
	return r
}

// plainAES is the one cipher that programmableServer speaks.
func plainAES(r config.Remote) config.Remote {
	r.Security, r.GlobalPadding = "aes-128-gcm", false
	return r
}

// heals changes what is healed.
func heals(change func(*config.Heal)) func(*config.Client) {
	return func(c *config.Client) { change(&c.Heal) }
}

// onEach runs a test against real V2Ray, our own server, and one that takes a
// second for a mux probe as V2Ray does and enforces VMessAEAD as V2Ray 5 does.
func onEach(t *testing.T, run func(t *testing.T, addr string)) {
	onEachWithResolver(t, func(t *testing.T, addr string, _ *emptyResolver) { run(t, addr) })
}

// onEachWithResolver is onEach for tests that look at the resolver of a server
// that is ours. For V2Ray that is nil.
func onEachWithResolver(t *testing.T, run func(t *testing.T, addr string, names *emptyResolver)) {
	t.Run("v2ray", func(t *testing.T) {
		t.Parallel()
		run(t, labV2ray(t).addr, nil)
	})
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		names := newKnowsNothing(t)
		run(t, inProcessServer(t, serverConfig(), inProcess{Resolver: names.Resolver}).addr, names)
	})
	t.Run("asV2Ray5", func(t *testing.T) {
		t.Parallel()
		names := newKnowsNothing(t)
		run(t, labServer{aeadForced: true, muxPause: time.Second, resolver: names.Resolver}.start(t), names)
	})
}

func TestFaultWrongID(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, addr string) {
		echo := echoOrigin(t)
		l := newLab(t, labSetup{remote: withID(remoteAt(t, addr), strangerID)})
		start := time.Now()
		l.ask(echo, "hello\n", 6).wantClosed(t, soon)
		l.expect(t, expected{
			cause: "vmess.unknown-user", fix: `compare "id" at config.json:`, confidence: "likely", since: start, within: soon,
		})
		status, page := getVia(t, l.addr, "http://"+echo+"/")
		if status != http.StatusBadGateway || !strings.Contains(page, "vmess.unknown-user") || !strings.Contains(page, "Compare server.id") {
			t.Errorf("a browser reads %d %q, want cause and fix", status, page)
		}
	})
}

func TestFaultClock(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		off  time.Duration
		says string
	}{
		{5 * time.Minute, " s ahead"}, {-5 * time.Minute, " s behind"}, {time.Hour, " s ahead"},
	} {
		t.Run(tt.off.String(), func(t *testing.T) {
			t.Parallel()
			onEach(t, func(t *testing.T, addr string) {
				echo := echoOrigin(t)
				l := newLab(t, labSetup{remote: remoteAt(t, addr), now: clockOff(tt.off)})
				start := time.Now()
				r := l.ask(echo, "hello\n", 6)
				r.wantData(t, "hello\n")
				if r.ended > soon+slowness {
					t.Errorf("healed after %v, want it within %v", r.ended, soon)
				}
				h := l.expectHealed(t, "vmess.clock-skew", "signing with the server's time, this clock is ")
				t.Logf("%.2f s to %s", h.Time.Sub(start).Seconds(), h.Healed)
				if !strings.HasSuffix(h.Healed, tt.says) {
					t.Errorf("%q does not say %q", h.Healed, tt.says)
				}
				l.ask(echo, "again\n", 6).wantData(t, "again\n")
				l.wantFailures(t, 0)
			})
		})
	}
}

func TestFaultClockNotHealed(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, addr string) {
		l := newLab(t, labSetup{
			remote: remoteAt(t, addr), now: clockOff(-time.Hour),
			change: heals(func(h *config.Heal) { h.Clock = false }),
		})
		start := time.Now()
		l.ask(echoOrigin(t), "hello\n", 6).wantClosed(t, soon)
		l.expect(t, expected{cause: "vmess.clock-skew", fix: "set this computer's clock", sentence: " behind the server's", since: start, within: soon})
		if h := l.healings(t); len(h) > 0 {
			t.Errorf("healed against the user's word: %v", h)
		}
	})
}

// TestFaultClockWithoutDate is a wrong clock, and then a wrong id, where no
// server tells its time: nobody can know which it is, and both are named.
func TestFaultClockWithoutDate(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]labSetup{
		"5 min ahead":  {now: clockOff(5 * time.Minute)},
		"5 min behind": {now: clockOff(-5 * time.Minute)},
		"1 h ahead":    {now: clockOff(time.Hour)},
		"wrong id":     {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.remote = remoteAt(t, labServer{aeadForced: true, noDate: true, muxPause: time.Second}.start(t))
			if s.now == nil {
				s.remote = withID(s.remote, strangerID)
			}
			l := newLab(t, s)
			start := time.Now()
			l.ask(echoOrigin(t), "hello\n", 6).wantClosed(t, soon)
			l.expect(t, expected{
				cause: "vmess.refused", sentence: "either the id or this computer's clock is wrong",
				fix: "check this computer's clock, then", confidence: "possible", since: start, within: soon,
			})
		})
	}
}

// TestClockInnocent: what VMess allows is no fault, and a server that tells a
// wrong Date beside the right time is not believed.
func TestClockInnocent(t *testing.T) {
	t.Parallel()
	for name, addr := range map[string]func() string{
		"100 s ahead": func() string { return labV2ray(t).addr },
		"no Date":     func() string { return labServer{aeadForced: true, noDate: true}.start(t) },
	} {
		far := newRoad(t, addr(), 0, 0)
		l := newLab(t, labSetup{remote: remoteAt(t, far.addr), now: clockOff(100 * time.Second)})
		for range 3 {
			l.ask(echoOrigin(t), "hello\n", 6).wantData(t, "hello\n")
		}
		l.wantQuiet(t)
		far.wantNoProbe(t, 3)
		_ = name
	}
}

// TestClockSetWhileRunning: a clock that was healed is set right, as computers
// do soon after their start, and one that was right is set wrong.
func TestClockSetWhileRunning(t *testing.T) {
	t.Parallel()
	for name, steps := range map[string][]time.Duration{
		"set right":   {time.Hour, 0},
		"set wrong":   {0, -time.Hour},
		"wrong twice": {-time.Hour, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onEach(t, func(t *testing.T, addr string) {
				var off atomic.Int64
				echo := echoOrigin(t)
				l := newLab(t, labSetup{remote: remoteAt(t, addr), now: func() time.Time {
					return time.Now().Add(time.Duration(off.Load()))
				}})
				for _, d := range steps {
					off.Store(int64(d))
					for range 2 {
						r := l.ask(echo, "hello\n", 6)
						r.wantData(t, "hello\n")
						if r.ended > soon+slowness {
							t.Errorf("%v off: healed after %v, want it within %v", d, r.ended, soon)
						}
					}
				}
				l.wantFailures(t, 0)
				if want := len(steps); name != "wrong twice" && len(l.healings(t)) != 1 || name == "wrong twice" && len(l.healings(t)) != want {
					t.Errorf("healed: %+v", l.healings(t))
				}
			})
		})
	}
}

// TestUserDeleted: a server that has just accepted us does not any more.
func TestUserDeleted(t *testing.T) {
	t.Parallel()
	stranger := serverConfig()
	stranger.Users[0].ID = strangerID
	for name, start := range map[string]func(t *testing.T) (before, after string){
		"v2ray": func(t *testing.T) (before, after string) {
			return labV2ray(t).addr, labV2ray(t, object{"id": strangerID, "alterId": 0}).addr
		},
		"ours": func(t *testing.T) (before, after string) {
			return inProcessServer(t, serverConfig(), inProcess{}).addr, inProcessServer(t, stranger, inProcess{}).addr
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before, after := start(t)
			far := newRoad(t, before, 0, 0)
			l, echo := newLab(t, labSetup{remote: remoteAt(t, far.addr)}), echoOrigin(t)
			l.ask(echo, "hello\n", 6).wantData(t, "hello\n")
			l.wantQuiet(t)
			far.leadTo(after)
			begin := time.Now()
			l.ask(echo, "hello\n", 6).wantClosed(t, soon)
			l.expect(t, expected{cause: "vmess.unknown-user", fix: "the user may have been deleted", since: begin, within: soon})
			far.leadTo(before)
			l.ask(echo, "hello\n", 6).wantData(t, "hello\n")
			l.wantFailures(t, 1)
		})
	}
}

func TestFaultMD5ByAlterID(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) string{
		"ours": func(t *testing.T) string { return inProcessServer(t, serverConfig(), inProcess{}).addr },
		"asV2Ray5": func(t *testing.T) string {
			return labServer{alterID: 4, aeadForced: true, muxPause: time.Second}.start(t)
		},
		// V2Ray 4.34 takes MD5, but knows only the ids that it derived itself.
		"other alterId, v2ray":  func(t *testing.T) string { return labV2ray(t).addr },
		"other alterId, as old": func(t *testing.T) string { return labServer{muxPause: time.Second}.start(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, echo := start(t), echoOrigin(t)
			l := newLab(t, labSetup{remote: withAlterID(remoteAt(t, addr), 4)})
			r := l.ask(echo, "hello\n", 6)
			r.wantData(t, "hello\n")
			if r.ended > soonLegacy+slowness {
				t.Errorf("healed after %v, want it within %v", r.ended, soonLegacy)
			}
			t.Logf("%.2f s to AEAD", r.ended.Seconds())
			l.expectHealed(t, "vmess.aead-required", `set "alterId": 0 at config.json:`)
			l.ask(echo, "again\n", 6).wantData(t, "again\n")
			l.wantFailures(t, 0)
		})
		t.Run(name+", not healed", func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labSetup{
				remote: withAlterID(remoteAt(t, start(t)), 4),
				change: heals(func(h *config.Heal) { h.AEAD = false }),
			})
			start := time.Now()
			l.ask(echoOrigin(t), "hello\n", 6).wantClosed(t, soonLegacy)
			l.expect(t, expected{cause: "vmess.aead-required", fix: `set "alterId": 0 at config.json:`, since: start, within: soonLegacy})
		})
	}
}

// TestMD5Innocent: MD5 that is accepted is not blamed, whatever the
// destination does, and not replaced.
func TestMD5Innocent(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) string{
		"v2ray": func(t *testing.T) string { return labV2ray(t, object{"id": userID, "alterId": 4}).addr },
		"ours": func(t *testing.T) string {
			cfg := serverConfig()
			cfg.AEADForced, cfg.Users[0].AlterID = false, 4
			return inProcessServer(t, cfg, inProcess{}).addr
		},
		"as old": func(t *testing.T) string { return labServer{alterID: 4, muxPause: time.Second}.start(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := start(t)
			well := newLab(t, labSetup{remote: withAlterID(remoteAt(t, addr), 4)})
			well.ask(echoOrigin(t), "hello\n", 6).wantData(t, "hello\n")
			well.wantQuiet(t)
			silent := newLab(t, labSetup{remote: withAlterID(remoteAt(t, addr), 4)})
			askVia(silent.addr, silentOrigin(t), "hello\n", 6, 6*time.Second)
			silent.wantHarmless(t)
		})
	}
}

func TestFaultMD5ByTheVariable(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		start   func(t *testing.T) string
		alterID int
		fix     string
		sure    string
	}{
		"ours": {
			func(t *testing.T) string { return inProcessServer(t, serverConfig(), inProcess{}).addr }, 0,
			"unset V2RAY_VMESS_AEAD_DISABLED", "certain",
		},
		"asV2Ray5": {
			labServer{aeadForced: true, muxPause: time.Second}.startT, 0,
			"unset V2RAY_VMESS_AEAD_DISABLED", "certain",
		},
		"and by alterId": {
			labServer{aeadForced: true, muxPause: time.Second}.startT, 4,
			" and unset V2RAY_VMESS_AEAD_DISABLED", "likely", // another alterId looks the same
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labSetup{remote: withAlterID(remoteAt(t, tt.start(t)), tt.alterID), env: []string{legacyEnv}})
			start := time.Now()
			l.ask(echoOrigin(t), "hello\n", 6).wantClosed(t, soonLegacy)
			l.expect(t, expected{
				cause: "vmess.aead-required", sentence: "refuses MD5", fix: tt.fix, confidence: tt.sure, since: start, within: soonLegacy,
			})
			if h := l.healings(t); len(h) > 0 {
				t.Errorf("the user's word was overruled: %v", h)
			}
		})
	}
}

func (s labServer) startT(t *testing.T) string { t.Helper(); return s.start(t) }

func TestFaultMD5OnlyServer(t *testing.T) {
	t.Parallel()
	addr, echo := labServer{md5Only: true, muxPause: time.Second}.start(t), echoOrigin(t)
	l := newLab(t, labSetup{remote: remoteAt(t, addr)})
	start := time.Now()
	l.ask(echo, "hello\n", 6).wantClosed(t, soon)
	l.expect(t, expected{
		cause: "vmess.aead-unsupported", fix: "until then set V2RAY_VMESS_AEAD_DISABLED=true, which is weaker",
		confidence: "certain", since: start, within: soon,
	})
	l.ask(echo, "hello\n", 6).wantClosed(t, soon)
	if h := l.healings(t); len(h) > 0 {
		t.Errorf("downgraded by itself: %v", h)
	}
	told := newLab(t, labSetup{remote: remoteAt(t, addr), env: []string{legacyEnv}})
	told.ask(echo, "hello\n", 6).wantData(t, "hello\n")
	told.wantQuiet(t)
}

// TestFaultTaintedCredential: after somebody replayed a legacy request, the
// server refuses what else is stamped with the same second.
func TestFaultTaintedCredential(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) string{
		"v2ray": func(t *testing.T) string { return labV2ray(t).addr },
		"ours": func(t *testing.T) string {
			cfg := serverConfig()
			cfg.AEADForced = false
			return inProcessServer(t, cfg, inProcess{}).addr
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, echo := start(t), echoOrigin(t)
			second := time.Now()
			stopped := func() time.Time { return second }
			flight := stampedFlight(t, echo, stopped)
			openTunnel(t, addr).wantAnswer(flight)
			openTunnel(t, addr).wantRefusal(flight) // the replay; when it is closed, the server has judged it
			l := newLab(t, labSetup{remote: remoteAt(t, addr), env: []string{legacyEnv}, now: stopped})
			begin := time.Now()
			l.ask(echo, "hello\n", 6).wantClosed(t, soonLegacy)
			l.expect(t, expected{cause: "vmess.aead-required", fix: "unset V2RAY_VMESS_AEAD_DISABLED", since: begin, within: soonLegacy})

			other := newLab(t, labSetup{remote: remoteAt(t, addr), env: []string{legacyEnv}, now: func() time.Time { return second.Add(5 * time.Second) }})
			other.ask(echo, "hello\n", 6).wantData(t, "hello\n")
			other.wantQuiet(t)
		})
	}
}

// stampedFlight is a legacy first flight for an echo of its data, stamped by a
// clock.
func stampedFlight(t *testing.T, origin string, now func() time.Time) (flight []byte) {
	t.Helper()
	d := vmess.Dialer{
		Client: newAccount(t, userID, vmess.AccountConfig{AEADDisabled: true, Now: now}),
		Endpoint: transport.EndpointFunc(func(_ context.Context, first []byte) (transport.StreamConn, error) {
			flight = append(flight, first...)
			return nil, errors.New("seen enough")
		}),
	}
	dst, err := netaddr.Parse(origin)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = d.DialStream(t.Context(), dst, []byte("first use\n"))
	return flight
}

func newAccount(t *testing.T, id string, c vmess.AccountConfig) *vmess.Account {
	t.Helper()
	var err error
	if c.ID, err = vmess.ParseID(id); err != nil {
		t.Fatal(err)
	}
	if c.Method, err = vmess.ParseMethod("auto", true, false); err != nil {
		t.Fatal(err)
	}
	return vmess.NewAccount(c)
}

// TestRefusedByMistake: V2Ray's filter refuses honest requests now and then.
// Each is sent again, and carried out once.
func TestRefusedByMistake(t *testing.T) {
	t.Parallel()
	const requests = 60
	far := (&programmableServer{asV2Ray: true, refuses: func(n int) bool { return n%4 == 3 }}).start(t)
	l := newLab(t, labSetup{remote: plainAES(remoteAt(t, far.addr))})
	for i := range requests {
		line := shortRequest(uint64(i), 100)
		want, err := shortAnswer(line)
		if err != nil {
			t.Fatal(err)
		}
		r := l.ask("192.0.2.1:80", line, 100)
		r.wantData(t, string(want))
		if r.ended > slowness {
			t.Errorf("request %d took %v, want a round trip or two", i, r.ended)
		}
	}
	l.wantQuiet(t)
	seen, delivered := far.seen()
	if n := l.client.Resent(); n != int64(seen-requests) || n < requests/4 {
		t.Errorf("%d requests were sent again, the server saw %d", n, seen)
	}
	for line, n := range delivered {
		if n != 1 {
			t.Errorf("%q was carried out %d times", line, n)
		}
	}
	if len(delivered) != requests {
		t.Errorf("%d of %d requests were carried out", len(delivered), requests)
	}
}

func TestRefusedByMistakeNotHealed(t *testing.T) {
	t.Parallel()
	far := (&programmableServer{asV2Ray: true, refuses: func(n int) bool { return n == 1 }}).start(t)
	l := newLab(t, labSetup{
		remote: plainAES(remoteAt(t, far.addr)),
		change: heals(func(h *config.Heal) { h.Refused = false }),
	})
	line := shortRequest(1, 100)
	if r := l.ask("192.0.2.1:80", line, 100); len(r.data) != 100 {
		t.Fatalf("the first request: %v", r.end)
	}
	start := time.Now()
	l.ask("192.0.2.1:80", line, 100).wantClosed(t, soon)
	l.expect(t, expected{cause: "vmess.refused", fix: `"heal.refused"`, since: start, within: soon})
	if seen, _ := far.seen(); seen > 2+5 {
		t.Errorf("%d requests came to the server for 2", seen)
	}
}

// TestClosedWithoutAnswer: sing-box and mihomo close without a word when they
// could not reach a destination, or when that said nothing: such a request may
// have been carried out, so it is not repeated, and the account is not blamed.
func TestClosedWithoutAnswer(t *testing.T) {
	t.Parallel()
	far := (&programmableServer{option: 5, refuses: func(n int) bool { return n == 1 }}).start(t)
	l := newLab(t, labSetup{remote: plainAES(remoteAt(t, far.addr))})
	line := shortRequest(1, 100)
	if r := l.ask("192.0.2.1:80", line, 100); len(r.data) != 100 {
		t.Fatalf("the first request: %v", r.end)
	}
	start := time.Now()
	l.ask("192.0.2.1:80", line, 100).wantClosed(t, soon)
	l.expect(t, expected{cause: "destination.refused", since: start, within: soon})
	if seen, _ := far.seen(); seen != 2 {
		t.Errorf("%d requests came to the server for 2", seen)
	}
}

func TestFaultBadResponse(t *testing.T) {
	t.Parallel()
	l := newLab(t, labSetup{remote: remoteAt(t, labServer{noise: true}.start(t))})
	start := time.Now()
	l.ask(echoOrigin(t), "hello\n", 6).wantClosed(t, soon)
	l.expect(t, expected{cause: "vmess.bad-response", fix: `check that "ws.path"`, since: start, within: soon})
}

// TestEarlyDataLost: a server that is not set up for early data loses the
// first flight in silence.
func TestEarlyDataLost(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) string{
		"deaf":       labServer{deaf: true, aeadForced: true}.startT,
		"deaf, slow": labServer{deaf: true, aeadForced: true, muxPause: time.Second}.startT,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			remote := remoteAt(t, start(t))
			remote.WS.EarlyData = 2048
			echo := echoOrigin(t)
			l := newLab(t, labSetup{remote: remote})
			// The first request waits for the upgrade and goes without; those
			// while the server is known to be well have early data.
			for range 3 {
				r := l.ask(echo, "hello\n", 6)
				r.wantData(t, "hello\n")
				t.Logf("%.2f s", r.ended.Seconds())
			}
			l.expectHealed(t, "ws.early-data-refused", `set "ws.earlyData": 0 at config.json:`)
			l.wantFailures(t, 0)
		})
		t.Run(name+", not healed", func(t *testing.T) {
			t.Parallel()
			remote := remoteAt(t, start(t))
			remote.WS.EarlyData = 2048
			l := newLab(t, labSetup{remote: remote, change: heals(func(h *config.Heal) { h.EarlyData = false })})
			echo := echoOrigin(t)
			l.ask(echo, "hello\n", 6).wantData(t, "hello\n")
			begin := time.Now()
			l.ask(echo, "hello\n", 6).wantClosed(t, soonLegacy)
			l.expect(t, expected{cause: "ws.early-data-refused", fix: `set "ws.earlyData": 0 at config.json:`, since: begin, within: soonLegacy})
		})
	}
	t.Run("taken", func(t *testing.T) {
		t.Parallel()
		remote := remoteAt(t, labServer{aeadForced: true}.start(t))
		remote.WS.EarlyData = 2048
		l := newLab(t, labSetup{remote: remote})
		echo := echoOrigin(t)
		for range 3 {
			l.ask(echo, "hello\n", 6).wantData(t, "hello\n")
		}
		askVia(l.addr, silentOrigin(t), "hello\n", 6, 5*time.Second)
		l.wantQuiet(t)
	})
}

// TestDestinationFaults: what is wrong beyond the server is not the account's
// fault.
func TestDestinationFaults(t *testing.T) {
	t.Parallel()
	onEachWithResolver(t, func(t *testing.T, addr string, names *emptyResolver) {
		refused, silent := freePort(t), silentOrigin(t)
		real := names == nil
		nowhere := "nowhere.test:80" // which our servers ask their resolver for
		if real {
			nowhere = "nowhere.invalid:80" // see labV2ray
		}
		for name, tt := range map[string]struct {
			target, cause string
			within        time.Duration
		}{
			"refused":      {refused, "destination.refused", soonLegacy},
			"unresolvable": {nowhere, "destination.unresolvable", soonLegacy},
			"silent":       {silent, "destination.no-answer", soonLegacy},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				l := newLab(t, labSetup{remote: remoteAt(t, addr)})
				start := time.Now()
				r := askVia(l.addr, tt.target, "hello\n", 6, 6*time.Second)
				for again := 0; again < 3 && name != "silent" && len(l.failures(t)) == 0; again++ {
					// On a busy machine it spoke only after the answer had ended:
					// then it asked nothing, and nothing is told.
					start = time.Now()
					r = askVia(l.addr, tt.target, "hello\n", 6, 6*time.Second)
				}
				if name == "unresolvable" && !real && names.asked.Load() == 0 {
					t.Error("the server did not ask its resolver")
				}
				switch {
				case name != "silent":
					r.wantClosed(t, tt.within)
				case !isTimeout(r.end):
					t.Errorf("a silent destination's connection ended by %v after %v", r.end, r.ended)
				case !real:
					l.wantQuiet(t) // our server tells at once that it accepts us
					return
				}
				l.expect(t, expected{cause: tt.cause, since: start, within: tt.within})
				l.wantHarmless(t)
				if strings.Contains(l.text.String(), tt.target) {
					t.Errorf("the destination stands in the log:\n%s", l.text)
				}
			})
		}
		t.Run("page", func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labSetup{remote: remoteAt(t, addr)})
			status, page := getVia(t, l.addr, "http://"+refused+"/")
			if status != http.StatusBadGateway || !strings.Contains(page, "destination.refused: The server works") {
				t.Errorf("a browser reads %d %q, want what is wrong", status, page)
			}
		})
	})
}

// TestCarriedOutOnce: a destination that takes a request and closes without a
// word got it once, whatever the client makes of it.
func TestCarriedOutOnce(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, addr string) {
		var came atomic.Int64
		mute := serveOrigin(t, func(c *net.TCPConn) {
			if _, err := readLine(c); err == nil {
				came.Add(1)
			}
		})
		l := newLab(t, labSetup{remote: remoteAt(t, addr)})
		for range 3 {
			l.ask(mute, "buy\n", 1).wantClosed(t, soon)
		}
		if came.Load() != 3 {
			t.Errorf("3 requests were carried out %d times", came.Load())
		}
		l.wantHarmless(t)
	})
}

// TestProbesAreFew: a round of probes at most, however many requests fail.
func TestProbesAreFew(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, addr string) {
		far := newRoad(t, addr, 0, 0)
		l := newLab(t, labSetup{remote: withID(remoteAt(t, far.addr), strangerID)})
		echo := echoOrigin(t)
		for range 3 {
			l.ask(echo, "hello\n", 6).wantClosed(t, soon)
		}
		tunnels, others := far.counts()
		if tunnels > 3+5 || others > 1 {
			t.Errorf("a round had %d probes and %d plain requests", tunnels-3, others)
		}
		for range 20 {
			l.ask(echo, "hello\n", 6).wantClosed(t, 200*time.Millisecond)
		}
		if again, more := far.counts(); again != tunnels+20 || more != others {
			t.Errorf("%d probes and %d plain requests more", again-tunnels-20, more-others)
		}
		l.wantFailures(t, 1)
	})
}

// TestFilledHeaders: servers take requests that are filled up, and close
// refused ones at once though they would otherwise hold them open.
func TestFilledHeaders(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, addr string) {
		echo, err := netaddr.Parse(echoOrigin(t))
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			for _, id := range []string{userID, strangerID} {
				start := time.Now()
				n, err := askOnce(t, addr, newAccount(t, id, vmess.AccountConfig{}), echo)
				took := time.Since(start)
				switch {
				case id == userID && (n != 6 || err != nil):
					t.Errorf("accepted: %d bytes, %v", n, err)
				case id == strangerID && !errors.Is(err, vmess.ErrNoAnswer):
					t.Errorf("refused: %d bytes, %v", n, err)
				case took > 300*time.Millisecond:
					t.Errorf("%v after %v, want it at once", err, took)
				}
			}
		}
	})
}

// askOnce makes one request without anything that heals.
func askOnce(t *testing.T, addr string, account *vmess.Account, dst netaddr.Addr) (int, error) {
	t.Helper()
	server, err := netaddr.Parse(addr)
	if err != nil {
		t.Fatal(err)
	}
	d := vmess.Dialer{Client: account, Endpoint: &wsconn.Dialer{
		Endpoint: &netdial.Dialer{Server: server}, Host: addr, Path: wsPath,
	}}
	conn, err := d.DialStream(t.Context(), dst, []byte("hello\n"))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	return conn.Read(make([]byte, 64))
}
