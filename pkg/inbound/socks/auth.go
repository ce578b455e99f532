package socks

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
)

// Auth is what clients must present: with SOCKS5 by RFC 1929, with HTTP by
// Basic proxy authentication (RFC 7617). SOCKS4 cannot and is refused.
type Auth struct {
	Username string
	Password string
}

// String hides both fields from fmt.
func (a Auth) String() string { return "[redacted]" }

// LogValue hides both fields from log/slog.
func (a Auth) LogValue() slog.Value { return slog.StringValue(a.String()) }

// match compares in constant time. The digests make the lengths equal, so
// that those are not told either.
func (a *Auth) match(username, password []byte) bool {
	return sameDigest(a.Username, username)&sameDigest(a.Password, password) == 1
}

func sameDigest(want string, got []byte) int {
	w, g := sha256.Sum256([]byte(want)), sha256.Sum256(got)
	return subtle.ConstantTimeCompare(w[:], g[:])
}
