package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/transporttest"
)

func TestEcho(t *testing.T) {
	l := newLab(t)
	c := l.open(t, "hello")
	mustRead(t, c, "hello")
	mustWrite(t, c, " world")
	mustRead(t, c, " world")
	if n := l.dialled.Load(); n != 1 {
		t.Errorf("%d tunnels", n)
	}
}

// A New that has nothing to carry yet waits for the first Write.
func TestNewIsHeldBack(t *testing.T) {
	l := newLab(t)
	var flights []string
	l.Client.Dial = func(ctx context.Context, first []byte) (transport.StreamConn, error) {
		flights = append(flights, string(first))
		return l.dial(ctx, first)
	}
	c := l.open(t, "")
	if len(flights) != 1 || flights[0] != "" {
		t.Fatalf("flights %q", flights)
	}
	mustWrite(t, c, "x")
	mustRead(t, c, "x")

	l.Client.Concurrency = 1
	long := strings.Repeat("long", 30<<10)
	d := l.open(t, long)
	mustRead(t, d, long)
	first, _ := NewReader(strings.NewReader(flights[1])).Next()
	want := Frame{Session: 1, Status: StatusNew, Network: NetworkTCP, Address: addr(t, "example.com:80"), HasData: true}
	if first != want || len(flights[1]) < 32<<10 {
		t.Errorf("the first flight, of %d bytes, begins with %+v", len(flights[1]), first)
	}
}

func TestWriteOfNoBytesOpens(t *testing.T) {
	l := newLab(t)
	l.hand()
	c := l.open(t, "")
	mustWrite(t, c, "")
	s := <-l.streams
	mustWrite(t, s, "banner")
	mustRead(t, c, "banner")
}

// The session contract as far as Mux.Cool goes: an End is that of both
// directions, so nothing can follow it.
func TestContract(t *testing.T) {
	pair := func(t *testing.T) (a, b transport.StreamConn) {
		l := newLab(t)
		l.hand()
		l.Client.EndPatience = 50 * time.Millisecond
		c := l.open(t, "")
		mustWrite(t, c, "")
		return c, <-l.streams
	}
	transporttest.TestStream(t, func(t *testing.T) (a, b transport.StreamConn) {
		if strings.Contains(t.Name(), "half_close") {
			t.Skip("Mux.Cool has no half close")
		}
		return pair(t)
	})
}

func TestManySessions(t *testing.T) {
	l := newLab(t)
	const sessions, parallel = 200, 40
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallel)
	errs := make(chan error, sessions)
	for i := range sessions {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			c, err := l.Client.DialStream(context.Background(), addr(t, "example.com:80"), nil)
			if err != nil {
				errs <- err
				return
			}
			defer c.Close()
			if err := exchange(c, 100<<10+i, uint64(i)); err != nil {
				errs <- fmt.Errorf("session %d: %w", i, err)
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if n := l.dialled.Load(); n < parallel/DefaultConcurrency || n > sessions/4 {
		t.Errorf("%d tunnels", n)
	}
}

func TestConcurrency(t *testing.T) {
	l := newLab(t)
	l.Client.Concurrency = 3
	for range 7 {
		mustRead(t, l.open(t, "x"), "x")
	}
	if n := l.dialled.Load(); n != 3 {
		t.Errorf("%d tunnels for 7 sessions, 3 each", n)
	}
}

// Sessions that come while a tunnel is being dialled share it, and its failure.
func TestSharedDial(t *testing.T) {
	l := newLab(t)
	hold := make(chan struct{})
	l.Client.Dial = func(ctx context.Context, first []byte) (transport.StreamConn, error) {
		select {
		case <-hold:
			return l.dial(ctx, first)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := l.Client.DialStream(ctx, addr(t, "example.com:80"), []byte("given up"))
		first <- err
	}()
	waiting := func(n int) func() bool {
		return func() bool {
			l.Client.mu.Lock()
			defer l.Client.mu.Unlock()
			return len(l.Client.tunnels) == 1 && l.Client.tunnels[0].live() == n
		}
	}
	eventually(t, "the first waits", waiting(1))
	others := make(chan error, 5)
	for range cap(others) {
		go func() {
			c, err := l.Client.DialStream(t.Context(), addr(t, "example.com:80"), []byte("x"))
			if err == nil {
				_, err = io.ReadFull(c, make([]byte, 1))
				_ = c.Close()
			}
			others <- err
		}()
	}
	eventually(t, "all wait", waiting(6))
	cancel() // which is none of the others' business
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	close(hold)
	for range cap(others) {
		if err := <-others; err != nil {
			t.Error(err)
		}
	}
	if n := l.dialled.Load(); n != 1 {
		t.Errorf("%d tunnels", n)
	}
}

func TestDialFails(t *testing.T) {
	l := newLab(t)
	l.refuse = errors.New("no way")
	if _, err := l.Client.DialStream(t.Context(), addr(t, "example.com:80"), nil); !errors.Is(err, l.refuse) {
		t.Errorf("%v", err)
	}
	l.refuse = nil
	mustRead(t, l.open(t, "x"), "x")
	_ = l.Client.Close()
	if _, err := l.Client.DialStream(t.Context(), addr(t, "example.com:80"), nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestTunnelBreaks(t *testing.T) {
	l := newLab(t)
	var conns []transport.StreamConn
	for range 5 {
		conns = append(conns, l.open(t, "x"))
	}
	for _, c := range conns {
		mustRead(t, c, "x")
	}
	_ = l.ends[0].Reset()
	var cause *TunnelError
	for i, c := range conns {
		_, err := c.Read(make([]byte, 1))
		var broken *TunnelError
		if !errors.As(err, &broken) || cause != nil && broken != cause {
			t.Errorf("session %d reads %v", i, err)
		}
		cause = broken
		if _, err := c.Write([]byte("y")); err != error(cause) {
			t.Errorf("session %d writes: %v", i, err)
		}
	}
	mustRead(t, l.open(t, "again"), "again")
	if n := l.dialled.Load(); n != 2 {
		t.Errorf("%d tunnels", n)
	}
}

// What had arrived when the tunnel stopped taking bytes is read first, and an
// orderly end of the tunnel is none of a session.
func TestTunnelEnds(t *testing.T) {
	far := make(chan *transporttest.Conn, 1)
	c := &Client{Dial: func(_ context.Context, first []byte) (transport.StreamConn, error) {
		a, b := transporttest.Pipe(1 << 20)
		far <- b
		_, err := a.Write(first)
		return a, err
	}}
	defer c.Close()
	conn, err := c.DialStream(t.Context(), addr(t, "example.com:80"), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	server := <-far
	keep := Frame{Session: 1, Status: StatusKeep, HasData: true}
	mustWrite(t, server, string(keep.Append(nil, []byte("answer"))))
	_ = server.CloseWrite()
	mustRead(t, conn, "answer")
	if _, err := conn.Read(make([]byte, 1)); !errors.As(err, new(*TunnelError)) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
	_ = server.Close()
}

func TestSessionEnds(t *testing.T) {
	for _, failed := range []bool{false, true} {
		l := newLab(t)
		l.hand()
		c := l.open(t, "x")
		s := <-l.streams
		mustWrite(t, s, "the whole answer")
		want, write := io.EOF, ErrEnded
		if failed {
			_ = transport.Reset(s)
			want, write = ErrFailed, ErrFailed
		} else {
			_ = s.CloseWrite()
		}
		mustRead(t, c, "the whole answer")
		if _, err := c.Read(make([]byte, 1)); err != want {
			t.Errorf("read: %v, want %v", err, want)
		}
		if _, err := c.Write([]byte("y")); err != write {
			t.Errorf("write: %v, want %v", err, write)
		}
		if err := c.CloseWrite(); err != nil {
			t.Errorf("CloseWrite: %v", err)
		}
	}
}

func TestLifeOf128(t *testing.T) {
	l := newLab(t)
	long := l.open(t, "long")
	mustRead(t, long, "long")
	for range maxSessions {
		c := l.open(t, "x")
		mustRead(t, c, "x")
		_ = c.Close()
	}
	if n := l.dialled.Load(); n != 2 {
		t.Errorf("%d tunnels for %d sessions", n, maxSessions+1)
	}
	mustWrite(t, long, "still")
	mustRead(t, long, "still")
	_ = long.Close() // and its tunnel with it
	l.mu.Lock()
	used := l.ends[0]
	l.mu.Unlock()
	eventually(t, "the used up tunnel is closed", func() bool {
		_, err := used.Write(nil)
		return err != nil || func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.errs) == 1 }()
	})
}

// TestRetire: a retired tunnel goes on with the sessions it has, and gets none.
func TestRetire(t *testing.T) {
	l := newLab(t)
	old := l.open(t, "old")
	mustRead(t, old, "old")
	l.Client.Retire()
	for range 2 {
		mustRead(t, l.open(t, "new"), "new")
	}
	if n := l.dialled.Load(); n != 2 {
		t.Errorf("%d tunnels, want the retired one and one for both sessions after it", n)
	}
	mustWrite(t, old, "still")
	mustRead(t, old, "still")
}

// agingConn is a tunnel whose cipher may be half used up.
type agingConn struct {
	transport.StreamConn
	old atomic.Bool
}

func (c *agingConn) NearNonceLimit() bool { return c.old.Load() }

// A tunnel that has used up half of its nonces gets no further sessions; those
// that it has go on, and it is closed behind them.
func TestTunnelNearNonceLimit(t *testing.T) {
	l := newLab(t)
	var tunnels []*agingConn
	l.Client.Dial = func(ctx context.Context, first []byte) (transport.StreamConn, error) {
		c, err := l.dial(ctx, first)
		tunnels = append(tunnels, &agingConn{StreamConn: c})
		return tunnels[len(tunnels)-1], err
	}
	old := l.open(t, "old")
	mustRead(t, old, "old")
	mustRead(t, l.open(t, "same"), "same")
	if len(tunnels) != 1 {
		t.Fatalf("%d tunnels before", len(tunnels))
	}
	tunnels[0].old.Store(true)
	for range 2 {
		mustRead(t, l.open(t, "new"), "new")
	}
	if len(tunnels) != 2 {
		t.Errorf("%d tunnels, want the old one and one for both sessions after it", len(tunnels))
	}
	mustWrite(t, old, "still")
	mustRead(t, old, "still")
}

func TestIdleTunnelIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		served := func() int { l.mu.Lock(); defer l.mu.Unlock(); return len(l.errs) }
		c := l.open(t, "x")
		mustRead(t, c, "x")
		time.Sleep(time.Hour)
		mustWrite(t, c, "y") // a session keeps it
		mustRead(t, c, "y")
		_ = c.Close()
		time.Sleep(10 * time.Second)
		d := l.open(t, "z")
		mustRead(t, d, "z")
		if n := l.dialled.Load(); n != 1 {
			t.Fatalf("%d tunnels", n)
		}
		_ = d.Close()
		time.Sleep(minIdle - time.Millisecond)
		synctest.Wait()
		if served() != 0 {
			t.Fatal("closed too early")
		}
		time.Sleep(minIdle + time.Millisecond)
		synctest.Wait()
		if served() != 1 || l.errs[0] != nil {
			t.Fatalf("Serve returned %v", l.errs)
		}
		l.close()
	})
}

// A client's end waits for the answer, and for a silent one not for ever.
func TestEndIsHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.hand()
		c := l.open(t, "question")
		s := <-l.streams
		mustRead(t, s, "question")
		_ = c.CloseWrite()
		if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after CloseWrite: %v", err)
		}
		for range 3 { // signs of life
			time.Sleep(endPatience - time.Second)
			mustWrite(t, s, "answer")
			mustRead(t, c, "answer")
		}
		start := time.Now()
		if _, err := s.Read(make([]byte, 1)); err != io.EOF || time.Since(start) != endPatience {
			t.Errorf("the server read %v after %v", err, time.Since(start))
		}
		if _, err := c.Read(make([]byte, 1)); err != ErrSilent {
			t.Errorf("the client read %v", err)
		}
		l.close()
	})
}

func TestEndIsNotHeldBackByClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.hand()
		c := l.open(t, "question")
		s := <-l.streams
		_ = c.CloseWrite()
		_ = c.Close()
		start := time.Now()
		if p, err := io.ReadAll(s); string(p) != "question" || err != nil || time.Since(start) != 0 {
			t.Errorf("%q, %v after %v", p, err, time.Since(start))
		}
		l.close()
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.hand()
		c := l.open(t, "x")
		s := <-l.streams
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		_ = c.SetReadDeadline(time.Time{})
		mustWrite(t, s, "later")
		mustRead(t, c, "later")

		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := c.Write(make([]byte, 10<<20)) // nobody reads
		if !errors.Is(err, os.ErrDeadlineExceeded) || n < sessionBlocks*blockSize || n > sessionBlocks*blockSize+5*transport.BufferSize {
			t.Errorf("wrote %d, %v", n, err)
		}
		l.close()
	})
}

// A session that nobody reads costs a bounded amount of memory, holds up the
// others for a bounded time, and gets no company meanwhile.
func TestSlowSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.hand()
		slow := l.open(t, "slow")
		far := <-l.streams
		other := l.open(t, "other")
		otherFar := <-l.streams
		wrote := make(chan error, 1)
		go func() {
			_, err := far.Write(make([]byte, 64<<20))
			wrote <- err
		}()
		synctest.Wait()
		tunnel := l.Client.tunnels[0]
		if n := tunnel.held.Load(); n != sessionBlocks {
			t.Errorf("%d blocks are held, want %d", n, sessionBlocks)
		}
		start := time.Now()
		mustWrite(t, otherFar, "patience")
		third := l.open(t, "third")
		if n := l.dialled.Load(); n != 2 {
			t.Errorf("%d tunnels", n)
		}
		mustRead(t, <-l.streams, "third")
		mustRead(t, other, "patience")
		if took := time.Since(start); took != stallLimit {
			t.Errorf("the other waited for %v", took)
		}
		if _, err := slow.Read(make([]byte, 1)); err != ErrStuck {
			t.Errorf("the slow one reads %v", err)
		}
		if err := <-wrote; err != ErrFailed {
			t.Errorf("its far end: %v", err)
		}
		if n := tunnel.held.Load(); n != 0 {
			t.Errorf("%d blocks are held in the end", n)
		}
		_ = third
		l.close()
	})
}

// A destination that takes nothing while other sessions wait: the server ends its
// session and marks why, so that it does not pass for one that failed.
func TestSlowDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.hand()
		slow := l.open(t, "slow")
		far := <-l.streams
		other := l.open(t, "other")
		otherFar := <-l.streams
		wrote := make(chan error, 1)
		go func() {
			_, err := slow.Write(make([]byte, 64<<20))
			wrote <- err
		}()
		synctest.Wait()
		start := time.Now()
		go func() { _, _ = io.WriteString(other, "patience") }()
		mustRead(t, otherFar, "otherpatience")
		if took := time.Since(start); took != stallLimit {
			t.Errorf("the other waited for %v", took)
		}
		if err := <-wrote; err != ErrStalled {
			t.Errorf("the slow one is written: %v", err)
		}
		if _, err := slow.Read(make([]byte, 1)); err != ErrStalled {
			t.Errorf("the slow one is read: %v", err)
		}
		if _, err := far.Write([]byte("x")); err != ErrStuck {
			t.Errorf("its handler: %v", err)
		}
		l.close()
	})
}

// Alone in its tunnel, a session may take its time.
func TestSlowSessionAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.hand()
		c := l.open(t, "x")
		s := <-l.streams
		go func() {
			_, _ = s.Write(make([]byte, 8<<20))
			_ = s.CloseWrite()
		}()
		time.Sleep(time.Hour)
		if n, err := io.Copy(io.Discard, onlyReader{c}); n != 8<<20 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		l.close()
	})
}

func TestTunnelMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.hand()
		l.Client.Concurrency = maxSessions
		var far []transport.StreamConn
		for range 100 {
			l.open(t, "x")
			far = append(far, <-l.streams)
		}
		for _, s := range far {
			go func() { _, _ = s.Write(make([]byte, sessionBlocks*blockSize)) }()
		}
		synctest.Wait()
		if n := l.Client.tunnels[0].held.Load(); n < tunnelBlocks || n > tunnelBlocks+100 {
			t.Errorf("%d blocks are held", n)
		}
		l.close()
	})
}

// An answer that is there but not read is not silent.
func TestEndIsHeldBackByUnreadAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.hand()
		c := l.open(t, "question")
		s := <-l.streams
		_ = c.CloseWrite()
		mustWrite(t, s, "answer")
		time.Sleep(3 * endPatience)
		mustWrite(t, s, ", and more")
		mustRead(t, c, "answer, and more")
		l.close()
	})
}

// deaf is a stream that takes no more bytes.
type deaf struct {
	transport.StreamConn
	err error
}

func (d *deaf) Write(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	return d.StreamConn.Write(p)
}

// A tunnel that takes no more bytes still delivers what comes, for a while.
func TestTunnelTakesNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := transporttest.Pipe(1 << 20)
		d := &deaf{StreamConn: a}
		c := &Client{Dial: func(context.Context, []byte) (transport.StreamConn, error) { return d, nil }}
		s, err := c.DialStream(t.Context(), addr(t, "example.com:80"), []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		d.err = errors.New("no more")
		mustWrite(t, s, "lost")
		synctest.Wait()
		if _, err := s.Write([]byte("y")); !errors.Is(err, d.err) {
			t.Errorf("write: %v", err)
		}
		start := time.Now()
		f := keep(1)
		mustWrite(t, b, string(f.Append(nil, []byte("answer"))))
		mustRead(t, s, "answer")
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, d.err) || time.Since(start) != tailLimit {
			t.Errorf("read: %v after %v", err, time.Since(start))
		}
		_ = c.Close()
	})
}

func TestQueueRoom(t *testing.T) {
	var held atomic.Int64
	q := queue{held: &held}
	if n := q.room(); n != sessionBlocks*blockSize {
		t.Errorf("an empty queue has room for %d", n)
	}
	q.put(make([]byte, 2*blockSize+1))
	if n := q.room(); n != (sessionBlocks-2)*blockSize-1 || held.Load() != 3 {
		t.Errorf("room for %d, %d held", n, held.Load())
	}
	held.Add(tunnelBlocks)
	if n := q.room(); n != blockSize-1 {
		t.Errorf("room for %d in a full tunnel", n)
	}
	empty := queue{held: &held}
	if n := empty.room(); n != blockSize {
		t.Errorf("an empty queue has room for %d in a full tunnel", n)
	}
	q.drop()
	if held.Load() != tunnelBlocks || !q.empty() {
		t.Errorf("%d held", held.Load())
	}
}

// Neither frames nor reads cost memory.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops items at random")
	}
	l := newLab(t)
	l.overTCP(t)
	c := l.open(t, "")
	p := make([]byte, 16<<10)
	trip := func() {
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, p); err != nil {
			t.Fatal(err)
		}
	}
	trip()
	if n := testing.AllocsPerRun(1000, trip); n > 0.5 {
		t.Errorf("%.1f allocations for 16 KiB there and back", n)
	}
}

func BenchmarkEcho(b *testing.B) {
	for _, size := range []int{64, 1400, 16 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			l := newLab(b)
			l.overTCP(b)
			c, err := l.Client.DialStream(b.Context(), addr(b, "example.com:80"), nil)
			if err != nil {
				b.Fatal(err)
			}
			p := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(p); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, p); err != nil {
					b.Fatal(err)
				}
			}
			_ = c.Close()
		})
	}
}

func BenchmarkDownload(b *testing.B) {
	l := newLab(b)
	l.overTCP(b)
	l.hand()
	c, err := l.Client.DialStream(b.Context(), addr(b, "example.com:80"), []byte("x"))
	if err != nil {
		b.Fatal(err)
	}
	s := <-l.streams
	go func() {
		p := make([]byte, 64<<10)
		for {
			if _, err := s.Write(p); err != nil {
				return
			}
		}
	}()
	p := make([]byte, 64<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.ReadFull(c, p); err != nil {
			b.Fatal(err)
		}
	}
	_ = c.Close()
}

func BenchmarkSession(b *testing.B) {
	l := newLab(b)
	b.ReportAllocs()
	for b.Loop() {
		c, err := l.Client.DialStream(b.Context(), addr(b, "example.com:80"), []byte("x"))
		if err != nil {
			b.Fatal(err)
		}
		mustRead(b, c, "x")
		_ = c.Close()
	}
}
