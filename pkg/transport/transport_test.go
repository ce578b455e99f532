package transport_test

import (
	"io"
	"testing"

	"go.uber.org/goleak"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPipeContract(t *testing.T) {
	for _, size := range []int{20, 1000, 1 << 20} {
		transporttest.TestStream(t, func(t *testing.T) (a, b transport.StreamConn) {
			return transporttest.Pipe(size)
		})
	}
}

func TestResetWithoutResetter(t *testing.T) {
	a, b := transporttest.Pipe(1)
	if err := transport.Reset(struct{ transport.StreamConn }{a}); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("read %d bytes, %v; want the end", n, err)
	}
}
