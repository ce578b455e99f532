package e2e

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/transport/netaddr"
)

// TestCheckHealed: what a running client puts right is marked so, and the rest
// of the way is walked as that would; all is not well then.
func TestCheckHealed(t *testing.T) {
	t.Parallel()
	addr := inProcessServer(t, serverConfig(), inProcess{}).addr
	web := rawAnswer(t, webPage("200 OK", "origin", "hello"))
	target, err := netaddr.Parse(web)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		remote config.Remote
		change func(*config.Client)
		off    time.Duration
		cause  diagnose.Cause // "": every check passes
		heals  string         // what run does; "" is nothing
		status string         // of some steps
	}{
		{name: "well", remote: remoteAt(t, addr), status: "account:pass clock:pass destination:pass"},
		{
			name: "clock", remote: remoteAt(t, addr), off: 5 * time.Minute, cause: diagnose.VMessClockSkew,
			heals: "signs with the server's time", status: "account:heal clock:heal destination:pass",
		},
		{
			name: "alterId", remote: withAlterID(remoteAt(t, addr), 4), cause: diagnose.VMessAEADRequired,
			heals: "switches to VMessAEAD", status: "account:heal clock:pass destination:pass",
		},
		{
			name: "both", remote: withAlterID(remoteAt(t, addr), 4), off: -time.Hour, cause: diagnose.VMessClockSkew,
			heals: "switches to VMessAEAD and signs with the server's time", status: "account:heal clock:heal destination:pass",
		},
		{
			name: "early data", remote: withEarlyData(remoteAt(t, labServer{deaf: true, aeadForced: true}.start(t))), cause: diagnose.WSEarlyDataRefused,
			heals: "continues without early data", status: "account:heal destination:pass",
		},
		{
			name: "clock, not to be healed", remote: remoteAt(t, addr), off: 5 * time.Minute, cause: diagnose.VMessClockSkew,
			change: heals(func(h *config.Heal) { h.Clock = false }), status: "account:fail clock:fail destination:skip",
		},
		{
			name: "alterId, not to be healed", remote: withAlterID(remoteAt(t, addr), 4), cause: diagnose.VMessAEADRequired,
			change: heals(func(h *config.Heal) { h.AEAD = false }), status: "account:fail clock:pass destination:skip",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := clientConfig(tt.remote)
			if tt.change != nil {
				tt.change(cfg)
			}
			cfg, err := config.ParseClient("config.json", config.MarshalClient(cfg))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), labPatience)
			defer cancel()
			r, err := client.Check(ctx, cfg, client.Options{Now: clockOff(tt.off), LookupEnv: lookup(nil)}, target)
			if err != nil {
				t.Fatal(err)
			}
			var text, programs strings.Builder
			if err := r.WriteText(&text); err != nil {
				t.Fatal(err)
			}
			if err := r.WriteJSON(&programs); err != nil {
				t.Fatal(err)
			}
			t.Log("\n" + text.String())
			var back struct {
				checkResult
				Healed string
			}
			if err := json.Unmarshal([]byte(programs.String()), &back); err != nil {
				t.Fatal(err)
			}
			if r.OK() != (tt.cause == "") || r.Verdict.Cause != tt.cause || back.Healed != tt.heals {
				t.Errorf("%s", programs.String())
			}
			if said := strings.HasSuffix(text.String(), "\nhealed: vmess-local run works anyway: it automatically "+tt.heals+"\n"); said != (tt.heals != "") {
				t.Errorf("people read\n%s", text.String())
			}
			for _, s := range strings.Fields(tt.status) {
				if step, want, _ := strings.Cut(s, ":"); back.statuses()[step] != want {
					t.Errorf("%s: %s, want %s", step, back.statuses()[step], want)
				}
			}
		})
	}
}

func withEarlyData(r config.Remote) config.Remote {
	r.WS.EarlyData = 2048
	return r
}

// TestRefusedAtOnce: once it is known that the server does not accept legacy
// requests, and would leave each in silence, new ones fail at once; and a server
// that was mended is found within a pause.
func TestRefusedAtOnce(t *testing.T) {
	t.Parallel()
	echo := echoOrigin(t)
	far := newRoad(t, labServer{aeadForced: true, muxPause: time.Second}.start(t), 0, 0)
	l := newLab(t, labSetup{remote: remoteAt(t, far.addr), env: []string{legacyEnv}})
	// The probes wait as long as several upgrades take, each of them slow on a
	// busy machine.
	l.ask(echo, "hello\n", 6).wantClosed(t, soonLegacy+4*slowness)
	for range 3 {
		start := time.Now()
		if r := l.ask(echo, "hello\n", 6); r.data != "" || r.end == nil {
			t.Errorf("a request got %q, ended by %v", r.data, r.end)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("a request was held for %v", took)
		}
	}
	if status, page := getVia(t, l.addr, "http://"+echo+"/"); status != 502 || !strings.Contains(page, "vmess.aead-required") {
		t.Errorf("a browser reads %d %q", status, page)
	}
	far.leadTo(labServer{muxPause: time.Second, md5Only: true}.start(t))
	for deadline := time.Now().Add(12 * time.Second); ; time.Sleep(100 * time.Millisecond) { // a pause between two looks
		if r := l.ask(echo, "hello\n", 6); r.data == "hello\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the mended server is not found")
		}
	}
	l.ask(echo, "again\n", 6).wantData(t, "again\n")
}
