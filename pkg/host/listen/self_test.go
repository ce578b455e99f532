package listen

import (
	"net/netip"
	"testing"
)

func TestSelfAddr(t *testing.T) {
	for _, tt := range []struct {
		listen, to string
		want       bool
	}{
		{"127.0.0.1:1080", "127.0.0.1:1080", true},
		{"127.0.0.1:1080", "127.0.0.1:1081", false},
		{"127.0.0.1:1080", "127.0.0.2:1080", false},
		{"127.0.0.1:1080", "[::1]:1080", false},
		{"[::1]:1080", "[::1]:1080", true},
		{"0.0.0.0:1080", "127.0.0.2:1080", true},
		{"[::]:1080", "127.0.0.1:1080", true},
		{"[::]:1080", "192.0.2.1:1080", false}, // another computer
		{"192.0.2.1:1080", "192.0.2.1:1080", true},
		{"127.0.0.1:1080", "0.0.0.0:1080", true},
	} {
		s := new(Self)
		s.Set(tt.listen)
		if got := s.Is(netip.MustParseAddrPort(tt.to)); got != tt.want {
			t.Errorf("listening on %s, to %s: %v", tt.listen, tt.to, got)
		}
	}
	if new(Self).Is(netip.MustParseAddrPort("127.0.0.1:1080")) {
		t.Error("what listens nowhere is asked")
	}
}
