package client

import (
	"log/slog"

	"vmess-local/pkg/config"
	"vmess-local/pkg/limit"
	"vmess-local/pkg/logline"
	"vmess-local/pkg/status"
	"vmess-local/pkg/udp"
)

// filesOfConn are what a connection needs: its own, and that of its tunnel or of
// the socket of its UDP association.
const filesOfConn = 2

// room is what a client may have open at one time. All its generations share
// it: what a retired one holds counts.
type room struct {
	files *limit.Budget // that connections and tunnels have
	conns *limit.Budget // of applications, each with a tunnel
	ways  *limit.Budget // associations, each with a tunnel that is not of a single destination
	ends  *limit.Budget // destinations of datagrams that have a tunnel each
}

func newRoom() *room {
	r := &room{files: limit.NewBudget(0, nil, 0)}
	r.conns = limit.NewBudget(0, r.files, filesOfConn)
	r.ways = limit.NewBudget(0, r.files, 1)
	r.ends = limit.NewBudget(0, r.files, 1)
	return r
}

// fit makes r that of a configuration.
func (r *room) fit(cfg *config.Client) {
	others := cfg.Warm.Max * len(remotes(cfg))
	if cfg.Status.Enabled {
		others += status.MaxConns
	}
	files := limit.Files(others)
	r.files.SetMost(files)
	r.conns.SetMost(limit.Connections(cfg.Limits.Connections, files, filesOfConn))
	// Datagrams get half of the files at most, and no destinations so many that
	// there is none left for an association.
	r.ways.SetMost(max(1, min(udp.DefaultMaxAssociations, files/4)))
	r.ends.SetMost(max(1, files/4))
}

// hello warns where the system allows fewer connections than are configured.
func (r *room) hello(cfg *config.Client) []helloLine {
	allowed := r.conns.Most()
	if cfg.Limits.Connections <= allowed {
		return nil
	}
	return []helloLine{{slog.LevelWarn, "limits", []any{logline.Text(
		"%q%s is %d, and the limit of open files allows %d connections: raise that (ulimit -n) for more",
		"limits.connections", place(cfg, "limits.connections"), cfg.Limits.Connections, allowed), "connections", allowed}}}
}
