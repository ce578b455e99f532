package tlsconn

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"testing"

	"vmess-local/pkg/transport"
)

func TestHeader(t *testing.T) {
	for _, c := range []struct {
		in        string
		ok        bool
		size      int
		plausible bool
	}{
		{"", false, 0, false},
		{"\x17\x03\x03\x00", false, 0, false},
		{"\x17\x03\x03\x00\x00", true, 5, true},
		{"\x16\x03\x01\x01\x02more", true, 5 + 0x102, true},
		{"\x14\x03\x03\x00\x01\x01", true, 6, true},
		{"\x18\x03\x04\x48\x00", true, 5 + maxBody, true},
		{"\x17\x03\x03\x48\x01", true, 5 + maxBody + 1, false},
		{"\x13\x03\x03\x00\x01", true, 6, false},
		{"\x19\x03\x03\x00\x01", true, 6, false},
		{"\x17\x02\x03\x00\x01", true, 6, false},
		{"\x80\x2e\x01\x03\x01", true, 5 + 0x301, false}, // SSLv2
		{"GET /", true, 5 + 0x202f, false},
	} {
		h, ok := parseHeader([]byte(c.in))
		if ok != c.ok || ok && (h.size() != c.size || h.plausible() != c.plausible) {
			t.Errorf("%q: %v, size %d, plausible %v", c.in, ok, h.size(), h.plausible())
		}
	}
}

// A feed is a connection that has stream to read, in pieces.
type feed struct {
	net.Conn
	stream []byte
	sizes  []byte // of the pieces, in turns; a 0 is a read that returns nothing
	at     int
	end    error
}

func (f *feed) Read(p []byte) (int, error) {
	if len(f.stream) == 0 {
		return 0, f.end
	}
	size := len(f.stream)
	if len(f.sizes) > 0 {
		size = int(f.sizes[f.at%len(f.sizes)])
		f.at++
	}
	n := copy(p, f.stream[:min(size, len(f.stream))])
	f.stream = f.stream[n:]
	return n, nil
}

// A lazyFeed is one that can wait, or a socket that can read then, too.
type waitingFeed struct{ *feed }

func (waitingFeed) WaitRead() error { return nil }

type lazyFeed struct{ waitingFeed }

func (f lazyFeed) ReadPooled(head, most int) (*transport.Buffer, int, error) {
	b := transport.GetBuffer()
	n, err := f.Read(b[head : head+most])
	if n == 0 {
		b.Release()
		return nil, 0, err
	}
	return b, n, err
}

func forms(f *feed) []net.Conn { return []net.Conn{f, waitingFeed{f}, lazyFeed{waitingFeed{f}}} }

// FuzzRecords reads any stream in any pieces and sees to it that all of it is
// handed out, and never more than one record at a time.
func FuzzRecords(f *testing.F) {
	record := "\x17\x03\x03\x00\x04abcd"
	f.Add([]byte(record+record+"\x16\x03\x03\x00\x00"+record), []byte{1, 0, 7}, 3)
	f.Add([]byte(record+record[:6]), []byte{255}, 600)
	f.Add([]byte(record+"\x17\x03\x03\x50\x00"+record), []byte{2}, 5)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), []byte{}, 1)
	f.Add(append([]byte("\x17\x03\x03\x48\x00"), make([]byte, maxBody+3)...), []byte{200, 100}, 1000)
	f.Fuzz(func(t *testing.T, stream, sizes []byte, room int) {
		if room < 1 || room > 1<<16 || len(sizes) > 0 && slices.Max(sizes) == 0 || len(sizes) >= maxIdleReads {
			return
		}
		for form := range forms(nil) {
			source := &feed{stream: stream, sizes: sizes, end: io.EOF}
			var r records
			r.init(forms(source)[form])
			var got []byte
			b := make([]byte, room)
			for border := 0; ; {
				n, err := r.Read(b)
				if err != nil {
					if err != io.EOF {
						t.Fatalf("read: %v", err)
					}
					break
				}
				if n == 0 {
					t.Fatal("read nothing")
				}
				if len(got) == border {
					border = len(stream)
					if h, ok := parseHeader(stream[len(got):]); ok {
						border = min(border, len(got)+h.size())
					}
				}
				if len(got)+n > border {
					t.Fatalf("bytes %d to %d cross the border at %d", len(got), len(got)+n, border)
				}
				got = append(got, b[:n]...)
			}
			if !bytes.Equal(got, stream) {
				t.Fatal("other bytes than came")
			}
			if r.pool != nil {
				t.Fatal("a buffer is held at the end")
			}
		}
	})
}

func TestNoProgressEnds(t *testing.T) {
	for _, conn := range forms(&feed{stream: []byte("x"), sizes: []byte{0}}) {
		var r records
		r.init(conn)
		for range 2 {
			if n, err := r.Read(make([]byte, 9)); n != 0 || err != io.ErrNoProgress {
				t.Errorf("%T: %d, %v", conn, n, err)
			}
		}
	}
}

// TestErrorsAreKept reads from a connection whose error is told only once, as
// a socket's is.
func TestErrorsAreKept(t *testing.T) {
	lost := errors.New("lost")
	source := &feed{stream: []byte("\x17\x03\x03\x00\x09abc"), end: lost}
	var r records
	r.init(source)
	b := make([]byte, 100)
	if n, err := r.Read(b); n != 8 || err != nil {
		t.Fatalf("what is left of the record: %d, %v", n, err)
	}
	source.end = io.EOF
	if n, err := r.Read(b); n != 0 || err != lost {
		t.Fatalf("after it: %d, %v", n, err)
	}
}
