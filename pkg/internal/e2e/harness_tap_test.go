package e2e

import (
	"bytes"
	"io"
	"net"
	"regexp"
	"sync"
	"testing"
	"time"
)

// A tap passes connections on to a server and keeps the head of each HTTP
// request that it sees, up to the empty line.
type tap struct {
	addr string

	mu    sync.Mutex
	heads []string
}

// newTap puts a tap in front of the server at backend.
func newTap(t testing.TB, backend string) *tap {
	t.Helper()
	tp := new(tap)
	tp.addr = serveOrigin(t, func(c *net.TCPConn) {
		far, err := net.DialTimeout("tcp", backend, 5*time.Second)
		if err != nil {
			return
		}
		defer far.Close()
		back := make(chan struct{})
		go func() {
			defer close(back)
			_, _ = io.Copy(c, far)
			_ = c.Close()
		}()
		_, _ = io.Copy(far, io.TeeReader(c, &headKeeper{tap: tp}))
		_ = far.Close()
		<-back
	})
	return tp
}

// saw reports whether a request's head matches expr.
func (tp *tap) saw(expr string) bool {
	re := regexp.MustCompile(expr)
	tp.mu.Lock()
	defer tp.mu.Unlock()
	for _, h := range tp.heads {
		if re.MatchString(h) {
			return true
		}
	}
	return false
}

// last returns the head of the last request.
func (tp *tap) last() string {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	if len(tp.heads) == 0 {
		return ""
	}
	return tp.heads[len(tp.heads)-1]
}

// headKeeper is one connection's writer: it keeps the first head.
type headKeeper struct {
	tap  *tap
	text []byte
	done bool
}

// Write implements io.Writer.
func (k *headKeeper) Write(p []byte) (int, error) {
	if k.done {
		return len(p), nil
	}
	k.text = append(k.text, p...)
	if i := bytes.Index(k.text, []byte("\r\n\r\n")); i >= 0 {
		k.done = true
		k.tap.mu.Lock()
		k.tap.heads = append(k.tap.heads, string(k.text[:i+2]))
		k.tap.mu.Unlock()
	}
	return len(p), nil
}
