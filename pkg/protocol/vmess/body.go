package vmess

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"vmess-local/pkg/transport"
)

// ErrTruncated ends a stream whose far end always marks the end and did not, or
// whose carrier broke off though the far end is of the kind that closes it in
// order: what came may not be all.
var ErrTruncated = fmt.Errorf("the stream ended without its end mark: %w", io.ErrUnexpectedEOF)

// ErrUnmarked is an [ErrTruncated] whose carrier was closed in order: the server
// is there, and gave this stream up, as V2Ray does with those that are silent
// for twice its connIdle.
var ErrUnmarked = fmt.Errorf("closed in order, but %w", ErrTruncated)

// ErrGivenUp is an [ErrUnmarked] of an answer without a byte that the server
// stopped waiting for after our end mark: what the destination would have said
// is lost.
var ErrGivenUp = fmt.Errorf("given up after the request's end: %w", ErrUnmarked)

// ErrDestinationBroke ends a stream of which the server says that the destination
// broke it off: the path to the server is fine.
var ErrDestinationBroke = errors.New("the destination broke off the connection")

// A bodyReader opens the chunks of one direction.
type bodyReader struct {
	in            inbuf
	chunks        *chunker // nil: a raw body
	marksEnds     bool     // the far end is known to mark the end always
	closesCleanly bool     // the far end is known to close its carrier in order
	received      bool     // something has come
	// markedBefore, when not nil, is whether the far end has marked an end before:
	// some do always, which nothing but an end tells.
	markedBefore *atomic.Bool
	// givenUp, when not nil, reports whether an end without data is that of a
	// server that did not wait any longer.
	givenUp func() bool
	size    chunkSize
	sized   bool              // size is of the chunk at hand
	rest    *transport.Buffer // plaintext that did not fit the caller's slice
	restR   int
	restW   int
	err     error // final
}

// start gives the reader its format; what is buffered already is the body.
func (r *bodyReader) start(f bodyFormat, stream cipher.Stream) {
	if f.security == SecurityAESCFB {
		if stream == nil {
			stream = cfbDecrypter(f.key[:], f.iv[:])
		}
		r.in.decryptFrom(stream)
	}
	if !f.raw() {
		r.chunks = newChunker(f)
	}
}

// read fills p with what is there, waiting only when there is nothing.
func (r *bodyReader) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	defer r.in.release()
	for {
		if n := r.takeRest(p); n > 0 {
			return n, nil
		}
		if r.err != nil {
			return 0, r.err
		}
		if r.chunks == nil {
			return r.readRaw(p)
		}
		n, err := r.openBuffered(p)
		if err != nil {
			r.err = err
		}
		if n > 0 {
			return n, nil
		}
		if err == nil && r.rest == nil {
			r.in.most = r.worth(len(p))
			r.err = r.more()
		}
	}
}

// worth returns how many bytes to buffer for a caller who takes n: for one who
// takes much no more than he can take at once, so that nothing small is left
// over for the next read.
func (r *bodyReader) worth(n int) int {
	if n < transport.BufferSize/2 {
		return transport.BufferSize
	}
	if r.sized {
		n = max(n, r.size.data+r.size.padding)
	}
	return n
}

func (r *bodyReader) takeRest(p []byte) int {
	if r.rest == nil {
		return 0
	}
	n := copy(p, r.rest[r.restR:r.restW])
	if r.restR += n; r.restR == r.restW {
		r.dropRest()
	}
	return n
}

func (r *bodyReader) dropRest() {
	if r.rest != nil {
		r.rest.Release()
		r.rest = nil
	}
}

func (r *bodyReader) readRaw(p []byte) (int, error) {
	if r.in.buffered() == 0 {
		r.in.most = r.worth(len(p))
		if err := r.in.fill(); err != nil {
			r.err = r.boundary(err)
			return 0, r.err
		}
	}
	n := copy(p, r.in.buf[r.in.r:r.in.w])
	r.in.discard(n)
	return n, nil
}

// drop gives up what is buffered: nothing counts behind the end.
func (r *bodyReader) drop() {
	r.dropRest()
	r.in.r = r.in.w
	r.in.release()
}

// openBuffered opens every whole chunk that is buffered and fits p. If the
// first one does not fit, its plaintext goes to rest.
func (r *bodyReader) openBuffered(p []byte) (n int, err error) {
	for {
		ok, err := r.openField()
		if !ok || err != nil {
			return n, err
		}
		if r.in.buffered() < r.size.data+r.size.padding {
			return n, nil
		}
		data := r.in.buf[r.in.r : r.in.r+r.size.data]
		plain := r.chunks.plainSize(r.size)
		switch {
		case plain <= len(p)-n:
			if _, err := r.chunks.open(p[n:n], data); err != nil {
				return n, err
			}
			n += plain
		case n > 0:
			return n, nil
		default:
			r.rest = transport.GetBuffer()
			out, err := r.chunks.open(r.rest[:0], data)
			if err != nil {
				r.dropRest()
				return 0, err
			}
			r.restR, r.restW = 0, len(out)
		}
		r.endChunk()
		if plain == 0 {
			return n, r.marked()
		}
		r.received = true
		if r.rest != nil {
			return 0, nil
		}
	}
}

// openField opens the length field of the chunk at hand once it is there.
func (r *bodyReader) openField() (ok bool, err error) {
	if r.sized {
		return true, nil
	}
	n := r.chunks.fieldSize()
	if r.in.buffered() < n {
		return false, nil
	}
	if r.size, err = r.chunks.openSize(r.in.buf[r.in.r : r.in.r+n]); err != nil {
		return false, err
	}
	r.in.discard(n)
	r.sized = true
	return true, nil
}

func (r *bodyReader) endChunk() {
	r.in.discard(r.size.data + r.size.padding)
	r.sized = false
}

// more waits for more of the chunk at hand and says how the body ends when
// none comes.
func (r *bodyReader) more() error {
	r.in.release()
	err := r.in.fill()
	switch {
	case err == nil:
		return nil
	case r.sized && r.chunks.aead == nil && r.chunks.isEnd(r.size) && ends(err):
		return r.marked() // nothing more of the end mark could be verified
	case r.sized || r.in.buffered() > 0:
		if ends(err) {
			return fmt.Errorf("the stream ended within a chunk: %w", io.ErrUnexpectedEOF)
		}
		return err
	}
	return r.boundary(err)
}

// marked returns the end by the end mark.
func (r *bodyReader) marked() error {
	if r.markedBefore != nil && !r.markedBefore.Load() {
		r.markedBefore.Store(true)
	}
	return io.EOF
}

// boundary says what a carrier's end means between two chunks, and in a raw
// body: an end, unless the far end is known to mark it, or to close its carrier
// in order. An answer without data has lost none, unless it was given up.
func (r *bodyReader) boundary(err error) error {
	marks := r.marksEnds || r.received && r.markedBefore != nil && r.markedBefore.Load()
	switch {
	case !ends(err) && r.received && !marks && !r.closesCleanly && transport.IsReset(err):
		return &transport.AmbiguousEnd{Err: err}
	case !ends(err):
		return err
	case !r.received && r.givenUp != nil && errors.Is(err, io.EOF) && r.givenUp():
		return ErrGivenUp
	case marks && errors.Is(err, io.EOF):
		return ErrUnmarked
	case r.marksEnds, r.closesCleanly && errors.Is(err, io.ErrUnexpectedEOF):
		return ErrTruncated
	}
	return io.EOF
}

// ends reports whether a carrier's error is an end of some kind, be it without
// the carrier's own goodbye, and not a failure.
func ends(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// readPacket reads one chunk as one datagram, which lies in the buffer that is
// lent with it.
func (r *bodyReader) readPacket() (*transport.Buffer, []byte, error) {
	defer r.in.release()
	for r.err == nil {
		ok, err := r.openField()
		if err != nil {
			r.err = err
			break
		}
		if !ok || r.in.buffered() < r.size.data+r.size.padding {
			r.err = r.more()
			continue
		}
		return r.openPacket()
	}
	return nil, nil, r.err
}

// openPacket opens the chunk at hand, which is all there.
func (r *bodyReader) openPacket() (*transport.Buffer, []byte, error) {
	plain := transport.GetBuffer()
	out, err := r.chunks.open(plain[:0], r.in.buf[r.in.r:r.in.r+r.size.data])
	if err == nil {
		r.endChunk()
		if len(out) > 0 {
			return plain, out, nil
		}
		err = io.EOF
	}
	plain.Release()
	r.err = err
	return nil, nil, err
}

// waitRead blocks until read would not.
func (r *bodyReader) waitRead() error {
	if r.rest != nil || r.err != nil || r.in.buffered() > 0 {
		return nil
	}
	return r.in.wait()
}

// A bodyWriter seals the chunks of one direction.
type bodyWriter struct {
	chunks *chunker      // nil: a raw body
	stream cipher.Stream // encrypts all of it (aes-128-cfb)
	marks  bool          // the end is marked by an empty chunk
}

func newBodyWriter(f bodyFormat, stream cipher.Stream) bodyWriter {
	w := bodyWriter{marks: f.marks()}
	if f.security == SecurityAESCFB {
		if stream == nil {
			stream = cfbEncrypter(f.key[:], f.iv[:])
		}
		w.stream = stream
	}
	if !f.raw() {
		w.chunks = newChunker(f)
	}
	return w
}

// fit returns how many bytes of a payload can be sealed into room bytes.
func (w *bodyWriter) fit(room int) int {
	if w.chunks == nil {
		return room
	}
	const full = sealedLenSize + maxChunk + tagSize + maxPadding
	n := room / full * maxChunk
	if left := room%full - (full - maxChunk); left > 0 {
		n += left
	}
	return n
}

// seal appends p in chunks of up to maxChunk bytes.
func (w *bodyWriter) seal(dst, p []byte) []byte {
	start := len(dst)
	if w.chunks == nil {
		dst = append(dst, p...)
	}
	for w.chunks != nil && len(p) > 0 {
		n := min(len(p), maxChunk)
		dst = w.chunks.seal(dst, p[:n])
		p = p[n:]
	}
	w.encrypt(dst[start:])
	return dst
}

// maxPacket is the largest datagram whose chunk is sure to fit its length
// field behind head bytes, whatever the padding drawn.
func (w *bodyWriter) maxPacket(head int) int {
	n := maxSealed - w.chunks.overhead - head
	if w.chunks.padded {
		n -= maxPadding
	}
	return min(n, maxDatagram)
}

// sealPacket appends one datagram as one chunk.
func (w *bodyWriter) sealPacket(dst, p []byte) []byte {
	start := len(dst)
	dst = w.chunks.seal(dst, p)
	w.encrypt(dst[start:])
	return dst
}

// sealEnd appends the end mark, if the body has one.
func (w *bodyWriter) sealEnd(dst []byte) []byte {
	if !w.marks {
		return dst
	}
	start := len(dst)
	dst = w.chunks.seal(dst, nil)
	w.encrypt(dst[start:])
	return dst
}

func (w *bodyWriter) encrypt(p []byte) {
	if w.stream != nil {
		w.stream.XORKeyStream(p, p)
	}
}
