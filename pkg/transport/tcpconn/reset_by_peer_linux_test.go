package tcpconn_test

import (
	"testing"
	"time"

	"vmess-local/pkg/transport"
)

func TestTCPBroken(t *testing.T) {
	for name, tt := range map[string]struct {
		do   func(a, b transport.StreamConn)
		want bool
	}{
		"open":            {func(_, _ transport.StreamConn) {}, false},
		"ended by peer":   {func(_, b transport.StreamConn) { _ = b.CloseWrite() }, false},
		"reset":           {func(_, b transport.StreamConn) { _ = transport.Reset(b) }, true},
		"data then reset": {func(_, b transport.StreamConn) { _, _ = b.Write([]byte("x")); _ = transport.Reset(b) }, true},
		"closed by us":    {func(a, _ transport.StreamConn) { _ = a.Close() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := streamPair(t)
			tt.do(a, b)
			for deadline := time.Now().Add(5 * time.Second); transport.ResetByPeer(a) != tt.want; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("broken: %v", !tt.want)
				}
			}
			time.Sleep(20 * time.Millisecond)
			if transport.ResetByPeer(a) != tt.want {
				t.Errorf("broken: %v", !tt.want)
			}
		})
	}
	if transport.ResetByPeer(struct{}{}) {
		t.Error("who does not know is broken")
	}
}
