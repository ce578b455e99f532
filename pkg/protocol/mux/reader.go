package mux

import (
	"encoding/binary"
	"fmt"
	"io"

	"vmess-local/pkg/transport"
)

// A Reader reads frames off a stream, in large pieces: it may have read beyond
// the last frame. It holds a buffer only while there is something in it, when
// the stream is a transport.ReadWaiter.
type Reader struct {
	src    io.Reader
	waiter transport.ReadWaiter
	buf    *transport.Buffer
	r, w   int
	left   int // data of the last frame that was not read yet
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader {
	waiter, _ := r.(transport.ReadWaiter)
	return &Reader{src: r, waiter: waiter}
}

// Next reads the next frame and drops what was not read of the last one's
// data. io.EOF is the stream's end between two frames.
func (r *Reader) Next() (Frame, error) {
	for r.left > 0 {
		p, err := r.some()
		if err != nil {
			return Frame{}, err
		}
		r.take(len(p))
	}
	size, err := r.need(2)
	if err != nil {
		if r.w > r.r {
			err = unexpected(err)
		}
		return Frame{}, err
	}
	n := int(binary.BigEndian.Uint16(size))
	if n < minMeta || n > maxMeta {
		return Frame{}, fmt.Errorf("%w: meta of %d bytes", ErrBadFrame, n)
	}
	meta, err := r.need(2 + n)
	if err != nil {
		return Frame{}, unexpected(err)
	}
	f, err := parse(meta[2:])
	if err != nil || !f.HasData {
		r.discard(2 + n)
		return f, err
	}
	head, err := r.need(2 + n + 2)
	if err != nil {
		return Frame{}, unexpected(err)
	}
	r.left = int(binary.BigEndian.Uint16(head[2+n:]))
	r.discard(2 + n + 2)
	return f, nil
}

// Read reads the data of the last frame; io.EOF is its end.
func (r *Reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	got, err := r.some()
	n := copy(p, got)
	r.take(n)
	return n, err
}

// readFull reads data into p until either is at its end.
func (r *Reader) readFull(p []byte) (n int, err error) {
	for n < len(p) && r.left > 0 {
		m, err := r.Read(p[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// some returns the next piece of the data that is left, which must not be
// none. It is valid until it is taken.
func (r *Reader) some() ([]byte, error) {
	if _, err := r.need(1); err != nil {
		return nil, unexpected(err)
	}
	p := r.buf[r.r:r.w]
	return p[:min(len(p), r.left)], nil
}

// take consumes n bytes of data.
func (r *Reader) take(n int) {
	r.left -= n
	r.discard(n)
}

func (r *Reader) discard(n int) {
	if r.r += n; r.r == r.w && r.waiter != nil {
		r.release()
	}
}

// need returns the next n bytes, at most a frame's meta part and lengths.
func (r *Reader) need(n int) ([]byte, error) {
	for r.w-r.r < n {
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
	return r.buf[r.r : r.r+n], nil
}

func (r *Reader) fill() error {
	if r.buf == nil {
		if r.waiter != nil {
			_ = r.waiter.WaitRead() // Read tells the error in its own words
		}
		r.buf = transport.GetBuffer()
	}
	if r.r > 0 {
		r.w = copy(r.buf[:], r.buf[r.r:r.w])
		r.r = 0
	}
	n, err := r.src.Read(r.buf[r.w:])
	r.w += n
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

// release gives the buffer back with what is in it.
func (r *Reader) release() {
	if r.buf != nil {
		r.buf.Release()
		r.buf, r.r, r.w = nil, 0, 0
	}
}
