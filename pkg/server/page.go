package server

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"vmess-local/pkg/config"
	"vmess-local/pkg/stats"
	"vmess-local/pkg/status"
)

// shownFlows bounds the open connections that the page lists.
const shownFlows = 200

// newPage makes the status page, nil when it is off.
func (s *Server) newPage(cfg config.Status) (*status.Page, error) {
	if !cfg.Enabled {
		return nil, nil
	}
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("status.listen: %w", err)
	}
	s.board = stats.NewBoard()
	s.dispatch.Watcher = s.board
	return status.New(ln, page{s}), nil
}

// A page shows a Server. It implements status.Source.
type page struct{ server *Server }

var _ status.Source = page{}

// The JSON of /api/state.
type (
	pageState struct {
		State  string     `json:"state"`
		Words  string     `json:"words"`
		Listen string     `json:"listen"`
		Totals pageTotals `json:"totals"`
		Users  []pageUser `json:"users"`
		Open   []pageFlow `json:"open"`
	}
	pageTotals struct {
		Open    int     `json:"open"`
		Opened  int64   `json:"opened"`
		Failed  int64   `json:"failed"`
		Up      int64   `json:"up"`   // bytes
		Down    int64   `json:"down"` // bytes
		Seconds float64 `json:"seconds"`
	}
	pageUser struct {
		Name   string `json:"name"`
		Open   int    `json:"open"`
		Opened int64  `json:"opened"`
		Up     int64  `json:"up"`
		Down   int64  `json:"down"`
	}
	pageFlow struct {
		ID      uint64  `json:"id"`
		To      string  `json:"to"`
		By      string  `json:"by"`
		From    string  `json:"from"`
		Up      int64   `json:"up"`
		Down    int64   `json:"down"`
		Seconds float64 `json:"seconds"`
	}
)

// State implements status.Source.
func (p page) State() any {
	t := p.server.board.Totals()
	s := pageState{
		State: "well", Words: "serving", Listen: p.server.Addr().String(),
		Totals: pageTotals{t.Open, t.Opened, t.Failed, t.Up, t.Down, time.Since(t.Started).Seconds()},
		Users:  []pageUser{}, Open: []pageFlow{},
	}
	for _, u := range p.server.board.Users() {
		s.Users = append(s.Users, pageUser(u))
	}
	for _, f := range p.server.board.Flows(shownFlows) {
		s.Open = append(s.Open, pageFlow{f.ID, f.Destination, f.Inbound, f.Source, f.Up, f.Down, time.Since(f.Started).Seconds()})
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
func (page) Proxy() string { return "" }

// Act implements status.Source.
func (p page) Act(_ context.Context, what, which string) error {
	id, err := strconv.ParseUint(which, 10, 64)
	if what == "cut" && err == nil && p.server.board.Cut(id) {
		return nil
	}
	return status.ErrUnknown
}

// Check implements status.Source: a server has no way to walk.
func (page) Check(context.Context, func(any)) error { return status.ErrUnknown }

// Link implements status.Source.
func (page) Link(string) (link, qr string, err error) { return "", "", status.ErrUnknown }
