package vmess

import (
	"crypto/cipher"
	"errors"
	"io"

	"vmess-local/pkg/transport"
)

// An inbuf reads a carrier in large pieces into a buffer that it holds only
// while there is something in it.
type inbuf struct {
	carrier io.Reader
	waiter  transport.ReadWaiter // the carrier, when it can wait
	stream  cipher.Stream        // decrypts all that comes in (aes-128-cfb bodies)
	// small, when not 0, is the size of the first buffer: who has proved
	// nothing yet costs no more.
	small int
	buf   []byte            // nil while there is nothing in it
	lent  *transport.Buffer // whose memory buf is; nil for a small one
	r, w  int
	most  int   // to be buffered, where what is lent has more room; 0: no bound
	total int64 // bytes received so far
	err   error // what ended the carrier
}

func newInbuf(carrier io.Reader) inbuf {
	waiter, _ := carrier.(transport.ReadWaiter)
	return inbuf{carrier: carrier, waiter: waiter}
}

func (b *inbuf) buffered() int { return b.w - b.r }

// peek returns the next n bytes, waiting for them as long as it takes. It
// returns the carrier's error when they do not come; buffered then tells
// whether it ended within them. n is at most transport.BufferSize.
func (b *inbuf) peek(n int) ([]byte, error) {
	for b.buffered() < n {
		if err := b.fill(); err != nil {
			return nil, err
		}
	}
	if n == 0 {
		return nil, nil
	}
	return b.buf[b.r : b.r+n], nil
}

// take is peek and then discard; an end within the bytes is an error.
func (b *inbuf) take(n int) ([]byte, error) {
	p, err := b.peek(n)
	if err != nil {
		if b.buffered() > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	b.r += n
	return p, nil
}

func (b *inbuf) discard(n int) { b.r += n }

// fill reads once more, without a buffer until there is something to read.
func (b *inbuf) fill() error {
	if b.err != nil {
		return b.err
	}
	if b.buf == nil {
		_ = b.wait() // Read tells the error in its own words
		b.open()
	}
	if b.r > 0 {
		b.w = copy(b.buf, b.buf[b.r:b.w])
		b.r = 0
	}
	if b.w == len(b.buf) {
		b.grow()
	}
	room := b.buf[b.w:]
	if left := b.most - b.w; left > 0 && left < len(room) {
		room = room[:left]
	}
	n, err := b.carrier.Read(room)
	if b.stream != nil {
		b.stream.XORKeyStream(b.buf[b.w:b.w+n], b.buf[b.w:b.w+n])
	}
	b.w += n
	b.total += int64(n)
	if err != nil {
		b.err = err
		if n == 0 {
			return err
		}
	}
	return nil
}

func (b *inbuf) open() {
	b.r, b.w = 0, 0
	if b.small > 0 {
		b.buf, b.small = make([]byte, b.small), 0
		return
	}
	b.lent = transport.GetBuffer()
	b.buf = b.lent[:]
}

// grow makes room behind a small buffer. A lent one holds whatever the
// protocol demands in one piece.
func (b *inbuf) grow() {
	if b.lent == nil {
		b.lent = transport.GetBuffer()
		b.w = copy(b.lent[:], b.buf)
		b.buf = b.lent[:]
	}
}

// wait blocks until the carrier has something, where it can.
func (b *inbuf) wait() error {
	if b.waiter == nil || b.err != nil {
		return b.err
	}
	return b.waiter.WaitRead()
}

// decryptFrom makes stream decrypt what is buffered and all that follows.
func (b *inbuf) decryptFrom(stream cipher.Stream) {
	b.stream = stream
	if b.buf != nil {
		stream.XORKeyStream(b.buf[b.r:b.w], b.buf[b.r:b.w])
	}
}

// release gives the buffer back if nothing is in it.
func (b *inbuf) release() {
	if b.buf == nil || b.r != b.w {
		return
	}
	if b.lent != nil {
		b.lent.Release()
	}
	b.buf, b.lent = nil, nil
}
