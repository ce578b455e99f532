package vmess

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/transporttest"
)

// Bounds at which one more or less would be wrong, each held at both sides.

// TestChunksFitEveryReader: no sealed chunk is larger than the reader with the
// smallest limit takes, and all but the last are as large.
func TestChunksFitEveryReader(t *testing.T) {
	for name, m := range methods() {
		if !m.Option.has(OptionChunked) || m.Security == SecurityAESCFB { // whose lengths are encrypted once more
			continue
		}
		f := bodyFormat{security: m.Security, option: m.Option, key: [16]byte{1}, iv: [16]byte{2}}
		w := newBodyWriter(f, nil)
		wire := w.seal(nil, pattern(100_000, 1))
		c, field := newChunker(f), 2
		if c.lengths != nil {
			field = sealedLenSize
		}
		for len(wire) > 0 {
			s, err := c.openSize(wire[:field])
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			wire = wire[field+s.data+s.padding:]
			if s.data > 16384 || len(wire) > 0 && c.plainSize(s) != 16368 {
				t.Errorf("%s: a chunk of %d bytes, %d sealed", name, c.plainSize(s), s.data)
			}
			c.count++ // as opening it does
		}
	}
}

// TestChunkLengthBounds: what a length may say.
func TestChunkLengthBounds(t *testing.T) {
	for _, tt := range []struct {
		option Option
		total  int
		good   bool
	}{
		{chunked, 0, false},
		{chunked, tagSize - 1, false},
		{chunked, tagSize, true}, // the end mark
		{chunked, 65535, true},
		{chunked | sealed, tagSize, true},
		{chunked | sealed, 65535, true},
		{chunked | sealed, 65536, false},
		{chunked | sealed, 65535 + tagSize, false},
	} {
		c := newChunker(bodyFormat{security: SecurityAESGCM, option: tt.option})
		field := binary.BigEndian.AppendUint16(nil, uint16(tt.total))
		if c.lengths != nil {
			field = binary.BigEndian.AppendUint16(nil, uint16(tt.total-tagSize))
			field = c.lengths.Seal(nil, newChunker(bodyFormat{security: SecurityAESGCM, option: tt.option}).nextLengthNonce(), field, nil)
		}
		s, err := c.openSize(field)
		if good := err == nil; good != tt.good || !good && !errors.Is(err, ErrBadChunk) || good && s.data != tt.total {
			t.Errorf("options %#x, a length of %d: %+v, %v", tt.option, tt.total, s, err)
		}
	}
}

// TestNoAnswerIsNone: only a tunnel that ended in order without a byte got no
// answer.
func TestNoAnswerIsNone(t *testing.T) {
	for _, tt := range []struct {
		total int64
		err   error
		none  bool
		is    error
	}{
		{0, io.EOF, true, io.EOF},
		{1, io.EOF, false, io.ErrUnexpectedEOF},
		{0, os.ErrDeadlineExceeded, false, os.ErrDeadlineExceeded},
		{1, os.ErrDeadlineExceeded, false, os.ErrDeadlineExceeded},
	} {
		err := noAnswer(&inbuf{total: tt.total}, tt.err)
		if errors.Is(err, ErrNoAnswer) != tt.none || !errors.Is(err, tt.is) {
			t.Errorf("%d bytes, then %v: %v", tt.total, tt.err, err)
		}
	}
}

// TestTakeTellsCuts: an end within what was asked for is a cut, before it an
// end.
func TestTakeTellsCuts(t *testing.T) {
	for text, want := range map[string]error{"": io.EOF, "a": io.ErrUnexpectedEOF, "abc": io.ErrUnexpectedEOF, "abcd": nil} {
		in := newInbuf(&recorder{in: strings.NewReader(text)})
		if _, err := in.take(4); err != want {
			t.Errorf("4 bytes of %q: %v, want %v", text, err, want)
		}
	}
	in := newInbuf(&recorder{in: iotest.ErrReader(os.ErrDeadlineExceeded)})
	if _, err := in.take(1); err != os.ErrDeadlineExceeded {
		t.Errorf("behind a deadline: %v", err)
	}
}

// TestWaitReadIsForTheBody: the header of an answer, which a server may send
// long before it, is nothing to read.
func TestWaitReadIsForTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := connectForeign(t, gcm.client(testID), newTestServer(t, ServerConfig{}))
		done := make(chan error, 1)
		go func() { done <- client.WaitRead() }()
		mustWrite(t, server, "")
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("the header alone woke the reader: %v", err)
		default:
		}
		mustWrite(t, server, "x")
		if err := <-done; err != nil {
			t.Error(err)
		}
		mustRead(t, client, "x")
		_ = server.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		client, server := connectForeign(t, gcm.client(testID), newTestServer(t, ServerConfig{}))
		_ = server.closeCarrier()
		_ = client.WaitRead()
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("then %v", err)
		}
	})
}

// TestWaitReadKnowsWhatIsHeld: what was received, opened or not, and a final
// error need no waiting.
func TestWaitReadKnowsWhatIsHeld(t *testing.T) {
	for _, st := range []style{gcm, rawStyles()[0]} {
		synctest.Test(t, func(t *testing.T) {
			client, server := connectForeign(t, st.client(testID), newTestServer(t, ServerConfig{}))
			first, second := string(pattern(100, 1)), string(pattern(200, 2))
			mustWrite(t, server, first)
			mustWrite(t, server, second)
			synctest.Wait()
			mustRead(t, client, first[:60]) // of the first chunk
			for _, rest := range []string{first[60:], second[:150], second[150:]} {
				if err := client.WaitRead(); err != nil { // the bubble fails when it waits
					t.Fatal(err)
				}
				mustRead(t, client, rest)
			}
			_ = server.closeCarrier()
			if _, err := client.Read(make([]byte, 1)); err == nil {
				t.Fatal("read on behind the end")
			}
			_ = client.WaitRead()
		})
	}
}

// TestEndBehindHeldHeader: the end of an answer without data takes the header
// along, and where only the carrier's end tells, that comes with it.
func TestEndBehindHeldHeader(t *testing.T) {
	for _, st := range append(rawStyles(), gcm) {
		client, server := connectForeign(t, st.client(testID), newTestServer(t, ServerConfig{}))
		_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
		if err := server.CloseWrite(); err != nil {
			t.Errorf("%s: %v", st.name, err)
		}
		if n, err := client.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%s: read %d bytes, %v; want the end", st.name, n, err)
		}
		_ = server.Close()
	}
	near, far := transporttest.Pipe(1 << 17)
	_ = dialOver(t, gcm.client(testID), near, "hello")
	server := acceptForeign(t, newTestServer(t, ServerConfig{}), far)
	_ = far.Close() // below the server
	if err := server.CloseWrite(); err == nil {
		t.Error("an end that could not be sent was sent")
	}
}

// TestWritesFitOneBuffer: however much is written behind a header that was held
// back, each piece of it fits a buffer, and the first is full.
func TestWritesFitOneBuffer(t *testing.T) {
	conn, r := recording(t, gcm.client(testID), nil)
	mustWrite(t, conn, string(pattern(1<<20, 1)))
	for i, w := range r.writes {
		if len(w) > transport.BufferSize || i == 0 && len(w) < transport.BufferSize-1<<10 {
			t.Errorf("write %d of %d has %d bytes", i, len(r.writes), len(w))
		}
	}
}

func TestNeverAnswered(t *testing.T) {
	if at := gcm.client(testID).LastAnswer(); !at.IsZero() {
		t.Errorf("a client that met no server was answered at %v", at)
	}
}

// TestDatagramsByteByByte: a datagram is whole only with its padding, however
// it arrives.
func TestDatagramsByteByByte(t *testing.T) {
	for name, m := range methods() {
		f := bodyFormat{security: m.Security, option: m.Option | OptionChunked, command: CommandUDP, key: [16]byte{1}, iv: [16]byte{2}}
		w := newBodyWriter(f, nil)
		var wire []byte
		for i := range 20 {
			wire = w.sealPacket(wire, pattern(1+i*10, uint64(i)))
		}
		r := &bodyReader{in: newInbuf(iotest.OneByteReader(bytes.NewReader(wire)))}
		r.start(f, nil)
		p := make([]byte, 1000)
		for i := range 20 {
			if n, err := r.datagram(p); err != nil || !bytes.Equal(p[:n], pattern(1+i*10, uint64(i))) {
				t.Fatalf("%s: datagram %d: %d bytes, %v", name, i, n, err)
			}
		}
	}
}

// TestFirstFlightLengths: a request and the payload that travels with it are
// as long as every server reads of a refused one, and no longer than what hides
// that.
func TestFirstFlightLengths(t *testing.T) {
	c := gcm.client(testID)
	for _, payload := range []int{0, 1, 1000} {
		least, most := 1<<20, 0
		for range 500 {
			n := len(c.plainHeader(c.newHeader(CommandTCP, destination), c.Mode(), payload).seal(nil)) + payload
			least, most = min(least, n), max(most, n)
		}
		if least < 3382 || most >= 3382+flightSpread || most-least < flightSpread/2 {
			t.Errorf("with %d bytes of payload: %d to %d", payload, least, most)
		}
	}
}
