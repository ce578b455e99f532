package client

import (
	"context"
	"errors"
	"log/slog"

	"vmess-local/pkg/dispatch"
	"vmess-local/pkg/logline"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/vmess"
)

// reporter writes what came of each request: a line for what the user must
// know of, and at debug level one line for every request. Destinations stand
// only in the latter.
type reporter struct{ log *slog.Logger }

// Report implements dispatch.Reporter.
func (r *reporter) Report(p dispatch.Report) {
	if text := failure(p.Err); text != "" {
		r.log.Error("connection failed", logline.Text("%s", text), "err", text)
	}
	if r.log.Enabled(context.Background(), slog.LevelDebug) {
		r.log.Debug("connection", "inbound", p.Request.Inbound, "to", p.Request.Destination.String(),
			"up", p.Up, "down", p.Down, "took", p.Duration.String(), "err", p.Err)
	}
}

// failure returns the line for a failure of the server or of the way to it,
// and nothing for an orderly end or an application that went away.
func failure(err error) string {
	var (
		dial *dispatch.DialError
		side *transport.SideError
	)
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, transport.ErrIdle):
		return ""
	case errors.As(err, &dial):
		return "no way to the server: " + dial.Error()
	case errors.As(err, &side) && side.Side == transport.Local:
		return ""
	case errors.Is(err, vmess.ErrNoAnswer):
		return "the server refused the connection without a word, or the destination could not be reached: check the id, this computer's clock, and \"alterId\""
	}
	return "the tunnel broke: " + err.Error()
}
