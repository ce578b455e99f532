package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/server"
)

// The soak: applications move streams both ways through our programs and
// V2Ray's while the road between them is bad, both ends are restarted, a server
// freezes and drains, and destinations reset, stall and answer late. Every byte
// that arrives is the right one, an end in mid-stream is an error, nothing is left
// over, and where only destinations made trouble nobody else is blamed.
var (
	soakFor     = flag.Duration("soak", 30*time.Second, "how long TestSoak makes trouble")
	soakWorkers = flag.Int("soak.workers", 40, "how many applications TestSoak runs")
)

// soaked is the soak's last line, which ends the test program's output.
var soaked struct{ line string }

// TestSoak runs alone: it counts what the whole test program holds.
func TestSoak(t *testing.T) {
	s := newSoak(t)
	for _, w := range s.ways {
		s.calmly(t, w, *soakWorkers/len(s.ways)+1)
	}
	base := lookAround()
	s.chaos(t)
	base.heap += remembered(s.connections.Load())
	after, leaked := base.settle()
	for _, w := range s.ways {
		s.calmly(t, w, 3)
		s.report(t, w)
	}
	t.Logf("before: %v; after: %v; longest stall of a stream that came through: %v", base, after, time.Duration(s.stall.Load()))
	unfair := s.unfairLines()
	soaked.line = fmt.Sprintf("soak: %d connections, %d bytes, %d wrong, %d leaked, %d lines that blame the path for a destination",
		s.connections.Load(), s.bytes.Load(), s.wrong.Load(), leaked, len(unfair))
	if len(unfair) > 0 {
		t.Errorf("%s:\n%s", soaked.line, strings.Join(unfair[:min(20, len(unfair))], "\n"))
	}
	if err := errors.Join(s.blames...); err != nil {
		t.Errorf("%s:\n%v", soaked.line, err)
	}
	if leaked != 0 {
		stacks := make([]byte, 1<<20)
		t.Errorf("%s:\n%s", soaked.line, stacks[:runtime.Stack(stacks, true)])
	}
}

// A soak is the applications' and destinations' count of what they saw.
type soak struct {
	ways    []*soakWay
	streams sync.Map // from a seed to its *soakStream

	connections, bytes, wrong atomic.Int64
	stall                     atomic.Int64 // nanoseconds, of streams that came through

	mu     sync.Mutex
	blames []error
}

// A soakWay is a client, a bad road and a server.
type soakWay struct {
	name        string
	near        string // the client's proxy
	origin      string
	road        *badRoad
	halves      bool // the server passes the end of what goes up on at once
	tellsUp     bool // the server knows that end from a cut: of its own kind of client alone, for some never mark it
	tellsDown   bool // the client knows the end of what comes down
	restarts    []func()
	mux         bool
	fates       bool                      // destinations make trouble
	log         *blameLog                 // of the client, where nothing else does
	trouble     func(ctx context.Context) // made meanwhile; may be nil
	made, whole atomic.Int64
	cutShort    atomic.Int64 // delivered as a clean end where nothing tells
}

// newSoak starts all programs.
func newSoak(t *testing.T) *soak {
	need(t, "v2ray")
	ours := startSoakServer(t)
	theirs := startV2rayServer(t, v2rayServer{})
	s := new(soak)

	road := newBadRoad(t, ours.addr, false, false)
	near := startSoakClient(t, road.addr, noChange)
	s.add(t, &soakWay{
		name: "our client, our server", near: near.addr, road: road, halves: true, tellsUp: true, tellsDown: true,
		restarts: []func(){near.restart, ours.restart},
	})
	road = newBadRoad(t, theirs.addr, true, false)
	near = startSoakClient(t, road.addr, noChange)
	s.add(t, &soakWay{
		name: "our client, V2Ray's server", near: near.addr, road: road,
		restarts: []func(){near.restart, func() { theirs.restart(t) }},
	})
	road = newBadRoad(t, ours.addr, false, true)
	third := startV2rayClient(t, road.addr, v2rayClient{})
	s.add(t, &soakWay{
		name: "V2Ray's client, our server", near: third.addr, road: road, halves: true,
		restarts: []func(){func() { third.restart(t) }},
	})
	road = newBadRoad(t, ours.addr, false, false)
	near = startSoakClient(t, road.addr, withMux)
	s.add(t, &soakWay{
		name: "our client with Mux, our server", near: near.addr, road: road, mux: true, tellsUp: true, tellsDown: true,
		restarts: []func(){near.restart},
	})
	s.addUnsteady(t)
	s.addFates(t)
	return s
}

// add gives a way a destination of its own.
func (s *soak) add(t *testing.T, w *soakWay) {
	w.origin = serveOrigin(t, func(c *net.TCPConn) { s.serve(w, c) })
	s.ways = append(s.ways, w)
}

// A restartable is one of our programs in this process: counted, and able to
// start anew on its address.
type restartable struct {
	addr  string
	start func() (stop func())
	stop  func()
}

// startRestartable runs it until the test ends.
func startRestartable(t *testing.T, prepare func(addr string) (run func(context.Context) error, err error)) *restartable {
	t.Helper()
	r := &restartable{addr: freePort(t)}
	r.start = func() func() {
		run, err := prepare(r.addr)
		if err != nil {
			t.Errorf("start on %s: %v", r.addr, err)
			return func() {}
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- run(ctx) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("on %s: %v", r.addr, err)
			}
		}
	}
	r.stop = r.start()
	t.Cleanup(func() { r.stop() })
	return r
}

// restart stops the program, and starts it within a second.
func (r *restartable) restart() {
	r.stop()
	time.Sleep(rand.N(time.Second)) // nobody listens
	r.stop = r.start()
}

// soakLog has everything written, and keeps nothing: the heap is measured.
func soakLog() *slog.Logger { return slog.New(logging.New(io.Discard, slog.LevelDebug, false)) }

func startSoakServer(t *testing.T) *restartable {
	resolver := newKnowsNothing(t).Resolver
	return startRestartable(t, func(addr string) (func(context.Context) error, error) {
		cfg := serverConfig()
		cfg.Listen = addr
		parsed, err := config.ParseServer("test", config.MarshalServer(cfg))
		if err != nil {
			return nil, err
		}
		s, err := server.New(parsed, server.Options{Log: soakLog(), LookupEnv: lookup(nil), Resolver: resolver})
		if err != nil {
			return nil, err
		}
		return s.Run, nil
	})
}

func noChange(*config.Client) {}

func withMux(c *config.Client) { c.Mux.Enabled = true }

func startSoakClient(t *testing.T, far string, change func(*config.Client)) *restartable {
	return startLoggedSoakClient(t, remoteAt(t, far), change, soakLog())
}

func startLoggedSoakClient(t *testing.T, remote config.Remote, change func(*config.Client), log *slog.Logger) *restartable {
	remote.WS.Ping = config.Duration(time.Second) // silence must be borne
	return startRestartable(t, func(addr string) (func(context.Context) error, error) {
		cfg := clientConfig(remote)
		cfg.Listen = addr
		cfg.Warm.Idle = config.Duration(time.Second) // the ready tunnels must go, too
		change(cfg)
		parsed, err := config.ParseClient("test", config.MarshalClient(cfg))
		if err != nil {
			return nil, err
		}
		c, err := client.New(parsed, client.Options{Log: log, LookupEnv: lookup(nil)})
		if err != nil {
			return nil, err
		}
		return c.Run, nil
	})
}

// chaos runs the applications over bad roads until the time is over, and
// waits for all of them.
func (s *soak) chaos(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), *soakFor)
	defer cancel()
	for _, w := range s.ways {
		if w.road != nil {
			w.road.setCalm(false)
		}
	}
	var all sync.WaitGroup
	for i := range *soakWorkers {
		w := s.ways[i%len(s.ways)]
		all.Go(func() {
			for ctx.Err() == nil {
				if err := s.stream(w, w.someFate()); err != nil {
					pause(ctx, rand.N(50*time.Millisecond)) // an application tries again, not at once
				}
			}
		})
	}
	all.Go(func() { s.restart(ctx) })
	for _, w := range s.ways {
		if w.trouble != nil {
			all.Go(func() { w.trouble(ctx) })
		}
	}
	<-ctx.Done()
	for _, w := range s.ways {
		if w.road != nil {
			w.road.setCalm(true)
		}
	}
	all.Wait()
}

// restart restarts one program after the other.
func (s *soak) restart(ctx context.Context) {
	var each []func()
	for _, w := range s.ways {
		each = append(each, w.restarts...)
	}
	every := min(15*time.Second, *soakFor/time.Duration(len(each)+1))
	for i := rand.IntN(len(each)); pause(ctx, every/2+rand.N(every/2)); i++ {
		each[i%len(each)]()
	}
}

// pause waits; false is the context's end.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// calmly wants every stream of a calm way to come through.
func (s *soak) calmly(t *testing.T, w *soakWay, n int) {
	t.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if err := s.stream(w, noFate); err != nil {
				t.Errorf("%s: on a calm road: %v", w.name, err)
			}
		})
	}
	all.Wait()
}

// report logs what happened on a way, and wants that much did.
func (s *soak) report(t *testing.T, w *soakWay) {
	t.Helper()
	var met []string
	for h := noHazard + 1; w.road != nil && h < hazards; h++ {
		n := w.road.met[h].Load()
		met = append(met, fmt.Sprintf("%d %v", n, h))
		if n == 0 && !w.mux { // whose tunnels are few
			t.Errorf("%s: no connection was %v", w.name, h)
		}
	}
	made, whole := w.made.Load(), w.whole.Load()
	t.Logf("%s: %d connections; %d came through whole, %d broke, as the trouble wants it; "+
		"%d ends in mid-stream looked like true ones to one side, as where V2Ray marks none or the application had given up; what the road did: %s",
		w.name, made, whole, made-whole, w.cutShort.Load(), strings.Join(met, ", "))
	if whole == made && w.road != nil {
		t.Errorf("%s: no connection failed: there was no trouble", w.name)
	}
}

// soakPatience is how long an application and a destination wait for the next
// byte.
const soakPatience = 10 * time.Second

// A soakOrder is what an application asks a destination for.
type soakOrder struct {
	Up, Down int64
	Seed     uint64
	Half     bool // the application ends its direction before it has read all
	Fate     soakFate
}

// A soakStream is what both sides know of a stream without asking the network.
type soakStream struct{ gaveUp atomic.Bool }

// stream is an application: it sends and gets a stream. An error is what a
// bad road may bring; anything worse is counted.
func (s *soak) stream(w *soakWay, fate soakFate) error {
	s.connections.Add(1)
	w.made.Add(1)
	order := soakOrder{
		Up: int64(someSize(20)), Down: int64(someSize(20)),
		Seed: rand.Uint64() &^ upSeed, Half: w.halves && rand.IntN(2) == 0, Fate: fate,
	}
	known := new(soakStream)
	s.streams.Store(order.Seed, known)
	defer s.streams.Delete(order.Seed)
	c, err := dialVia(w.near, w.origin)
	if err != nil {
		return err
	}
	defer c.Close()
	sent := startSending(func() error { return order.send(c) })
	stall, err := s.receive(c, expectation{c, pattern(order.Seed, order.Down), order.Down, w.tellsDown, "down", sent}, w, &known.gaveUp)
	if err != nil {
		known.gaveUp.Store(true)
		tear(c)
	}
	if err := errors.Join(err, sent.wait()); err != nil {
		known.gaveUp.Store(true)
		tear(c)
		return err
	}
	for old := s.stall.Load(); int64(stall) > old && !s.stall.CompareAndSwap(old, int64(stall)); old = s.stall.Load() {
	}
	w.whole.Add(1)
	return nil
}

// send writes the order and what goes up.
func (o soakOrder) send(c *net.TCPConn) error {
	if err := binary.Write(c, binary.BigEndian, o); err != nil {
		return err
	}
	if err := sendPattern(c, pattern(o.Seed|upSeed, o.Up)); err != nil {
		return err
	}
	if o.Half {
		return c.CloseWrite()
	}
	return nil
}

// sendPattern writes all of r in writes of all sizes.
func sendPattern(c net.Conn, r io.Reader) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(r, buf[:1+someSize(16)])
		if n > 0 {
			_ = c.SetWriteDeadline(time.Now().Add(soakPatience))
			if _, err := c.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return nil // the pattern's end
		}
	}
}

// serve is a destination: what it does not get whole it ends by a reset.
func (s *soak) serve(w *soakWay, c *net.TCPConn) {
	var order soakOrder
	_ = c.SetReadDeadline(time.Now().Add(soakPatience))
	if err := binary.Read(c, binary.BigEndian, &order); err != nil {
		tear(c)
		return
	}
	found, ok := s.streams.Load(order.Seed)
	if !ok { // the application has left, or nobody ever asked for this
		tear(c)
		return
	}
	taken := make(chan bool, 1) // whether all that comes up has come
	sent := startSending(func() error { return order.answer(c, taken) })
	e := expectation{c, pattern(order.Seed|upSeed, order.Up), order.Up, w.tellsUp, "up", sent}
	if !order.Half {
		e.from = io.LimitReader(c, order.Up)
	}
	_, err := s.receive(c, e, w, &found.(*soakStream).gaveUp)
	taken <- err == nil
	if err != nil {
		tear(c)
	}
	if err := errors.Join(err, sent.wait()); err != nil {
		tear(c)
	}
}

// An expectation is what one side of a stream wants to get.
type expectation struct {
	from  io.Reader // up to its end
	bytes io.Reader
	n     int64
	tells bool // the end of the tunnel knows when something is missing
	way   string
	sent  *sending // the other direction
}

// A sending is a direction that is being written.
type sending struct {
	done chan struct{}
	err  error // once done
}

func startSending(send func() error) *sending {
	d := &sending{done: make(chan struct{})}
	go func() {
		defer close(d.done)
		d.err = send()
	}()
	return d
}

// wait returns how the sending ended.
func (d *sending) wait() error {
	<-d.done
	return d.err
}

// wasReset reports whether the sender was told of a reset, for then a reader
// is told of an end in order: the system says it once. Both are woken at the
// same time. A write behind a true end fails in another way.
func (d *sending) wasReset() bool {
	select {
	case <-d.done:
		return errors.Is(d.err, syscall.ECONNRESET)
	case <-time.After(50 * time.Millisecond):
		return false
	}
}

// receive reads a stream to its end, holds it against what is expected, and
// returns the longest time without a byte. A clean end before n bytes is wrong
// where the tunnel tells, unless the application has given up.
func (s *soak) receive(c *net.TCPConn, e expectation, w *soakWay, gaveUp *atomic.Bool) (stall time.Duration, err error) {
	buf, want := make([]byte, 32<<10), make([]byte, 32<<10)
	last := time.Now()
	for got := int64(0); ; {
		_ = c.SetReadDeadline(last.Add(soakPatience))
		k, err := e.from.Read(buf)
		now := time.Now()
		stall, last = max(stall, now.Sub(last)), now
		if full, _ := io.ReadFull(e.bytes, want[:k]); full < k || !bytes.Equal(buf[:k], want[:k]) {
			return stall, s.blame(int64(k), "%s, %s: of what came after %d bytes of %d %d bytes are wrong: %s",
				w.name, e.way, got, e.n, k, s.whatIsWrong(buf[:k], want[:full]))
		}
		got += int64(k)
		s.bytes.Add(int64(k))
		switch {
		case err == io.EOF && got == e.n:
			return stall, nil
		case err == io.EOF && e.sent.wasReset():
			return stall, syscall.ECONNRESET
		case err == io.EOF && e.tells && !gaveUp.Load():
			return stall, s.blame(e.n-got, "%s, %s: %d bytes of %d, and then an end in order", w.name, e.way, got, e.n)
		case err == io.EOF:
			w.cutShort.Add(1)
			return stall, io.ErrUnexpectedEOF
		case err != nil:
			return stall, err
		}
	}
}

// whatIsWrong tells what is known of bytes that should have been others: where
// they begin, and whose they are if they are those of a stream under way.
func (s *soak) whatIsWrong(got, want []byte) string {
	at := 0
	for at < len(want) && got[at] == want[at] {
		at++
	}
	strange := got[at:]
	mark := strange[:min(16, len(strange))]
	said := fmt.Sprintf("from %d on, beginning %q", at, mark)
	if at == len(want) {
		return said + ", they are too many"
	}
	s.streams.Range(func(seed, _ any) bool {
		for _, up := range []uint64{0, upSeed} {
			whole, _ := io.ReadAll(pattern(seed.(uint64)|up, 2<<20))
			if i := bytes.Index(whole, mark); i >= 0 {
				said += fmt.Sprintf(", at %d of stream %x of this or another application", i, seed.(uint64)|up)
			}
		}
		return true
	})
	return said
}

// blame counts wrong bytes. The first accounts of it are kept for the report.
func (s *soak) blame(n int64, format string, args ...any) error {
	s.wrong.Add(n)
	err := fmt.Errorf(format, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.blames) < 20 {
		s.blames = append(s.blames, err)
	}
	return err
}

// A footprint is what the test program holds.
type footprint struct {
	goroutines, sockets int
	heap                uint64 // bytes
}

// heapPlay is by how much the heap may differ when nothing is left over.
const heapPlay = 8 << 20

// remembered is what servers may hold of so many requests, in bytes: two keys
// each, until nobody can replay them any more, which is some minutes.
func remembered(requests int64) uint64 { return uint64(requests) * 100 }

// String tells it in one line.
func (f footprint) String() string {
	return fmt.Sprintf("%d goroutines, %d sockets, %d KiB of heap", f.goroutines, f.sockets, f.heap>>10)
}

// lookAround measures once nothing goes away any more.
func lookAround() footprint {
	settled(0)
	return lookNow()
}

func lookNow() footprint {
	runtime.GC()
	runtime.GC() // the first leaves what pools had kept
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{runtime.NumGoroutine(), openSockets(), m.HeapAlloc}
}

// settle waits up to a minute for all to be as it was, and returns how many
// things more there are.
func (f footprint) settle() (now footprint, leaked int) {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) { // a pause between two looks
		now = lookNow()
		leaked = max(0, now.goroutines-f.goroutines) + max(0, now.sockets-f.sockets)
		if now.heap > f.heap+heapPlay {
			leaked++
		}
		if leaked == 0 || time.Now().After(deadline) {
			return now, leaked
		}
	}
}

// openSockets counts this process's sockets, where the system lists them as
// files.
func openSockets() int {
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		return 0
	}
	n := 0
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}
