package wsconn

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
)

func TestReadEnd(t *testing.T) {
	code := func(code int, text string) func(error) bool {
		return func(err error) bool {
			var e *CloseError
			return errors.As(err, &e) && e.Code == code && e.Text == text
		}
	}
	is := func(target error) func(error) bool {
		return func(err error) bool { return errors.Is(err, target) }
	}
	eof := func(err error) bool { return err == io.EOF }
	noClose := func(err error) bool { return errors.Is(err, ErrNoClose) && errors.Is(err, io.ErrUnexpectedEOF) }
	long := binary.BigEndian.AppendUint64([]byte{0x82, 127}, 1<<63)
	for _, c := range []struct {
		name string
		end  []byte
		want func(error) bool
	}{
		{"1000", closeFrame(1000, ""), eof},
		{"1001", closeFrame(1001, "bye"), eof},
		{"no code", frame(0x88, nil), eof},
		{"1011", closeFrame(1011, "broken"), code(1011, "broken")},
		{"4000", closeFrame(4000, ""), code(4000, "")},
		{"FIN", nil, noClose},
		{"FIN in a header", []byte{0x82}, noClose},
		{"FIN in a payload", []byte{0x82, 5}, noClose},
		{"FIN between fragments", frame(0x02, nil), noClose},
		{"reserved bit", frame(0xc2, []byte("x")), is(ErrBadFrame)},
		{"reserved opcode", frame(0x83, []byte("x")), is(ErrBadFrame)},
		{"masked", frame(0x82, []byte("x"), 1, 2, 3, 4), is(ErrBadFrame)},
		{"continuation of nothing", frame(0x80, []byte("x")), is(ErrBadFrame)},
		{"long ping", frame(0x89, pattern(126)), is(ErrBadFrame)},
		{"fragmented ping", frame(0x09, nil), is(ErrBadFrame)},
		{"code 1006", closeFrame(1006, ""), is(ErrBadFrame)},
		{"close of one byte", frame(0x88, []byte{3}), eof},
		{"length above 2^63", long, is(ErrBadFrame)},
		{"empty frames", bytes.Repeat(frame(0x82, nil), maxEmptyFrames+1), is(ErrBadFrame)},
		{"empty fragments", bytes.Repeat(frame(0x02, nil), 1), noClose},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := append(frame(0x82, []byte("to the ")), frame(0x81, []byte("last"))...)
			conn := dial(t, upgraded(t, func(p *rawPeer) { _, _ = p.Write(append(data, c.end...)) }))
			got, err := io.ReadAll(eofMark{conn})
			var end endedBy
			if !errors.As(err, &end) || string(got) != "to the last" || !c.want(end.error) {
				t.Fatalf("read %q, %v", got, err)
			}
			for range 1100 { // gorilla panics at the 1000th
				if n, again := conn.Read(make([]byte, 8)); n != 0 || again != end.error {
					t.Fatalf("then %d, %v", n, again)
				}
			}
			if err := conn.WaitRead(); err != end.error {
				t.Errorf("WaitRead: %v", err)
			}
			conn.WaitPeerClose()
		})
	}
}

// An eofMark shows io.EOF to io.ReadAll.
type eofMark struct{ io.Reader }

type endedBy struct{ error }

func (e eofMark) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err != nil {
		err = endedBy{err}
	}
	return n, err
}

func TestReadReset(t *testing.T) {
	for _, size := range []int{10, minLent} { // waiting without and with a buffer
		reset := make(chan struct{})
		c := dial(t, upgraded(t, func(p *rawPeer) {
			_, _ = p.Write(frame(0x82, []byte("data")))
			<-reset
			_ = p.Conn.(*net.TCPConn).SetLinger(0)
		}))
		b := make([]byte, size)
		if n, err := c.Read(b); string(b[:n]) != "data" || err != nil {
			t.Fatalf("read %q, %v", b[:n], err)
		}
		close(reset)
		if _, err := c.Read(b); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("size %d: got %v", size, err)
		}
	}
}

// What was sent before the end arrives, however the end comes.
func TestTailIsNeverLost(t *testing.T) {
	const rounds = 1000
	ends := [][]byte{closeFrame(1000, ""), frame(0x88, nil), nil, closeFrame(1011, "")}
	want := pattern(5000)
	var round atomic.Int64
	endpoint := overTCP(t, func(p *rawPeer) {
		if p.accept() != nil {
			return
		}
		i := int(round.Load())
		out := p.switching("")
		if i%3 == 0 { // all in the same write as the upgrade, or not
			_, _ = p.Write(out)
			out = nil
		}
		for at := 0; at < len(want); {
			n := min(1+(i*37+at)%1900, len(want)-at)
			out = append(out, frame(0x82, want[at:at+n])...)
			at += n
			if i%5 == 0 {
				_, _ = p.Write(out)
				out = out[:0]
			}
		}
		_, _ = p.Write(append(out, ends[i%len(ends)]...))
	})
	for i := range rounds {
		round.Store(int64(i))
		c := dial(t, endpoint)
		var got []byte
		b := make([]byte, []int{11, 100, 3000, 64 << 10}[i/7%4])
		for {
			if i%2 == 0 {
				_ = c.WaitRead()
			}
			n, err := c.Read(b)
			got = append(got, b[:n]...)
			if err != nil {
				break
			}
		}
		_ = c.Close()
		if !bytes.Equal(got, want) {
			t.Fatalf("round %d: %d of %d bytes", i, len(got), len(want))
		}
	}
}

func TestReadJoinsFrames(t *testing.T) {
	payload := pattern(60 << 10)
	var burst []byte
	for i := 0; i < len(payload); i += 2 << 10 {
		burst = append(burst, frame(0x82, payload[i:i+2<<10])...)
		if i%(8<<10) == 0 {
			burst = append(append(burst, frame(0x89, []byte("ping"))...), frame(0x82, nil)...)
		}
	}
	c, _ := pipeConn(t, burst)
	b := make([]byte, 66<<10)
	n, err := c.Read(b)
	if err != nil || !bytes.Equal(b[:n], payload) {
		t.Errorf("one Read gave %d of %d bytes, %v", n, len(payload), err)
	}
}

// pipeConn is a client Conn that has received all of burst, in one piece
// where it is read with a buffer that is large enough; then nothing comes.
func pipeConn(t testing.TB, burst []byte) (c *Conn, done func()) {
	hold := make(chan struct{})
	done = sync.OnceFunc(func() { close(hold) })
	t.Cleanup(done)
	return dial(t, overPipe(func(p *rawPeer) {
		go func() { _, _ = io.Copy(io.Discard, p.br) }()
		_, _ = p.Write(burst)
		<-hold
	})), done
}

// Some data is at hand and more of the frame is to come: Read does not wait.
func TestReadDoesNotWaitForMore(t *testing.T) {
	for _, burst := range [][]byte{
		frame(0x82, pattern(5000))[:2000],
		append(frame(0x82, pattern(300)), 0x82),
		append(frame(0x82, pattern(300)), frame(0x89, nil)...),
		append(frame(0x02, pattern(300)), frame(0x00, nil)...),
		append(frame(0x82, pattern(300)), frame(0x82, pattern(300))[:4]...),
	} {
		for _, size := range []int{1, 50, 5000, 64 << 10} {
			c, done := pipeConn(t, burst)
			if n, err := c.Read(make([]byte, size)); n == 0 || err != nil {
				t.Errorf("read %d, %v", n, err)
			}
			done()
		}
	}
}

func TestEndlessFrameIsStreamed(t *testing.T) {
	c, done := pipeConn(t, append(binary.BigEndian.AppendUint64([]byte{0x82, 127}, 1<<63-1), pattern(100<<10)...))
	done()
	got, err := io.ReadAll(c)
	if !errors.Is(err, ErrNoClose) || !bytes.Equal(got, pattern(100<<10)) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

func TestEmptyFragmentsEnd(t *testing.T) {
	c := dial(t, upgraded(t, func(p *rawPeer) {
		b := bytes.Repeat(frame(0x00, nil), 1000)
		_, err := p.Write(frame(0x02, nil))
		for err == nil {
			_, err = p.Write(b)
		}
	}))
	if _, err := c.Read(make([]byte, 100)); !errors.Is(err, ErrBadFrame) {
		t.Errorf("got %v", err)
	}
}

// A flood of control frames ends; as many over a long time, or with data
// between them, do not.
func TestControlFloodEnds(t *testing.T) {
	for _, ping := range [][]byte{frame(0x89, pattern(125)), frame(0x8a, nil)} {
		c := dial(t, upgraded(t, func(p *rawPeer) {
			go func() { _, _ = io.Copy(io.Discard, p.br) }()
			b := bytes.Repeat(ping, 1000)
			_, err := p.Write(b)
			for err == nil {
				_, err = p.Write(b)
			}
		}))
		if _, err := c.Read(make([]byte, 100)); !errors.Is(err, ErrBadFrame) {
			t.Errorf("got %v", err)
		}
	}
	t.Run("slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := dialWith(t, &Dialer{Host: "h", Endpoint: overPipe(func(p *rawPeer) {
				for range 3 * maxControls {
					_, _ = p.Write(frame(0x8a, nil))
					time.Sleep(controlTime/maxControls + time.Millisecond)
				}
				_, _ = p.Write(frame(0x82, []byte("data")))
				_, _ = p.Write(closeFrame(1000, ""))
				_, _, _ = readFrame(p.br)
			})}, nil)
			if b, err := io.ReadAll(c); string(b) != "data" || err != nil {
				t.Errorf("read %q, %v", b, err)
			}
			_ = c.Close()
		})
	})
	t.Run("with data between", func(t *testing.T) {
		few := append(bytes.Repeat(frame(0x8a, nil), maxControls), frame(0x82, []byte("data"))...)
		c, done := pipeConn(t, bytes.Repeat(few, 3))
		done()
		if b, err := io.ReadAll(c); string(b) != "datadatadata" || !errors.Is(err, ErrNoClose) {
			t.Errorf("read %q, %v", b, err)
		}
	})
}

func TestReadDeadline(t *testing.T) {
	c, _ := pipeConn(t, nil)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err := c.Read(make([]byte, 10))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	_ = c.SetReadDeadline(time.Time{})
	if _, again := c.Read(make([]byte, 10)); again != err {
		t.Errorf("then %v", again)
	}
}

func TestWaitRead(t *testing.T) {
	for _, waits := range []bool{true, false} {
		pong := make(chan struct{})
		serve := func(p *rawPeer) {
			_, _ = p.Write(append(frame(0x89, []byte("x")), frame(0x82, nil)...))
			if first, b, err := readFrame(p.br); first == 0x8a && string(b) == "x" && err == nil {
				close(pong)
			}
			_, _ = p.Write(frame(0x82, pattern(40<<10)))
			_, _, _ = readFrame(p.br)
		}
		endpoint := overPipe(serve)
		if waits {
			endpoint = upgraded(t, serve)
		}
		c := dial(t, endpoint)
		if _, ok := c.carrier.conn.(transport.ReadWaiter); ok != waits {
			t.Fatal("the test is not about what it should be")
		}
		if err := c.WaitRead(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-pong:
		default:
			t.Error("WaitRead came back for a ping")
		}
		if err := c.WaitRead(); err != nil { // again, without reading
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		got := make([]byte, 40<<10)
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, pattern(40<<10)) {
			t.Errorf("read %v", err)
		}
		_ = c.Close()
	}
}

// Behind the stream's own end pings are answered, what comes is dropped, and a
// departure ends the waiting.
func TestWaitPeerClose(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(p *rawPeer)
		gone bool
	}{
		{"close frame", func(p *rawPeer) { _, _ = p.Write(closeFrame(1000, "")) }, true},
		{"RST", func(p *rawPeer) { _ = p.Conn.(*net.TCPConn).SetLinger(0) }, true},
		{"broken frame", func(p *rawPeer) { _, _ = p.Write(frame(0x83, nil)) }, true},
		{"too much", func(p *rawPeer) {
			for range 20 {
				_, _ = p.Write(frame(0x82, pattern(50<<10)))
			}
			_, _, _ = readFrame(p.br) // until the other side has gone
		}, true},
		{"FIN, as of a killed program", func(*rawPeer) {}, false},
		{"FIN of one direction, then RST", func(p *rawPeer) {
			_ = p.Conn.(*net.TCPConn).CloseWrite()
			if first, _, err := readFrame(p.br); err != nil || first != 0x89 {
				t.Errorf("got %#x, %v, want a ping", first, err)
			}
			_ = p.Conn.(*net.TCPConn).SetLinger(0)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := dialWith(t, &Dialer{Host: "example.com", Ping: time.Hour, Endpoint: upgraded(t, func(p *rawPeer) {
				for range 3 {
					_, _ = p.Write(frame(0x89, []byte("there?")))
					if first, b, err := readFrame(p.br); err != nil || first != 0x8a || string(b) != "there?" {
						t.Errorf("got %#x %q, %v, want a pong", first, b, err)
						return
					}
					_, _ = p.Write(frame(0x82, pattern(1000)))
				}
				c.end(p)
			})}, nil)
			if gone := conn.WaitPeerClose(); gone != c.gone {
				t.Errorf("gone: %v", gone)
			}
			if !c.gone {
				for deadline := time.Now().Add(patience); runtime.GOOS == "linux" && !transport.ResetByPeer(conn); time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("that nobody is there is not known")
					}
				}
			}
			_ = conn.Close()
		})
	}
}

// A tap counts the writes of the connection below it.
type tap struct {
	transport.StreamConn
	writes atomic.Int64
}

func (c *tap) Write(p []byte) (int, error) { c.writes.Add(1); return c.StreamConn.Write(p) }

func TestWriteFrames(t *testing.T) {
	type got struct {
		first byte
		size  int
	}
	for _, c := range []struct {
		size int
		want []int
	}{
		{0, nil},
		{1, []int{1}},
		{125, []int{125}},
		{126, []int{126}},
		{16 << 10, []int{16 << 10}},
		{65535, []int{65535}},
		{65536, []int{65536}},
		{maxMessage, []int{maxMessage}},
		{maxMessage + 1, []int{maxMessage, 1}},
		{3*maxMessage - 1, []int{maxMessage, maxMessage, maxMessage - 1}},
	} {
		frames := make(chan []got, 1)
		endpoint := upgraded(t, func(p *rawPeer) {
			var all []got
			var data []byte
			for {
				first, b, err := readFrame(p.br)
				if err != nil || first == 0x88 {
					break
				}
				all, data = append(all, got{first, len(b)}), append(data, b...)
			}
			if !bytes.Equal(data, pattern(c.size)) {
				t.Errorf("%d bytes: other bytes arrived", c.size)
			}
			frames <- all
		})
		var below *tap
		conn := dial(t, transport.EndpointFunc(func(ctx context.Context, _ []byte) (transport.StreamConn, error) {
			s, err := endpoint.ConnectStream(ctx, nil)
			below = &tap{StreamConn: s}
			return below, err
		}))
		before := below.writes.Load()
		p := pattern(c.size)
		if n, err := conn.Write(p); n != c.size || err != nil {
			t.Errorf("Write of %d: %d, %v", c.size, n, err)
		}
		if writes := below.writes.Load() - before; int(writes) != len(c.want) {
			t.Errorf("%d bytes left in %d writes, want %d", c.size, writes, len(c.want))
		}
		if !bytes.Equal(p, pattern(c.size)) {
			t.Errorf("%d bytes: Write changed them", c.size)
		}
		_ = conn.Close()
		all := <-frames
		if len(all) != len(c.want) {
			t.Errorf("%d bytes: frames %v", c.size, all)
			continue
		}
		for i, f := range all {
			if f.first != 0x82 || f.size != c.want[i] {
				t.Errorf("%d bytes: frame %d is %+v", c.size, i, f)
			}
		}
	}
}

func TestClose(t *testing.T) {
	type end struct {
		first   byte
		payload string
		err     error
	}
	got := make(chan end, 2)
	c := dial(t, upgraded(t, func(p *rawPeer) {
		for range 2 {
			first, b, err := readFrame(p.br)
			got <- end{first, string(b), err}
		}
	}))
	reader := make(chan error, 1)
	go func() { _, err := c.Read(make([]byte, 1)); reader <- err }()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if e := <-got; e != (end{0x88, "\x03\xe8", nil}) {
		t.Errorf("the far end got %+v", e)
	}
	if e := <-got; e.err != io.EOF {
		t.Errorf("then %+v", e)
	}
	if err := <-reader; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := c.Reset(); err != nil {
		t.Errorf("Reset: %v", err)
	}
	if err := c.CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("CloseWrite: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
}

func TestReset(t *testing.T) {
	got := make(chan error, 1)
	c := dial(t, upgraded(t, func(p *rawPeer) {
		_, _, err := readFrame(p.br)
		got <- err
	}))
	if err := c.Reset(); err != nil {
		t.Error(err)
	}
	if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the far end got %v", err)
	}
	c, _ = pipeConn(t, nil) // cannot be reset
	if err := c.Reset(); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
}

// The connection below knows whether a write would wait.
func TestRoomy(t *testing.T) {
	if runtime.GOOS != "windows" && !transport.WriteReady(dial(t, upgraded(t, func(p *rawPeer) { _, _ = p.br.ReadByte() }))) {
		t.Error("no room over TCP")
	}
	if transport.WriteReady(dial(t, overPipe(func(p *rawPeer) { _, _ = p.br.ReadByte() }))) {
		t.Error("a connection that cannot tell has room")
	}
}

// stuck is a Conn with a Write under way that the far end does not read.
func stuck(t *testing.T) (c *Conn, written <-chan error, done func()) {
	hold, started := make(chan struct{}), make(chan struct{})
	c = dial(t, overPipe(func(p *rawPeer) {
		_, _ = p.br.ReadByte() // the start of the frame
		close(started)
		<-hold
	}))
	out := make(chan error, 1)
	go func() { _, err := c.Write(pattern(1 << 20)); out <- err }()
	<-started
	return c, out, func() { close(hold) }
}

func TestCloseBehindStuckWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, written, done := stuck(t)
		start := time.Now()
		_ = c.Close()
		if took := time.Since(start); took != 0 {
			t.Errorf("Close took %v", took)
		}
		if err := <-written; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write: %v", err)
		}
		done()
	})
}

// Nobody writes, but the far end does not read either.
func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, done := pipeConnUnread(t)
		start := time.Now()
		_ = c.Close()
		if took := time.Since(start); took > closeWait {
			t.Errorf("Close took %v", took)
		}
		done()
	})
}

func pipeConnUnread(t *testing.T) (*Conn, func()) {
	hold := make(chan struct{})
	return dial(t, overPipe(func(*rawPeer) { <-hold })), func() { close(hold) }
}

func TestWriteDeadlineFreesWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, written, done := stuck(t)
		_ = c.SetWriteDeadline(time.Now().Add(time.Minute))
		if err := <-written; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write: %v", err)
		}
		_ = c.SetWriteDeadline(time.Time{})
		if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("then: %v", err)
		}
		done()
	})
}

// TestPartSent: an error tells whether the far end may have got a part.
func TestPartSent(t *testing.T) {
	for name, tt := range map[string]struct {
		takes int // of the first message, by the far end
		part  bool
	}{"nothing": {0, false}, "a part": {1000, true}, "the first frame": {80 << 10, true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hold := make(chan struct{})
				endpoint := overPipe(func(p *rawPeer) {
					_, _ = io.ReadFull(p.Conn, make([]byte, tt.takes))
					<-hold
				})
				c := dial(t, endpoint)
				_ = c.SetWriteDeadline(time.Now().Add(time.Second))
				_, err := c.Write(pattern(100 << 10))
				if !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, transport.ErrPartSent) != tt.part {
					t.Errorf("Write: %v", err)
				}
				_, err = (&Dialer{Endpoint: endpoint, Host: "h", Timeout: time.Second}).ConnectStream(t.Context(), pattern(100<<10))
				var late *TimeoutError
				if !errors.As(err, &late) || errors.Is(err, transport.ErrPartSent) != tt.part {
					t.Errorf("with the dial: %v", err)
				}
				close(hold)
			})
		})
	}
}

// A deadline set once holds for all frames that follow.
func TestWriteDeadlineStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		c := dial(t, overPipe(func(p *rawPeer) {
			_, _, _ = readFrame(p.br)
			<-hold
		}))
		_ = c.SetWriteDeadline(time.Now().Add(time.Minute))
		if _, err := c.Write([]byte("read")); err != nil {
			t.Error(err)
		}
		if _, err := c.Write(pattern(300 << 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		close(hold)
	})
}

// The far end's close is answered with its code, and ends writing.
func TestPeerClosesFirst(t *testing.T) {
	got := make(chan string, 1)
	c := dial(t, upgraded(t, func(p *rawPeer) {
		_, _ = p.Write(closeFrame(1001, "away"))
		first, b, _ := readFrame(p.br)
		got <- string(append([]byte{first}, b...))
		_, _ = io.Copy(io.Discard, p.br)
	}))
	if _, err := c.Read(make([]byte, 10)); err != io.EOF {
		t.Errorf("Read: %v", err)
	}
	if s := <-got; s != "\x88\x03\xe9" {
		t.Errorf("answered %q", s)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, ErrEnded) {
		t.Errorf("Write: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestPings(t *testing.T) {
	const every = 30 * time.Second
	open := func(t *testing.T, serve func(p *rawPeer)) *Conn {
		return dialWith(t, &Dialer{Host: "h", Ping: every, Endpoint: overPipe(serve)}, nil)
	}
	t.Run("answered", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			var at []time.Duration
			done := make(chan struct{})
			c := open(t, func(p *rawPeer) {
				for range 4 {
					first, b, err := readFrame(p.br)
					if first != 0x89 || err != nil {
						t.Errorf("got %x %q, %v", first, b, err)
					}
					at = append(at, time.Since(start))
					time.Sleep(time.Second) // the way back
					_, _ = p.Write(frame(0x8a, b))
				}
				time.Sleep(every / 2)
				_, _ = p.Write(frame(0x82, []byte("data")))
				_, _, _ = readFrame(p.br)
				at = append(at, time.Since(start))
				_, _ = p.Write(closeFrame(1000, ""))
				_, _, _ = readFrame(p.br)
				close(done)
			})
			b, err := io.ReadAll(c)
			if string(b) != "data" || err != nil {
				t.Errorf("read %q, %v", b, err)
			}
			<-done
			if len(at) != 5 {
				t.Errorf("pings after %v", at)
			}
			for i, d := range at {
				if want := time.Duration(i+1) * every; i < 4 && d != want || i == 4 && (d < 165*time.Second || d > 170*time.Second) {
					t.Errorf("ping %d after %v", i, d)
				}
			}
			_ = c.Close()
		})
	})
	for _, wait := range []bool{false, true} {
		t.Run("unanswered", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				pings, done := 0, make(chan struct{})
				c := open(t, func(p *rawPeer) {
					defer close(done)
					for {
						if _, _, err := readFrame(p.br); err != nil {
							return
						}
						pings++
					}
				})
				var err error
				if wait {
					err = c.WaitRead()
				} else {
					_, err = c.Read(make([]byte, 1))
				}
				<-done
				if !errors.Is(err, ErrPingTimeout) || time.Since(start) != 3*every || pings != 2 {
					t.Errorf("%v after %v and %d pings", err, time.Since(start), pings)
				}
				if _, err := c.Write([]byte("x")); !errors.Is(err, ErrPingTimeout) {
					t.Errorf("Write: %v", err)
				}
				_ = c.Close()
			})
		})
	}
	t.Run("nobody reads", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := open(t, func(p *rawPeer) {
				go func() { _, _ = p.Write(frame(0x82, []byte("late"))) }()
				_, _ = io.Copy(io.Discard, p.br)
			})
			time.Sleep(20 * every)
			b := make([]byte, 10)
			if n, err := c.Read(b); string(b[:n]) != "late" || err != nil {
				t.Errorf("read %q, %v", b[:n], err)
			}
			_ = c.Close()
		})
	})
	t.Run("nobody reads, no pings", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var got []byte
			c := open(t, func(p *rawPeer) { got, _ = io.ReadAll(p.br) })
			time.Sleep(20 * every)
			_ = c.Reset()
			synctest.Wait()
			if len(got) > 0 {
				t.Errorf("sent %x to who cannot be heard", got)
			}
		})
	})
	// What was written stands before the pings; the system knows more or less of
	// what becomes of it.
	const much = muchWritten
	for _, tt := range []struct {
		name     string
		standing transport.SendState
		write    int
		blocked  bool // the write waits for room
		lives    bool
	}{
		{"no room, and acknowledged", transport.SendBlocked, 1 << 20, true, true},
		{"in our system, and acknowledged", transport.SendBlocked, 1 << 10, false, true},
		{"much in theirs", transport.SendAcked, much, false, true},
		{"little in theirs", transport.SendAcked, much - 1, false, false},
		{"no room, nobody answers", transport.SendTimedOut, 1 << 20, true, false},
		{"much in ours, nobody answers", transport.SendTimedOut, much, false, false},
		{"no room, nobody knows", transport.SendUnknown, 1 << 20, true, true},
		{"room, nobody knows", transport.SendUnknown, much, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				goOn := make(chan struct{})
				c := openStanding(t, tt.standing, Dialer{Ping: every}, func(p *rawPeer) {
					if tt.blocked {
						<-goOn
					}
					go func() { _, _ = io.Copy(io.Discard, p.br) }()
					<-goOn
					_, _ = p.Write(frame(0x82, []byte("data")))
				})
				go func() { _, _ = c.Write(make([]byte, tt.write)) }()
				start := time.Now()
				go func() { time.Sleep(20 * every); close(goOn) }()
				n, err := c.Read(make([]byte, 10))
				if took := time.Since(start); tt.lives && (n != 4 || took != 20*every) || !tt.lives && (!errors.Is(err, ErrPingTimeout) || took != 3*every) {
					t.Errorf("%d bytes, %v after %v", n, err, took)
				}
				_ = c.Reset()
				<-goOn
			})
		})
	}
	// Only the pong to a particular ping proves that what was written before it
	// was read; what else is received says that the far end lives.
	for _, tt := range []struct {
		name   string
		answer func(ping []byte) []byte // sent in answer to the first ping
		lives  bool
	}{
		{"the ping's pong proves it", func(ping []byte) []byte { return frame(0x8a, ping) }, false},
		{"another pong does not", func([]byte) []byte { return frame(0x8a, []byte("else")) }, true},
		{"an empty pong does not", func([]byte) []byte { return frame(0x8a, nil) }, true},
		{"data does not", func([]byte) []byte { return frame(0x82, []byte("x")) }, true},
	} {
		t.Run("much in theirs: "+tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				over := make(chan struct{})
				c := openStanding(t, transport.SendAcked, Dialer{Ping: every}, func(p *rawPeer) {
					_, _, _ = readFrame(p.br) // the data
					_, ping, _ := readFrame(p.br)
					_, _ = p.Write(tt.answer(ping))
					go func() { _, _ = io.Copy(io.Discard, p.br) }()
					select {
					case <-over:
					case <-time.After(20 * every):
						_, _ = p.Write(frame(0x82, []byte("data")))
						<-over
					}
				})
				if _, err := c.Write(make([]byte, much)); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				n, err := io.ReadAtLeast(c, make([]byte, 10), 4)
				if took := time.Since(start); tt.lives && n < 4 || !tt.lives && (!errors.Is(err, ErrPingTimeout) || took > 5*every) {
					t.Errorf("%d bytes, %v after %v", n, err, took)
				}
				_ = c.Reset()
				close(over)
			})
		})
	}
	t.Run("payloads are random and of one length", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			seen := map[string]bool{}
			done := make(chan struct{})
			c := open(t, func(p *rawPeer) {
				defer close(done)
				for range 20 {
					first, b, err := readFrame(p.br)
					if first != 0x89 || len(b) != pingSize || err != nil {
						t.Errorf("got %x %x, %v", first, b, err)
					}
					seen[string(b)] = true
					_, _ = p.Write(frame(0x8a, b))
				}
				_, _ = p.Write(closeFrame(1000, ""))
				_, _, _ = readFrame(p.br)
			})
			_, _ = io.ReadAll(c)
			<-done
			if len(seen) < 20 {
				t.Errorf("only %d of 20 payloads differ", len(seen))
			}
		})
	})
}

// A standing is a connection whose system says how what was sent stands.
type standing struct {
	memConn
	says transport.SendState
}

// SendState implements transport.Stander.
func (s standing) SendState() transport.SendState { return s.says }

// openStanding opens a connection over one that says how it stands.
func openStanding(t *testing.T, says transport.SendState, d Dialer, serve func(p *rawPeer)) *Conn {
	t.Helper()
	below := overPipe(serve)
	d.Host, d.Endpoint = "h", transport.EndpointFunc(func(ctx context.Context, first []byte) (transport.StreamConn, error) {
		c, err := below.ConnectStream(ctx, first)
		if err != nil {
			return nil, err
		}
		return standing{c.(memConn), says}, nil
	})
	return dialWith(t, &d, nil)
}

// A reader is not held up by pongs that the far end does not read, and the
// last ping is answered when it reads again.
func TestPongsDoNotBlockReader(t *testing.T) {
	read, last := make(chan struct{}), make(chan string, 1)
	c := dial(t, overPipe(func(p *rawPeer) {
		for i := range 100 {
			_, _ = p.Write(frame(0x89, []byte{byte(i)}))
		}
		_, _ = p.Write(frame(0x82, []byte("data")))
		<-read
		pong := ""
		for pong != "\x63" {
			first, b, err := readFrame(p.br)
			if pong = string(b); err != nil || first != 0x8a {
				break
			}
		}
		last <- pong
	}))
	b := make([]byte, 10)
	if n, err := c.Read(b); string(b[:n]) != "data" || err != nil {
		t.Errorf("read %q, %v", b[:n], err)
	}
	close(read)
	if s := <-last; s != "\x63" {
		t.Errorf("the last pong was %q", s)
	}
}

func TestConcurrentUse(t *testing.T) {
	endpoint := upgraded(t, func(p *rawPeer) {
		go func() { _, _ = io.Copy(io.Discard, p.br) }()
		for i := 0; ; i++ {
			if _, err := p.Write(frame(0x82, pattern(i*997%5000))); err != nil {
				return
			}
			if _, err := p.Write(frame(0x89, nil)); err != nil {
				return
			}
		}
	})
	for i := range 6 {
		c := dialWith(t, &Dialer{Endpoint: endpoint, Host: "h", Ping: 5 * time.Millisecond}, nil)
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				for {
					if _, err := c.Write(pattern(100 << 10)); err != nil {
						return
					}
				}
			})
		}
		all.Go(func() {
			b := make([]byte, 20<<10)
			for range 50 + i {
				if _, err := c.Read(b); err != nil {
					if !errors.Is(err, ErrPingTimeout) { // on a busy machine
						t.Error(err)
					}
					break
				}
			}
			go func() { _ = c.SetDeadline(time.Now().Add(time.Hour)) }()
			go func() { _ = c.Close() }()
			_ = c.Close()
			for {
				if _, err := c.Read(b); err != nil {
					return
				}
			}
		})
		all.Wait()
		if i%2 == 0 {
			_ = c.Reset()
		}
	}
}

func TestErrorTexts(t *testing.T) {
	for want, err := range map[string]error{
		"closed by the far end with code 1011":                                &CloseError{1011, "x\ny"},
		"closed by the far end with code 4000":                                &CloseError{4000, ""},
		"connection ended without a close frame: unexpected EOF":              ErrNoClose,
		"websocket upgrade: not an HTTP answer: it does not begin with HTTP/": &ProtocolError{Err: errNotHTTP},
	} {
		if got := err.Error(); got != want || strings.ContainsAny(got, "\r\n") {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
