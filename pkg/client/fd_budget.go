package client

import (
	"log/slog"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/config"
	"vmess-local/pkg/host/fdlimit"
	"vmess-local/pkg/inbound/udp"
	"vmess-local/pkg/status"
)

// filesOfConn are what a connection needs: its own, and that of its tunnel or of
// the socket of its UDP association.
const filesOfConn = 2

// fdBudget is what a client may have open at one time. All its generations share
// it: what a retired one holds counts.
type fdBudget struct {
	files           *fdlimit.Semaphore // that connections and tunnels have
	conns           *fdlimit.Semaphore // of applications, each with a tunnel
	udpTunnels      *fdlimit.Semaphore // associations, each with a tunnel that is not of a single destination
	udpDestinations *fdlimit.Semaphore // destinations of datagrams that have a tunnel each
}

func newFDBudget() *fdBudget {
	r := &fdBudget{files: fdlimit.NewSemaphore(0, nil, 0)}
	r.conns = fdlimit.NewSemaphore(0, r.files, filesOfConn)
	r.udpTunnels = fdlimit.NewSemaphore(0, r.files, 1)
	r.udpDestinations = fdlimit.NewSemaphore(0, r.files, 1)
	return r
}

// shares splits the files that the process may open: for connections, for each
// server's ready tunnels, and for the status page.
func shares(cfg *config.Client) (files, warm, page int) {
	if cfg.Status.Enabled {
		page = status.MaxConns
	}
	all := cfg.Warm.Max * len(remotes(cfg))
	files, granted := fdlimit.Files(all + page)
	if granted == all+page {
		return files, cfg.Warm.Max, page
	}
	// Of several servers one is in use, and fills its pool.
	warm = min(cfg.Warm.Max, granted/2)
	return files, warm, min(page, granted-warm)
}

// configure makes r that of a configuration.
func (r *fdBudget) configure(cfg *config.Client) {
	files, _, _ := shares(cfg)
	r.files.SetLimit(files)
	r.conns.SetLimit(fdlimit.Connections(cfg.Limits.Connections, files, filesOfConn))
	// Datagrams get half of the files at most, and no destinations so many that
	// there is none left for an association.
	r.udpTunnels.SetLimit(max(1, min(udp.DefaultMaxAssociations, files/4)))
	r.udpDestinations.SetLimit(max(1, files/4))
}

// hello warns where the system allows few connections.
func (r *fdBudget) hello(cfg *config.Client) []startupRecord {
	allowed := r.conns.Limit()
	warning := fdlimit.Warning(cfg.Limits.Connections, allowed, place(cfg, "limits.connections"))
	if warning == "" {
		return nil
	}
	return []startupRecord{{slog.LevelWarn, "limits", []any{logging.Text("%s", warning), "connections", allowed}}}
}
