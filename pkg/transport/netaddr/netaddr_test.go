package netaddr

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in, out string
		name    bool
		err     error
	}{
		{in: "example.com:443", out: "example.com:443", name: true},
		{in: "a_b-c.d.:0", out: "a_b-c.d.:0", name: true},
		{in: "127.0.0.1:80", out: "127.0.0.1:80"},
		{in: "[::1]:65535", out: "[::1]:65535"},
		{in: "[::ffff:1.2.3.4]:1", out: "1.2.3.4:1"},
		{in: "[fe80::1%eth0]:1", out: "[fe80::1]:1"},
		{in: strings.Repeat("a", 255) + ":1", out: strings.Repeat("a", 255) + ":1", name: true},
		{in: strings.Repeat("a", 256) + ":1", err: ErrLongHost},
		{in: "example.com", err: ErrNoPort},
		{in: "[::1]", err: ErrNoPort},
		{in: "::1:443", err: ErrBadHost},
		{in: ":443", err: ErrEmptyHost},
		{in: "[]:443", err: ErrBadHost},
		{in: "a b:443", err: ErrBadHost},
		{in: "a\x00b:443", err: ErrBadHost},
		{in: "höhe.example:443", err: ErrBadHost},
		{in: "h:65536", err: ErrBadPort},
		{in: "h:+1", err: ErrBadPort},
		{in: "h:http", err: ErrBadPort},
		{in: "h:", err: ErrBadPort},
		{in: "h:000080", err: ErrBadPort},
	} {
		a, err := Parse(c.in)
		if !errors.Is(err, c.err) || a.String() != c.out || a.IsName() != c.name || a.IsValid() != (c.err == nil) {
			t.Errorf("Parse(%q) = %q, name %v, %v; want %q, name %v, %v", c.in, a, a.IsName(), err, c.out, c.name, c.err)
		}
	}
}

func TestFromIP(t *testing.T) {
	if a := FromIP(netip.Addr{}, 1); a.IsValid() || a.String() != "" {
		t.Errorf("an invalid IP gave %q", a)
	}
	a := FromAddrPort(netip.MustParseAddrPort("[2001:db8::1]:53"))
	if a.Host() != "2001:db8::1" || a.Port() != 53 || a.WithPort(54).String() != "[2001:db8::1]:54" {
		t.Errorf("got host %q, port %d", a.Host(), a.Port())
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a:1", "[::1]:2", "1.2.3.4:5", "::1", "[a]:1", "a:b:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s)
		if err != nil {
			return
		}
		if b, err := Parse(a.String()); err != nil || b != a {
			t.Fatalf("%q parsed to %q, which parses to %q, %v", s, a, b, err)
		}
	})
}
