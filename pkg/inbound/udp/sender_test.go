package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

// A rig runs a lane whose dialer the test scripts.
type rig struct {
	sender
	open    atomic.Int64
	lost    [drops]int
	causes  []error
	answers chan string
	end     func()
}

func newRig(dialer transport.PacketDialer) *rig {
	r := &rig{answers: make(chan string, 64)}
	r.sender = sender{
		dialer:  dialer,
		idle:    DefaultIdle,
		within:  DefaultDialTimeout,
		queue:   newQueue(8, 1<<20, &budget{most: 1 << 20}),
		tunnels: &r.open,
		sent:    func(int) {},
		dropped: func(d Drop, n int, cause error) { r.lost[d] += n; r.causes = append(r.causes, cause) },
		deliver: func(b *transport.Buffer, p []byte, from netaddr.Addr) {
			r.answers <- from.String() + " " + string(p)
			b.Release()
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.run(ctx) }()
	r.end = func() { cancel(); <-done }
	return r
}

func (r *rig) push(t *testing.T, payload string) {
	t.Helper()
	if !r.queue.push(newPacket([]byte(payload), addr("192.0.2.1:53"))) {
		t.Fatalf("%q finds the queue full", payload)
	}
}

func TestLaneGoesIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tunnel := newPipes(16)
		r := newRig(tunnel)
		defer r.end()
		for range 3 {
			start := time.Now()
			r.push(t, "one")
			far := <-tunnel.far
			wantRead(t, far, "192.0.2.1:53", "one")
			// Both directions keep it open.
			time.Sleep(DefaultIdle - time.Second)
			r.push(t, "two")
			wantRead(t, far, "192.0.2.1:53", "two")
			time.Sleep(DefaultIdle - time.Second)
			_ = far.WritePacket([]byte("answer"), addr("192.0.2.9:9"))
			if got := <-r.answers; got != "192.0.2.9:9 answer" {
				t.Errorf("got %q", got)
			}
			moved := time.Now()
			if _, _, err := far.ReadPacket(nil); err == nil {
				t.Error("read a datagram")
			}
			if idle := time.Since(moved); idle < DefaultIdle || idle > DefaultIdle*5/4 {
				t.Errorf("closed after %s idle, %s in all", idle, time.Since(start))
			}
			synctest.Wait()
			if n := r.open.Load(); n != 0 {
				t.Errorf("%d tunnels are open", n)
			}
		}
		if r.causes != nil {
			t.Errorf("dropped: %v", r.causes)
		}
	})
}

// A tunnel that takes nothing any more is given up, too.
func TestLaneGivesUpOnAStuckTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tunnel := newPipes(0)
		r := newRig(tunnel)
		defer r.end()
		r.push(t, "one")
		<-tunnel.far
		wantRead(t, <-tunnel.far, "192.0.2.1:53", "one")
	})
}

func TestLaneDialsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tunnel := newPipes(16)
		r := newRig(tunnel)
		defer r.end()
		r.push(t, "0")
		far := <-tunnel.far
		wantRead(t, far, "192.0.2.1:53", "0")
		_ = far.WritePacket([]byte("answer"), addr("192.0.2.1:53"))
		<-r.answers
		_ = far.Close()
		start := time.Now()
		for i := range 5 {
			r.push(t, fmt.Sprint(i))
		}
		far = <-tunnel.far
		for i := range 5 {
			wantRead(t, far, "192.0.2.1:53", fmt.Sprint(i))
		}
		if pause := time.Since(start); pause > minPause {
			t.Errorf("dialled after %s", pause)
		}
		if r.causes != nil {
			t.Errorf("dropped: %v", r.causes)
		}
	})
}

// broken takes a connection and fails the first write.
type broken struct{ *transporttest.PacketEnd }

var errBroken = errors.New("broken")

func (broken) WritePacket([]byte, netaddr.Addr) error { return errBroken }

// The packet that finds a tunnel broken goes through the next one.
func TestLaneSendsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := transporttest.PacketPipe(4)
		dials := 0
		r := newRig(dialerFunc(func(context.Context, netaddr.Addr) (transport.PacketConn, error) {
			if dials++; dials == 1 {
				dead, _ := transporttest.PacketPipe(0)
				return broken{dead}, nil
			}
			return near, nil
		}))
		defer r.end()
		r.push(t, "one")
		r.push(t, "two")
		wantRead(t, far, "192.0.2.1:53", "one")
		wantRead(t, far, "192.0.2.1:53", "two")
		if dials != 2 || r.causes != nil {
			t.Errorf("%d dials, dropped: %v", dials, r.causes)
		}
	})
}

// While nothing can be reached, dials are few, one at a time, and stop when
// nothing is asked for.
func TestLaneBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refused")
		var dials, at atomic.Int64
		r := newRig(dialerFunc(func(context.Context, netaddr.Addr) (transport.PacketConn, error) {
			if at.Add(1) != 1 {
				t.Error("two dials at one time")
			}
			defer at.Add(-1)
			time.Sleep(10 * time.Millisecond)
			dials.Add(1)
			return nil, refused
		}))
		defer r.end()
		pushed := 0
		for range 600 { // a minute
			if r.queue.push(newPacket([]byte("x"), addr("192.0.2.1:53"))) {
				pushed++
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := dials.Load(); n < 8 || n > 16 {
			t.Errorf("%d dials in a minute", n)
		}
		time.Sleep(maxPause)
		synctest.Wait()
		before := dials.Load()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := dials.Load() - before; n > 0 {
			t.Errorf("%d dials for nothing", n)
		}
		if r.lost[DropNoTunnel] != pushed || !errors.Is(r.causes[0], refused) {
			t.Errorf("%d of %d are counted as lost: %v", r.lost[DropNoTunnel], pushed, r.causes[0])
		}
	})
}

// What went into a tunnel that ended at once without an answer is counted as
// lost, with the reason.
func TestLaneCountsTheUnheard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tunnel := newPipes(16)
		r := newRig(tunnel)
		for range 4 {
			r.push(t, "x")
			far := <-tunnel.far
			wantRead(t, far, "192.0.2.1:53", "x")
			_ = far.Close()
		}
		synctest.Wait()
		r.end()
		if r.lost[DropNoTunnel] != 4 || !errors.Is(r.causes[0], net.ErrClosed) {
			t.Errorf("%d lost: %v", r.lost[DropNoTunnel], r.causes)
		}
	})
}

func TestLaneDialTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(dialerFunc(func(ctx context.Context, _ netaddr.Addr) (transport.PacketConn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}))
		defer r.end()
		start := time.Now()
		for i := range 4 {
			r.push(t, fmt.Sprint(i))
		}
		time.Sleep(DefaultDialTimeout + time.Second)
		synctest.Wait()
		if r.lost[DropNoTunnel] != 4 || !errors.Is(r.causes[0], context.DeadlineExceeded) {
			t.Errorf("after %s: %d lost: %v", time.Since(start), r.lost[DropNoTunnel], r.causes)
		}
	})
}

func TestQueueBounds(t *testing.T) {
	all := &budget{most: 4 * smallSize}
	a, b := newQueue(100, 3*smallSize, all), newQueue(100, 100*smallSize, all)
	fill := func(q *queue) (n int) {
		for {
			p := newPacket([]byte{byte(n)}, anywhere)
			if !q.push(p) {
				p.release()
				return n
			}
			n++
		}
	}
	if n := fill(a); n != 3 {
		t.Errorf("%d within the bytes of one", n)
	}
	if n := fill(b); n != 1 {
		t.Errorf("%d within the bytes of all", n)
	}
	for i := range 3 {
		p, ok := a.pop()
		if !ok || p.data[0] != byte(i) {
			t.Errorf("popped %v", p.data)
		}
		p.release()
	}
	if n := fill(b); n != 3 {
		t.Errorf("%d after room was made", n)
	}
	if n := b.close(); n != 4 {
		t.Errorf("%d at the end", n)
	}
	if n := fill(b); n != 0 || all.used.Load() != 0 {
		t.Errorf("%d after the end, %d bytes held", n, all.used.Load())
	}
	wide := newPacket(make([]byte, smallSize+1), anywhere)
	if wide.size() != transport.BufferSize || a.push(wide) {
		t.Error("a large datagram counts as a small one")
	}
	wide.release()
}

func TestReportsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(record)
		s := &Server{Report: log.report}
		cause := errors.New("because")
		for range 10 * 60 {
			s.Drop(DropQueueFull, 2, cause)
			time.Sleep(time.Second)
		}
		if n := log.count(ErrQueueFull); n != 10 {
			t.Errorf("said %d times in 10 minutes", n)
		}
		if got := log.errs[1].Error(); got != "the queue to the server is full: 120 dropped: because" {
			t.Errorf("said %q", got)
		}
		if n := s.Stats.Dropped[DropQueueFull].Load(); n != 1200 {
			t.Errorf("counted %d", n)
		}
	})
}

// A choosy is a PacketConn that can tell whether a write would wait.
type choosy struct {
	*transporttest.PacketEnd
	full  atomic.Bool
	tries atomic.Int64 // written at once
}

func (c *choosy) TryWritePacket(p []byte, to netaddr.Addr) (bool, error) {
	if c.full.Load() {
		return false, nil
	}
	c.tries.Add(1)
	return true, c.WritePacket(p, to)
}

// What can be written at once is, and what cannot waits in the queue without
// holding up who offers it; the order stays.
func TestLaneWritesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := transporttest.PacketPipe(4)
		c := &choosy{PacketEnd: near}
		r := newRig(dialerFunc(func(context.Context, netaddr.Addr) (transport.PacketConn, error) { return c, nil }))
		defer r.end()
		next := 0
		offer := func(n int) {
			for range n {
				if !r.offer(fmt.Appendf(nil, "%d", next), addr("192.0.2.1:53")) {
					t.Fatalf("datagram %d finds the queue full", next)
				}
				next++
			}
		}
		read := 0
		check := func(n int) {
			for range n {
				wantRead(t, far, "192.0.2.1:53", fmt.Sprint(read))
				read++
			}
		}
		offer(1)
		synctest.Wait() // dialled
		check(1)
		offer(3)
		if n := c.tries.Load(); n != 3 {
			t.Errorf("%d of 3 datagrams were written at once", n)
		}
		c.full.Store(true)
		offer(4) // the first fills the far end, the second keeps the lane waiting
		synctest.Wait()
		c.full.Store(false)
		offer(4) // behind those that wait
		if n := c.tries.Load(); n != 3 {
			t.Errorf("%d datagrams went past those that wait", n-3)
		}
		check(11)
		synctest.Wait()
		offer(1)
		check(1)
		if n := c.tries.Load(); n != 4 || r.causes != nil {
			t.Errorf("%d were written at once, dropped: %v", n, r.causes)
		}
		c.full.Store(true)
		offer(8) // four fill the far end, one keeps the lane waiting
		synctest.Wait()
		offer(5)
		if r.offer([]byte("too many"), addr("192.0.2.1:53")) {
			t.Error("the full queue took one more")
		}
	})
}
