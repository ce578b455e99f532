package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"vmess-local/pkg/config"
	"vmess-local/pkg/config/sharelink"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/host/errno"
	"vmess-local/pkg/host/listen"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/status"
	"vmess-local/pkg/status/stats"
	"vmess-local/pkg/transport/netaddr"
)

const (
	// pagePorts is how many ports are tried for the page.
	pagePorts = 20
	// failingFor is how long a failure colours the page.
	failingFor = time.Minute
)

// newPage makes the status page, nil when it is off. A port that is taken, or
// that the system reserves, is not fatal: the next free one is used.
func (c *Client) newPage(cfg *config.Client) (*status.Page, error) {
	if !cfg.Status.Enabled {
		return nil, nil
	}
	host, text, err := net.SplitHostPort(cfg.Status.Listen)
	if err != nil {
		return nil, fmt.Errorf("status.listen: %w", err)
	}
	first, _ := strconv.Atoi(text) // config has checked it
	for port := first; ; port++ {
		ln, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil {
			made := status.New(ln, page{c}, c.opt.PageToken)
			_, _, made.MaxConns = shares(cfg)
			return made, nil
		}
		unavailable := errno.IsAddrInUse(err) || errno.IsPermission(err)
		if !unavailable || port == first+pagePorts || port == 65535 {
			return nil, listenError(cfg, "status.listen", cfg.Status.Listen, err)
		}
	}
}

// A page shows a Client. It implements status.Source.
type page struct{ *Client }

var _ status.Source = page{}

// The JSON of /api/state.
type (
	pageState struct {
		State    string           `json:"state"` // well, idle or failing
		Words    string           `json:"words"`
		Listen   string           `json:"listen"`
		Shell    string           `json:"shell"` // what makes a shell use it
		Totals   stats.ViewTotals `json:"totals"`
		Resent   int64            `json:"resent"`
		Warm     pageWarm         `json:"warm"`
		UDP      *pageUDP         `json:"udp,omitempty"` // none when it is off
		Servers  []pageServer     `json:"servers"`
		Failures []pageFailure    `json:"failures"`
		Healed   []pageHealed     `json:"healed"`
		Heal     config.Heal      `json:"heal"` // what may be put right
		Open     []stats.ViewFlow `json:"open"`
	}
	pageWarm struct {
		Ready  int   `json:"ready"`
		Used   int64 `json:"used"`
		Wasted int64 `json:"wasted"`
	}
	pageServer struct {
		ID      string  `json:"id"` // its identity
		Name    string  `json:"name"`
		Address string  `json:"address"`
		Using   bool    `json:"using"`
		Down    bool    `json:"down"`
		Mode    string  `json:"mode"`   // VMessAEAD or legacy MD5
		Cipher  string  `json:"cipher"` // that is used, where "auto" is configured too
		TLS     bool    `json:"tls"`
		RTT     float64 `json:"rttMs"` // of the last upgrade; 0: not measured
	}
	pageFailure struct {
		Time       time.Time `json:"time"`
		Cause      string    `json:"cause"`
		Sentence   string    `json:"sentence"`
		Fix        string    `json:"fix"`
		Confidence string    `json:"confidence"`
		Server     string    `json:"server"`
		Site       string    `json:"site,omitempty"` // whose failure it is, where it is a destination's
		Count      int       `json:"count"`
	}
	pageHealed struct {
		Time     time.Time `json:"time"`
		Cause    string    `json:"cause"`
		Sentence string    `json:"sentence"`
		Server   string    `json:"server"`
		Count    int       `json:"count"`
	}
	pageStep struct {
		Name   string `json:"name"`
		Status string `json:"status"`
		Ms     int64  `json:"ms"`
		Detail string `json:"detail"`
	}
	pageVerdict struct {
		Verdict string `json:"verdict"`
		Fix     string `json:"fix"`
		OK      bool   `json:"ok"`
	}
)

func (p page) generation() *generation {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// State implements status.Source.
func (p page) State() any {
	g, v := p.generation(), p.opt.board.View()
	addr := p.Addr().String()
	s := pageState{
		Listen: addr, Shell: hintsFor(addr, g.asks()).Shell,
		Totals: v.Totals, Resent: p.Resent(), Open: v.Open,
		Warm: g.warmth(), UDP: p.udp(), Servers: g.servers(), Failures: []pageFailure{}, Healed: []pageHealed{}, Heal: g.cfg.Heal,
	}
	for _, f := range p.opt.board.Failures() {
		s.Failures = append(s.Failures, pageFailure(f))
	}
	for _, h := range p.opt.board.Healings() {
		s.Healed = append(s.Healed, pageHealed(h))
	}
	s.State, s.Words = g.condition(s.Failures, v.Moved)
	return s
}

// condition says in words how things are; moved is when data came last.
func (g *generation) condition(failures []pageFailure, moved time.Time) (state, words string) {
	now := g.fleet.current()
	at := now.account.LastAnswer().Round(0)
	if checked := now.checked.Load(); checked != nil && checked.After(at) {
		at = *checked
	}
	last := slices.IndexFunc(failures, func(f pageFailure) bool { return f.Site == "" }) // a site's failure is not the server's
	switch {
	case last >= 0 && time.Since(failures[last].Time) < failingFor && failures[last].Time.After(at):
		return "failing", failures[last].Sentence
	case at.IsZero() && g.again:
		return "idle", "ready; nothing has been asked of " + now.Name() + " since the configuration was read again"
	case at.IsZero():
		return "idle", "ready; nothing has been asked of " + now.Name() + " yet"
	case time.Since(at) < time.Minute, time.Since(moved) < time.Minute:
		return "well", now.Name() + " is well"
	}
	return "idle", fmt.Sprintf("idle; %s answered last at %s", now.Name(), at.Format(time.TimeOnly))
}

func (g *generation) warmth() (w pageWarm) {
	for _, m := range g.fleet.all() {
		s := m.pool.Stats()
		w.Ready, w.Used, w.Wasted = w.Ready+s.Ready, w.Used+s.Used, w.Wasted+s.Wasted
	}
	return w
}

func (g *generation) servers() []pageServer {
	using := g.fleet.current()
	var all []pageServer
	for _, m := range g.fleet.all() {
		mode := "VMessAEAD"
		if m.account.Mode() != vmess.ModeAEAD {
			mode = "legacy MD5"
		}
		r := m.remote
		all = append(all, pageServer{
			ID: m.identity, Name: m.Name(), Address: r.Address + ":" + strconv.Itoa(r.Port), Using: m == using,
			Down: g.fleet.IsDown(m), Mode: mode, Cipher: m.account.Security().String(), TLS: r.TLS.Enabled,
			RTT: float64(m.path.handshakeRTT.Load()) / 1e6,
		})
	}
	return all
}

// Metrics implements status.Source.
func (p page) Metrics() map[string]float64 {
	t, w := p.opt.board.Totals(), p.generation().warmth()
	all := map[string]float64{
		"vmess_local_connections_open":         float64(t.Open),
		"vmess_local_connections_total":        float64(t.Opened),
		"vmess_local_connections_failed_total": float64(t.Failed),
		"vmess_local_requests_resent_total":    float64(p.Resent()),
		"vmess_local_up_bytes_total":           float64(t.Up),
		"vmess_local_down_bytes_total":         float64(t.Down),
		"vmess_local_warm_ready":               float64(w.Ready),
		"vmess_local_warm_used_total":          float64(w.Used),
		"vmess_local_warm_wasted_total":        float64(w.Wasted),
		"vmess_local_start_time_seconds":       float64(t.Started.Unix()),
	}
	u := p.datagrams()
	for name, n := range map[string]int64{
		"associations_open": u.open, "associations_total": u.opened, "associations_refused_total": u.refused,
		"up_datagrams_total": u.up, "down_datagrams_total": u.down, "up_bytes_total": u.upBytes, "down_bytes_total": u.downBytes,
	} {
		all["vmess_local_udp_"+name] = float64(n)
	}
	for reason, n := range u.dropped {
		all["vmess_local_udp_dropped_"+strings.ReplaceAll(reason.String(), "-", "_")+"_total"] = float64(n)
	}
	return all
}

// Proxy implements status.Source. The address is one that works on this
// computer: nobody else can ask the page.
func (p page) Proxy() (addr string, auth bool) {
	return listen.Here(p.Addr().String()), p.generation().asks()
}

// Act implements status.Source.
func (p page) Act(_ context.Context, what, which string) error {
	switch what {
	case "cut":
		if id, err := strconv.ParseUint(which, 10, 64); err == nil && p.opt.board.Close(id) {
			return nil
		}
	case "prefer":
		if p.generation().fleet.pin(which) {
			return nil
		}
	case "reload":
		if p.opt.Reload == nil {
			return errors.New("the configuration cannot be read again: it came from a link or from standard input")
		}
		return p.opt.Reload()
	}
	return status.ErrUnknown
}

// Check implements status.Source.
func (p page) Check(ctx context.Context, tell func(step any)) error {
	opt := p.opt
	opt.Listener = nil
	opt.OnStep = func(s diagnose.CheckStep) {
		tell(pageStep{s.Name, s.Status.String(), s.Took.Milliseconds(), s.Detail})
	}
	g := p.generation()
	using := g.fleet.current()
	report, err := checkServer(ctx, g.cfg, remote{using.section, using.remote}, opt, netaddr.Addr{})
	if err != nil {
		return err
	}
	v := pageVerdict{Verdict: "all checks passed", OK: report.OK()}
	if v.OK {
		now := time.Now().Round(0)
		using.checked.Store(&now)
	}
	if !report.Verdict.IsZero() {
		v.Verdict, v.Fix = report.Verdict.Line(), report.Verdict.FixLine()
	}
	tell(v)
	return nil
}

// Link implements status.Source.
func (p page) Link(id string) (link string, qr []string, err error) {
	m := p.generation().fleet.named(id)
	if m == nil {
		return "", nil, status.ErrUnknown
	}
	if link, err = sharelink.Format(m.remote, sharelink.FormV2rayN); err != nil {
		return "", nil, err
	}
	qr, err = sharelink.QRRows(link)
	return link, qr, err
}
