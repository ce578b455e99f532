package tcpconn_test

import (
	"testing"
	"time"

	"vmess-local/pkg/transport"
)

func TestTCPLeft(t *testing.T) {
	for name, tt := range map[string]struct {
		do   func(b transport.StreamConn)
		want bool
	}{
		"open":             {func(transport.StreamConn) {}, false},
		"ended by peer":    {func(b transport.StreamConn) { _ = b.CloseWrite() }, false},
		"closed by peer":   {func(b transport.StreamConn) { _ = b.Close() }, true},
		"ended and closed": {func(b transport.StreamConn) { _ = b.CloseWrite(); _ = b.Close() }, true},
		"said and closed":  {func(b transport.StreamConn) { _, _ = b.Write([]byte("x")); _ = b.Close() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := streamPair(t)
			tt.do(b)
			for deadline := time.Now().Add(5 * time.Second); transport.PeerClosed(a) != tt.want; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("left: %v", !tt.want)
				}
			}
			time.Sleep(20 * time.Millisecond) // for a false one
			if transport.PeerClosed(a) != tt.want {
				t.Errorf("left: %v", !tt.want)
			}
		})
	}
	if transport.PeerClosed(struct{}{}) {
		t.Error("who does not know has left")
	}
}
