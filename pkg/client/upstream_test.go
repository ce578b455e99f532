package client

import (
	"errors"
	"strings"
	"testing"

	"vmess-local/pkg/config"
)

func TestUpstreamOfTheEnvironment(t *testing.T) {
	for _, c := range []struct {
		name, upstream, env string
		tls                 bool
		want                string
	}{
		{"none", "", "HTTPS_PROXY=http://proxy:3128", true, ""},
		{"configured", "socks5://u:p@gate:1080", "HTTPS_PROXY=http://proxy:3128", true, "socks5://u:p@gate:1080"},
		{"wss", "env", "HTTPS_PROXY=http://proxy:3128", true, "http://proxy:3128"},
		{"lower case", "env", "https_proxy=http://proxy:3128", true, "http://proxy:3128"},
		{"without a scheme", "env", "https_proxy=proxy:3128", true, "http://proxy:3128"},
		{"ws", "env", "HTTPS_PROXY=http://proxy:3128", false, ""},
		{"ws by its own", "env", "HTTP_PROXY=http://proxy:3128", false, "http://proxy:3128"},
		{"excepted", "env", "HTTPS_PROXY=http://proxy:3128 NO_PROXY=.example.com", true, ""},
		{"nothing set", "env", "", true, ""},
		{"a loop", "env", "HTTPS_PROXY=http://127.0.0.1:1080", true, ""},
		{"a loop by another name, which the dial refuses", "env", "HTTPS_PROXY=http://localhost:1080", true, "http://localhost:1080"},
		{"no such kind", "env", "HTTPS_PROXY=https://u:geheim@proxy:3128", true, "error"},
		{"ALL_PROXY, which points to us", "env", "ALL_PROXY=socks5://127.0.0.1:1080", true, ""},
	} {
		cfg := config.DefaultClient()
		cfg.Server.Address, cfg.Server.Port, cfg.Server.TLS.Enabled = "vps.example.com", 443, c.tls
		cfg.Upstream = config.Secret(c.upstream)
		u, err := newUpstream(cfg, &cfg.Server, func(name string) (string, bool) {
			for _, e := range strings.Fields(c.env) {
				if v, ok := strings.CutPrefix(e, name+"="); ok {
					return v, true
				}
			}
			return "", false
		})
		got := ""
		if u != nil {
			got = u.String()
		}
		var problems *config.Problems
		if errors.As(err, &problems) {
			got = "error"
			if strings.Contains(err.Error(), "geheim") {
				t.Errorf("%s: the error tells the password: %v", c.name, err)
			}
		} else if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
