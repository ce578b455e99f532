package diagnose_test

import (
	"net/netip"
	"testing"

	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/transport/netaddr"
)

func TestLocalResolutionDetector(t *testing.T) {
	at := func(s string) netaddr.Addr { return netaddr.FromAddrPort(netip.MustParseAddrPort(s)) }
	name, err := netaddr.FromHost("example.com", 443)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		why   string
		first netaddr.Addr // before the others
		dst   netaddr.Addr
		hints int
	}{
		{"a website", at("1.1.1.1:443"), at("93.184.216.34:443"), 1},
		{"a website by IPv6", at("1.1.1.1:443"), at("[2606:2800:220:1::1]:80"), 1},
		{"a name was seen", name, at("93.184.216.34:443"), 0},
		{"only names", name, name, 0},
		{"a port of others", at("1.1.1.1:6881"), at("93.184.216.34:6881"), 0},
		{"a private address", at("10.0.0.1:443"), at("192.168.0.1:443"), 0},
		{"a shared address", at("100.64.0.1:443"), at("100.64.0.1:443"), 0},
		{"a fake IP of a local resolver", at("198.18.0.1:443"), at("198.18.0.1:443"), 0},
	} {
		var d diagnose.LocalResolutionDetector
		hints, when := 0, 0
		for i := range 100 {
			dst := c.dst
			if i == 0 {
				dst = c.first
			}
			if d.Observe(dst) {
				hints, when = hints+1, i+1
			}
		}
		if hints != c.hints || hints > 0 && when != 20 {
			t.Errorf("%s: %d hints, the last at request %d; want %d", c.why, hints, when, c.hints)
		}
	}
}
