package socks

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"vmess-local/pkg/transport/netaddr"
)

func TestLeadsTo(t *testing.T) {
	for _, c := range []struct {
		self, dst string
		want      bool
	}{
		{"192.168.1.5:1080", "192.168.1.5:1080", true},
		{"192.168.1.5:1080", "127.0.0.1:1080", true},
		{"192.168.1.5:1080", "192.168.1.6:1080", false},
		{"192.168.1.5:1080", "192.168.1.5:1081", false},
		{"[::1]:1080", "localhost.:1080", true},
		{"[::1]:1080", "localhost.example:1080", false},
	} {
		dst, err := netaddr.Parse(c.dst)
		if err != nil {
			t.Fatal(err)
		}
		if got := leadsTo(netip.MustParseAddrPort(c.self), dst); got != c.want {
			t.Errorf("leadsTo(%s, %s) = %v", c.self, c.dst, got)
		}
		if leadsTo(netip.AddrPort{}, dst) {
			t.Errorf("an in-memory listener is taken for %s", c.dst)
		}
	}
}

func TestParseDestination(t *testing.T) {
	for _, c := range []struct {
		in, want string
		err      error
	}{
		{in: "example.com:443", want: "example.com:443"},
		{in: "Example.COM:443", want: "Example.COM:443"},
		{in: "[2001:db8::1]:80", want: "[2001:db8::1]:80"},
		{in: "BÜCHER.example:80", want: "xn--bcher-kva.example:80"},
		{in: "例え.テスト:80", want: "xn--r8jz45g.xn--zckzah:80"},
		{in: "a\u200b\u0301\ufffe:80", err: errBadName},
		{in: "\xff:80", err: errBadName},
		{in: strings.Repeat("ü", 300) + ":80", err: netaddr.ErrLongHost},
		{in: "example.com", err: netaddr.ErrNoPort},
		{in: "::1:80", err: netaddr.ErrNoPort},
		{in: "example.com:0", err: errZeroPort},
		{in: "example.com:http", err: netaddr.ErrBadPort},
		{in: ":80", err: netaddr.ErrEmptyHost},
	} {
		got, err := parseDestination(c.in)
		if !errors.Is(err, c.err) || got.String() != c.want {
			t.Errorf("parseDestination(%q) = %q, %v; want %q, %v", c.in, got, err, c.want, c.err)
		}
		if err != nil && strings.Contains(err.Error(), "example") {
			t.Errorf("the destination is in the error %q", err)
		}
	}
}
