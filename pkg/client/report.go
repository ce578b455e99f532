package client

import (
	"context"
	"errors"
	"log/slog"

	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/dispatch"
	"vmess-local/pkg/transport"
)

// reporter tells of each request's end what is worth it: a failure of the
// tunnel to the user, and at debug level one line for every request.
// Destinations stand only in the latter.
type reporter struct {
	log   *slog.Logger
	guard *guard
}

// Report implements dispatch.Reporter.
func (r *reporter) Report(p dispatch.Report) {
	r.tell(p)
	if r.log.Enabled(context.Background(), slog.LevelDebug) {
		r.log.Debug("connection", "inbound", p.Request.Inbound, "to", p.Request.Destination.String(),
			"up", p.Up, "down", p.Down, "took", p.Duration.String(), "err", p.Err)
	}
}

// tell names the failure of an established tunnel. What failed before that is
// the guard's to tell, and what the application did is nobody's.
func (r *reporter) tell(p dispatch.Report) {
	var (
		side *transport.SideError
		told *VerdictError
	)
	if !errors.As(p.Err, &side) || side.Side != transport.Remote || errors.As(p.Err, &told) {
		return
	}
	v, ok := diagnose.Tunnel(diagnose.TunnelFacts{
		Err: p.Err, Age: p.Duration, IdleFor: p.Quiet, Up: p.Up, Down: p.Down, Answered: p.Down > 0,
	}, r.guard.setting)
	if ok {
		r.guard.voice.say(v)
	}
}
