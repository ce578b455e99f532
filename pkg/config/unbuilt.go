package config

import "strconv"

// The parts that a configuration may name but this version lacks. They are
// refused only when a key turns them on beyond its default.

// An unbuiltKey is a key that turns such a part on.
type unbuiltKey struct{ path, seen, want string }

func (c *Client) unbuilt() []unbuiltKey {
	var keys []unbuiltKey
	lacks := func(on bool, path, seen, want string) {
		if on {
			keys = append(keys, unbuiltKey{path, seen, want})
		}
	}
	lacks(c.Mux.Enabled, "mux.enabled", "true", "false")
	lacks(c.UDP.Mode == "xudp" || c.UDP.Mode == "packetaddr" || c.UDP.Mode == "plain", "udp.mode", quote(c.UDP.Mode), `"auto" or "off"`)
	if len(c.Servers) == 0 {
		lacks(c.Server.TLS.Fingerprint != "", "server.tls.fingerprint", quote(c.Server.TLS.Fingerprint), `""`)
	}
	for i, r := range c.Servers {
		lacks(r.TLS.Fingerprint != "", indexPath("servers", i)+".tls.fingerprint", quote(r.TLS.Fingerprint), `""`)
	}
	return keys
}

func (s *Server) unbuilt() []unbuiltKey {
	var keys []unbuiltKey
	lacks := func(on bool, path, seen, want string) {
		if on {
			keys = append(keys, unbuiltKey{path, seen, want})
		}
	}
	lacks(s.Status.Enabled, "status.enabled", "true", "false")
	lacks(s.Fallback != "", "fallback", quote(s.Fallback), `"" for 404`)
	lacks(s.Egress.Dial != "", "egress.dial", measure(string(s.Egress.Dial)), `""`)
	lacks(len(s.TrustedProxies) > 0, "trustedProxies", strconv.Itoa(len(s.TrustedProxies))+" entries", "an empty list")
	return keys
}

// Unbuilt returns the keys of a configuration made in memory that turn on
// what this version lacks; [ParseClient] refuses them already.
func (c *Client) Unbuilt() []Problem { return c.unbuiltProblems(c.unbuilt()) }

// Unbuilt is [Client.Unbuilt] for the server; see [ParseServer].
func (s *Server) Unbuilt() []Problem { return s.unbuiltProblems(s.unbuilt()) }

func (u unbuiltKey) problem() Problem {
	return Problem{Cause: CauseValue, Path: u.path, Message: "not part of this version yet", Seen: u.seen, Want: u.want}
}

func (s *source) unbuiltProblems(keys []unbuiltKey) []Problem {
	problems := make([]Problem, 0, len(keys))
	for _, key := range keys {
		p := key.problem()
		p.File, p.Line, p.Column, _ = s.Place(p.Path)
		problems = append(problems, p)
	}
	return problems
}

func (c checker) unbuilt(keys []unbuiltKey) {
	for _, key := range keys {
		c.report(key.problem())
	}
}
