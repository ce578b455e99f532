package server

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"vmess-local/pkg/config"
	"vmess-local/pkg/status"
	"vmess-local/pkg/status/stats"
)

// newPage makes the status page, nil when it is off.
func (s *Server) newPage(cfg config.Status) (*status.Page, error) {
	if !cfg.Enabled {
		return nil, nil
	}
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("status.listen: %w", err)
	}
	s.board = stats.NewRegistry()
	s.dispatch.Watcher = s.board
	made := status.New(ln, page{s}, "")
	_, made.MaxConns = shares(s.cfg)
	return made, nil
}

// A page shows a Server. It implements status.Source.
type page struct{ server *Server }

var _ status.Source = page{}

// The JSON of /api/state.
type (
	pageState struct {
		State  string           `json:"state"`
		Words  string           `json:"words"`
		Listen string           `json:"listen"`
		Totals stats.ViewTotals `json:"totals"`
		Users  []pageUser       `json:"users"`
		Open   []stats.ViewFlow `json:"open"`
	}
	pageUser struct {
		Name   string `json:"name"`
		Open   int    `json:"open"`
		Opened int64  `json:"opened"`
		Up     int64  `json:"up"`
		Down   int64  `json:"down"`
	}
)

// State implements status.Source.
func (p page) State() any {
	v := p.server.board.View()
	s := pageState{
		State: "well", Words: "serving", Listen: p.server.Addr().String(),
		Totals: v.Totals, Users: []pageUser{}, Open: v.Open,
	}
	for _, u := range p.server.board.Users() {
		s.Users = append(s.Users, pageUser(u))
	}
	return s
}

// Metrics implements status.Source. No token is asked for there, so it does not
// tell users apart: the page does.
func (p page) Metrics() map[string]float64 {
	t := p.server.board.Totals()
	return map[string]float64{
		"vmess_server_connections_open":         float64(t.Open),
		"vmess_server_connections_total":        float64(t.Opened),
		"vmess_server_connections_failed_total": float64(t.Failed),
		"vmess_server_up_bytes_total":           float64(t.Up),
		"vmess_server_down_bytes_total":         float64(t.Down),
		"vmess_server_start_time_seconds":       float64(t.Started.Unix()),
	}
}

// Proxy implements status.Source: there is none.
func (page) Proxy() (addr string, auth bool) { return "", false }

// Act implements status.Source.
func (p page) Act(_ context.Context, what, which string) error {
	id, err := strconv.ParseUint(which, 10, 64)
	if what == "cut" && err == nil && p.server.board.Close(id) {
		return nil
	}
	return status.ErrUnknown
}

// Check implements status.Source: a server has no way to walk.
func (page) Check(context.Context, func(any)) error { return status.ErrUnknown }

// Link implements status.Source.
func (page) Link(string) (link string, qr []string, err error) { return "", nil, status.ErrUnknown }
