package sharelink

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

	"vmess-local/pkg/config"
)

// Format writes a server as a link. What the form has no field for is left
// out; [Lost] tells what. The error is a [*FieldError] that names the key of
// the configuration that is wrong.
func Format(r *config.Remote, form Form) (string, error) {
	canonical := *r
	canonical.TLS.Pin = slices.Clone(r.TLS.Pin) // Normalize writes into it
	if err := canonical.Normalize(); err != nil {
		return "", fieldError(err, nil)
	}
	if form == FormURL {
		return formatURL(&canonical), nil
	}
	return formatJSON(&canonical)
}

// linkPath returns the path as links have it, with the early data that
// travels in the usual header.
func linkPath(r *config.Remote) string {
	if r.WS.EarlyData == 0 || r.WS.EarlyDataHeader != config.EarlyDataProtocol {
		return r.WS.Path
	}
	separator := "?"
	if strings.Contains(r.WS.Path, "?") {
		separator = "&"
	}
	return r.WS.Path + separator + "ed=" + strconv.Itoa(r.WS.EarlyData)
}

// Lost returns the keys of a server, like "tls.pin", whose values the form
// cannot carry, so that whoever reads the link gets others.
func Lost(r *config.Remote, form Form) []string {
	var keys []string
	lost := func(key string, is bool) {
		if is {
			keys = append(keys, key)
		}
	}
	standard := config.DefaultRemote()
	lost("alterId", form == FormURL && r.AlterID != 0)
	lost("globalPadding", r.GlobalPadding != standard.GlobalPadding)
	lost("authenticatedLength", r.AuthenticatedLength)
	lost("ws.headers", len(r.WS.Headers) > 0)
	ownHeader := r.WS.EarlyDataHeader != config.EarlyDataProtocol && (form == FormV2rayN || r.WS.EarlyDataHeader == "")
	lost("ws.earlyData", ownHeader && r.WS.EarlyData > 0)
	lost("ws.earlyDataHeader", ownHeader)
	lost("ws.ping", r.WS.Ping != standard.WS.Ping)
	lost("tls.alpn", !reflect.DeepEqual(r.TLS.ALPN, standard.TLS.ALPN))
	lost("tls.pin", len(r.TLS.Pin) > 0)
	lost("tls.caFile", r.TLS.CAFile != "")
	return keys
}
