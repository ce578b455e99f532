package main

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// way is one direction through delayed, under fake time.
type way struct {
	in, out net.Conn // the test's ends
	ended   chan error
	began   time.Time
}

func newWay(t *testing.T, delay, connecting time.Duration) *way {
	t.Helper()
	in, src := net.Pipe()
	dst, out := net.Pipe()
	w := &way{in, out, make(chan error, 1), time.Now()}
	go func() {
		err := delayed(dst, src, delay, w.began.Add(connecting))
		_ = dst.Close()
		w.ended <- err
	}()
	return w
}

func (w *way) send(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(w.in, text); err != nil {
		t.Fatal(err)
	}
}

// expect reads text and holds that it comes just then, counted from the start.
func (w *way) expect(t *testing.T, text string, at time.Duration) {
	t.Helper()
	got := make([]byte, len(text))
	if err := readFull(w.out, got); err != nil {
		t.Fatal(err)
	}
	if string(got) != text || time.Since(w.began) != at {
		t.Errorf("got %q after %v, want %q after %v", got, time.Since(w.began), text, at)
	}
}

func TestDelayed(t *testing.T) {
	const delay, connecting = 50 * time.Millisecond, 100 * time.Millisecond
	t.Run("connecting, then pieces that travel together", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWay(t, delay, connecting)
			w.send(t, "first")
			w.expect(t, "first", connecting+delay)
			w.send(t, "second")
			time.Sleep(20 * time.Millisecond)
			w.send(t, "third")
			w.expect(t, "second", connecting+2*delay)
			w.expect(t, "third", connecting+2*delay+20*time.Millisecond)
			_ = w.in.Close()
			if _, err := w.out.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("behind the last piece: %v, want the end", err)
			}
			if took := time.Since(w.began); took != connecting+3*delay+20*time.Millisecond {
				t.Errorf("the end came after %v", took)
			}
			if err := <-w.ended; err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("a reader that is gone ends the writer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWay(t, delay, 0)
			_ = w.out.Close()
			w.send(t, "lost")
			if err := <-w.ended; !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("got %v, want that the pipe is closed", err)
			}
			if _, err := w.in.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("the writer goes on: %v", err)
			}
		})
	})
	t.Run("what waits is bounded", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWay(t, time.Hour, 0)
			_ = w.in.SetWriteDeadline(time.Now().Add(time.Minute))
			sent := 0
			for ; sent < 10*delayQueue; sent++ {
				if _, err := w.in.Write([]byte("x")); err != nil {
					break
				}
			}
			if sent < delayQueue || sent > delayQueue+2 {
				t.Errorf("%d pieces were taken, want about %d", sent, delayQueue)
			}
			_ = w.in.Close()
			_ = w.out.Close()
			<-w.ended
		})
	})
}

// TestDistance goes through real sockets: a question and its answer are
// delayed, and the end passes.
func TestDistance(t *testing.T) {
	o, err := newOrigins()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	const oneWay = 10 * time.Millisecond
	d, err := newDistance(o.source, oneWay)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c, err := dialTCP(d.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, least := range []time.Duration{4 * oneWay, 2 * oneWay} { // the first connects
		start := time.Now()
		if err := writeLength(c, 100*kib); err != nil {
			t.Fatal(err)
		}
		if err := readMany(c, 100*kib); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < least {
			t.Errorf("the answer came after %v, want %v at the least", took, least)
		}
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}
}
