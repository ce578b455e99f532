package config

import (
	"errors"
	"log/slog"
	"strings"
	"time"
)

// A Secret is text that must not reach logs, messages or screens: an id, a
// password, a URL that may hold one. Every way of printing it shows only that
// it is there; string(s) reveals it.
type Secret string

// String returns a stand-in, or "" for the empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[secret]"
}

// GoString keeps %#v from revealing the text.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// LogValue keeps slog from revealing the text.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText keeps encoders from revealing the text. [MarshalClient] and
// [MarshalServer] do write it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Duration is a span of time that the file spells like "30s" or "1h30m".
type Duration time.Duration

var errNegativeDuration = errors.New("the duration is negative")

// ParseDuration reads what String prints, and all that time.ParseDuration
// reads but negative spans.
func ParseDuration(s string) (Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, err
	}
	if d < 0 {
		return 0, errNegativeDuration
	}
	return Duration(d), nil
}

// String prints d without parts that are zero: "1h", not "1h0m0s".
func (d Duration) String() string {
	if d == 0 {
		return "0s"
	}
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
