package wsconn

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// A feed gives data in pieces, then io.EOF, and swallows what is written.
type feed struct {
	net.Conn
	data   []byte
	pieces []byte // sizes in turn; empty: all at once
	turn   int
}

func (f *feed) Read(p []byte) (int, error) {
	if len(f.data) == 0 {
		return 0, io.EOF
	}
	if len(f.pieces) > 0 {
		size := 1 + 3*int(f.pieces[f.turn%len(f.pieces)])
		f.turn++
		p = p[:min(len(p), size)]
	}
	n := copy(p, f.data)
	f.data = f.data[n:]
	if len(f.data) == 0 && len(f.pieces) > 0 && f.pieces[0]&1 == 1 {
		return n, io.EOF // together with the last bytes
	}
	return n, nil
}
func (f *feed) Write(p []byte) (int, error)      { return len(p), nil }
func (f *feed) SetDeadline(time.Time) error      { return nil }
func (f *feed) SetReadDeadline(time.Time) error  { return nil }
func (f *feed) SetWriteDeadline(time.Time) error { return nil }
func (f *feed) Close() error                     { return nil }

// A waitingFeed waits without a buffer.
type waitingFeed struct{ *feed }

func (waitingFeed) WaitRead() error { return nil }

// plainGorilla is gorilla's own view of the bytes after the upgrade.
func plainGorilla(t *testing.T, data []byte) (payload []byte, end error) {
	ws := bareGorilla(t, &feed{data: data}, 4096)
	for {
		_, r, err := ws.NextReader()
		if err != nil {
			return payload, err
		}
		b, err := io.ReadAll(r)
		payload = append(payload, b...)
		if err != nil {
			return payload, err
		}
	}
}

// bareGorilla upgrades over a pipe and goes on over conn.
func bareGorilla(t *testing.T, conn net.Conn, readBuffer int) *websocket.Conn {
	pipe, _ := overPipe(func(*rawPeer) {}).ConnectStream(context.Background(), nil)
	through := &switched{Conn: pipe}
	d := websocket.Dialer{ReadBufferSize: readBuffer, NetDialContext: func(context.Context, string, string) (net.Conn, error) {
		return through, nil
	}}
	ws, _, err := d.Dial("ws://h/", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = pipe.Close()
	through.Conn = conn
	return ws
}

type switched struct{ net.Conn }

// FuzzRead feeds a client arbitrary bytes after the 101, in pieces and read
// in every way there is. Payload and end must be what gorilla alone makes of
// the bytes in one piece.
func FuzzRead(f *testing.F) {
	data := frame(0x82, []byte("data"))
	for _, s := range [][]byte{
		nil, data, append(data, closeFrame(1000, "")...), closeFrame(1011, "x"),
		append(frame(0x02, pattern(300)), frame(0x80, pattern(20000))...),
		append(append(frame(0x01, pattern(9)), frame(0x89, []byte("p"))...), frame(0x80, nil)...),
		append(frame(0x82, nil), frame(0x82, pattern(200))...),
		append(bytes.Repeat(frame(0x82, pattern(200)), 9), frame(0x8a, pattern(125))...),
		frame(0xc2, []byte("x")), frame(0x82, []byte("x"), 1, 2, 3, 4),
		{0x82, 0xff},
		{0x82, 127, 255, 255, 255, 255, 0, 0, 0, 0},
		{0x82, 127, 127, 255, 255, 255, 255, 255, 255, 255, 1, 2},
		frame(0x88, []byte{3}), append(closeFrame(1000, ""), data...),
	} {
		f.Add(s, []byte{0, 9}, []byte{3, 200, 255})
		f.Add(s, []byte{255}, []byte{255})
		f.Add(s, []byte{1}, []byte{254, 0})
	}
	f.Fuzz(func(t *testing.T, data, pieces, reads []byte) {
		want, wantEnd := plainGorilla(t, data)
		c := &Conn{}
		below := net.Conn(&feed{data: data, pieces: pieces})
		if len(reads) > 0 && reads[0]&4 != 0 {
			below = waitingFeed{below.(*feed)}
		}
		c.carrier.init(below)
		c.ws = bareGorilla(t, &c.carrier, gorillaBuffer)
		c.open(0, nil)
		got, end := readAllWays(c, reads)
		_ = c.Close()
		if !bytes.Equal(got, want) && !tooEmpty(end, got, want) {
			t.Fatalf("read %d bytes, gorilla %d", len(got), len(want))
		}
		if !sameEnd(end, wantEnd) && !tooEmpty(end, got, want) {
			t.Fatalf("ended with %v, gorilla with %v", end, wantEnd)
		}
		if c.carrier.lent || c.carrier.pool != nil && c.carrier.w-c.carrier.r <= ownBuffer {
			t.Fatal("a buffer is held at the end")
		}
	})
}

func readAllWays(c *Conn, reads []byte) (all []byte, end error) {
	for i := 0; ; i++ {
		size := byte(255)
		if len(reads) > 0 {
			size = reads[i%len(reads)]
		}
		if size&1 == 1 {
			_ = c.WaitRead()
		}
		b := make([]byte, 1+int(size)*int(size)/2)
		n, err := c.Read(b)
		all = append(all, b[:n]...)
		if err != nil {
			return all, err
		}
		if n == 0 {
			return all, io.ErrNoProgress
		}
	}
}

// tooEmpty excuses the limit that gorilla does not have.
func tooEmpty(end error, got, want []byte) bool {
	return errors.Is(end, ErrBadFrame) && bytes.HasPrefix(want, got) && bytes.Contains([]byte(end.Error()), []byte("in a row"))
}

func sameEnd(got, want error) bool {
	var closing *websocket.CloseError
	if !errors.As(want, &closing) {
		return errors.Is(got, ErrBadFrame)
	}
	var other *CloseError
	switch closing.Code {
	case 1000, 1001, 1005:
		return got == io.EOF
	case 1006:
		return errors.Is(got, ErrNoClose)
	}
	return errors.As(got, &other) && other.Code == closing.Code && other.Text == closing.Text
}

// FuzzAnswer feeds a client arbitrary bytes as the answer to its request.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 404 Not Found\r\n\r\n", "HTTP/1.1 101 x\n\n", "\x15\x03\x01", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nbody",
		"HTTP/1.1 \r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n\x82\x01x",
	} {
		f.Add([]byte(s), []byte{})
		f.Add([]byte(s), []byte{0, 7})
	}
	f.Fuzz(func(t *testing.T, data, pieces []byte) {
		d := &Dialer{Host: "h"}
		req, err := d.request(nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.upgrade(context.Background(), &feed{data: data, pieces: pieces}, req)
		var (
			refused *HandshakeError
			no      *ProtocolError
		)
		switch {
		case errors.As(err, &refused):
			if refused.Header == nil || len(refused.Body) > 1024 {
				t.Fatalf("%+v", refused)
			}
		case errors.As(err, &no):
			if len(no.Seen) == 0 || len(no.Seen) > maxSeen {
				t.Fatalf("%+v", no)
			}
		case !errors.Is(err, ErrClosedEarly):
			t.Fatal(err)
		}
	})
}

func FuzzEarlyData(f *testing.F) {
	for _, s := range []string{"", "abc", "a b", "_-_-", "+/+/==", "A\n", "chat, superchat", string(bytes.Repeat([]byte("A"), 72))} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := decodeHeaderEarlyData(s)
		if err != nil && len(s) <= maxEarlyData || len(b) > maxEarlyData {
			t.Fatalf("%d bytes of %d, %v", len(b), len(s), err)
		}
		if b != nil {
			again, err := decodeHeaderEarlyData(encodeEarlyData(b))
			if err != nil || !bytes.Equal(again, b) {
				t.Fatalf("%x comes back as %x, %v", b, again, err)
			}
		}
		path := decodePathEarlyData(s)
		if want, err := base64.RawURLEncoding.DecodeString(s); path != nil && (err != nil || !bytes.Equal(path, want) || len(path) < minPathEarlyData) {
			t.Fatalf("path: %x, want %x, %v", path, want, err)
		}
	})
}
