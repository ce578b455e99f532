package e2e

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
)

// A emptyResolver is a resolver on loopback to which no name exists: no test
// asks a real one. "localhost" and what else the hosts file has is known all
// the same.
type emptyResolver struct {
	*net.Resolver
	asked atomic.Int64 // questions so far
}

// newKnowsNothing runs one until the test ends.
func newKnowsNothing(t testing.TB) *emptyResolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &emptyResolver{Resolver: &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
		},
	}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.serve(pc)
	}()
	t.Cleanup(func() {
		_ = pc.Close()
		<-done
	})
	return k
}

// serve turns every question into its answer (RFC 1035 section 4.1.1).
func (k *emptyResolver) serve(pc net.PacketConn) {
	const (
		headerSize = 12
		isResponse = 0x80 // QR, of byte 2
		nameError  = 3    // RCODE, of byte 3
	)
	p := make([]byte, 1500)
	for {
		n, from, err := pc.ReadFrom(p)
		if err != nil {
			return
		}
		if n < headerSize {
			continue
		}
		k.asked.Add(1)
		p[2] |= isResponse
		p[3] = p[3]&0xf0 | nameError
		_, _ = pc.WriteTo(p[:n], from)
	}
}
