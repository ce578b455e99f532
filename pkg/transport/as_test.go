package transport_test

import (
	"net"
	"testing"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/transporttest"
)

// A knowing stream knows all that a system can.
type knowing struct {
	transport.StreamConn
	frail bool
}

func (*knowing) ResetByPeer() bool              { return true }
func (*knowing) WriteReady() bool               { return true }
func (*knowing) SendState() transport.SendState { return transport.SendBlocked }
func (*knowing) PeerClosed() bool               { return true }
func (k *knowing) ResetOnAbort()                { k.frail = true }

// A wrapper wraps another stream and adds nothing.
type wrapper struct{ transport.StreamConn }

func (w wrapper) NetConn() net.Conn { return w.StreamConn }

// A busy wrapper knows better than what it wraps whether a write would wait.
type busy struct{ wrapper }

func (busy) WriteReady() bool { return false }

func TestAsksThroughWrappers(t *testing.T) {
	near, far := transporttest.Pipe(1)
	defer near.Close()
	defer far.Close()
	mute := struct{ transport.StreamConn }{near}
	for name, c := range map[string]struct {
		asked transport.StreamConn
		knows bool
		ready bool
	}{
		"itself":               {&knowing{StreamConn: near}, true, true},
		"wrapped":              {wrapper{&knowing{StreamConn: near}}, true, true},
		"wrapped twice":        {wrapper{wrapper{&knowing{StreamConn: near}}}, true, true},
		"a wrapper that knows": {wrapper{busy{wrapper{&knowing{StreamConn: near}}}}, true, false},
		"does not say":         {struct{ transport.StreamConn }{&knowing{StreamConn: near}}, false, false},
		"nobody knows":         {wrapper{mute}, false, false},
		"wraps nothing":        {wrapper{}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := transport.ResetByPeer(c.asked); got != c.knows {
				t.Errorf("reset by peer: %v", got)
			}
			if got := transport.WriteReady(c.asked); got != c.ready {
				t.Errorf("write ready: %v", got)
			}
			if got := transport.SendStateOf(c.asked); (got == transport.SendBlocked) != c.knows {
				t.Errorf("send state: %v", got)
			}
			transport.ResetOnAbort(c.asked)
			if k, ok := transport.As[*knowing](c.asked); ok != c.knows || ok && !k.frail {
				t.Errorf("reset on abort: %v, %+v", ok, k)
			}
			if got := transport.PeerClosed(c.asked); got != (name == "itself") {
				t.Errorf("peer closed: %v", got)
			}
			if n := testing.AllocsPerRun(100, func() { _ = transport.WriteReady(c.asked) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

func BenchmarkWriteReady(b *testing.B) {
	near, far := transporttest.Pipe(1)
	defer near.Close()
	defer far.Close()
	c := wrapper{wrapper{wrapper{wrapper{&knowing{StreamConn: near}}}}}
	for b.Loop() {
		_ = transport.WriteReady(c.StreamConn)
	}
}
