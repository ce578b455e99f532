package transporttest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A PipeListener hands out the far ends of pipes, for servers that are tested
// with a fake clock.
type PipeListener struct {
	room  int
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// NewPipeListener makes a listener that says it is on a loopback port. Its
// connections buffer up to room bytes each way.
func NewPipeListener(room int) *PipeListener {
	return &PipeListener{
		room:  room,
		addr:  &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1081},
		conns: make(chan net.Conn), done: make(chan struct{}),
	}
}

// Accept implements net.Listener.
func (l *PipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *PipeListener) Close() error { l.once.Do(func() { close(l.done) }); return nil }

// Addr implements net.Listener.
func (l *PipeListener) Addr() net.Addr { return l.addr }

// Dial returns the near end of a connection that was accepted.
func (l *PipeListener) Dial() net.Conn {
	near, far := Pipe(l.room)
	select {
	case l.conns <- far:
	case <-l.done:
		_ = near.Close()
	}
	return near
}

// An HTTPPort is a port that speaks HTTP/1.1, and what to ask of it.
type HTTPPort struct {
	// Dial makes a connection that buffers Room bytes: less than an answer.
	Dial func() net.Conn
	Room int
	// Target is what is asked for, Fields are lines of the header.
	Target, Fields string
	// Within is how long who withholds something may stay at most.
	Within time.Duration
	// Idle, where bodies are waited for, is the silence that ends that, within
	// its double; 0: bodies are not wanted, and end within Within even when
	// they move.
	Idle time.Duration
	// Pace, where answers are long, is a pause between the reads of one that
	// does not end it; 0: answers are short.
	Pace time.Duration
}

// TestHTTPPort checks on a fake clock that who withholds a request's body, or
// takes no answer, holds a connection for a bounded time only, and that what is
// slow and moves goes on. open is called in a bubble of its own for each case.
func TestHTTPPort(t *testing.T, open func(t *testing.T) HTTPPort) {
	t.Helper()
	run := func(name string, f func(t *testing.T, p HTTPPort, c *visitor)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := open(t)
				c := &visitor{Conn: p.Dial()}
				defer c.leave()
				f(t, p, c)
			})
		})
	}
	for name, rest := range map[string]string{
		"body withheld":           "Content-Length: 9\r\n\r\n",
		"body withheld, expected": "Expect: 100-continue\r\nContent-Length: 9\r\n\r\n",
		"rest of a body withheld": "Content-Length: 9\r\n\r\nsome",
		"large body withheld":     "Content-Length: 200000\r\n\r\nsome",
		"chunk withheld":          "Transfer-Encoding: chunked\r\n\r\n",
		"rest of a chunk":         "Transfer-Encoding: chunked\r\n\r\n9\r\nsome",
	} {
		run(name, func(t *testing.T, p HTTPPort, c *visitor) {
			c.send(p.head("POST") + rest)
			p.wantEnd(t, c)
		})
	}
	run("body of a byte a second", func(t *testing.T, p HTTPPort, c *visitor) {
		if p.Idle > 0 {
			p.wantUpload(t, c, time.Second, int(3*p.Idle/time.Second))
			return
		}
		c.sending.Go(func() {
			_, err := io.WriteString(c, p.head("POST")+"Content-Length: 200000\r\n\r\n")
			for ; err == nil; time.Sleep(time.Second) {
				_, err = c.Write([]byte{'x'})
			}
		})
		p.wantEnd(t, c)
	})
	run("answer not read", func(t *testing.T, p HTTPPort, c *visitor) {
		c.send(p.head("GET") + "\r\n")
		time.Sleep(p.Within)
		start := time.Now()
		got, _ := io.ReadAll(c)
		if took := time.Since(start); took > 0 || len(got) > p.Room {
			t.Errorf("after %s there is still an answer (%d bytes) and the connection (for %s)", p.Within, len(got), took)
		}
	})
	run("answer read slowly", func(t *testing.T, p HTTPPort, c *visitor) {
		if p.Pace > 0 {
			p.wantDownload(t, c)
		}
	})
}

// A visitor is a client and what it is still sending.
type visitor struct {
	net.Conn
	sending sync.WaitGroup
}

func (v *visitor) send(text string) { v.sending.Go(func() { _, _ = io.WriteString(v, text) }) }

func (v *visitor) leave() {
	_ = v.Close()
	v.sending.Wait()
}

func (p HTTPPort) head(method string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\n%s", method, p.Target, p.Fields)
}

// wantEnd wants that the far end closes in time.
func (p HTTPPort) wantEnd(t *testing.T, c *visitor) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(p.Within))
	got, err := io.ReadAll(c)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Errorf("it is still open after %s, and answered %.60q", p.Within, got)
	}
}

// wantUpload wants that a body of n pieces arrives, with a pause before each.
func (p HTTPPort) wantUpload(t *testing.T, c *visitor, pause time.Duration, n int) {
	t.Helper()
	c.sending.Go(func() {
		_, err := fmt.Fprintf(c, "%sContent-Length: %d\r\n\r\n", p.head("POST"), n)
		for i := 0; i < n && err == nil; i++ {
			time.Sleep(pause)
			_, err = c.Write([]byte{'x'})
		}
		if err != nil {
			t.Errorf("the upload was cut: %v", err)
		}
	})
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode >= 400 || !bytes.Contains(text, []byte(strings.Repeat("x", n))) {
		t.Errorf("the upload was answered %s %.60q, %v", resp.Status, text, err)
	}
}

// wantDownload wants that a long answer arrives, with a pause before each read.
func (p HTTPPort) wantDownload(t *testing.T, c *visitor) {
	t.Helper()
	c.send(p.head("GET") + "\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 2048)
	for left := resp.ContentLength; left > 0; {
		time.Sleep(p.Pace)
		n, err := io.ReadFull(resp.Body, buf)
		if left -= int64(n); err != nil && left > 0 {
			t.Fatalf("the answer was cut with %d bytes left: %v", left, err)
		}
	}
}
