package client

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"vmess-local/pkg/config"
	"vmess-local/pkg/protocol/vmess"
)

// identity is what makes a server the same one, as a hash, for the id is secret:
// address, port, id, ws path, ws host, and the name that TLS asks for where it is
// enabled. What it is called is not part of it.
func identity(s *config.Remote) string {
	id := string(s.ID)
	if parsed, err := vmess.ParseID(id); err == nil {
		id = string(parsed[:]) // however it is written
	}
	sni := "" // none without TLS
	if s.TLS.Enabled {
		sni = strings.ToLower(serverName(s))
	}
	h := sha256.New()
	for _, part := range []string{
		strings.ToLower(s.Address), fmt.Sprint(s.Port), id, "/" + strings.TrimPrefix(s.WS.Path, "/"), strings.ToLower(hostHeader(s)), fmt.Sprint(s.TLS.Enabled), sni,
	} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// named returns the member with an identity, or that alone has a name; nil when
// there is none. It is called with the lock held.
func (f *failoverGroup) named(which string) *entry {
	var found []*entry
	for _, m := range f.members {
		if m.guard.identity == which {
			return m
		}
		if m.guard.Name() == which {
			found = append(found, m)
		}
	}
	if len(found) != 1 {
		return nil
	}
	return found[0]
}
