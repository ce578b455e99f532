package config

import (
	"strings"
	"testing"
)

// A server is the same one whatever it is called, and another one where any part
// of its identity differs; the id does not show.
func TestIdentity(t *testing.T) {
	base := func() *Remote {
		r := DefaultClient().Server
		r.Address, r.Port, r.ID, r.WS.Path, r.TLS.Enabled = "vps.example.com", 443, "b831381d-6324-4d53-ad4f-8cda48b30811", "/ray", true
		return &r
	}
	want := base().Identity()
	if len(want) != 32 || strings.Contains(want, "b831381d") {
		t.Errorf("the identity is %q", want)
	}
	for name, tt := range map[string]struct {
		change func(r *Remote)
		same   bool
	}{
		"name":               {func(r *Remote) { r.Name = "other" }, true},
		"id without dashes":  {func(r *Remote) { r.ID = "B831381D63244D53AD4F8CDA48B30811" }, true},
		"address in capital": {func(r *Remote) { r.Address = "VPS.example.com" }, true},
		"SNI as it is":       {func(r *Remote) { r.TLS.ServerName = "vps.example.com" }, true},
		"path without slash": {func(r *Remote) { r.WS.Path = "ray" }, true},
		"cipher":             {func(r *Remote) { r.Security = "none" }, true},
		"address":            {func(r *Remote) { r.Address = "vps2.example.com" }, false},
		"port":               {func(r *Remote) { r.Port = 8443 }, false},
		"id":                 {func(r *Remote) { r.ID = "11111111-2222-4333-8444-555555555555" }, false},
		"ws path":            {func(r *Remote) { r.WS.Path = "/ray2" }, false},
		"ws host":            {func(r *Remote) { r.WS.Host = "cdn.example.com"; r.TLS.ServerName = "vps.example.com" }, false},
		"SNI":                {func(r *Remote) { r.TLS.ServerName = "cdn.example.com" }, false},
		"TLS off":            {func(r *Remote) { r.TLS.Enabled = false }, false},
	} {
		r := base()
		tt.change(r)
		if got := r.Identity(); (got == want) != tt.same {
			t.Errorf("%s: %s, and %s of the other", name, got, want)
		}
	}
}
