package vmess

import (
	"errors"
	"testing"
)

func TestEnvironment(t *testing.T) {
	const (
		disabledDot, disabledUp = "v2ray.vmess.aead.disabled", "V2RAY_VMESS_AEAD_DISABLED"
		forcedDot, forcedUp     = "v2ray.vmess.aead.forced", "V2RAY_VMESS_AEAD_FORCED"
	)
	type env map[string]string
	for _, c := range []struct {
		env      env
		disabled bool
		forced   [2]bool // with aeadForced false, true in the configuration
		set      bool
	}{
		{env: env{}, forced: [2]bool{false, true}},
		{env: env{disabledUp: "true"}, disabled: true, forced: [2]bool{false, true}},
		{env: env{disabledDot: "true"}, disabled: true, forced: [2]bool{false, true}},
		{env: env{disabledUp: "TRUE"}, forced: [2]bool{false, true}},
		{env: env{disabledUp: "1"}, forced: [2]bool{false, true}},
		{env: env{disabledUp: " true"}, forced: [2]bool{false, true}},
		{env: env{disabledUp: ""}, forced: [2]bool{false, true}},
		{env: env{disabledDot: "false", disabledUp: "true"}, forced: [2]bool{false, true}}, // the dotted name is looked at first
		{env: env{disabledDot: "true", disabledUp: "false"}, disabled: true, forced: [2]bool{false, true}},
		{env: env{"v2ray_vmess_aead_disabled": "true"}, forced: [2]bool{false, true}},
		{env: env{forcedUp: "true"}, forced: [2]bool{true, true}, set: true},
		{env: env{forcedUp: "false"}, set: true},
		{env: env{forcedDot: "false"}, set: true},
		{env: env{forcedUp: "no"}, set: true},
		{env: env{forcedUp: ""}, set: true},
		{env: env{forcedDot: "true", forcedUp: "false"}, forced: [2]bool{true, true}, set: true},
		{env: env{forcedUp: "false", disabledUp: "true"}, disabled: true, set: true},
	} {
		lookup := func(name string) (string, bool) { v, ok := c.env[name]; return v, ok }
		if got := AEADDisabled(lookup); got != c.disabled {
			t.Errorf("%v: disabled %v", c.env, got)
		}
		for i, configured := range []bool{false, true} {
			if forced, set := AEADForced(lookup, configured); forced != c.forced[i] || set != c.set {
				t.Errorf("%v, configured %v: forced %v, set %v", c.env, configured, forced, set)
			}
		}
	}
}

func TestParseMethod(t *testing.T) {
	for _, c := range []struct {
		name            string
		padding, length bool
		want            Method
		err             error
	}{
		{"aes-128-gcm", false, false, Method{SecurityAESGCM, masked}, nil},
		{"aes-128-gcm", true, false, Method{SecurityAESGCM, padded}, nil},
		{"aes-128-gcm", false, true, Method{SecurityAESGCM, masked | sealed}, nil},
		{"chacha20-poly1305", true, true, Method{SecurityChaCha20Poly1305, padded | sealed}, nil},
		{"none", true, true, Method{SecurityNone, masked}, nil}, // never with padding or sealed lengths
		{"zero", true, true, Method{SecurityNone, 0}, nil},
		{"aes-128-cfb", false, false, Method{}, ErrUnknownSecurity}, // served, never sent
		{"AES-128-GCM", false, false, Method{}, ErrUnknownSecurity},
		{"chacha20", false, false, Method{}, ErrUnknownSecurity},
	} {
		if got, err := ParseMethod(c.name, c.padding, c.length); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s, %v, %v: %+v, %v", c.name, c.padding, c.length, got, err)
		}
	}
	for _, name := range []string{"", "auto"} {
		m, err := ParseMethod(name, true, false)
		if err != nil || m.Security != SecurityAESGCM && m.Security != SecurityChaCha20Poly1305 || m.Option != padded {
			t.Errorf("%q: %+v, %v", name, m, err)
		}
	}
}

func TestSecurityNames(t *testing.T) {
	for s, want := range map[Security]string{1: "aes-128-cfb", 3: "aes-128-gcm", 4: "chacha20-poly1305", 5: "none", 6: "security 6"} {
		if s.String() != want {
			t.Errorf("%d is %q", s, s)
		}
	}
}
