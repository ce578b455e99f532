package vmess

import (
	"errors"
	"io"
	"testing"

	"vmess-local/pkg/transport/transporttest"
)

// TestBreakMark: a server says inside an answer whose chunks are authenticated that
// the destination broke off, behind all that came before, or without any. A client
// that does not say that it understands, and one whose answer nothing protects, is
// not told.
func TestBreakMark(t *testing.T) {
	for _, st := range append(styles(), rawStyles()...) {
		t.Run(st.name, func(t *testing.T) {
			s := newTestServer(t, ServerConfig{AEADForced: false})
			for _, answer := range []string{"", "answer"} {
				client, server := connect(t, st.client(testID), s)
				mustWrite(t, server, answer)
				want := st.method.Security.sealed() && !st.legacy
				if got := server.MarkBroken(); got != want {
					t.Fatalf("marked: %v, want %v", got, want)
				}
				if !want {
					continue
				}
				if _, err := server.Write([]byte("x")); err == nil {
					t.Error("something was written behind the mark")
				}
				wantEnd(t, client, answer, ErrDestinationBroke)
				if _, err := client.Read(make([]byte, 1)); !errors.Is(err, ErrDestinationBroke) || !client.MarksBreaks() {
					t.Errorf("then %v, marks breaks: %v", err, client.MarksBreaks())
				}
			}
		})
	}
	t.Run("foreign client", func(t *testing.T) {
		s := newTestServer(t, ServerConfig{})
		c := newAEADClient()
		c.kind.Store(uint32(KindSingBox)) // its requests have no note
		_, server := connect(t, c, s)
		if server.MarkBroken() {
			t.Error("it is told what it does not understand")
		}
	})
}

// TestBreakMarkHasNoSize: nothing on the wire tells a mark from other chunks.
func TestBreakMarkHasNoSize(t *testing.T) {
	sizes := map[int]bool{}
	for range 50 {
		near, far := transporttest.Pipe(1 << 17)
		s := newTestServer(t, ServerConfig{})
		client := dialOver(t, style{method: Method{SecurityAESGCM, masked}}.client(testID), near, "x")
		server := accept(t, s, far)
		mustWrite(t, server, "answer")
		mustRead(t, client, "answer")
		if !server.MarkBroken() {
			t.Fatal("not marked")
		}
		_ = server.Close()
		mark, _ := io.ReadAll(near)
		sizes[len(mark)] = true
	}
	if len(sizes) < 10 {
		t.Errorf("50 marks have %d sizes", len(sizes))
	}
}
