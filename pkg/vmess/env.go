package vmess

import "strings"

// Names of the environment's switches, as V2Ray has them (section 2). Each is
// looked up by this name first and then in capitals with underscores.
const (
	envAEADDisabled = "v2ray.vmess.aead.disabled"
	envAEADForced   = "v2ray.vmess.aead.forced"
)

// AEADDisabled reports whether the environment asks a client for legacy
// headers: V2RAY_VMESS_AEAD_DISABLED or v2ray.vmess.aead.disabled is exactly
// "true". lookup is os.LookupEnv or a stand-in.
func AEADDisabled(lookup func(string) (string, bool)) bool {
	value, _ := lookupSwitch(lookup, envAEADDisabled)
	return value == "true"
}

// AEADForced returns whether a server refuses legacy requests: what the
// environment says by V2RAY_VMESS_AEAD_FORCED or v2ray.vmess.aead.forced
// ("true" forces, any other text allows), and otherwise what was configured.
// set tells whether the environment said anything.
func AEADForced(lookup func(string) (string, bool), configured bool) (forced, set bool) {
	if value, ok := lookupSwitch(lookup, envAEADForced); ok {
		return value == "true", true
	}
	return configured, false
}

func lookupSwitch(lookup func(string) (string, bool), name string) (string, bool) {
	if v, ok := lookup(name); ok {
		return v, true
	}
	return lookup(strings.ToUpper(strings.ReplaceAll(name, ".", "_")))
}
