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

// shares splits the files that the process may open: for connections, for each
// server's ready tunnels, and for the status page.
func shares(cfg *config.Client) (files, warm, page int) {
	if cfg.Status.Enabled {
		page = status.MaxConns
	}
	all := cfg.Warm.Max * len(remotes(cfg))
	files, granted := limit.Files(all + page)
	if granted == all+page {
		return files, cfg.Warm.Max, page
	}
	// Of several servers one is in use, and fills its pool.
	warm = min(cfg.Warm.Max, granted/2)
	return files, warm, min(page, granted-warm)
}

// fit makes r that of a configuration.
func (r *room) fit(cfg *config.Client) {
	files, _, _ := shares(cfg)
	r.files.SetMost(files)
	r.conns.SetMost(limit.Connections(cfg.Limits.Connections, files, filesOfConn))
	// Datagrams get half of the files at most, and no destinations so many that
	// there is none left for an association.
	r.ways.SetMost(max(1, min(udp.DefaultMaxAssociations, files/4)))
	r.ends.SetMost(max(1, files/4))
}

// hello warns where the system allows few connections.
func (r *room) hello(cfg *config.Client) []helloLine {
	allowed := r.conns.Most()
	warning := limit.Warning(cfg.Limits.Connections, allowed, place(cfg, "limits.connections"))
	if warning == "" {
		return nil
	}
	return []helloLine{{slog.LevelWarn, "limits", []any{logline.Text("%s", warning), "connections", allowed}}}
}
