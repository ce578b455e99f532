package client

import (
	"context"
	"encoding/base64"
	"log/slog"
	"strings"
	"testing"

	"vmess-local/pkg/config"
)

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
