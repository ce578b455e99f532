package limit

import "testing"

func TestConnections(t *testing.T) {
	allowed := Connections(0, 2)
	if allowed < 1 {
		t.Fatalf("the system allows %d connections", allowed)
	}
	if got := Connections(1, 2); got != 1 {
		t.Errorf("1 configured: %d", got)
	}
	if got := Connections(1<<30, 2); got != allowed {
		t.Errorf("too many configured: %d, want %d", got, allowed)
	}
	if fewer := Connections(0, 20); fewer > allowed {
		t.Errorf("more files for each: %d, before %d", fewer, allowed)
	}
}
