package udp

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// openFiles counts this process's files, 0 where the system does not show them.
func openFiles() int {
	files, _ := os.ReadDir("/proc/self/fd")
	return len(files)
}

// heap is what is in use after all that may be freed was.
func heap() uint64 {
	var m runtime.MemStats
	for range 3 { // what a sync.Pool holds lives for two
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// pingPong sends windows of numbered datagrams and wants each back, in order.
func (u *user) pingPong(windows, window int) error {
	header := appendHeader(nil, addr("192.0.2.1:53"))
	out, in := append(header, make([]byte, 200)...), make([]byte, 1024)
	number := out[len(header):]
	for w := range windows {
		_ = u.SetDeadline(time.Now().Add(patience))
		for i := range window {
			binary.BigEndian.PutUint64(number, uint64(w*window+i))
			if _, err := u.Write(out); err != nil {
				return err
			}
		}
		for i := range window {
			n, err := u.Read(in)
			if err != nil {
				return fmt.Errorf("window %d, answer %d: %w", w, i, err)
			}
			if got := binary.BigEndian.Uint64(in[len(header):n]); got != uint64(w*window+i) {
				return fmt.Errorf("answer %d came in place of %d", got, w*window+i)
			}
		}
	}
	return nil
}

// A crowd is many users of one Server.
type crowd struct {
	*Server
	users []*user
}

// gather opens n associations and lets each exchange windows of datagrams.
func gather(t *testing.T, n, windows, window int) *crowd {
	t.Helper()
	c := &crowd{Server: &Server{Dialer: dialerFunc(dialEcho)}}
	for range n {
		c.users = append(c.users, enter(t, c.Server, "127.0.0.1"))
	}
	var all sync.WaitGroup
	for _, u := range c.users {
		all.Go(func() {
			if err := u.pingPong(windows, window); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	return c
}

func (c *crowd) leave(t *testing.T) {
	t.Helper()
	for _, u := range c.users {
		u.leave(t)
	}
}

// 1,000 associations and 1,000,000 datagrams, half of them answers: all
// arrive, in order, and nothing stays behind. With the race detector, which
// takes ten times as long and as much memory, a tenth of each.
func TestLoad(t *testing.T) {
	associations, windows, window := 1000, 50, 10
	if raceEnabled || testing.Short() {
		associations, windows = 100, 50
	}
	// What the runtime keeps for as many goroutines and files as there ever
	// were is not ours.
	routines := runtime.NumGoroutine()
	settled := func() bool { return runtime.NumGoroutine() <= routines+1 }
	gather(t, associations, 1, 1).leave(t)
	until(t, "all goroutines have ended", settled)
	files, before := openFiles(), heap()

	c := gather(t, associations, windows, window)
	want := int64(associations * windows * window)
	until(t, "all answers are counted", func() bool { return c.Stats.Down.Packets.Load() == want })
	if up := c.Stats.Up.Packets.Load(); up != want {
		t.Errorf("%d up of %d", up, want)
	}
	c.Stats.Dropped.Each(func(reason Drop, n int64) {
		if n > 0 {
			t.Errorf("%s: %d dropped", reason, n)
		}
	})
	// All are open and idle, and small without their buffers; this counts the
	// far ends of the test in.
	until(t, "the buffers are back", func() bool { return heap() < before+uint64(associations)*24<<10 })
	if each := (runtime.NumGoroutine() - routines) / associations; each > 6 {
		t.Errorf("%d goroutines for each association, with its far end", each)
	}
	c.leave(t)
	until(t, "all goroutines have ended", settled)
	until(t, "all files are closed", func() bool { return openFiles() <= files })
	c = nil
	if after := heap(); after > before+1<<20 {
		t.Errorf("%d KiB are held, %d KiB were before", after>>10, before>>10)
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	for _, size := range []int{64, 1400, 8 << 10, 65000} {
		for _, to := range []string{"192.0.2.1:53", "[2001:db8::1]:53", "example.com:53"} {
			b.Run(fmt.Sprintf("%d/%s", size, to[:strings.LastIndexByte(to, ':')]), func(b *testing.B) {
				u := join(b, &Server{Dialer: dialerFunc(dialEcho)}, "127.0.0.1")
				out, in := pack(addr(to), make([]byte, size)), make([]byte, 1<<16)
				_ = u.SetDeadline(time.Time{})
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := u.Write(out); err != nil {
						b.Fatal(err)
					}
					if n, err := u.Read(in); err != nil || n != len(out) {
						b.Fatal(n, err)
					}
				}
			})
		}
	}
}

// What the way of a datagram costs without the sockets.
func BenchmarkTake(b *testing.B) {
	s := new(Server)
	a := &association{server: s, names: make(names), client: loopback(1), most: maxDatagram4}
	a.lane.queue = newQueue(8, 1<<20, s.total())
	datagram := pack(addr("example.com:53"), make([]byte, 1400))
	b.ReportAllocs()
	for b.Loop() {
		a.take(datagram, loopback(1))
		p, ok := a.lane.queue.pop()
		if !ok {
			b.Fatal("it was dropped")
		}
		p.release()
	}
}

// No datagram allocates, whatever its address.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations mean nothing under the race detector")
	}
	for _, to := range []string{"192.0.2.1:53", "[2001:db8::1]:53", "example.com:53"} {
		u := join(t, &Server{Dialer: dialerFunc(dialEcho)}, "127.0.0.1")
		out, in := pack(addr(to), make([]byte, 1400)), make([]byte, 1<<16)
		if n := testing.AllocsPerRun(2000, func() {
			_, _ = u.Write(out)
			_, _ = u.Read(in)
		}); n > 0 {
			t.Errorf("to %s: %v allocations for a round trip", to, n)
		}
	}
}
