package vmess

import (
	"crypto/cipher"
	"crypto/md5"
	"crypto/sha3"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"golang.org/x/crypto/chacha20poly1305"
)

// ErrBadChunk is wrapped by the errors of chunks that are not what they
// should be. Nothing of such a chunk is delivered.
var ErrBadChunk = errors.New("damaged chunk")

// maxChunk is the most plaintext put in one chunk: what the reader with the
// smallest limit takes (section 8: 16,384 bytes with the tag).
const maxChunk = 16384 - tagSize

// maxPadding is the most padding that a chunk can carry.
const maxPadding = 63

// nonceHalf is half of the chunks of one direction that have nonces of their
// own: the count wraps, and then a chunk of before opens once more.
const nonceHalf = 1 << 15

// A bodyFormat is what a header says of its body, and which of the two
// directions this is.
type bodyFormat struct {
	security Security
	option   Option
	command  Command
	key, iv  [16]byte // of this direction
	lenKey   [16]byte // of the request: sealed lengths use it both ways
	lenIV    [16]byte
	legacy   bool // legacy header
}

// requestFormat is the format of the request's direction.
func requestFormat(h *requestHeader, legacy bool) bodyFormat {
	return bodyFormat{
		security: h.security, option: h.option, command: h.command,
		key: h.key, iv: h.iv, lenKey: h.key, lenIV: h.iv, legacy: legacy,
	}
}

// responseFormat is the format of the response's direction.
func responseFormat(h *requestHeader, k responseKeys) bodyFormat {
	f := requestFormat(h, k.legacy)
	f.key, f.iv = k.key, k.iv
	return f
}

// raw reports whether the body has no chunks at all: it ends with its carrier.
func (f *bodyFormat) raw() bool {
	return !f.option.has(OptionChunked) && (f.security == SecurityNone || f.security == SecurityAESCFB)
}

// marks reports whether the body's end is marked by an empty chunk.
func (f *bodyFormat) marks() bool { return f.option.has(OptionChunked) }

// A chunker has what sealing and opening the chunks of one direction share:
// the cipher, the nonce that counts chunks, and the words drawn for padding
// and masks (section 8).
type chunker struct {
	aead     cipher.AEAD // nil: the data is not sealed
	nonce    [12]byte
	count    uint16
	halfUsed *atomic.Bool // set once half of the nonces are; may be nil
	mark     []byte       // additional data of what is sealed: none but in a break mark
	checksum bool         // the data is preceded by its FNV-1a (aes-128-cfb)
	overhead int          // of data over plaintext

	lengths     cipher.AEAD // nil: lengths are not sealed
	lengthNonce [12]byte
	lengthCount uint16
	length      [2]byte // room for one, which would escape elsewhere

	masked, padded bool
	words          *wordSource // nil unless masked or padded
}

func newChunker(f bodyFormat) *chunker {
	c := &chunker{masked: f.option.has(OptionMasking), padded: f.option.has(OptionPadding)}
	copy(c.nonce[2:], f.iv[2:12])
	switch f.security {
	case SecurityAESGCM:
		c.aead, c.overhead = newGCM(f.key[:]), tagSize
	case SecurityChaCha20Poly1305:
		c.aead, c.overhead = newChaCha(f.key), tagSize
	case SecurityAESCFB:
		c.checksum, c.overhead = true, 4
	case SecurityNone:
		// V2Ray pads datagrams only (section 8).
		c.padded = c.padded && f.command == CommandUDP
	}
	if f.option.has(OptionAuthenticatedLength) && c.aead != nil {
		key := [16]byte(kdf16(f.lenKey[:], []byte(saltBodyLength)))
		if f.security == SecurityChaCha20Poly1305 {
			c.lengths = newChaCha(key)
		} else {
			c.lengths = newGCM(key[:])
		}
		copy(c.lengthNonce[2:], f.lenIV[2:12])
		c.masked = false // sealed lengths need no mask, and its word is not drawn
	}
	if c.masked || c.padded {
		c.words = newWordSource(f.iv)
	}
	return c
}

// newChaCha expands a 16-byte key by MD5 as section 8 says.
func newChaCha(key [16]byte) cipher.AEAD {
	low := md5.Sum(key[:])
	high := md5.Sum(low[:])
	a, err := chacha20poly1305.New(append(low[:], high[:]...))
	if err != nil {
		panic(err) // only for a key of another length than 32
	}
	return a
}

// fieldSize is the size of a length field on the wire.
func (c *chunker) fieldSize() int {
	if c.lengths != nil {
		return sealedLenSize
	}
	return 2
}

// draw takes the words of the next chunk: the padding's first.
func (c *chunker) draw() (padding int, mask uint16) {
	if c.padded {
		padding = int(c.words.next() % (maxPadding + 1))
	}
	if c.masked {
		mask = c.words.next()
	}
	return padding, mask
}

func (c *chunker) nextNonce() []byte {
	binary.BigEndian.PutUint16(c.nonce[:], c.count)
	c.count++ // wraps, as it does for every peer
	if c.count == nonceHalf && c.halfUsed != nil {
		c.halfUsed.Store(true)
	}
	return c.nonce[:]
}

func (c *chunker) nextLengthNonce() []byte {
	binary.BigEndian.PutUint16(c.lengthNonce[:], c.lengthCount)
	c.lengthCount++
	return c.lengthNonce[:]
}

// seal appends one chunk. An empty plain is the end mark. plain and dst must
// not overlap.
func (c *chunker) seal(dst, plain []byte) []byte {
	return c.sealPadded(dst, plain, appendPadding)
}

// sealPadded is seal with the padding's bytes appended by pad.
func (c *chunker) sealPadded(dst, plain []byte, pad func(dst []byte, n int) []byte) []byte {
	padding, mask := c.draw()
	length := uint16(len(plain) + c.overhead + padding)
	if c.lengths != nil {
		n := len(dst)
		dst = binary.BigEndian.AppendUint16(dst, length-tagSize)
		dst = c.lengths.Seal(dst[:n], c.nextLengthNonce(), dst[n:], nil)
	} else {
		dst = binary.BigEndian.AppendUint16(dst, length^mask)
	}
	switch {
	case c.aead != nil:
		dst = c.aead.Seal(dst, c.nextNonce(), plain, c.mark)
	case c.checksum:
		dst = append(binary.BigEndian.AppendUint32(dst, fnv1a(plain)), plain...)
	default:
		dst = append(dst, plain...)
	}
	if padding > 0 {
		dst = pad(dst, padding)
	}
	return dst
}

// breakMark is the additional data by which a server's last chunk says that the
// destination broke off (section 6).
const breakMark = "vml break"

// maxBreakFill bounds the random bytes in a break mark.
const maxBreakFill = 256

// sealBreak appends a break mark. Nothing may follow.
func (c *chunker) sealBreak(dst []byte) []byte {
	c.mark = []byte(breakMark)
	return c.seal(dst, appendPadding(nil, 1+rand.IntN(maxBreakFill)))
}

// isBreak reports whether a chunk that does not open otherwise, and was just
// tried, is a break mark.
func (c *chunker) isBreak(data []byte) bool {
	_, err := c.aead.Open(nil, c.nonce[:], data, []byte(breakMark))
	return err == nil
}

// appendPadding appends n random bytes. They hide lengths and nothing else.
func appendPadding(dst []byte, n int) []byte {
	for ; n >= 8; n -= 8 {
		dst = binary.LittleEndian.AppendUint64(dst, rand.Uint64())
	}
	for last := rand.Uint64(); n > 0; n-- {
		dst = append(dst, byte(last))
		last >>= 8
	}
	return dst
}

// A chunkSize is an opened length field.
type chunkSize struct {
	data    int // sealed bytes
	padding int // bytes behind them
}

// openSize opens a length field. It is called once per chunk, in order.
func (c *chunker) openSize(field []byte) (chunkSize, error) {
	padding, mask := c.draw()
	total := 0
	if c.lengths != nil {
		plain, err := c.lengths.Open(c.length[:0], c.nextLengthNonce(), field, nil)
		if err != nil {
			return chunkSize{}, fmt.Errorf("%w: its length does not open", ErrBadChunk)
		}
		total = int(binary.BigEndian.Uint16(plain)) + tagSize
	} else {
		total = int(binary.BigEndian.Uint16(field) ^ mask)
	}
	s := chunkSize{data: total - padding, padding: padding}
	if s.data < c.overhead || total > maxSealed {
		return chunkSize{}, fmt.Errorf("%w: a length of %d bytes", ErrBadChunk, total)
	}
	return s, nil
}

// maxSealed is the most that a chunk can hold: what the length field can say
// without a sealed length's offset.
const maxSealed = 65535

// isEnd reports whether a chunk of that size is the end mark.
func (c *chunker) isEnd(s chunkSize) bool { return s.data == c.overhead }

// plainSize is the size of the chunk's plaintext.
func (c *chunker) plainSize(s chunkSize) int { return s.data - c.overhead }

// open appends the plaintext of a chunk's data to dst, which must not overlap
// it.
func (c *chunker) open(dst, data []byte) ([]byte, error) {
	switch {
	case c.aead != nil:
		out, err := c.aead.Open(dst, c.nextNonce(), data, nil)
		switch {
		case err == nil:
			return out, nil
		case c.isBreak(data):
			return dst, ErrDestinationBroke
		default:
			return dst, fmt.Errorf("%w: message authentication failed", ErrBadChunk)
		}
	case c.checksum:
		if binary.BigEndian.Uint32(data) != fnv1a(data[4:]) {
			return dst, fmt.Errorf("%w: invalid checksum", ErrBadChunk)
		}
		return append(dst, data[4:]...), nil
	}
	return append(dst, data...), nil
}

// A wordSource squeezes a direction's SHAKE128 for 16-bit words, several at a
// time: few, for they lie there as long as the stream does.
type wordSource struct {
	shake *sha3.SHAKE
	block [32]byte
	used  int
}

func newWordSource(iv [16]byte) *wordSource {
	w := &wordSource{shake: sha3.NewSHAKE128()}
	w.used = len(w.block)
	_, _ = w.shake.Write(iv[:]) // never fails
	return w
}

func (w *wordSource) next() uint16 {
	if w.used == len(w.block) {
		_, _ = w.shake.Read(w.block[:]) // never fails
		w.used = 0
	}
	word := binary.BigEndian.Uint16(w.block[w.used:])
	w.used += 2
	return word
}
