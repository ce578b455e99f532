package vmess

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport/transporttest"
)

var gcm = style{name: "gcm", method: Method{SecurityAESGCM, padded}}

// ended waits for the end mark and returns how long it took.
func ended(t *testing.T, server *Conn) time.Duration {
	t.Helper()
	begin := time.Now()
	mustFail(t, server, io.EOF)
	return time.Since(begin)
}

// overStyles runs f under a fake clock for a few ways to make requests.
func overStyles(t *testing.T, f func(t *testing.T, st style)) {
	for _, st := range []style{gcm, {name: "legacy", legacy: true, method: Method{SecurityChaCha20Poly1305, masked}}, {name: "none", method: Method{SecurityNone, masked}}} {
		t.Run(st.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, st) })
		})
	}
}

func TestEndMarkIsHeldBack(t *testing.T) {
	overStyles(t, func(t *testing.T, st style) {
		client, server := connectForeign(t, st.client(testID), newTestServer(t, ServerConfig{}))
		if err := client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the stream has ended for who writes, whatever is on the wire
			if _, err := client.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("wrote behind the end: %v", err)
			}
			if err := client.CloseWrite(); err != nil {
				t.Errorf("the second end: %v", err)
			}
		}
		if took := ended(t, server); took != 10*time.Second {
			t.Errorf("the end mark came after %v", took)
		}
		if err := client.CloseWrite(); err != nil {
			t.Errorf("the end behind the mark: %v", err)
		}
	})
}

func TestEndMarkWaitsForLateAnswer(t *testing.T) {
	overStyles(t, func(t *testing.T, st style) {
		client, server := connectForeign(t, st.client(testID), newTestServer(t, ServerConfig{}))
		_ = client.CloseWrite()
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			time.Sleep(3 * time.Second)
			_, _ = server.Write([]byte("late"))
			time.Sleep(9 * time.Second) // each silence shorter than the patience
			_, _ = server.Write([]byte("later"))
		}()
		begin := time.Now()
		mustRead(t, client, "late")
		mustRead(t, client, "later")
		<-answered
		go func() { _, _ = client.Read(make([]byte, 1)) }()
		ended(t, server)
		if took := time.Since(begin); took != 22*time.Second {
			t.Errorf("the end mark came after %v, want 3 + 9 + 10 s", took)
		}
		_ = server.CloseWrite()
		synctest.Wait()
	})
}

func TestEndMarkReleasedByAnswersEnd(t *testing.T) {
	overStyles(t, func(t *testing.T, st style) {
		for name, end := range map[string]func(server *Conn){
			"end mark": func(server *Conn) { _ = server.CloseWrite() },
			"failure": func(server *Conn) {
				if server.writer.chunks.aead != nil { // a chunk that does not open
					_, _ = server.carrier.Write(make([]byte, 70000))
				} else {
					_ = server.CloseWrite()
				}
			},
		} {
			client, server := connectForeign(t, st.client(testID), newTestServer(t, ServerConfig{}))
			_ = client.CloseWrite()
			time.Sleep(2 * time.Second)
			mustWrite(t, server, "answer")
			mustRead(t, client, "answer")
			end(server)
			_, _ = client.Read(make([]byte, 100))
			if took := ended(t, server); took != 0 {
				t.Errorf("%s: the end mark came %v later", name, took)
			}
		}
	})
}

// A client that ends behind the answer's end has nothing to wait for.
func TestEndMarkAtOnceBehindAnswer(t *testing.T) {
	overStyles(t, func(t *testing.T, st style) {
		client, server := connectForeign(t, st.client(testID), newTestServer(t, ServerConfig{}))
		mustWrite(t, server, "answer")
		_ = server.CloseWrite()
		mustRead(t, client, "answer")
		mustFail(t, client, io.EOF)
		mustWrite(t, client, "more")
		mustRead(t, server, "more")
		_ = client.CloseWrite()
		if took := ended(t, server); took != 0 {
			t.Errorf("the end mark came %v later", took)
		}
	})
}

func TestEndMarkTowardsOwnServer(t *testing.T) {
	overStyles(t, func(t *testing.T, st style) {
		c, s := st.client(testID), newTestServer(t, ServerConfig{})
		first, server := connect(t, c, s)
		mustWrite(t, first, "q")
		mustRead(t, server, "q")
		_ = first.CloseWrite() // nothing is known of the server yet
		time.Sleep(3 * time.Second)
		mustWrite(t, server, "a")
		mustRead(t, first, "a")
		if took := ended(t, server); took != 0 {
			t.Errorf("the end mark came %v behind the first answer", took)
		}
		second, server := connect(t, c, s)
		_ = second.CloseWrite()
		if took := ended(t, server); took != 0 {
			t.Errorf("the second request's end mark came %v later", took)
		}
		time.Sleep(time.Hour) // it waits however long for the answer
		mustWrite(t, server, "late")
		_ = server.CloseWrite()
		mustRead(t, second, "late")
		mustFail(t, second, io.EOF)
	})
}

// What stands behind an address may change: the last answer counts.
func TestEndMarkBehindServerChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, ServerConfig{})
		c := taught(t, gcm.client(testID), s)
		client, server := connectForeign(t, c, s)
		mustWrite(t, server, "x")
		mustRead(t, client, "x")
		_ = client.CloseWrite()
		if took := ended(t, server); took != 10*time.Second {
			t.Errorf("the end mark came after %v", took)
		}
		client, server = connectForeign(t, c, s)
		_ = client.CloseWrite()
		if took := ended(t, server); took != 10*time.Second {
			t.Errorf("the next end mark came after %v", took)
		}
	})
}

func TestCloseSendsHeldEndMark(t *testing.T) {
	overStyles(t, func(t *testing.T, st style) {
		s := newTestServer(t, ServerConfig{})
		client, server := connectForeign(t, st.client(testID), s)
		server.reader.marksEnds = true // to tell an end mark from a mere end
		_ = client.CloseWrite()
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		if took := ended(t, server); took != 0 {
			t.Errorf("the end mark came %v later", took)
		}
		if err := client.Close(); err != nil {
			t.Errorf("the second close: %v", err)
		}
	})
}

// The relay closes as soon as the answer has ended, which is when the end mark
// is on its way.
func TestCloseBehindAnswersEnd(t *testing.T) {
	s := newTestServer(t, ServerConfig{})
	c := gcm.client(testID)
	for range 200 {
		client, server := connectForeign(t, c, s)
		server.reader.marksEnds = true
		_ = client.CloseWrite()
		_ = server.CloseWrite()
		mustFail(t, client, io.EOF)
		_ = client.Close()
		mustFail(t, server, io.EOF)
	}
}

// The end and the first answer may cross.
func TestEndMarkCrossesAnswer(t *testing.T) {
	s := newTestServer(t, ServerConfig{})
	for range 200 {
		near, far := transporttest.Pipe(1 << 16)
		client := dialOver(t, gcm.client(testID), near, "q")
		in, err := s.Accept(t.Context(), far)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() { ended <- client.CloseWrite() }()
		mustWrite(t, in.conn, "a")
		mustRead(t, client, "a")
		if err := <-ended; err != nil {
			t.Fatalf("the end: %v", err)
		}
		mustRead(t, in.conn, "q")
		mustFail(t, in.conn, io.EOF)
		_, _ = client.Close(), in.conn.Close()
	}
}

// So may the end and the last of the patience.
func TestEndMarkCrossesPatience(t *testing.T) {
	for range 500 {
		conn, r := recording(t, NewAccount(AccountConfig{ID: testID, Method: gcm.method, EndPatience: 1}), nil)
		if err := conn.CloseWrite(); err != nil {
			t.Fatalf("the end: %v", err)
		}
		_ = conn.Close()
		if _, p := opened(t, newTestServer(t, ServerConfig{}), bytes.Join(r.writes, nil)); len(p) != 0 {
			t.Fatalf("opened to %d bytes", len(p))
		}
	}
}

func TestResetDropsHeldEndMark(t *testing.T) {
	overStyles(t, func(t *testing.T, st style) {
		client, server := connectForeign(t, st.client(testID), newTestServer(t, ServerConfig{}))
		_ = client.CloseWrite()
		if err := client.Reset(); err != nil {
			t.Fatal(err)
		}
		mustFail(t, server, transporttest.ErrReset)
		time.Sleep(time.Minute) // nothing comes of it later
		if err := client.Close(); err != nil {
			t.Errorf("close behind the reset: %v", err)
		}
	})
}

// An end before anything else was written sends the request, which was held
// back for the first payload.
func TestEndOfEmptyUpload(t *testing.T) {
	overStyles(t, func(t *testing.T, st style) {
		near, far := transporttest.Pipe(1 << 16)
		client := dialOver(t, st.client(testID), near, "")
		defer client.Close()
		begin := time.Now()
		_ = client.CloseWrite()
		server := acceptForeign(t, newTestServer(t, ServerConfig{}), far)
		if took := time.Since(begin); took != 0 {
			t.Errorf("the request came after %v", took)
		}
		if took := ended(t, server); took != 10*time.Second {
			t.Errorf("the end mark came after %v", took)
		}
	})
}

// A carrier that takes nothing cannot hold Close for long.
func TestCloseOnStuckCarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 8 << 10 // holds the request
		near, far := transporttest.Pipe(size)
		client := dialOver(t, gcm.client(testID), near, "q")
		server := acceptForeign(t, newTestServer(t, ServerConfig{}), far)
		mustRead(t, server, "q")
		_ = client.CloseWrite()
		fill := make(chan error)
		go func() { _, err := near.Write(make([]byte, size)); fill <- err }() // the pipe is full
		if err := <-fill; err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		_ = client.Close()
		if took := time.Since(begin); took != time.Second {
			t.Errorf("close took %v", took)
		}
	})
}

func TestPatienceIsConfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewAccount(AccountConfig{ID: testID, Method: gcm.method, EndPatience: 3 * time.Second})
		client, server := connectForeign(t, c, newTestServer(t, ServerConfig{}))
		_ = client.CloseWrite()
		if took := ended(t, server); took != 3*time.Second {
			t.Errorf("the end mark came after %v", took)
		}
	})
}

// The server's side holds nothing back.
func TestServerEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := connect(t, gcm.client(testID), newTestServer(t, ServerConfig{}))
		_ = server.CloseWrite()
		begin := time.Now()
		mustFail(t, client, io.EOF)
		if took := time.Since(begin); took != 0 {
			t.Errorf("the end came after %v", took)
		}
	})
}

func TestAbort(t *testing.T) {
	for _, st := range append(styles(), rawStyles()...) {
		near, far := transporttest.Pipe(1 << 16)
		client := dialOver(t, st.client(testID), near, "q")
		in, err := newTestServer(t, ServerConfig{}).Accept(context.Background(), far)
		if err != nil {
			t.Fatal(err)
		}
		if err := in.Abort(errors.New("refused")); err != nil {
			t.Errorf("%s: abort: %v", st.name, err)
		}
		mustFail(t, client, io.EOF) // an authentic answer of nothing, not ErrNoAnswer
		_ = client.Close()
	}
}

// V2Ray gives up a silent answer a second after our end mark, with or without
// the answer's header: neither is an end that the destination made.
func TestGivenUpIsNoEnd(t *testing.T) {
	for _, e := range []struct {
		name   string
		ends   bool          // the application ended its side
		after  time.Duration // from then to the close
		answer string
		want   error
	}{
		{"given up", true, 11 * time.Second, "", ErrGivenUp},
		{"given up late", true, 20 * time.Second, "", ErrGivenUp},
		{"ended before the mark", true, 9 * time.Second, "", io.EOF},
		{"ended right after it", true, 10900 * time.Millisecond, "", io.EOF},
		{"without a mark", false, 20 * time.Second, "", io.EOF},
		{"with an answer", true, 11 * time.Second, "answer", io.EOF}, // whose end not all mark
	} {
		t.Run(e.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := connectForeign(t, gcm.client(testID), newTestServer(t, ServerConfig{}))
				if e.ends {
					_ = client.CloseWrite()
				}
				mustWrite(t, server, e.answer)
				time.AfterFunc(e.after, func() { _ = server.carrier.Close() })
				mustRead(t, client, e.answer)
				_, err := client.Read(make([]byte, 1))
				if !errors.Is(err, e.want) || e.want == io.EOF && err != io.EOF {
					t.Errorf("ended with %v, want %v", err, e.want)
				}
			})
		})
	}
}
