package e2e

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
)

// fakeSessions is how many sessions clients open in a tunnel's life.
const fakeSessions = 128

// A fakeMux serves the sessions of one Mux.Cool tunnel (docs/protocol.md 10),
// each of which it answers as a closingOrigin does. The tunnel ends with the
// last session that may come.
type fakeMux struct {
	request *fakeRequest
	conn    *net.TCPConn
	in      *bufio.Reader
	body    *fakeBody
	out     []byte // of the tunnel, not yet sent
	asked   map[uint16]string
	served  int
}

func serveFakeMux(c *net.TCPConn, ws io.Reader, q *fakeRequest, ending fakeEnding) error {
	option := byte(0x05)
	if ending.marked() {
		option = 0
	}
	m := &fakeMux{
		request: q, conn: c, in: bufio.NewReader(&fakeStream{body: newFakeBody(q.key, q.iv), r: ws}),
		body: q.answerBody(), out: q.header(4, q.v, option, 0, 0), asked: map[uint16]string{},
	}
	for m.served < fakeSessions {
		if err := m.serveFrame(); err != nil {
			return err
		}
		if m.served < fakeSessions {
			if err := m.flush(nil); err != nil {
				return err
			}
		}
	}
	if ending.marked() {
		m.out = m.body.appendChunk(m.out, nil)
	}
	return ending.end(c, func(tail []byte) error { return m.flush(tail) })
}

// flush sends what is there, and tail behind it in the same write.
func (m *fakeMux) flush(tail []byte) error {
	if len(m.out) == 0 {
		return nil
	}
	_, err := m.conn.Write(append(fakeFrame(nil, 2, m.out), tail...))
	m.out = nil
	return err
}

// serveFrame reads a frame, and answers the session whose line is whole.
func (m *fakeMux) serveFrame() error {
	var size [2]byte
	if _, err := io.ReadFull(m.in, size[:]); err != nil {
		return err
	}
	meta := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(m.in, meta); err != nil {
		return err
	}
	id, status, option := binary.BigEndian.Uint16(meta), meta[2], meta[3]
	var data []byte
	if option&1 != 0 {
		if _, err := io.ReadFull(m.in, size[:]); err != nil {
			return err
		}
		data = make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(m.in, data); err != nil {
			return err
		}
	}
	if status == 1 {
		m.asked[id] = ""
	}
	text, open := m.asked[id]
	if !open {
		return nil
	}
	m.asked[id] = text + string(data)
	line, _, whole := strings.Cut(m.asked[id], "\n")
	if !whole {
		return nil
	}
	delete(m.asked, id)
	m.served++
	answer, err := shortAnswer(line)
	if err != nil {
		return fmt.Errorf("session %d: %w", id, err)
	}
	var frames []byte
	for len(answer) > 0 {
		n := min(len(answer), 8000)
		frames = fakeMuxFrame(frames, id, 2, answer[:n])
		answer = answer[n:]
	}
	frames = fakeMuxFrame(frames, id, 3, nil)
	for len(frames) > 0 {
		n := min(len(frames), 8000)
		m.out = m.body.appendChunk(m.out, frames[:n])
		frames = frames[n:]
	}
	return nil
}

func fakeMuxFrame(dst []byte, id uint16, status byte, data []byte) []byte {
	dst = binary.BigEndian.AppendUint16(append(dst, 0, 4), id)
	if len(data) == 0 {
		return append(dst, status, 0)
	}
	return append(binary.BigEndian.AppendUint16(append(dst, status, 1), uint16(len(data))), data...)
}

// A fakeStream reads a body as a stream.
type fakeStream struct {
	body *fakeBody
	r    io.Reader
	left []byte
}

// Read implements io.Reader.
func (c *fakeStream) Read(p []byte) (int, error) {
	for len(c.left) == 0 {
		plain, err := c.body.readChunk(c.r)
		if err != nil {
			return 0, err
		}
		if len(plain) == 0 {
			return 0, io.EOF
		}
		c.left = plain
	}
	n := copy(p, c.left)
	c.left = c.left[n:]
	return n, nil
}
