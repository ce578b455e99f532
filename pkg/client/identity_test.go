package client

import (
	"context"
	"encoding/base64"
	"log/slog"
	"strings"
	"testing"

	"vmess-local/pkg/config"
)

// A server is the same one whatever it is called, and another one where any part
// of its identity differs; the id does not show.
func TestIdentity(t *testing.T) {
	base := func() *config.Remote {
		r := config.DefaultClient().Server
		r.Address, r.Port, r.ID, r.WS.Path, r.TLS.Enabled = "vps.example.com", 443, "b831381d-6324-4d53-ad4f-8cda48b30811", "/ray", true
		return &r
	}
	want := identity(base())
	if len(want) != 32 || strings.Contains(want, "b831381d") {
		t.Errorf("the identity is %q", want)
	}
	for name, tt := range map[string]struct {
		change func(r *config.Remote)
		same   bool
	}{
		"name":               {func(r *config.Remote) { r.Name = "other" }, true},
		"id without dashes":  {func(r *config.Remote) { r.ID = "B831381D63244D53AD4F8CDA48B30811" }, true},
		"address in capital": {func(r *config.Remote) { r.Address = "VPS.example.com" }, true},
		"SNI as it is":       {func(r *config.Remote) { r.TLS.ServerName = "vps.example.com" }, true},
		"path without slash": {func(r *config.Remote) { r.WS.Path = "ray" }, true},
		"cipher":             {func(r *config.Remote) { r.Security = "none" }, true},
		"address":            {func(r *config.Remote) { r.Address = "vps2.example.com" }, false},
		"port":               {func(r *config.Remote) { r.Port = 8443 }, false},
		"id":                 {func(r *config.Remote) { r.ID = "11111111-2222-4333-8444-555555555555" }, false},
		"ws path":            {func(r *config.Remote) { r.WS.Path = "/ray2" }, false},
		"ws host":            {func(r *config.Remote) { r.WS.Host = "cdn.example.com"; r.TLS.ServerName = "vps.example.com" }, false},
		"SNI":                {func(r *config.Remote) { r.TLS.ServerName = "cdn.example.com" }, false},
		"TLS off":            {func(r *config.Remote) { r.TLS.Enabled = false }, false},
	} {
		r := base()
		tt.change(r)
		if got := identity(r); (got == want) != tt.same {
			t.Errorf("%s: %s, and %s of the other", name, got, want)
		}
	}
}

// Of two servers without a name behind one host, each can be chosen and shown.
func TestServersBehindOneHost(t *testing.T) {
	cfg := testConfig()
	cfg.Status.Enabled = false
	for _, path := range []string{"/one", "/two"} {
		r := cfg.Server
		r.WS.Path = path
		cfg.Servers = append(cfg.Servers, r)
	}
	cfg.Server = config.DefaultClient().Server
	c, err := New(cfg, Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := page{c}
	servers := p.generation().servers()
	if len(servers) != 2 || servers[0].ID == servers[1].ID || servers[0].Name != servers[1].Name {
		t.Fatalf("%+v", servers)
	}
	for i, s := range servers {
		link, _, err := p.Link(s.ID)
		text, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(link, "vmess://"))
		if want := []string{"/one", "/two"}[i]; err != nil || !strings.Contains(string(text), want) {
			t.Errorf("the link of server %d is of another: %s, %v", i, text, err)
		}
	}
	if err := p.Act(context.Background(), "prefer", servers[1].ID); err != nil {
		t.Fatal(err)
	}
	if now := p.generation().servers(); !now[0].Using || now[0].ID != servers[1].ID {
		t.Errorf("used is %+v", now)
	}
	if _, _, err := p.Link(servers[0].Name); err == nil {
		t.Error("a name of two servers stands for one of them")
	}
}
