package wsconn

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/transporttest"
)

// TestSilentUpgrade: an upgrade that is silent for 2 s goes on until somebody says
// that it is hopeless.
func TestSilentUpgrade(t *testing.T) {
	for hopeless, want := range map[bool]time.Duration{true: 3 * time.Second, false: 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			d := &Dialer{Host: "h", Timeout: 10 * time.Second, Endpoint: transport.EndpointFunc(func(context.Context, []byte) (transport.StreamConn, error) {
				near, _ := transporttest.Pipe(1 << 16)
				return near, nil
			}), Silent: func(context.Context) bool {
				if took := time.Since(start); took != silentAfter {
					t.Errorf("asked after %v", took)
				}
				time.Sleep(time.Second)
				return hopeless
			}}
			_, err := d.ConnectStream(t.Context(), nil)
			var timeout *TimeoutError
			if took := time.Since(start); took != want || !errors.As(err, &timeout) || timeout.After != want {
				t.Errorf("hopeless: %v; %v after %v", hopeless, err, took)
			}
		})
	}
}
