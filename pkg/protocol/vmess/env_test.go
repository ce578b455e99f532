package vmess

import (
	"errors"
	"strings"
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

// Values that people take for true or false and that are not are told.
func TestEnvironmentMistakes(t *testing.T) {
	const (
		notCounted = "which does not count: only \"true\" does"
		asFalse    = "which counts as \"false\": MD5 clients are accepted"
	)
	for _, c := range []struct{ name, value, want string }{
		{"V2RAY_VMESS_AEAD_DISABLED", "true", ""},
		{"V2RAY_VMESS_AEAD_DISABLED", "false", ""},
		{"V2RAY_VMESS_AEAD_DISABLED", "", "V2RAY_VMESS_AEAD_DISABLED is empty, " + notCounted},
		{"V2RAY_VMESS_AEAD_DISABLED", "1", "V2RAY_VMESS_AEAD_DISABLED is \"1\", " + notCounted},
		{"V2RAY_VMESS_AEAD_DISABLED", "TRUE", "V2RAY_VMESS_AEAD_DISABLED is \"TRUE\", " + notCounted},
		{"V2RAY_VMESS_AEAD_DISABLED", "true ", "V2RAY_VMESS_AEAD_DISABLED is \"true \", " + notCounted},
		{"v2ray.vmess.aead.disabled", "yes", "v2ray.vmess.aead.disabled is \"yes\", " + notCounted},
		{"V2RAY_VMESS_AEAD_DISABLED", "b831381d-6324-4d53", "V2RAY_VMESS_AEAD_DISABLED is something that does not count: only \"true\" does"},
		{"V2RAY_VMESS_AEAD_DISABLED", "a\x1bb", "V2RAY_VMESS_AEAD_DISABLED is something that does not count: only \"true\" does"},
		{"V2RAY_VMESS_AEAD_FORCED", "true", ""},
		{"V2RAY_VMESS_AEAD_FORCED", "false", ""},
		{"V2RAY_VMESS_AEAD_FORCED", "", "V2RAY_VMESS_AEAD_FORCED is empty, " + asFalse},
		{"v2ray.vmess.aead.forced", "", "v2ray.vmess.aead.forced is empty, " + asFalse},
		{"V2RAY_VMESS_AEAD_FORCED", "yes", "V2RAY_VMESS_AEAD_FORCED is \"yes\", " + asFalse},
		{"v2ray.vmess.aead.forced", "1", "v2ray.vmess.aead.forced is \"1\", " + asFalse},
		{"V2RAY_VMESS_AEAD_FORCED", "\xff", "V2RAY_VMESS_AEAD_FORCED is something that counts as \"false\": MD5 clients are accepted"},
	} {
		lookup := func(name string) (string, bool) { return c.value, name == c.name }
		if got := AEADDisabledMistake(lookup) + AEADForcedMistake(lookup); got != c.want {
			t.Errorf("%s=%q: %q, want %q", c.name, c.value, got, c.want)
		}
	}
	none := func(string) (string, bool) { return "", false }
	if got := AEADDisabledMistake(none) + AEADForcedMistake(none); got != "" {
		t.Errorf("nothing is set: %q", got)
	}
	// Of two names the first counts.
	both := func(name string) (string, bool) {
		return map[bool]string{true: "true", false: "1"}[strings.HasPrefix(name, "v2ray.")], true
	}
	if got := AEADDisabledMistake(both) + AEADForcedMistake(both); got != "" {
		t.Errorf("what does not count is told: %q", got)
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
