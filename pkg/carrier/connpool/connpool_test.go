package connpool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// far is an endpoint whose far ends the test holds.
type far struct {
	mu    sync.Mutex
	peers []*transporttest.Conn
	first []string
	err   error
	takes time.Duration
}

func (f *far) ConnectStream(ctx context.Context, first []byte) (transport.StreamConn, error) {
	select {
	case <-time.After(f.takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	a, b := transporttest.Pipe(1 << 16)
	f.peers = append(f.peers, b)
	f.first = append(f.first, string(first))
	_, _ = a.Write(first)
	return a, nil
}

// made returns the far end of the oldest stream that was made with these first
// bytes: none, when it was made ahead.
func (f *far) made(first string) *transporttest.Conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, s := range f.first {
		if s == first {
			return f.peers[i]
		}
	}
	return nil
}

func (f *far) count() int { f.mu.Lock(); defer f.mu.Unlock(); return len(f.peers) }

func connect(t *testing.T, p *Pool, first string) transport.StreamConn {
	t.Helper()
	c, err := p.ConnectStream(t.Context(), []byte(first))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func expect(t *testing.T, p *Pool, want Stats) {
	t.Helper()
	synctest.Wait()
	if got := p.Stats(); got != want {
		t.Fatalf("stats %+v, want %+v", got, want)
	}
}

func TestSecondConnectionIsWarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &far{takes: 100 * time.Millisecond}
		p := NewPool(f, Options{Max: 8, Idle: 45 * time.Second})
		expect(t, p, Stats{})
		cold := connect(t, p, "one")
		time.Sleep(time.Second)
		expect(t, p, Stats{Ready: 1})
		if !p.Ready() {
			t.Fatal("not ready")
		}
		start := time.Now()
		warm := connect(t, p, "two")
		if took := time.Since(start); took != 0 {
			t.Errorf("a warm connection took %v", took)
		}
		peer := f.made("")
		buf := make([]byte, 3)
		if _, err := io.ReadFull(peer, buf); err != nil || string(buf) != "two" {
			t.Fatalf("the far end read %q, %v", buf, err)
		}
		_, _ = peer.Write([]byte("answer"))
		_ = peer.CloseWrite()
		if all, err := io.ReadAll(warm); string(all) != "answer" || err != nil {
			t.Fatalf("read %q, %v", all, err)
		}
		_, _ = warm.Close(), cold.Close()
		time.Sleep(time.Second)
		_ = p.Close()
		expect(t, p, Stats{Used: 1, Wasted: 1})
	})
}

func TestExpect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &far{}
		p := NewPool(f, Options{Max: 8, Idle: 45 * time.Second})
		p.Prefetch()
		expect(t, p, Stats{Ready: 1})
		_ = p.Close()
		p.Prefetch()
		expect(t, p, Stats{Wasted: 1})
		off := NewPool(f, Options{Idle: 45 * time.Second})
		off.Prefetch()
		expect(t, off, Stats{})
		_ = off.Close()
	})
}

func TestNoneWithoutDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &far{}
		p := NewPool(f, Options{Max: 8, Idle: 45 * time.Second})
		c := connect(t, p, "")
		expect(t, p, Stats{Ready: 1})
		time.Sleep(46 * time.Second)
		expect(t, p, Stats{Wasted: 1})
		if f.count() != 2 {
			t.Errorf("%d streams were made, want 2", f.count())
		}
		_ = c.Close()
		_ = p.Close()
	})
}

func TestFollowsDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &far{}
		p := NewPool(f, Options{Max: 4, Idle: 45 * time.Second})
		var all []transport.StreamConn
		for range 30 {
			all = append(all, connect(t, p, "x"))
		}
		synctest.Wait()
		if s := p.Stats(); s.Ready != 4 {
			t.Errorf("%d ready after a burst, want 4", s.Ready)
		}
		for _, c := range all {
			_ = c.Close()
		}
		_ = p.Close()
	})
}

func TestDeadOnesAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &far{}
		p := NewPool(f, Options{Max: 8, Idle: 45 * time.Second})
		c := connect(t, p, "x")
		expect(t, p, Stats{Ready: 1})
		time.Sleep(20 * time.Second)
		_ = f.made("").Close() // the server ends the ready one
		expect(t, p, Stats{Wasted: 1})
		d := connect(t, p, "y")
		synctest.Wait()
		time.Sleep(17 * time.Second) // four fifths of 20 s: what was learnt
		expect(t, p, Stats{Wasted: 2})
		_, _ = c.Close(), d.Close()
		_ = p.Close()
	})
}

func TestFailedFirstWriteConnectsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, made := &far{}, new(atomic.Bool)
		p := NewPool(transport.EndpointFunc(func(ctx context.Context, first []byte) (transport.StreamConn, error) {
			c, err := f.ConnectStream(ctx, first)
			if len(first) == 0 && made.CompareAndSwap(false, true) {
				// The first that is made ahead, whose end was not seen yet.
				c = breaking{c.(*transporttest.Conn), errors.New("broken pipe")}
			}
			return c, err
		}), Options{Max: 1, Idle: 45 * time.Second})
		a := connect(t, p, "one")
		synctest.Wait()
		b := connect(t, p, "two")
		synctest.Wait()
		f.mu.Lock()
		found := 0
		for _, first := range f.first {
			if first == "two" {
				found++
			}
		}
		f.mu.Unlock()
		if found != 1 {
			t.Errorf("the request was delivered %d times", found)
		}
		_, _ = a.Close(), b.Close()
		_ = p.Close()
	})
}

// TestPartSentIsNotSentAgain: a stream that broke when a part of a request had
// gone out may have brought it to somebody who acted upon it.
func TestPartSentIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &far{}
		part := fmt.Errorf("reset (%w)", transport.ErrPartSent)
		p := NewPool(f, Options{Max: 1, Idle: 45 * time.Second, Ahead: transport.EndpointFunc(
			func(ctx context.Context, first []byte) (transport.StreamConn, error) {
				c, err := f.ConnectStream(ctx, first)
				return breaking{c.(*transporttest.Conn), part}, err
			})})
		a := connect(t, p, "one")
		synctest.Wait()
		before := f.count()
		if _, err := p.ConnectStream(t.Context(), []byte("two")); !errors.Is(err, part) {
			t.Errorf("a request of which a part was sent: %v", err)
		}
		synctest.Wait()
		if f.made("two") != nil || f.count() > before+1 { // which is ready for the next
			t.Error("it was sent again")
		}
		_ = a.Close()
		_ = p.Close()
	})
}

// breaking fails its writes.
type breaking struct {
	*transporttest.Conn
	err error
}

func (b breaking) Write([]byte) (int, error) { return 0, b.err }

func TestServerThatWantsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &far{}
		p := NewPool(f, Options{Max: 8, Idle: 45 * time.Second})
		a := connect(t, p, "x")
		synctest.Wait()
		_ = f.made("").Close() // at once
		expect(t, p, Stats{Wasted: 1})
		b := connect(t, p, "x")
		expect(t, p, Stats{Wasted: 1}) // none is made for a minute
		time.Sleep(61 * time.Second)
		c := connect(t, p, "x")
		expect(t, p, Stats{Ready: 1, Wasted: 1})
		_, _, _ = a.Close(), b.Close(), c.Close()
		_ = p.Close()
	})
}

// TestLifeGrowsAgain: a server that closed ready streams early once, as by a
// restart, gets ready streams that live as long as before after a while. One
// that always closes them is not tried often.
func TestLifeGrowsAgain(t *testing.T) {
	lifeOf := func(t *testing.T, f *far, p *Pool) time.Duration {
		made := f.count()
		c := connect(t, p, "x")
		defer c.Close()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if n := p.Stats().Ready; n != 1 {
			t.Fatalf("%d ready, %d made", n, f.count()-made)
		}
		start := time.Now()
		for p.Ready() {
			time.Sleep(100 * time.Millisecond)
		}
		return time.Since(start).Round(time.Second)
	}
	t.Run("after a restart", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &far{}
			p := NewPool(f, Options{Max: 1, Idle: 45 * time.Second})
			defer p.Close()
			defer connect(t, p, "first").Close()
			synctest.Wait()
			_ = f.made("").Close() // it restarts
			expect(t, p, Stats{Wasted: 1})
			time.Sleep(2 * restPause)
			var lives []time.Duration
			for range 10 {
				lives = append(lives, lifeOf(t, f, p))
			}
			if lives[0] > 2*time.Second || lives[9] != 45*time.Second {
				t.Errorf("streams lived %v", lives)
			}
		})
	})
	t.Run("cut after 10 s each time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &far{}
			p := NewPool(f, Options{Max: 1, Idle: 45 * time.Second})
			defer p.Close()
			ended, start := 0, time.Now()
			for range 60 {
				c := connect(t, p, "x")
				synctest.Wait()
				last := f.peers[f.count()-1]
				made := time.Now()
				for p.Ready() {
					time.Sleep(100 * time.Millisecond)
					if time.Since(made) == 10*time.Second {
						ended++
						_ = last.Close()
						synctest.Wait()
					}
				}
				_ = c.Close()
			}
			if minutes := int(time.Since(start) / time.Minute); ended > minutes+1 || ended < 2 {
				t.Errorf("%d were cut in %d minutes", ended, minutes)
			}
		})
	})
}

func TestOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &far{}
		p := NewPool(f, Options{Max: 0, Idle: time.Minute})
		a := connect(t, p, "x")
		expect(t, p, Stats{})
		_ = a.Close()
		_ = p.Close()
	})
}

func TestFailuresAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &far{err: errors.New("no way")}
		p := NewPool(f, Options{Max: 8, Idle: time.Minute})
		if _, err := p.ConnectStream(t.Context(), nil); !errors.Is(err, f.err) {
			t.Fatalf("got %v", err)
		}
		expect(t, p, Stats{})
		f.mu.Lock()
		f.err, f.takes = nil, time.Hour
		f.mu.Unlock()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := p.ConnectStream(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		_ = p.Close() // ends the hour-long making of one
		expect(t, p, Stats{})
	})
}

// TestDrop: after it no stream from before is handed out, neither one that was
// ready nor one that was being made.
func TestDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &far{takes: 100 * time.Millisecond}
		p := NewPool(f, Options{Max: 8, Idle: 45 * time.Second})
		p.Prefetch()
		time.Sleep(time.Second)
		expect(t, p, Stats{Ready: 1})
		p.Prefetch()
		p.Prefetch() // one more is being made
		synctest.Wait()
		p.Drop()
		expect(t, p, Stats{Wasted: 1})
		time.Sleep(time.Second)
		expect(t, p, Stats{Wasted: 1})
		p.Prefetch()
		time.Sleep(time.Second)
		if !p.Ready() {
			t.Error("none are made any more")
		}
		_ = p.Close()
	})
}

// TestSleep: streams that this computer slept through are not handed out, though
// their timers stood still meanwhile.
func TestSleep(t *testing.T) {
	for name, tt := range map[string]struct {
		slept time.Duration
		good  bool
	}{
		"a nap": {30 * time.Second, true}, "a night": {8 * time.Hour, false}, "the clock is put back": {-time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var slept atomic.Int64
				f := &far{takes: 100 * time.Millisecond}
				p := NewPool(f, Options{Max: 1, Idle: 45 * time.Second, Now: func() time.Time {
					return time.Now().Add(time.Duration(slept.Load()))
				}})
				p.Prefetch()
				time.Sleep(time.Second)
				expect(t, p, Stats{Ready: 1})
				slept.Store(int64(tt.slept))
				if p.Ready() != tt.good {
					t.Errorf("ready: %v", p.Ready())
				}
				c := connect(t, p, "x")
				if f.made("x") == nil != tt.good {
					t.Errorf("the old one was used: %v", !tt.good)
				}
				synctest.Wait()
				if wasted := p.Stats().Wasted; wasted > 0 == tt.good {
					t.Errorf("%d were wasted", wasted)
				}
				_ = c.Close()
				_ = p.Close()
			})
		})
	}
}

// silentConn is a stream that a ping finds unanswered while silent is set.
type silentConn struct {
	*transporttest.Conn
	silent *atomic.Bool
}

func (c silentConn) PingOverdue() bool { return c.silent.Load() }

// TestPingOverdue: a ready stream on which a ping stays unanswered is passed over,
// and handed out once the far end has answered.
func TestPingOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, silent := &far{}, new(atomic.Bool)
		p := NewPool(f, Options{Max: 1, Idle: 45 * time.Second, Ahead: transport.EndpointFunc(
			func(ctx context.Context, first []byte) (transport.StreamConn, error) {
				c, err := f.ConnectStream(ctx, first)
				if err != nil {
					return nil, err
				}
				return silentConn{c.(*transporttest.Conn), silent}, nil
			})})
		p.Prefetch()
		expect(t, p, Stats{Ready: 1})
		silent.Store(true)
		if p.Ready() {
			t.Error("a silent stream counts as ready")
		}
		a := connect(t, p, "new")
		if f.made("new") == nil {
			t.Error("the silent stream was handed out")
		}
		expect(t, p, Stats{Ready: 1})
		silent.Store(false)
		if !p.Ready() {
			t.Error("not ready after the answer")
		}
		b := connect(t, p, "ready")
		if f.made("ready") != nil {
			t.Error("the stream was not handed out after the answer")
		}
		expect(t, p, Stats{Ready: 1, Used: 1})
		_, _ = a.Close(), b.Close()
		_ = p.Close()
	})
}
