// Package transporttest has what tests of streams and datagrams share: in-memory
// pairs, and the contracts that every [transport.StreamConn] and
// [transport.PacketConn] keeps.
package transporttest

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"vmess-local/pkg/transport"
)

// ErrReset is what the other end of a reset pipe reads.
var ErrReset = errors.New("pipe: reset by peer")

// Pipe returns the two ends of an in-memory stream. Each direction buffers up
// to size bytes; both ends support half close, deadlines and Reset, and wait
// on a condition variable, so they work with a fake clock.
func Pipe(size int) (a, b *Conn) {
	x, y := newHalf(size), newHalf(size)
	return &Conn{in: x, out: y}, &Conn{in: y, out: x}
}

// A Conn is one end of a Pipe.
type Conn struct{ in, out *half }

var (
	_ transport.StreamConn   = (*Conn)(nil)
	_ transport.Resetter     = (*Conn)(nil)
	_ transport.ReadWaiter   = (*Conn)(nil)
	_ transport.WriteReadier = (*Conn)(nil)
)

// WriteReady implements transport.Roomer.
func (c *Conn) WriteReady() bool {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.size-len(c.out.buf) >= transport.WriteReadyBytes
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) { return c.in.read(p) }

// WaitRead implements transport.ReadWaiter.
func (c *Conn) WaitRead() error { _, err := c.in.read(nil); return err }

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) { return c.out.write(p) }

// CloseWrite implements transport.StreamConn.
func (c *Conn) CloseWrite() error { c.out.end(io.EOF, nil); return nil }

// Close ends both directions; what was written before is still delivered.
func (c *Conn) Close() error {
	c.out.end(io.EOF, net.ErrClosed)
	c.in.end(net.ErrClosed, io.ErrClosedPipe)
	return nil
}

// Reset implements transport.Resetter: the other end reads ErrReset.
func (c *Conn) Reset() error {
	c.out.end(ErrReset, net.ErrClosed)
	c.in.end(net.ErrClosed, ErrReset)
	return nil
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return addr{} }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return addr{} }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { c.in.readBy.set(c.in, t); return nil }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { c.out.writeBy.set(c.out, t); return nil }

type addr struct{}

func (addr) Network() string { return "pipe" }
func (addr) String() string  { return "pipe" }

// half is one direction.
type half struct {
	mu              sync.Mutex
	changed         *sync.Cond
	buf             []byte
	size            int
	readErr         error // what a reader gets after buf
	writeErr        error // what a writer gets
	readBy, writeBy deadline
}

func newHalf(size int) *half {
	h := &half{size: size}
	h.changed = sync.NewCond(&h.mu)
	return h
}

// read takes what is there; with p nil it only waits for something.
func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.readErr != nil && h.readErr != io.EOF:
			return 0, h.readErr
		case h.readBy.passed:
			return 0, os.ErrDeadlineExceeded
		case len(h.buf) > 0:
			n := copy(p, h.buf)
			h.buf = h.buf[n:]
			h.changed.Broadcast()
			return n, nil
		case h.readErr != nil:
			return 0, h.readErr
		}
		h.changed.Wait()
	}
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	total := 0
	for {
		switch {
		case h.writeErr != nil:
			return total, h.writeErr
		case h.writeBy.passed:
			return total, os.ErrDeadlineExceeded
		case len(p) == 0:
			return total, nil
		}
		if n := min(h.size-len(h.buf), len(p)); n > 0 {
			h.buf = append(h.buf, p[:n]...)
			p, total = p[n:], total+n
			h.changed.Broadcast()
			continue
		}
		h.changed.Wait()
	}
}

// end closes the direction: readers get r after the rest, writers get w.
func (h *half) end(r, w error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readErr == nil || r != io.EOF {
		h.readErr = r
	}
	if h.writeErr == nil {
		if w == nil {
			w = io.ErrClosedPipe
		}
		h.writeErr = w
	}
	h.changed.Broadcast()
}

type deadline struct {
	timer  *time.Timer
	passed bool
	round  int
}

func (d *deadline) set(h *half, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.round++
	d.passed = !t.IsZero() && !t.After(time.Now())
	if !t.IsZero() && !d.passed {
		round := d.round
		d.timer = time.AfterFunc(time.Until(t), func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			if d.round == round {
				d.passed = true
				h.changed.Broadcast()
			}
		})
	}
	h.changed.Broadcast()
}
