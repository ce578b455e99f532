package relay_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport/relay"
	"vmess-local/pkg/transport/transporttest"
)

// counting counts the writes to a stream.
type counting struct {
	*transporttest.Conn
	writes int
}

func (c *counting) Write(p []byte) (int, error) { c.writes++; return c.Conn.Write(p) }

// A stream that comes in small pieces is carried in few large ones.
func TestRelayGathersPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, app := transporttest.Pipe(1 << 20)
		remote, far := transporttest.Pipe(1 << 20)
		counted := &counting{Conn: local}
		done := make(chan relay.Outcome, 1)
		go func() { done <- relay.Relay{}.Run(context.Background(), counted, remote) }()
		const pieces = 1000
		for range pieces {
			_, _ = far.Write(make([]byte, 2048))
			time.Sleep(50 * time.Microsecond)
		}
		_ = far.CloseWrite()
		_ = app.CloseWrite()
		if all, err := io.ReadAll(app); len(all) != pieces*2048 || err != nil {
			t.Fatalf("%d bytes arrived, %v", len(all), err)
		}
		if o := <-done; o.Err() != nil {
			t.Fatal(o.Err())
		}
		if counted.writes > pieces/5 {
			t.Errorf("%d writes for %d pieces", counted.writes, pieces)
		}
	})
}

// What comes alone, or in answer to something, is never held up.
func TestRelayHoldsNothingUp(t *testing.T) {
	for name, answered := range map[string]bool{"slow pieces": false, "conversation": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				local, app := transporttest.Pipe(1 << 20)
				remote, far := transporttest.Pipe(1 << 20)
				done := make(chan relay.Outcome, 1)
				go func() { done <- relay.Relay{}.Run(context.Background(), local, remote) }()
				p := make([]byte, 4096)
				for i := range 200 {
					start := time.Now()
					_, _ = far.Write(p)
					if _, err := io.ReadFull(app, p); err != nil {
						t.Fatal(err)
					}
					if answered {
						_, _ = app.Write([]byte("more"))
						if _, err := io.ReadFull(far, p[:4]); err != nil {
							t.Fatal(err)
						}
					}
					if took := time.Since(start); took != 0 {
						t.Fatalf("piece %d took %v", i, took)
					}
					if !answered {
						time.Sleep(3 * time.Millisecond)
					}
				}
				_ = far.CloseWrite()
				_ = app.CloseWrite()
				<-done
			})
		})
	}
}

// portioned gives at most 4 KiB a read, as TLS gives one record.
type portioned struct{ *transporttest.Conn }

func (p portioned) Read(b []byte) (int, error) { return p.Conn.Read(b[:min(len(b), 4096)]) }

// Where waiting makes no piece larger, it is given up.
func TestRelayDoesNotWaitInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, app := transporttest.Pipe(64 << 20)
		remote, far := transporttest.Pipe(64 << 20)
		_, _ = far.Write(make([]byte, 8<<20))
		_ = far.CloseWrite()
		_ = app.CloseWrite()
		start := time.Now()
		if o := (relay.Relay{}).Run(context.Background(), local, portioned{remote}); o.Err() != nil || o.Down != 8<<20 {
			t.Fatalf("%+v", o)
		}
		if took := time.Since(start); took > 5*time.Millisecond {
			t.Errorf("8 MiB in pieces of 4 KiB took %v of waiting", took)
		}
	})
}

// What is full says nothing of the pieces between: they are gathered all the
// same.
func TestRelayGathersBetweenBursts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, app := transporttest.Pipe(64 << 20)
		remote, far := transporttest.Pipe(64 << 20)
		counted := &counting{Conn: local}
		done := make(chan relay.Outcome, 1)
		go func() { done <- relay.Relay{}.Run(context.Background(), counted, remote) }()
		const bursts, size = 500, 64 << 10
		for range bursts {
			_, _ = far.Write(make([]byte, size))
			time.Sleep(50 * time.Microsecond)
		}
		_ = far.CloseWrite()
		_ = app.CloseWrite()
		if all, err := io.ReadAll(app); len(all) != bursts*size || err != nil {
			t.Fatalf("%d bytes arrived, %v", len(all), err)
		}
		if o := <-done; o.Err() != nil {
			t.Fatal(o.Err())
		}
		if counted.writes > bursts*13/10 {
			t.Errorf("%d writes for %d bursts of 64 KiB", counted.writes, bursts)
		}
	})
}

// released gives at most 4 KiB a read until so many were read, and then all.
type released struct {
	*transporttest.Conn
	portions int
}

func (r *released) Read(b []byte) (int, error) {
	if r.portions > 0 {
		r.portions--
		b = b[:min(len(b), 4096)]
	}
	return r.Conn.Read(b)
}

// Waiting in vain once, as when the far end was not scheduled, does not end
// the gathering for good.
func TestRelayGathersAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, app := transporttest.Pipe(64 << 20)
		remote, far := transporttest.Pipe(64 << 20)
		counted := &counting{Conn: local}
		done := make(chan relay.Outcome, 1)
		go func() {
			done <- relay.Relay{}.Run(context.Background(), counted, &released{Conn: remote, portions: 100})
		}()
		const pieces = 10000
		for range pieces {
			_, _ = far.Write(make([]byte, 4096))
			time.Sleep(50 * time.Microsecond)
		}
		_ = far.CloseWrite()
		_ = app.CloseWrite()
		if all, err := io.ReadAll(app); len(all) != pieces*4096 || err != nil {
			t.Fatalf("%d bytes arrived, %v", len(all), err)
		}
		<-done
		if counted.writes > pieces/5 {
			t.Errorf("%d writes for %d pieces", counted.writes, pieces)
		}
	})
}

// windowed is a stream whose far end sends so much at most until it is read:
// all of it at once, and one piece a read.
type windowed struct {
	*transporttest.Conn
	left, window int
	at           int
}

func (w *windowed) WaitRead() error { return nil }

func (w *windowed) Read(b []byte) (int, error) {
	if w.left == 0 {
		return 0, io.EOF
	}
	if w.at == w.window { // drained: the far end needs a moment
		w.at = 0
		time.Sleep(20 * time.Microsecond)
	}
	n := min(len(b), 4096, w.left)
	if w.at > 0 {
		n = min(2*n, len(b), w.window-w.at, w.left)
	}
	w.left -= n
	w.at += n
	return n, nil
}

// Where waiting makes the pieces larger and the stream slower, it is given up,
// too.
func TestRelayDoesNotSlowDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, app := transporttest.Pipe(64 << 20)
		remote, _ := transporttest.Pipe(64 << 20)
		_ = app.CloseWrite()
		const size, window = 32 << 20, 12 << 10
		w := &windowed{Conn: remote, left: size, window: window}
		start := time.Now()
		if o := (relay.Relay{}).Run(context.Background(), local, w); o.Err() != nil || o.Down != size {
			t.Fatalf("%+v", o)
		}
		if took, least := time.Since(start), size/window*20*time.Microsecond; took > 2*least {
			t.Errorf("took %v, without waiting %v", took, least)
		}
	})
}
