package diagnose_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"vmess-local/pkg/carrier/wsconn"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport/relay"
)

func tunnelCases(t *testing.T) []judged {
	const (
		possible = diagnose.Possible
		likely   = diagnose.Likely
		certain  = diagnose.Certain
	)
	type facts = diagnose.TunnelFacts
	remote := func(err error) error { return &relay.Error{Side: relay.Remote, Op: "read", Err: err} }
	local := func(err error) error { return &relay.Error{Side: relay.Local, Op: "read", Err: err} }
	cut := remote(fmt.Errorf("read: %w", wsconn.ErrNoClose))
	reset := remote(&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)})
	unmarked := remote(fmt.Errorf("x: %w", vmess.ErrUnmarked))
	pinging := fixture(t, 0, true)
	quiet := pinging
	quiet.Ping = 0
	var cases []judged
	add := func(name string, f facts, s diagnose.ServerContext, c diagnose.Cause, sure diagnose.Confidence) {
		f.Age, f.Answered = max(f.Age, f.IdleFor+time.Second), f.Answered || f.Down > 0
		v, ok := diagnose.Tunnel(f, s)
		if ok == v.IsZero() {
			t.Errorf("%s: ok is %v for %+v", name, ok, v)
		}
		cases = append(cases, judged{"tunnel: " + name, c, sure, v})
	}
	const some = 1000

	// Orderly ends, and those of this side.
	for name, err := range map[string]error{
		"end": nil, "EOF": io.EOF, "cancelled": remote(context.Canceled), "idle limit of ours": relay.ErrIdle,
		"application went away": local(syscall.ECONNRESET), "closed by us": remote(net.ErrClosed), "no answer": remote(vmess.ErrNoAnswer),
	} {
		add(name, facts{Err: err, Down: some, IdleFor: time.Minute}, quiet, "", 0)
	}
	add("end after five minutes of silence", facts{Down: some, IdleFor: 300 * time.Second}, quiet, "", 0)
	add("given up after a minute", facts{Err: unmarked, Down: some, IdleFor: time.Minute}, quiet, "", 0)
	add("given up in use", facts{Err: unmarked, Down: some}, quiet, "", 0)
	add("end after the same silence again", facts{Down: some, IdleFor: 30 * time.Second, SeenBefore: 3, Core: true}, quiet, "", 0)
	add("given up after a while", facts{Err: unmarked, Down: some, IdleFor: 30 * time.Second, Core: true}, quiet, "", 0)
	add("given up soon, again", facts{Err: unmarked, Down: some, IdleFor: 9 * time.Second, SeenBefore: 3, Core: true}, quiet, "", 0)
	add("given up by ours, again", facts{Err: unmarked, Down: some, IdleFor: 30 * time.Second, SeenBefore: 3}, quiet, "", 0)

	add("nginx, no pings", facts{Err: cut, Down: some, IdleFor: 60*time.Second + 30*time.Millisecond}, quiet, diagnose.TunnelIdleCut, likely)
	add("nginx, no pings, again", facts{Err: cut, Down: some, IdleFor: 60 * time.Second, SeenBefore: 1}, quiet, diagnose.TunnelIdleCut, certain)
	add("nginx, and another tunnel", facts{Err: cut, Down: some, IdleFor: 60 * time.Second, OthersEnded: 1}, quiet, diagnose.TunnelIdleCut, likely)
	add("CDN, pings", facts{Err: cut, Down: some, IdleFor: 100 * time.Second}, pinging, diagnose.TunnelIdleCut, likely)
	add("V2Ray, 300 s", facts{Err: cut, Down: some, IdleFor: 300 * time.Second}, pinging, diagnose.TunnelIdleCut, likely)
	add("V2Ray, 600 s, politely", facts{Err: unmarked, Down: some, IdleFor: 600 * time.Second}, pinging, diagnose.TunnelIdleCut, likely)
	add("V2Ray, 10 s, politely, elsewhere", facts{Err: unmarked, Down: some, IdleFor: 10 * time.Second, SeenBefore: 1, Core: true}, pinging, diagnose.TunnelIdleCut, likely)
	add("V2Ray, 10 s, politely, everywhere", facts{Err: unmarked, Down: some, IdleFor: 10 * time.Second, SeenBefore: 2, Core: true}, pinging, diagnose.TunnelIdleCut, certain)
	add("some idle limit", facts{Err: cut, Down: some, IdleFor: 2 * time.Second}, quiet, diagnose.TunnelIdleCut, likely)
	add("some idle limit, again", facts{Err: cut, Down: some, IdleFor: 3 * time.Second, SeenBefore: 1}, quiet, diagnose.TunnelIdleCut, certain)
	add("router forgot, reset", facts{Err: reset, Down: some, IdleFor: 30 * time.Minute}, quiet, diagnose.TunnelIdleCut, likely)

	// Where the destination may have done it.
	add("reset after a silence", facts{Err: reset, Down: some, IdleFor: 2 * time.Second, Ambiguous: true}, quiet, "", 0)
	add("reset after a minute of silence", facts{Err: reset, Down: some, IdleFor: time.Minute, Ambiguous: true}, quiet, "", 0)
	add("reset after a silence, elsewhere too", facts{Err: reset, Down: some, IdleFor: 2 * time.Second, Ambiguous: true, SeenBefore: 1}, quiet, diagnose.TunnelIdleCut, certain)
	add("reset after a silence, and others", facts{Err: reset, Down: some, IdleFor: 2 * time.Second, Ambiguous: true, OthersEnded: 3}, quiet, diagnose.TunnelServerGone, likely)
	add("reset after a silence, and gone", facts{Err: reset, Down: some, IdleFor: 2 * time.Second, Ambiguous: true, ServerRefusesNow: true}, quiet, diagnose.TunnelServerGone, certain)
	add("reset within a chunk", facts{Err: reset, Down: some, Ambiguous: true}, quiet, "", 0)
	add("reset within a chunk, elsewhere too", facts{Err: reset, Down: some, Ambiguous: true, SeenBefore: 1}, quiet, "", 0)
	add("no pong after a silence", facts{Err: remote(wsconn.ErrPingTimeout), Down: some, IdleFor: time.Minute, Ambiguous: true}, quiet, diagnose.TunnelServerGone, likely)
	add("damaged after a silence", facts{Err: remote(fmt.Errorf("%w: x", vmess.ErrBadChunk)), Down: some, IdleFor: time.Minute, Ambiguous: true}, quiet, diagnose.TunnelReset, likely)

	add("reset at the first bytes", facts{Err: reset, Up: some}, pinging, diagnose.TunnelReset, likely)
	add("reset in use", facts{Err: reset, Down: some, Age: 12 * time.Second}, pinging, diagnose.TunnelReset, likely)
	add("cut in use", facts{Err: cut, Down: some, Age: 90 * time.Minute, IdleFor: 900 * time.Millisecond}, pinging, diagnose.TunnelReset, likely)
	add("no end mark", facts{Err: remote(vmess.ErrTruncated), Down: some, Age: 3 * time.Hour}, pinging, diagnose.TunnelReset, likely)
	add("damaged chunk", facts{Err: remote(fmt.Errorf("%w: x", vmess.ErrBadChunk)), Down: some}, pinging, diagnose.TunnelReset, likely)
	add("close code", facts{Err: remote(&wsconn.CloseError{Code: 1011, Text: "sekritText"}), Down: some, IdleFor: time.Minute}, pinging, diagnose.TunnelReset, certain)
	cases[len(cases)-1].got.Evidence = nil // the far end's own words may stand there
	add("unreadable answer", facts{Err: remote(fmt.Errorf("%w: x", vmess.ErrBadResponse)), Up: some}, pinging, diagnose.VMessBadResponse, certain)

	add("killed", facts{Err: cut, Down: some, OthersEnded: 11, ServerRefusesNow: true}, pinging, diagnose.TunnelServerGone, certain)
	add("killed while idle", facts{Err: cut, Down: some, IdleFor: 60 * time.Second, ServerRefusesNow: true}, pinging, diagnose.TunnelServerGone, certain)
	add("many at once", facts{Err: cut, Down: some, IdleFor: 30 * time.Second, OthersEnded: 4}, pinging, diagnose.TunnelServerGone, likely)
	add("restart announced", facts{Err: remote(&wsconn.CloseError{Code: 1012}), Down: some}, pinging, diagnose.TunnelServerGone, certain)
	add("no pong", facts{Err: remote(wsconn.ErrPingTimeout), Down: some}, pinging, diagnose.TunnelServerGone, likely)
	add("no pong after a change of networks", facts{Err: remote(wsconn.ErrPingTimeout), Down: some, NetworkChanged: true}, pinging, diagnose.TunnelServerGone, likely)
	add("keep-alive failed", facts{Err: remote(errno(syscall.ETIMEDOUT)), Down: some}, pinging, diagnose.TunnelServerGone, likely)
	return cases
}
