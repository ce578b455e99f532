package e2e

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A hazard is what befalls a connection on a badRoad.
type hazard int

const (
	noHazard  hazard = iota
	delayed          // every piece is held up
	throttled        // a few hundred kilobytes a second
	split            // the first bytes one by one, the others in small pieces
	corrupted        // one bit is turned over
	cutOff           // both sides see an orderly end of TCP in mid-stream
	torn             // both sides see a reset in mid-stream
	swallowed        // nothing more arrives for seconds, then a reset
	hazards
)

// String returns the hazard's name.
func (h hazard) String() string {
	return [...]string{"none", "delayed", "throttled", "split", "corrupted", "cut off", "torn", "swallowed"}[h]
}

// A badRoad is a forwarder in front of a server on which every connection
// meets a hazard of its own, as long as it is not calm.
type badRoad struct {
	addr, server string
	met          [hazards]atomic.Int64

	// Bytes go uncorrupted towards V2Ray: what it cannot decrypt it leaves out,
	// and goes on with the next chunk.
	spareUp, spareDown bool

	mu    sync.Mutex
	storm chan struct{} // closed when the road becomes calm
}

// newBadRoad puts a road in front of a server. It begins calm.
func newBadRoad(t testing.TB, server string, spareUp, spareDown bool) *badRoad {
	t.Helper()
	r := &badRoad{server: server, spareUp: spareUp, spareDown: spareDown, storm: make(chan struct{})}
	close(r.storm)
	r.addr = serveOrigin(t, r.carry)
	return r
}

// setCalm begins or ends the hazards. Its end also ends those under way.
func (r *badRoad) setCalm(calm bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if calm {
		close(r.storm)
	} else {
		r.storm = make(chan struct{})
	}
}

// carry takes one connection along the road.
func (r *badRoad) carry(c *net.TCPConn) {
	conn, err := net.DialTimeout("tcp", r.server, 5*time.Second)
	if err != nil {
		_ = c.SetLinger(0)
		return
	}
	defer conn.Close()
	far := conn.(*net.TCPConn)
	up, down := r.lanes()
	var both sync.WaitGroup
	both.Go(func() { up.carry(far, c) })
	both.Go(func() { down.carry(c, far) })
	both.Wait()
}

// A lane is one direction of a connection on the road.
type lane struct {
	hazard
	met   *atomic.Int64
	calm  <-chan struct{}
	left  int // bytes until the hazard comes
	delay time.Duration
	rate  int // bytes a second
}

// lanes decides what befalls a connection, in one direction or in both.
func (r *badRoad) lanes() (up, down *lane) {
	r.mu.Lock()
	calm := r.storm
	r.mu.Unlock()
	h := hazard(rand.IntN(int(hazards)))
	select {
	case <-calm:
		h = noHazard
	default:
	}
	make1 := func(h hazard, spare bool) *lane {
		if h == corrupted && spare {
			h = noHazard
		}
		return &lane{
			hazard: h, met: &r.met[h], calm: calm, left: someSize(17),
			delay: rand.N(30 * time.Millisecond), rate: 64<<10 + rand.IntN(512<<10),
		}
	}
	switch rand.IntN(3) {
	case 0:
		return make1(h, r.spareUp), make1(noHazard, false)
	case 1:
		return make1(noHazard, false), make1(h, r.spareDown)
	default:
		return make1(h, r.spareUp), make1(h, r.spareDown)
	}
}

// someSize returns a number of up to bits bits, each count of bits as likely.
func someSize(bits int) int { return rand.IntN(1 << (1 + rand.IntN(bits))) }

// carry carries one direction to its end.
func (l *lane) carry(dst, src *net.TCPConn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 && !l.pass(dst, src, buf[:n]) {
			return
		}
		switch {
		case err == io.EOF:
			_ = dst.CloseWrite()
			return
		case err != nil:
			tear(dst, src)
			return
		}
	}
}

// pass writes a piece, or lets the hazard befall the connection: false is its
// end.
func (l *lane) pass(dst, src *net.TCPConn, p []byte) bool {
	comes := l.left >= 0 && l.left < len(p)
	at := l.left
	if l.left >= 0 {
		l.left -= len(p)
	}
	if comes {
		l.met.Add(1)
	}
	write := dst.Write
	switch {
	case l.hazard == delayed:
		time.Sleep(l.delay)
	case l.hazard == throttled:
		time.Sleep(time.Duration(len(p)) * time.Second / time.Duration(l.rate))
	case l.hazard == split:
		write = func(p []byte) (int, error) { return writeSplit(dst, p) }
	case !comes || l.hazard == noHazard:
	case l.hazard == corrupted:
		p[at] ^= 1 << rand.IntN(8)
	default:
		_, _ = dst.Write(p[:at])
		l.end(dst, src)
		return false
	}
	if _, err := write(p); err != nil {
		tear(dst, src)
		return false
	}
	return true
}

// end ends both connections as the hazard does.
func (l *lane) end(dst, src *net.TCPConn) {
	switch l.hazard {
	case cutOff:
		_ = dst.Close()
		_ = src.Close()
		return
	case swallowed:
		select {
		case <-time.After(time.Second + rand.N(4*time.Second)):
		case <-l.calm:
		}
	}
	tear(dst, src)
}

// writeSplit writes up to 64 bytes one by one, and what follows in small
// pieces.
func writeSplit(dst io.Writer, p []byte) (n int, err error) {
	for i := 0; n < len(p); i++ {
		size := 1
		if i >= 64 {
			size = min(len(p)-n, 1+rand.IntN(1400))
		}
		if _, err := dst.Write(p[n : n+size]); err != nil {
			return n, err
		}
		n += size
	}
	return n, nil
}

// tear resets both connections.
func tear(both ...*net.TCPConn) {
	for _, c := range both {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
}
