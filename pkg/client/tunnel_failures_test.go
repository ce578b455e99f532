package client

import (
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/dispatch"
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
		f := newFailoverGroup(slog.New(slog.DiscardHandler), guards[:], 0)
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
