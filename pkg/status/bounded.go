package status

import (
	"net"
	"net/http"
	"slices"
	"sync"

	"vmess-local/pkg/host/errno"
)

// bounded keeps at most so many connections open. The oldest of those that
// wait for a request is closed for a new one, and where there is none, the new
// one is: so who opens many and says nothing keeps nobody out.
type bounded struct {
	net.Listener
	most int

	mu      sync.Mutex
	open    int
	waiting []*conn // the oldest first
}

// conn is one of them.
type conn struct {
	net.Conn
	of   *bounded
	gone bool // no longer counted
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, errno.AcceptError(err)
		}
		if made := b.admit(c); made != nil {
			return made, nil
		}
		_ = c.Close()
	}
}

// admit makes room for c if it can.
func (b *bounded) admit(c net.Conn) *conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open >= b.most {
		if len(b.waiting) == 0 {
			return nil
		}
		oldest := b.waiting[0]
		_ = oldest.Conn.Close()
		b.remove(oldest)
	}
	b.open++
	made := &conn{Conn: c, of: b}
	b.waiting = append(b.waiting, made)
	return made
}

// changed is the server's ConnState.
func (b *bounded) changed(c net.Conn, state http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	made := c.(*conn)
	if state == http.StateNew || made.gone {
		return
	}
	b.waiting = slices.DeleteFunc(b.waiting, func(w *conn) bool { return w == made })
	if state == http.StateIdle {
		b.waiting = append(b.waiting, made)
	}
}

// remove counts a connection out. The caller holds b.mu.
func (b *bounded) remove(c *conn) {
	if c.gone {
		return
	}
	c.gone = true
	b.open--
	b.waiting = slices.DeleteFunc(b.waiting, func(w *conn) bool { return w == c })
}

// Close implements net.Conn.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.of.remove(c)
	return err
}
