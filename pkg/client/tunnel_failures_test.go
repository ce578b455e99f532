package client

import (
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/carrier/wsconn"
	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/dispatch"
	"vmess-local/pkg/host/netmon"
	"vmess-local/pkg/protocol/mux"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/relay"
)

// TestBrokenMuxTunnelIsItsServers: a Mux tunnel that breaks is the failure of the
// server it led to, whichever is in use by then, and whatever it carried.
func TestBrokenMuxTunnelIsItsServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text [2]lockedBuffer
		var guards [2]*guard
		for i := range guards {
			_, guards[i] = newFarEnd(t, 0)
			logTo(guards[i], slog.New(logging.New(&text[i], slog.LevelInfo, false)))
		}
		f := newServerGroup(slog.New(slog.DiscardHandler), guards[:], 0)
		if f.current() != guards[0] {
			t.Fatal("the second server is in use")
		}
		r := &reporter{log: slog.New(slog.DiscardHandler)}
		broken := &mux.TunnelError{Err: io.ErrUnexpectedEOF, Owner: guards[1]}
		for range 3 { // sessions
			r.Report(dispatch.Report{
				Request: &transport.Request{Destination: somewhere}, Down: 1, Duration: time.Second,
				Err: &relay.Error{Side: relay.Remote, Op: "read", Err: broken},
			})
		}
		time.Sleep(2 * correlationWindow)
		if said := text[0].take(); said != "" {
			t.Errorf("the first server is blamed: %q", said)
		}
		if said := text[1].take(); strings.Count(said, "error: tunnel.reset: ") != 1 {
			t.Errorf("of the second server is said %q", said)
		}
	})
}

// TestMuxTunnelIdleIsThatOfAllSessions: a Mux tunnel that breaks while one session
// moves bytes was in use, though others had been silent.
func TestMuxTunnelIdleIsThatOfAllSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text lockedBuffer
		_, g := newFarEnd(t, 0)
		logTo(g, slog.New(logging.New(&text, slog.LevelInfo, false)))
		r := &reporter{log: slog.New(slog.DiscardHandler)}
		broken := &mux.TunnelError{Err: io.ErrUnexpectedEOF, Owner: g}
		for _, idle := range []time.Duration{time.Minute, 0, 3 * time.Second} {
			r.Report(dispatch.Report{
				Request: &transport.Request{Destination: somewhere}, Down: 1, Duration: time.Hour, IdleFor: idle,
				Err: &relay.Error{Side: relay.Remote, Op: "read", Err: broken},
			})
		}
		time.Sleep(2 * correlationWindow)
		if got := text.take(); strings.Count(got, "error: tunnel.reset: ") != 1 {
			t.Errorf("logged %q", got)
		}
	})
}

// TestPingTimeoutWords: a tunnel that ends because its pings stay unanswered is
// reported like a server that leaves requests unanswered. This computer's network is
// to be checked only after it changed.
func TestPingTimeoutWords(t *testing.T) {
	const network, server = "fix: check this computer's network connection", "fix: if other sites work without vmess-local, restart the service"
	for name, tt := range map[string]struct {
		event *netmon.Event
		wait  time.Duration
		want  string
	}{
		"nothing happened":              {want: server},
		"the network changed":           {event: &netmon.Event{AddrsChanged: true}, wait: resumePingTimeout, want: network},
		"the computer slept":            {event: &netmon.Event{Slept: time.Hour}, wait: resumePingTimeout, want: network},
		"the network came back slowly":  {event: &netmon.Event{AddrsChanged: true, OfflineFor: 30 * time.Second}, wait: resumePingTimeout + 30*time.Second, want: network},
		"the network changed long ago":  {event: &netmon.Event{AddrsChanged: true}, wait: time.Minute, want: server},
		"the network was lost long ago": {event: &netmon.Event{Offline: true}, wait: time.Minute, want: server},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var text lockedBuffer
				_, g := newFarEnd(t, 0)
				logTo(g, slog.New(logging.New(&text, slog.LevelInfo, false)))
				if tt.event != nil {
					g.onNetworkChange(*tt.event)
				}
				time.Sleep(tt.wait)
				r := &reporter{log: slog.New(slog.DiscardHandler)}
				r.Report(dispatch.Report{
					Request: &transport.Request{Destination: somewhere}, Down: 1, Duration: time.Hour, IdleFor: time.Minute,
					Err: &relay.Error{Side: relay.Remote, Op: "read", Err: &mux.TunnelError{Err: wsconn.ErrPingTimeout, Owner: g}},
				})
				time.Sleep(2 * correlationWindow)
				if got := text.take(); !strings.Contains(got, "error: tunnel.server-gone: ") || !strings.Contains(got, tt.want) {
					t.Errorf("logged %q, want %q", got, tt.want)
				}
			})
		})
	}
}
