package e2e

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// A fakeEnding is how a fake server ends a tunnel behind its answer.
type fakeEnding int

const (
	// Without VMess's end mark:
	endByClose      fakeEnding = iota // close frame 1000 and at once FIN, as sing-box does one time in three
	endByFIN                          // FIN without a close frame, as mihomo does, and sing-box two times in three
	endByReset                        // RST behind the last byte, as sing-box does now and then
	endByCloseReset                   // close frame 1000 and then RST
	// With it:
	endMarked        // and close frame 1000, as Xray does
	endMarkedByReset // and then RST, as Xray does now and then
)

// String returns the ending's name.
func (e fakeEnding) String() string {
	return [...]string{"close frame", "bare FIN", "reset", "close frame, reset", "end mark and close frame", "end mark, close frame, reset"}[e]
}

// end ends a tunnel; flush sends what is still to be sent, and a tail with it.
func (e fakeEnding) end(c *net.TCPConn, flush func(tail []byte) error) error {
	var tail []byte
	if e != endByFIN && e != endByReset {
		tail = fakeFrame(nil, 8, []byte{1000 >> 8, 1000 & 0xff})
	}
	err := flush(tail)
	if e == endByReset || e == endByCloseReset || e == endMarkedByReset {
		_ = c.SetLinger(0)
	}
	return err
}

// marked reports whether an ending has the end mark.
func (e fakeEnding) marked() bool { return e >= endMarked }

// fakeServer is a VMess server written for these tests alone, from the
// description of the protocol and without our own packages: AEAD, aes-128-gcm
// with masked lengths and no padding. It is a closingOrigin itself: every
// request is answered by what stands in its first line, and the answer and the
// tunnel's end leave in one write.
func fakeServer(t testing.TB, ending fakeEnding) string {
	t.Helper()
	return serveOrigin(t, func(c *net.TCPConn) {
		if err := serveFake(c, ending); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) { // with the test's end
			t.Errorf("the fake server: %v", err)
		}
	})
}

func serveFake(c *net.TCPConn, ending fakeEnding) error {
	buffered := bufio.NewReader(c)
	if err := fakeUpgrade(c, buffered); err != nil {
		return err
	}
	ws := &fakeFrames{r: buffered}
	request, err := openFakeRequest(ws)
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	if request.command == 3 {
		return serveFakeMux(c, ws, request, ending)
	}
	line, err := request.readLine(ws)
	if err != nil {
		return fmt.Errorf("first chunk: %w", err)
	}
	answer, err := shortAnswer(line)
	if err != nil {
		return err
	}
	sealed := request.seal(answer)
	if ending.marked() {
		sealed = request.sealMarked(answer)
	}
	return ending.end(c, func(tail []byte) error {
		_, err := c.Write(append(fakeFrame(nil, 2, sealed), tail...))
		return err
	})
}

// fakeUpgrade answers the upgrade request (RFC 6455 section 4.2.2).
func fakeUpgrade(c net.Conn, buffered *bufio.Reader) error {
	r, err := http.ReadRequest(buffered)
	if err != nil {
		return err
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, err = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	return err
}

// fakeFrames reads the payload of a client's data frames as one stream.
type fakeFrames struct {
	r    *bufio.Reader
	left []byte
}

// Read implements io.Reader.
func (f *fakeFrames) Read(p []byte) (int, error) {
	for len(f.left) == 0 {
		var head [2]byte
		if _, err := io.ReadFull(f.r, head[:]); err != nil {
			return 0, err
		}
		length := uint64(head[1] & 0x7f)
		for code, size := range map[uint64]int{126: 2, 127: 8} {
			if uint64(head[1]&0x7f) == code {
				var ext [8]byte
				if _, err := io.ReadFull(f.r, ext[8-size:]); err != nil {
					return 0, err
				}
				length = binary.BigEndian.Uint64(ext[:])
			}
		}
		var mask [4]byte
		if _, err := io.ReadFull(f.r, mask[:]); err != nil {
			return 0, err
		}
		data := make([]byte, length)
		if _, err := io.ReadFull(f.r, data); err != nil {
			return 0, err
		}
		for i := range data {
			data[i] ^= mask[i%4]
		}
		switch head[0] & 0x0f {
		case 0, 1, 2:
			f.left = data
		case 8:
			return 0, io.EOF
		}
	}
	n := copy(p, f.left)
	f.left = f.left[n:]
	return n, nil
}

// fakeFrame appends a server's frame (RFC 6455 section 5.2).
func fakeFrame(dst []byte, opcode byte, data []byte) []byte {
	dst = append(dst, 0x80|opcode)
	switch n := len(data); {
	case n < 126:
		dst = append(dst, byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, 126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 127), uint64(n))
	}
	return append(dst, data...)
}

// fakeRequest is an opened request's header.
type fakeRequest struct {
	key, iv [16]byte
	v       byte
	command byte
	address []byte // port, type and address, and what follows
}

// openFakeRequest reads an AEAD request (docs/protocol.md 3 and 5).
func openFakeRequest(r io.Reader) (*fakeRequest, error) {
	id, err := hex.DecodeString(strings.ReplaceAll(userID, "-", ""))
	if err != nil {
		return nil, err
	}
	cmdKey := md5.Sum(append(id, "c48619fe-8f02-49e0-b9e9-edf763e17e21"...))
	var front [16 + 18 + 8]byte
	if _, err := io.ReadFull(r, front[:]); err != nil {
		return nil, err
	}
	authID, nonce := front[:16], front[34:]
	open := func(what string, sealed []byte) ([]byte, error) {
		key := fakeKDF(cmdKey[:], "VMess Header AEAD Key"+what, string(authID), string(nonce))
		iv := fakeKDF(cmdKey[:], "VMess Header AEAD Nonce"+what, string(authID), string(nonce))
		return fakeGCM(key[:16]).Open(nil, iv[:12], sealed, authID)
	}
	length, err := open("_Length", front[16:34])
	if err != nil {
		return nil, err
	}
	sealed := make([]byte, int(binary.BigEndian.Uint16(length))+16)
	if _, err := io.ReadFull(r, sealed); err != nil {
		return nil, err
	}
	h, err := open("", sealed)
	if err != nil {
		return nil, err
	}
	if option, security := h[34], h[35]&0x0f; option != 0x05 || security != 3 {
		return nil, fmt.Errorf("option %#x and security %d are not for this server", option, security)
	}
	return &fakeRequest{iv: [16]byte(h[1:17]), key: [16]byte(h[17:33]), v: h[33], command: h[37], address: h[38:]}, nil
}

// readLine reads chunks up to the end of the first line.
func (q *fakeRequest) readLine(r io.Reader) (string, error) {
	body := newFakeBody(q.key, q.iv)
	var text []byte
	for {
		plain, err := body.readChunk(r)
		if err != nil {
			return "", err
		}
		text = append(text, plain...)
		if line, _, ok := strings.Cut(string(text), "\n"); ok {
			return line, nil
		}
	}
}

// seal returns the answer: its header and data in chunks, without end mark.
func (q *fakeRequest) seal(data []byte) []byte {
	return append(q.header(4, q.v, 0x05, 0, 0), q.chunks(data)...) // the request's option, as sing-box and mihomo answer
}

// sealMarked returns the answer with an end mark, as V2Ray and Xray answer.
func (q *fakeRequest) sealMarked(data []byte) []byte {
	body := q.answerBody()
	out := q.header(4, q.v, 0, 0, 0)
	for len(data) > 0 {
		n := min(len(data), 8000)
		out = body.appendChunk(out, data[:n])
		data = data[n:]
	}
	return body.appendChunk(out, nil)
}

// header returns an answer's header, which is said to have so many bytes.
func (q *fakeRequest) header(size uint16, plain ...byte) []byte {
	key, iv := q.answerKeys()
	seal := func(out []byte, what string, plain []byte) []byte {
		k, n := fakeKDF(key[:], "AEAD Resp Header"+what+" Key"), fakeKDF(iv[:], "AEAD Resp Header"+what+" IV")
		return fakeGCM(k[:16]).Seal(out, n[:12], plain, nil)
	}
	return seal(seal(nil, " Len", binary.BigEndian.AppendUint16(nil, size)), "", plain)
}

// chunks returns an answer's data, without end mark.
func (q *fakeRequest) chunks(data []byte) (out []byte) {
	body := q.answerBody()
	for len(data) > 0 {
		n := min(len(data), 15000)
		out = body.appendChunk(out, data[:n])
		data = data[n:]
	}
	return out
}

// answerBody is the chunks of the answer.
func (q *fakeRequest) answerBody() *fakeBody { return newFakeBody(q.answerKeys()) }

func (q *fakeRequest) answerKeys() (key, iv [16]byte) {
	k, i := sha256.Sum256(q.key[:]), sha256.Sum256(q.iv[:])
	return [16]byte(k[:16]), [16]byte(i[:16])
}

// fakeBody is one direction's chunks (docs/protocol.md 8).
type fakeBody struct {
	aead  cipher.AEAD
	iv    [16]byte
	count uint16
	masks *sha3.SHAKE
}

func newFakeBody(key, iv [16]byte) *fakeBody {
	b := &fakeBody{aead: fakeGCM(key[:]), iv: iv, masks: sha3.NewSHAKE128()}
	_, _ = b.masks.Write(iv[:])
	return b
}

// readChunk reads one chunk; the end mark is an empty one.
func (b *fakeBody) readChunk(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	chunk := make([]byte, binary.BigEndian.Uint16(size[:])^b.mask())
	if _, err := io.ReadFull(r, chunk); err != nil {
		return nil, err
	}
	return b.aead.Open(nil, b.nonce(), chunk, nil)
}

// appendChunk appends data, which fits, as one chunk.
func (b *fakeBody) appendChunk(out, data []byte) []byte {
	out = binary.BigEndian.AppendUint16(out, uint16(len(data)+16)^b.mask())
	return b.aead.Seal(out, b.nonce(), data, nil)
}

func (b *fakeBody) mask() uint16 {
	var m [2]byte
	_, _ = b.masks.Read(m[:])
	return binary.BigEndian.Uint16(m[:])
}

func (b *fakeBody) nonce() []byte {
	n := binary.BigEndian.AppendUint16(nil, b.count)
	b.count++
	return append(n, b.iv[2:12]...)
}

// fakeKDF is the nested HMAC of docs/protocol.md 1.
func fakeKDF(key []byte, path ...string) []byte {
	level := func() hash.Hash { return hmac.New(sha256.New, []byte("VMess AEAD KDF")) }
	for _, p := range path {
		below := level
		level = func() hash.Hash { return hmac.New(below, []byte(p)) }
	}
	h := level()
	_, _ = h.Write(key)
	return h.Sum(nil)
}

func fakeGCM(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}
