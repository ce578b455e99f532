package e2e

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// A place is where a tunnel is cut.
type place int

const (
	nowhere       place = iota
	beforeAnswer        // before the first byte of the answer
	withinChunk         // behind half of the payload of a frame, whose end is that of a message
	betweenChunks       // while nothing is under way
)

// String returns the place's name.
func (p place) String() string {
	return [...]string{"nowhere", "before the answer", "within a chunk", "between chunks"}[p]
}

// A blow is how a tunnel is cut: what its two ends see.
type blow struct {
	name string
	cut  func(ends [2]*frameEnd)
}

var blows = []blow{
	{"FIN", func(ends [2]*frameEnd) {
		for _, e := range ends {
			_ = e.conn.CloseWrite()
		}
	}},
	{"RST", func(ends [2]*frameEnd) { tear(ends[0].conn, ends[1].conn) }},
	{"close frame", func(ends [2]*frameEnd) {
		for _, e := range ends {
			_, _ = e.conn.Write(e.closing)
			_ = e.conn.CloseWrite()
		}
	}},
}

// A frameEnd is one end of a tunnel, and the close frame of the other.
type frameEnd struct {
	conn    *net.TCPConn
	closing []byte
}

// A tunnelCutter is a forwarder in front of a server which cuts one tunnel where
// it is told to. It knows frames (RFC 6455 section 5.2), not what is in them.
type tunnelCutter struct {
	addr, server string

	mu   sync.Mutex
	next *execution // of the next connection; nil: it lives
}

// An execution is of one tunnel.
type execution struct {
	blow
	place
	up   bool          // it is the way up that is cut
	now  chan struct{} // closed when it may come
	once sync.Once
}

func newGuillotine(t testing.TB, server string) *tunnelCutter {
	t.Helper()
	g := &tunnelCutter{server: server}
	g.addr = serveOrigin(t, g.carry)
	return g
}

// sharpen has the next connection cut.
func (g *tunnelCutter) sharpen(b blow, p place, up bool) *execution {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next = &execution{blow: b, place: p, up: up, now: make(chan struct{})}
	return g.next
}

func (g *tunnelCutter) carry(c *net.TCPConn) {
	g.mu.Lock()
	x := g.next
	g.next = nil
	g.mu.Unlock()
	conn, err := net.DialTimeout("tcp", g.server, 5*time.Second)
	if err != nil {
		return
	}
	defer conn.Close()
	far := conn.(*net.TCPConn)
	normal := []byte{1000 >> 8, 1000 & 0xff}
	masked := append([]byte{0x88, 0x82, 0, 0, 0, 0}, normal...)
	ends := [2]*frameEnd{{c, fakeFrame(nil, 8, normal)}, {far, masked}}
	over := make(chan struct{})
	defer close(over)
	if x != nil && x.place == betweenChunks {
		go func() {
			select {
			case <-x.now:
				x.once.Do(func() { x.cut(ends) })
			case <-over:
			}
		}()
	}
	var both sync.WaitGroup
	both.Go(func() { passFrames(far, c, x.in(true), ends) })
	both.Go(func() { passFrames(c, far, x.in(false), ends) })
	both.Wait()
}

// in returns x if it cuts this way; x may be nil.
func (x *execution) in(up bool) *execution {
	if x == nil || x.up != up || x.place == betweenChunks {
		return nil
	}
	return x
}

// passFrames carries one direction, and cuts it where x, which may be nil, does.
// Behind the cut it only reads: a connection that is closed with something
// unread is reset.
func passFrames(dst, src *net.TCPConn, x *execution, ends [2]*frameEnd) {
	r := bufio.NewReader(src)
	err := passHead(dst, r)
	for err == nil {
		var f []byte
		var data, start int
		if f, start, data, err = readFrame(r); err != nil {
			break
		}
		if x != nil && data > 0 && f[0]&0x0f <= 2 && x.falls() {
			if x.place == withinChunk {
				_, _ = dst.Write(halved(f, start, data))
			}
			x.once.Do(func() { x.cut(ends) })
			_, _ = io.Copy(io.Discard, r)
			return
		}
		_, err = dst.Write(f)
	}
	if err == io.EOF {
		_ = dst.CloseWrite()
	} else {
		tear(dst, src)
	}
	_, _ = io.Copy(io.Discard, r)
}

// falls reports whether it is time.
func (x *execution) falls() bool {
	if x.place == beforeAnswer {
		return true
	}
	select {
	case <-x.now:
		return true
	default:
		return false
	}
}

// passHead carries what HTTP begins with.
func passHead(dst io.Writer, r *bufio.Reader) error {
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return err
		}
		if _, err := dst.Write(line); err != nil || len(line) == 2 {
			return err
		}
	}
}

// readFrame reads a whole frame, and returns where its payload begins and how
// long that is.
func readFrame(r *bufio.Reader) (f []byte, start, data int, err error) {
	head, err := r.Peek(2)
	if err != nil {
		return nil, 0, 0, err
	}
	start, data = 2, int(head[1]&0x7f)
	masked := head[1]&0x80 != 0
	switch data {
	case 126:
		start = 4
	case 127:
		start = 10
	}
	if head, err = r.Peek(start); err != nil {
		return nil, 0, 0, err
	}
	switch start {
	case 4:
		data = int(binary.BigEndian.Uint16(head[2:]))
	case 10:
		data = int(binary.BigEndian.Uint64(head[2:]))
	}
	if masked {
		start += 4
	}
	f = make([]byte, start+data)
	_, err = io.ReadFull(r, f)
	return f, start, data, err
}

// halved is a whole frame with the first half of another's payload.
func halved(f []byte, start, data int) []byte {
	mask := f[1] & 0x80
	out := binary.BigEndian.AppendUint64([]byte{f[0] | 0x80, mask | 127}, uint64(data/2))
	if mask != 0 {
		out = append(out, f[start-4:start]...)
	}
	return append(out, f[start:start+data/2]...)
}

// beginHTTP asks for a destination by CONNECT of HTTP, and does not wait for
// the answer.
func beginHTTP(proxyAddr, target string) (*net.TCPConn, error) {
	c, err := boundedDialer{}.Dial("tcp", proxyAddr)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	return c.(*net.TCPConn), err
}

// beginSOCKS is the same of SOCKS5.
func beginSOCKS(proxyAddr, target string) (*net.TCPConn, error) {
	c, err := boundedDialer{}.Dial("tcp", proxyAddr)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), connectRequest(c, target)
}

// dialHTTP is dialVia by CONNECT of HTTP.
func dialHTTP(proxyAddr, target string) (*net.TCPConn, error) {
	c, err := beginHTTP(proxyAddr, target)
	var head []byte
	for one := make([]byte, 1); err == nil && !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, one...) {
		_, err = io.ReadFull(c, one)
	}
	if err == nil && !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		err = fmt.Errorf("the proxy answers %q", head)
	}
	if err != nil && c != nil {
		_ = c.Close()
	}
	return c, err
}

// half is what is sent before a cut, and again behind it: several chunks.
const half = 40_000

// A cutOrigin sends half for a line, and half and the end for another; and tells
// of each connection how what it reads ended.
type cutOrigin struct {
	addr string
	got  chan int   // bytes of the way up so far
	end  chan error // nil for an orderly one
}

func newCutOrigin(t testing.TB) *cutOrigin {
	o := &cutOrigin{got: make(chan int, 1000), end: make(chan error, 8)}
	o.addr = serveOrigin(t, func(c *net.TCPConn) {
		total, lines, buf := 0, 0, make([]byte, 64<<10)
		for {
			n, err := c.Read(buf)
			total += n
			for range bytes.Count(buf[:n], []byte("\n")) {
				_, _ = c.Write(make([]byte, half))
				if lines++; lines == 2 {
					_ = c.CloseWrite()
				}
			}
			select {
			case o.got <- total:
			default:
			}
			if err != nil {
				if err == io.EOF {
					err = nil
				}
				o.end <- err
				return
			}
		}
	})
	return o
}

// took waits until so many bytes have come up.
func (o *cutOrigin) took(n int) error {
	for {
		select {
		case got := <-o.got:
			if got == n {
				return nil
			}
		case <-time.After(labPatience):
			return errors.New("the origin did not get it")
		}
	}
}

// applications are how a destination is asked for: begin does not wait for the
// answer.
var applications = []struct {
	name        string
	dial, begin func(proxyAddr, target string) (*net.TCPConn, error)
}{{"SOCKS5", dialVia, beginSOCKS}, {"HTTP CONNECT", dialHTTP, beginHTTP}}

// TestCutDownloadIsNoEnd cuts tunnels in every way and at every place: what has
// not all arrived never ends in order for the application.
func TestCutDownloadIsNoEnd(t *testing.T) {
	t.Parallel()
	ours := ourServer(t, serverConfig()).addr
	for _, server := range []struct{ name, addr, security string }{
		{"our server", ours, "auto"},
		{"our server, none", ours, "none"},
		{"our server, zero", ours, "zero"},
		{"V2Ray server", startV2rayServer(t, v2rayServer{}).addr, "auto"},
	} {
		for _, app := range applications {
			for _, b := range blows {
				t.Run(server.name+"/"+app.name+"/"+b.name, func(t *testing.T) {
					t.Parallel()
					g, o := newGuillotine(t, server.addr), newCutOrigin(t)
					near := coldClient(t, g.addr, server.security)
					dial := func() (*net.TCPConn, error) { return app.dial(near, o.addr) }
					for _, at := range []place{nowhere, beforeAnswer, nowhere, withinChunk, nowhere, betweenChunks, nowhere} {
						start := time.Now()
						n, end := cutDownload(dial, g, b, at)
						whole := n == 2*half && end == nil
						switch {
						case at == nowhere && !whole:
							t.Errorf("left alone: %d bytes, %v", n, end)
						case at == beforeAnswer && whole:
							// It was sent again, as a refused request is.
						case at > beforeAnswer && b.unseen(server.security):
						case at != nowhere && (end == nil || isTimeout(end)):
							t.Errorf("cut %v: %d bytes of %d, and %v", at, n, 2*half, end)
						}
						t.Logf("cut %v: %d bytes, %v, in %v", at, n, end, time.Since(start).Round(time.Millisecond))
					}
				})
			}
		}
	}
}

// unseen reports whether nothing tells a cut from an end: what has no end marks
// ends by a close frame, whoever sends it.
func (b blow) unseen(security string) bool { return security == "zero" && b.name == "close frame" }

// cutDownload returns how much of two halves arrived, and how the stream ended.
func cutDownload(dial func() (*net.TCPConn, error), g *tunnelCutter, b blow, at place) (n int, end error) {
	var x *execution
	if at != nowhere {
		x = g.sharpen(b, at, false)
	}
	c, err := dial()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "\n"); err != nil {
		return 0, err
	}
	if n, err = io.ReadFull(c, make([]byte, half)); err != nil {
		if err == io.EOF {
			err = nil // which it was for the application
		}
		return n, err
	}
	if x != nil {
		close(x.now)
	}
	if at != betweenChunks {
		_, _ = io.WriteString(c, "\n")
	}
	m, err := io.Copy(io.Discard, c)
	return n + int(m), err
}

// TestCutUploadIsNoEnd: nor does it for the destination, where our server is
// the far end; nor for the application that is our client's.
func TestCutUploadIsNoEnd(t *testing.T) {
	t.Parallel()
	server := ourServer(t, serverConfig()).addr
	for _, client := range []struct {
		name     string
		security string // "": not our client
		dial     func(proxyAddr, target string) (*net.TCPConn, error)
	}{
		{"our client, SOCKS5", "auto", dialVia},
		{"our client, HTTP CONNECT", "auto", dialHTTP},
		{"our client, none", "none", dialVia},
		{"our client, zero", "zero", dialVia},
		{"V2Ray client", "", dialVia},
	} {
		for _, b := range blows {
			t.Run(client.name+"/"+b.name, func(t *testing.T) {
				t.Parallel()
				g, ours := newGuillotine(t, server), client.security != ""
				var addr string
				if ours {
					addr = coldClient(t, g.addr, client.security)
				} else {
					addr = startV2rayClient(t, g.addr, v2rayClient{}).addr
				}
				for _, at := range []place{nowhere, withinChunk, nowhere, betweenChunks, nowhere} {
					o := newCutOrigin(t)
					near, far := cutUpload(func() (*net.TCPConn, error) { return client.dial(addr, o.addr) }, g, b, at, o, client.security != "zero")
					switch {
					case !ours && at == betweenChunks && b.name != "RST":
						// Nothing tells: some foreign clients never mark the end.
					case at != nowhere && b.unseen(client.security):
					case at == nowhere && (near != nil || far != nil):
						t.Errorf("left alone: the application saw %v, the origin %v", near, far)
					case at != nowhere && (far == nil || isTimeout(far)):
						t.Errorf("cut %v: the origin saw %v", at, far)
					case at != nowhere && ours && (near == nil || isTimeout(near)):
						t.Errorf("cut %v: the application saw %v", at, near)
					}
					t.Logf("cut %v: the application saw %v, the origin %v", at, near, far)
				}
			})
		}
	}
}

// coldClient is our client without ready tunnels.
func coldClient(t *testing.T, server, security string) string {
	cfg := clientConfig(remoteAt(t, server))
	cfg.Warm.Max, cfg.Server.Security = 0, security
	return inProcessClient(t, cfg).addr
}

// cutUpload sends two halves, and returns how the stream ended for both sides.
// Without apart the directions cannot end one by one: the application leaves.
func cutUpload(dial func() (*net.TCPConn, error), g *tunnelCutter, b blow, at place, o *cutOrigin, apart bool) (near, far error) {
	var x *execution
	if at != nowhere {
		x = g.sharpen(b, at, true)
	}
	c, err := dial()
	if err != nil {
		return err, err
	}
	defer c.Close()
	if _, err := c.Write(make([]byte, half)); err != nil {
		return err, err
	}
	if err := o.took(half); err != nil {
		return err, err
	}
	if x != nil {
		close(x.now)
	}
	if at != betweenChunks {
		_, _ = c.Write(make([]byte, half))
	}
	if at == nowhere && !apart {
		_ = c.Close()
	} else {
		if at == nowhere {
			_ = c.CloseWrite()
		}
		_, near = io.Copy(io.Discard, c)
	}
	select {
	case far = <-o.end:
	case <-time.After(labPatience):
		far = fmt.Errorf("the origin was not told: %w", os.ErrDeadlineExceeded)
	}
	return near, far
}

// A pageOrigin answers with a page that has no length, in two halves: nothing
// but the connection's end tells where it ends.
type pageOrigin struct {
	url  string
	rest chan struct{} // closed for the second half
}

func newPageOrigin(t testing.TB) *pageOrigin {
	o := &pageOrigin{rest: make(chan struct{})}
	o.url = "http://" + serveOrigin(t, func(c *net.TCPConn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		_, _ = c.Write(make([]byte, half))
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_, _ = c.Read(make([]byte, 1))
		}()
		select {
		case <-o.rest:
			_, _ = c.Write(make([]byte, half))
		case <-gone:
		}
	}) + "/"
	return o
}

// curlPage fetches a page whose first half has come when then is called, and
// returns curl's exit code and the size of what it took for the page.
func curlPage(t *testing.T, then func(o *pageOrigin), args ...string) (exit, size int) {
	t.Helper()
	o, file := newPageOrigin(t), filepath.Join(t.TempDir(), "page")
	come := make(chan struct{})
	go func() {
		defer close(come)
		for deadline := time.Now().Add(labPatience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if sizeOf(file) >= half {
				break
			}
		}
		then(o)
	}()
	exit, _, talk := curl(t, append(args, "-N", "-f", "-o", file, o.url)...)
	<-come
	if size = sizeOf(file); size < half {
		t.Errorf("not even a half: exit code %d\n%s", exit, talk)
	}
	return exit, size
}

// sizeOf is 0 for what is not there.
func sizeOf(file string) int {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return int(info.Size())
}

// TestCutPageIsNoEnd has curl fetch what only the connection's end tells the
// end of, as a client of HTTP/1.0 and by SOCKS.
func TestCutPageIsNoEnd(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	server := ourServer(t, serverConfig()).addr
	for _, way := range []string{"socks5h", "http"} {
		for _, b := range blows {
			t.Run(way+"/"+b.name, func(t *testing.T) {
				t.Parallel()
				g := newGuillotine(t, server)
				args := []string{"-0", "-x", way + "://" + coldClient(t, g.addr, "auto")}
				if exit, size := curlPage(t, func(o *pageOrigin) { close(o.rest) }, args...); exit != 0 || size != 2*half {
					t.Errorf("left alone: exit code %d after %d bytes", exit, size)
				}
				x := g.sharpen(b, betweenChunks, false)
				if exit, size := curlPage(t, func(*pageOrigin) { close(x.now) }, args...); exit == 0 || exit == 28 {
					t.Errorf("cut: exit code %d after %d bytes of %d", exit, size, 2*half)
				}
			})
		}
	}
}
