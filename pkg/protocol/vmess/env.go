package vmess

import (
	"strconv"
	"strings"
)

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
	_, value, _ := lookupSwitch(lookup, envAEADDisabled)
	return value == "true"
}

// AEADDisabledMistake warns of a value that is neither "true" nor "false", which
// [AEADDisabled] does not count; it is empty when there is none.
func AEADDisabledMistake(lookup func(string) (string, bool)) string {
	return mistaken(lookup, envAEADDisabled, "does not count: only \"true\" does")
}

// AEADForced returns whether a server refuses legacy requests: what the
// environment says by V2RAY_VMESS_AEAD_FORCED or v2ray.vmess.aead.forced
// ("true" forces, any other text allows), and otherwise what was configured.
// set tells whether the environment said anything.
func AEADForced(lookup func(string) (string, bool), configured bool) (forced, set bool) {
	if _, value, ok := lookupSwitch(lookup, envAEADForced); ok {
		return value == "true", true
	}
	return configured, false
}

// AEADForcedMistake warns of a value that is neither "true" nor "false", which
// [AEADForced] counts as "false"; it is empty when there is none.
func AEADForcedMistake(lookup func(string) (string, bool)) string {
	return mistaken(lookup, envAEADForced, "counts as \"false\": MD5 clients are accepted")
}

// mistaken says what a switch's value does when it is none of those that have a
// meaning. What may be a secret in the wrong place is not shown.
func mistaken(lookup func(string) (string, bool), name, does string) string {
	found, value, set := lookupSwitch(lookup, name)
	switch {
	case !set || value == "true" || value == "false":
		return ""
	case value == "":
		return found + " is empty, which " + does
	case len(value) > longestShown || strconv.Quote(value) != `"`+value+`"`:
		return found + " is something that " + does
	}
	return found + " is \"" + value + "\", which " + does
}

// longestShown is the length of a switch's value that is shown.
const longestShown = 10

// lookupSwitch returns the name that a switch was found by, and its value.
func lookupSwitch(lookup func(string) (string, bool), name string) (found, value string, ok bool) {
	for _, found = range []string{name, strings.ToUpper(strings.ReplaceAll(name, ".", "_"))} {
		if value, ok = lookup(found); ok {
			return found, value, true
		}
	}
	return "", "", false
}
