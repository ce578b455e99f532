package demo

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOnce(t *testing.T) {
	var out bytes.Buffer
	if err := Run(t.Context(), Options{Listen: "127.0.0.1:0", Once: true, Out: &out}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"1  server ", "2  client ", "3  page ", "4  fetch   200 OK", "ok: "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the steps lack %q:\n%s", want, out.String())
		}
	}
}

func TestPortTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := Run(t.Context(), Options{Listen: ln.Addr().String(), Once: true, Out: io.Discard}); err == nil {
		t.Error("the demo took a port that is taken")
	}
	if err := Run(t.Context(), Options{Listen: ln.Addr().String(), AnyPort: true, Once: true, Out: io.Discard}); err != nil {
		t.Errorf("the demo found no other port: %v", err)
	}
}

func TestStaysUntilDone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{Listen: "127.0.0.1:0", Out: w})
		_ = w.Close()
	}()
	p := make([]byte, 4096)
	for text := ""; !strings.Contains(text, "Ctrl-C"); {
		n, err := r.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		text += string(p[:n])
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
