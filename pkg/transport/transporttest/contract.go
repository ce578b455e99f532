package transporttest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"vmess-local/pkg/transport"
)

// A Pair makes two connected ends of the stream under test.
type Pair func(t *testing.T) (a, b transport.StreamConn)

// TestStream checks what the package transport promises of a StreamConn with
// half close, in both directions: every byte in order whatever the sizes of
// writes and reads, the end of one direction while the other goes on,
// deadlines, and a Close that frees whoever waits.
func TestStream(t *testing.T, pair Pair) {
	each := func(name string, f func(t *testing.T, a, b transport.StreamConn)) {
		for _, swapped := range []bool{false, true} {
			suffix := "/ab"
			if swapped {
				suffix = "/ba"
			}
			t.Run(name+suffix, func(t *testing.T) {
				a, b := pair(t)
				t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
				if swapped {
					a, b = b, a
				}
				f(t, a, b)
			})
		}
	}
	each("sizes", testSizes)
	each("half close", testHalfClose)
	each("read deadline", testReadDeadline)
	each("close frees", testCloseFrees)
}

func testSizes(t *testing.T, a, b transport.StreamConn) {
	rnd := rand.New(rand.NewPCG(1, 2))
	sent, errs := sha256.New(), make(chan error, 1)
	go func() {
		for _, n := range []int{1, 2, 15, 1000, 2048, 16383, 16384, 16385, 65535, 65536, 70000, 200001, 1} {
			p := make([]byte, n)
			for i := range p {
				p[i] = byte(rnd.Uint32())
			}
			sent.Write(p)
			if m, err := a.Write(p); m != n || err != nil {
				errs <- errors.Join(err, io.ErrShortWrite)
				return
			}
		}
		errs <- a.CloseWrite()
	}()
	got, sizes := sha256.New(), []int{1, 3, 100, 4096, 17, 65536, 16384}
	for i := 0; ; i++ {
		p := make([]byte, sizes[i%len(sizes)])
		n, err := b.Read(p)
		got.Write(p[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("read: %v", err)
		}
	}
	if err := <-errs; err != nil {
		t.Fatalf("write: %v", err)
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Fatal("other bytes arrived than were sent")
	}
}

func testHalfClose(t *testing.T, a, b transport.StreamConn) {
	if _, err := a.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	// The answering side starts before it knows of the end: a protocol may
	// hold the end back until the answer is over.
	if _, err := b.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	if err := b.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if p, err := io.ReadAll(a); string(p) != "answer" || err != nil {
		t.Fatalf("a read %q, %v", p, err)
	}
	if p, err := io.ReadAll(b); string(p) != "question" || err != nil {
		t.Fatalf("b read %q, %v", p, err)
	}
}

func testReadDeadline(t *testing.T, a, _ transport.StreamConn) {
	if err := a.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read after the deadline: %v", err)
	}
}

func testCloseFrees(t *testing.T, a, _ transport.StreamConn) {
	read := make(chan error, 1)
	go func() {
		_, err := a.Read(make([]byte, 1))
		read <- err
	}()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err == nil {
		t.Fatal("a read succeeded on a closed stream")
	}
	if _, err := a.Write([]byte("x")); err == nil {
		t.Fatal("a write succeeded on a closed stream")
	}
}
