package vmess

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/relay"
	"vmess-local/pkg/transport/tcpconn"
	"vmess-local/pkg/transport/transporttest"
)

func TestStreamContract(t *testing.T) {
	s := newTestServer(t, ServerConfig{})
	for _, st := range styles() {
		t.Run(st.name, func(t *testing.T) {
			t.Parallel()
			c := taught(t, st.client(testID), s)
			transporttest.TestStream(t, func(t *testing.T) (a, b transport.StreamConn) {
				return connect(t, c, s)
			})
		})
	}
}

func TestStreamContractOverTCP(t *testing.T) {
	s := newTestServer(t, ServerConfig{})
	c := taught(t, style{method: Method{SecurityAESGCM, padded | sealed}}.client(testID), s)
	transporttest.TestStream(t, func(t *testing.T) (a, b transport.StreamConn) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		x, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		y, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn := dialOver(t, c, tcpconn.New(x.(*net.TCPConn)), "")
		mustWrite(t, conn, "")
		in, err := s.Accept(t.Context(), tcpconn.New(y.(*net.TCPConn)))
		if err != nil {
			t.Fatal(err)
		}
		far, _ := in.Proceed(mustAddr("127.0.0.1:1").AddrPort())
		return conn, far
	})
}

// TestTransfer carries sizes at the borders of chunks, and more than one
// buffer holds, both ways at once.
func TestTransfer(t *testing.T) {
	large := 3 << 20
	if raceEnabled {
		large = 1 << 18
	}
	s := newTestServer(t, ServerConfig{})
	for _, st := range append(styles(), rawStyles()...) {
		t.Run(st.name, func(t *testing.T) {
			t.Parallel()
			for _, size := range []int{1, 16383, 16384, 16385, large} {
				client, server := connect(t, st.client(testID), s)
				want := pattern(size, uint64(size))
				sum := sha256.Sum256(want)
				go func() { _, _ = client.Write(want) }()
				go func() { _, _ = server.Write(want) }()
				for name, r := range map[string]io.Reader{"up": server, "down": client} {
					h := sha256.New()
					if n, err := io.CopyN(h, r, int64(size)); err != nil || !bytes.Equal(h.Sum(nil), sum[:]) {
						t.Errorf("%s: %d of %d bytes, %v, or they are others", name, n, size, err)
					}
				}
				_ = client.Close()
				_ = server.Close()
			}
		})
	}
}

// A body without end marks ends with its carrier: the client may stop writing
// and still read, the server's end is the end of all.
func TestRawBodyEnds(t *testing.T) {
	s := newTestServer(t, ServerConfig{})
	for _, st := range rawStyles() {
		t.Run(st.name, func(t *testing.T) {
			client, server := connect(t, st.client(testID), s)
			mustWrite(t, client, "question")
			if err := client.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("wrote behind the end: %v", err)
			}
			mustRead(t, server, "question")
			mustWrite(t, server, "answer")
			if err := server.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			mustRead(t, client, "answer")
			mustFail(t, client, io.EOF)
			if err := client.CloseWrite(); err != nil {
				t.Errorf("the second end: %v", err)
			}
			if err := client.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			mustFail(t, server, net.ErrClosed)
			if err := server.Close(); err != nil {
				t.Errorf("close behind the end: %v", err)
			}
		})
	}
}

func TestRawBodyClosedByClient(t *testing.T) {
	client, server := connect(t, rawStyles()[0].client(testID), newTestServer(t, ServerConfig{}))
	mustWrite(t, client, "all of it")
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	mustRead(t, server, "all of it")
	mustFail(t, server, io.EOF)
}

// recording dials over an endpoint that keeps what it is given.
func recording(t *testing.T, c *Account, first []byte) (*Conn, *recorder) {
	t.Helper()
	r := &recorder{}
	d := Dialer{Client: c, Endpoint: transport.EndpointFunc(func(_ context.Context, flight []byte) (transport.StreamConn, error) {
		if len(flight) > 0 {
			_, _ = r.Write(flight)
		}
		return r, nil
	})}
	conn, err := d.DialStream(t.Context(), destination, first)
	if err != nil {
		t.Fatal(err)
	}
	return conn.(*Conn), r
}

// opened reads a recorded request as a server does.
func opened(t *testing.T, s *Server, wire []byte) (*Incoming, []byte) {
	t.Helper()
	in, err := s.Accept(t.Context(), &recorder{in: bytes.NewReader(wire)})
	if err != nil {
		t.Fatal(err)
	}
	p, err := io.ReadAll(in.conn)
	if err != nil && !errors.Is(err, ErrTruncated) { // the flight has no end mark
		t.Fatal(err)
	}
	return in, p
}

// The header and the first payload leave in one write: their border must not
// show on the wire, and no round trip is spent on it.
func TestFirstFlight(t *testing.T) {
	large := pattern(firstFlight+70000, 1)
	for _, st := range append(styles(), rawStyles()...) {
		t.Run(st.name, func(t *testing.T) {
			c := st.client(testID)
			for _, f := range []struct {
				name  string
				send  func(t *testing.T) *recorder
				want  []byte
				first int // payload of the first carrier write
			}{
				{"in the dial", func(t *testing.T) *recorder {
					_, r := recording(t, c, []byte("GET /"))
					return r
				}, []byte("GET /"), 5},
				{"in the first write", func(t *testing.T) *recorder {
					conn, r := recording(t, c, nil)
					if len(r.writes) != 0 {
						t.Error("the request left before there was payload")
					}
					mustWrite(t, conn, "GET /")
					return r
				}, []byte("GET /"), 5},
				{"alone", func(t *testing.T) *recorder {
					conn, r := recording(t, c, nil)
					for range 2 {
						if n, err := conn.Write(nil); n != 0 || err != nil {
							t.Fatal(n, err)
						}
					}
					return r
				}, nil, 0},
				{"larger than a flight", func(t *testing.T) *recorder {
					_, r := recording(t, c, large)
					return r
				}, large, firstFlight},
			} {
				r := f.send(t)
				s := newTestServer(t, ServerConfig{})
				if len(f.want) < firstFlight && len(r.writes) != 1 {
					t.Errorf("%s: %d carrier writes", f.name, len(r.writes))
				}
				in, got := opened(t, s, bytes.Join(r.writes, nil))
				if !bytes.Equal(got, f.want) || in.Destination != destination || in.User != "alice" || in.Legacy != st.legacy || in.Security != st.method.Security {
					t.Errorf("%s: opened to %d bytes of %d, %+v", f.name, len(got), len(f.want), in)
				}
				if _, got = opened(t, newTestServer(t, ServerConfig{}), r.writes[0]); len(got) != f.first {
					t.Errorf("%s: %d bytes of payload in the first write, want %d", f.name, len(got), f.first)
				}
			}
		})
	}
}

// TestFirstFlightLayout holds a first flight against section 3 byte by byte,
// with what was drawn read back out of it.
func TestFirstFlightLayout(t *testing.T) {
	stamp := time.Unix(1700000000, 999)
	c := NewAccount(AccountConfig{ID: testID, Method: Method{SecurityAESGCM, padded}, Now: func() time.Time { return stamp }})
	_, r := recording(t, c, []byte("payload"))
	wire := r.writes[0]
	unix, ok := openAuthID(authIDCipher(testID.cmdKey()), [16]byte(wire))
	if !ok || unix != stamp.Unix() {
		t.Fatalf("AuthID of %d, %v", unix, ok)
	}
	keys := headerKeys{cmdKey: testID.cmdKey(), authID: [16]byte(wire), nonce: [8]byte(wire[34:])}
	length, err := keys.aead(saltLengthKey).Open(nil, keys.nonceFor(saltLengthNonce), wire[16:34], wire[:16])
	if err != nil {
		t.Fatal(err)
	}
	end := 42 + int(length[0])<<8 + int(length[1]) + tagSize
	plain, err := keys.aead(saltHeaderKey).Open(nil, keys.nonceFor(saltHeaderNonce), wire[42:end], wire[:16])
	if err != nil {
		t.Fatal(err)
	}
	h := requestHeader{
		iv: [16]byte(plain[1:]), key: [16]byte(plain[17:]), v: plain[33],
		option: padded, security: SecurityAESGCM, command: CommandTCP, address: destination,
	}
	padding := int(plain[35] >> 4)
	size := len(h.append(nil, make([]byte, padding)))
	if want := h.append(nil, plain[size-4-padding:size-4]); !bytes.Equal(plain[:size], want) {
		t.Errorf("header\n%x, want\n%x", plain, want)
	}
	fmtUp := requestFormat(&h, false)
	chunk := newChunker(fmtUp)
	body := wire[end:]
	n, _ := chunk.draw()
	if want := 2 + len("payload") + tagSize + n; len(body) != want {
		t.Errorf("a body of %d bytes, want %d", len(body), want)
	}
	if h.iv == [16]byte{} || h.key == [16]byte{} || h.iv == h.key {
		t.Error("the keys are not random")
	}
}

// A refusal must show after one round trip: the first flight alone has all the
// bytes that a server reads before it closes. Only sing-box and mihomo need
// none.
func TestFirstFlightOutlastsDrain(t *testing.T) {
	for _, k := range []ServerKind{KindUnknown, KindNative, KindV2Ray, KindSingBox} {
		for _, payload := range []int{0, 1, 3000, firstFlight} {
			synctest.Test(t, func(t *testing.T) {
				c := gcm.client(otherID)
				c.kind.Store(uint32(k))
				near, far := transporttest.Pipe(1 << 17)
				conn := dialOver(t, c, near, string(make([]byte, payload)))
				mustWrite(t, conn, "")
				s := newTestServer(t, ServerConfig{})
				s.drain = drainCount{base: 3265 + 63, spread: 1} // the most there is
				begin := time.Now()
				_, err := s.Accept(t.Context(), far)
				quick := time.Since(begin) == 0
				if !errors.Is(err, ErrInvalidUser) || quick != (k != KindSingBox || payload == firstFlight) {
					t.Errorf("kind %d, %d bytes of payload: refused after %v, %v", k, payload, time.Since(begin), err)
				}
				_ = conn.Close()
			})
		}
	}
	lengths := map[int]bool{}
	for range 100 {
		_, r := recording(t, gcm.client(testID), []byte("x"))
		lengths[len(r.writes[0])] = true
	}
	if len(lengths) < 30 {
		t.Errorf("%d different lengths in 100 flights", len(lengths))
	}
}

// Requests never share what was drawn for them.
func TestRequestsDiffer(t *testing.T) {
	c := NewAccount(AccountConfig{ID: testID, Method: Method{SecurityAESGCM, padded}})
	seen, lengths := map[string]bool{}, map[int]bool{}
	for range 200 {
		_, r := recording(t, c, []byte("x"))
		wire := r.writes[0]
		for _, part := range [][]byte{wire[:16], wire[34:42], wire[16:34]} {
			if seen[string(part)] {
				t.Fatal("a part of a request was seen before")
			}
			seen[string(part)] = true
		}
		lengths[len(wire)] = true
	}
	if len(lengths) < 10 {
		t.Errorf("only %d different lengths", len(lengths))
	}
}

func TestEndings(t *testing.T) {
	reset := errors.New("connection reset by peer")
	s := newTestServer(t, ServerConfig{})
	c := style{method: Method{SecurityAESGCM, masked}}.client(testID)
	// answer makes the bytes of an answer to conn's request, whole: header,
	// one chunk, end mark; with the offsets behind each.
	type answer struct {
		wire               []byte
		header, chunk, end int
	}
	answerTo := func(t *testing.T, own bool) (*Conn, *recorder, answer) {
		conn, r := recording(t, c, []byte("question"))
		far := &recorder{in: bytes.NewReader(r.writes[0])}
		var server *Conn
		if own {
			in, err := s.Accept(t.Context(), far)
			if err != nil {
				t.Fatal(err)
			}
			server = in.conn
		} else {
			server = acceptForeign(t, s, far)
		}
		var a answer
		a.header = len(server.pending)
		mustWrite(t, server, "answer")
		_ = server.CloseWrite()
		a.chunk = len(far.writes[0])
		a.wire = bytes.Join(far.writes, nil)
		a.end = len(a.wire)
		return conn, r, a
	}
	for _, side := range []struct {
		name          string
		own, marking  bool
		between, bare error // ends between two chunks, and before the first
	}{
		{"own", true, false, ErrUnmarked, ErrUnmarked},
		{"foreign", false, false, io.EOF, io.EOF},
		{"foreign that marks", false, true, ErrUnmarked, io.EOF},
	} {
		for _, e := range []struct {
			name string
			cut  func(a answer) int
			end  error // of the carrier
			got  string
			want error
		}{
			{"whole", func(a answer) int { return a.end }, io.EOF, "answer", io.EOF},
			{"whole, then a reset", func(a answer) int { return a.end }, reset, "answer", io.EOF},
			{"only the end mark's length", func(a answer) int { return a.chunk + 2 }, io.EOF, "answer", io.ErrUnexpectedEOF},
			{"only the end mark's length, no goodbye", func(a answer) int { return a.chunk + 2 }, io.ErrUnexpectedEOF, "answer", io.ErrUnexpectedEOF},
			{"within the end mark", func(a answer) int { return a.end - 1 }, io.EOF, "answer", io.ErrUnexpectedEOF},
			{"within the end mark, reset", func(a answer) int { return a.end - 1 }, reset, "answer", reset},
			{"between chunks, EOF", func(a answer) int { return a.chunk }, io.EOF, "answer", side.between},
			{"between chunks, no goodbye", func(a answer) int { return a.chunk }, fmt.Errorf("ws: %w", io.ErrUnexpectedEOF), "answer", ErrTruncated},
			{"between chunks, reset", func(a answer) int { return a.chunk }, reset, "answer", reset},
			{"behind the header", func(a answer) int { return a.header }, io.EOF, "", side.bare},
			{"within a chunk", func(a answer) int { return a.chunk - 1 }, io.EOF, "", io.ErrUnexpectedEOF},
			{"behind a length", func(a answer) int { return a.header + 2 }, io.EOF, "", io.ErrUnexpectedEOF},
			{"within a length", func(a answer) int { return a.header + 1 }, io.EOF, "", io.ErrUnexpectedEOF},
			{"within the end mark's length", func(a answer) int { return a.chunk + 1 }, io.EOF, "answer", io.ErrUnexpectedEOF},
			{"within a chunk, reset", func(a answer) int { return a.chunk - 1 }, reset, "", reset},
			{"within the header", func(a answer) int { return a.header - 1 }, io.EOF, "", io.ErrUnexpectedEOF},
			{"within the header's length", func(answer) int { return 5 }, io.EOF, "", io.ErrUnexpectedEOF},
			{"no answer", func(answer) int { return 0 }, io.EOF, "", ErrNoAnswer},
			{"no answer, no goodbye", func(answer) int { return 0 }, io.ErrUnexpectedEOF, "", ErrNoAnswer},
			{"no answer, reset", func(answer) int { return 0 }, reset, "", reset},
		} {
			t.Run(side.name+"/"+e.name, func(t *testing.T) {
				for _, wrap := range []func(io.Reader) io.Reader{
					func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.DataErrReader,
				} {
					c.marking.Store(side.marking)
					conn, r, a := answerTo(t, side.own)
					r.in = wrap(io.MultiReader(bytes.NewReader(a.wire[:e.cut(a)]), iotest.ErrReader(e.end)))
					got, err := io.ReadAll(readErrors{conn})
					if string(got) != e.got {
						t.Errorf("read %q, want %q", got, e.got)
					}
					end := errors.Unwrap(err)
					if want := e.want; !errors.Is(end, want) || want == io.EOF && end != io.EOF {
						t.Errorf("ended with %v, want %v", end, want)
					}
					if e.want == io.ErrUnexpectedEOF && errors.Is(end, ErrTruncated) {
						t.Errorf("ended with %v for a cut chunk", end)
					}
					if _, again := conn.Read(make([]byte, 1)); again != end {
						t.Errorf("then with %v", again)
					}
				}
			})
		}
	}
}

// readErrors hands on io.EOF too as an error that io.ReadAll returns.
type readErrors struct{ io.Reader }

func (r readErrors) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil {
		err = fmt.Errorf("ended: %w", err)
	}
	return n, err
}

// A body without end marks ends where its carrier is closed in order, as both of
// our ends do it; others do not all. MD5 headers do not tell whose they are.
func TestRawEndings(t *testing.T) {
	torn := fmt.Errorf("ws: %w", io.ErrUnexpectedEOF)
	s := newTestServer(t, ServerConfig{})
	for _, st := range rawStyles() {
		for _, own := range []bool{true, false} {
			cut, cutRequest := error(io.EOF), error(io.EOF)
			if own {
				cut = ErrTruncated
			}
			if own && !st.legacy {
				cutRequest = ErrTruncated
			}
			for _, e := range []struct {
				name   string
				header int // bytes of the answer's header
				text   string
				end    error // of the carrier
				want   error
			}{
				{"whole", 999, "answer", io.EOF, io.EOF},
				{"whole without data", 999, "", io.EOF, io.EOF},
				{"cut", 999, "answer", torn, cut},
				{"cut behind the header", 999, "", torn, cut},
				{"cut within the header", 3, "", torn, io.ErrUnexpectedEOF},
				{"cut before the header", 0, "", torn, ErrNoAnswer},
			} {
				t.Run(fmt.Sprintf("%s/own %v/%s", st.name, own, e.name), func(t *testing.T) {
					c := st.client(testID)
					if !own {
						c.kind.Store(uint32(KindSingBox)) // its requests have no note
					}
					_, foreign := recording(t, c, []byte("question"))
					conn, r := recording(t, c, []byte("question"))
					far := &recorder{in: io.MultiReader(bytes.NewReader(r.writes[0]), iotest.ErrReader(e.end))}
					var server *Conn
					if own {
						server = accept(t, s, far)
					} else {
						server = acceptForeign(t, s, far)
					}
					mustWrite(t, server, e.text)
					wire := bytes.Join(far.writes, nil)
					header := min(len(wire)-len(e.text), e.header)
					r.in = io.MultiReader(bytes.NewReader(wire[:header+len(e.text)]), iotest.ErrReader(e.end))
					wantEnd(t, conn, e.text, e.want)
					if !own {
						server = accept(t, s, &recorder{in: io.MultiReader(bytes.NewReader(foreign.writes[0]), iotest.ErrReader(e.end))})
					}
					if e.end == io.EOF {
						wantEnd(t, server, "question", io.EOF)
					} else {
						wantEnd(t, server, "question", cutRequest)
					}
				})
			}
		}
	}
}

func accept(t *testing.T, s *Server, carrier transport.StreamConn) *Conn {
	t.Helper()
	in, err := s.Accept(t.Context(), carrier)
	if err != nil {
		t.Fatal(err)
	}
	return in.conn
}

// wantEnd reads conn to its end.
func wantEnd(t *testing.T, conn *Conn, text string, want error) {
	t.Helper()
	got, err := io.ReadAll(readErrors{conn})
	if end := errors.Unwrap(err); string(got) != text || !errors.Is(end, want) || want == io.EOF && end != io.EOF {
		t.Errorf("read %q and %v, want %q and %v", got, end, text, want)
	}
}

func TestBadResponse(t *testing.T) {
	for _, st := range []style{gcm, {name: "legacy", legacy: true, method: gcm.method}} {
		for _, garbage := range [][]byte{pattern(4000, 1), bytes.Repeat([]byte{0xff}, 100), []byte("HTTP/1.1 400 Bad Request\r\n\r\n")} {
			var err error
			for range 5 { // one in 256 legacy answers passes the one byte that is checked
				conn, r := recording(t, st.client(testID), []byte("question"))
				r.in = bytes.NewReader(garbage)
				if _, err = conn.Read(make([]byte, 100)); errors.Is(err, ErrBadResponse) {
					break
				}
			}
			if !errors.Is(err, ErrBadResponse) {
				t.Errorf("%s: %v", st.name, err)
			}
		}
	}
}

// A write that failed may have left part of a chunk: nothing may follow it.
func TestWriteErrorIsFinal(t *testing.T) {
	conn, r := recording(t, style{method: Method{SecurityAESGCM, masked}}.client(testID), nil)
	r.err = os.ErrDeadlineExceeded
	if _, err := conn.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	r.err = nil
	if _, err := conn.Write([]byte("y")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("wrote on: %v", err)
	}
	_ = conn.CloseWrite()
	_ = conn.Close()
	if len(r.writes) != 0 {
		t.Errorf("%d writes behind a broken one", len(r.writes))
	}
}

func TestDialErrors(t *testing.T) {
	c := style{method: Method{SecurityAESGCM, masked}}.client(testID)
	refused := &net.OpError{Op: "dial", Err: errors.New("refused")}
	d := Dialer{Client: c, Endpoint: transport.EndpointFunc(func(context.Context, []byte) (transport.StreamConn, error) { return nil, refused })}
	for _, first := range []string{"", "x"} {
		if _, err := d.DialStream(t.Context(), destination, []byte(first)); !errors.Is(err, refused) {
			t.Errorf("dial: %v", err)
		}
	}
	if _, err := d.DialPacket(t.Context(), destination); !errors.Is(err, refused) {
		t.Errorf("dial: %v", err)
	}
	if _, err := d.DialStream(t.Context(), netaddr.Addr{}, nil); err == nil || errors.Is(err, refused) {
		t.Errorf("dial of no destination: %v", err)
	}
	if _, err := d.DialPacket(t.Context(), netaddr.Addr{}); err == nil || errors.Is(err, refused) {
		t.Errorf("dial of no destination: %v", err)
	}
}

// A first payload too large for one flight is still part of the dial, which
// its context ends.
func TestDialCancelledBehindFirstFlight(t *testing.T) {
	near, far := transporttest.Pipe(1 << 16) // nobody reads
	ctx, cancel := context.WithCancel(t.Context())
	dialled := make(chan error, 1)
	go func() {
		d := Dialer{Client: style{method: Method{SecurityAESGCM, masked}}.client(testID), Endpoint: handOver(near)}
		_, err := d.DialStream(ctx, destination, make([]byte, 1<<20))
		dialled <- err
	}()
	cancel()
	if err := <-dialled; !errors.Is(err, context.Canceled) {
		t.Errorf("dial: %v", err)
	}
	if _, err := io.Copy(io.Discard, far); !errors.Is(err, transporttest.ErrReset) {
		t.Errorf("the carrier ended with %v", err)
	}
}

func TestResetShowsNoEnd(t *testing.T) {
	client, server := connect(t, style{method: Method{SecurityAESGCM, masked}}.client(testID), newTestServer(t, ServerConfig{}))
	mustWrite(t, client, "x")
	mustRead(t, server, "x")
	_ = client.Reset()
	mustFail(t, server, transporttest.ErrReset)
}

func TestWaitPeerClose(t *testing.T) {
	client, server := connect(t, style{method: Method{SecurityAESGCM, masked}}.client(testID), newTestServer(t, ServerConfig{}))
	mustWrite(t, server, "bye")
	_ = server.CloseWrite()
	mustRead(t, client, "bye")
	mustFail(t, client, io.EOF)
	waited := make(chan struct{})
	go func() {
		if !client.WaitPeerClose() {
			t.Error("the server may still be there")
		}
		close(waited)
	}()
	select {
	case <-waited:
		t.Fatal("returned while the server is still there")
	default:
	}
	_ = server.Close()
	<-waited
}

// What came with the end mark, behind it, is not held while a departure is
// waited for.
func TestWaitPeerCloseHoldsNothing(t *testing.T) {
	client, server := connect(t, style{method: Method{SecurityAESGCM, masked}}.client(testID), newTestServer(t, ServerConfig{}))
	mustWrite(t, server, "bye")
	mustRead(t, client, "bye")
	if _, err := server.carrier.Write(append(server.writer.sealEnd(nil), "and more"...)); err != nil {
		t.Fatal(err)
	}
	mustFail(t, client, io.EOF)
	_ = server.carrier.Close()
	_ = client.WaitPeerClose()
	if b := &client.reader.in; b.buf != nil || b.lent != nil || b.buffered() != 0 {
		t.Errorf("%d bytes are still held", b.buffered())
	}
}

// The relay is what both ends of a tunnel run.
func TestThroughRelays(t *testing.T) {
	s := newTestServer(t, ServerConfig{})
	c := taught(t, style{method: Method{SecurityAESGCM, padded}}.client(testID), s)
	transporttest.TestStream(t, func(t *testing.T) (a, b transport.StreamConn) {
		app, local := transporttest.Pipe(1 << 16)
		target, far := transporttest.Pipe(1 << 16)
		client, server := connect(t, c, s)
		var done [2]chan relay.Outcome
		for i, ends := range [][2]transport.StreamConn{{local, client}, {server, target}} {
			done[i] = make(chan relay.Outcome, 1)
			go func() { done[i] <- relay.Relay{}.Run(t.Context(), ends[0], ends[1]) }()
		}
		t.Cleanup(func() {
			_, _ = app.Reset(), far.Reset()
			<-done[0]
			<-done[1]
		})
		return app, far
	})
}

// TestPartSent: a dial that failed when the first flight was out tells it.
func TestPartSent(t *testing.T) {
	near, far := transporttest.Pipe(1 << 20)
	d := Dialer{
		Client: NewAccount(AccountConfig{ID: testID, Method: gcm.method}),
		Endpoint: transport.EndpointFunc(func(_ context.Context, first []byte) (transport.StreamConn, error) {
			if _, err := near.Write(first); err != nil {
				return nil, err
			}
			return near, far.Reset()
		}),
	}
	if _, err := d.DialStream(t.Context(), destination, make([]byte, firstFlight+1)); !errors.Is(err, transport.ErrPartSent) {
		t.Errorf("got %v", err)
	}
}

// Half of the nonces of either direction are enough to leave a stream alone;
// the stream itself goes on, past the end of them too.
func TestNearNonceLimit(t *testing.T) {
	s := newTestServer(t, ServerConfig{})
	for _, up := range []bool{true, false} {
		client, server := connect(t, style{method: Method{SecurityAESGCM, masked}}.client(testID), s)
		from, to := client, server
		if !up {
			from, to = server, client
		}
		carry := func(n int) {
			t.Helper()
			got := make([]byte, n)
			done := make(chan error, 1)
			go func() { _, err := io.ReadFull(to, got); done <- err }()
			for range n {
				if _, err := from.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		used := 0
		if !up {
			mustWrite(t, client, "x") // the request
		}
		for _, n := range []int{1<<15 - 2, 1, 1, 1 << 16} {
			carry(n)
			used += n
			if near := client.NearNonceLimit(); near != (used >= 1<<15) {
				t.Errorf("up %v, after %d chunks: %v", up, used, near)
			}
		}
		_ = client.Close()
		_ = server.Close()
	}
}

// Without sealed lengths, two flipped bytes make an end mark's length of any
// chunk's. With a cut behind it that is no end, in whatever direction and form.
func TestForgedEndMark(t *testing.T) {
	const text = "an answer whose end matters"
	s := newTestServer(t, ServerConfig{})
	// forge turns the length of the last chunk of wire into that of an end mark,
	// and cuts the rest off.
	forge := func(wire []byte) []byte {
		at := len(wire) - (2 + len(text) + tagSize)
		forged := bytes.Clone(wire[:at+2])
		length := binary.BigEndian.Uint16(forged[at:]) ^ uint16(len(text)+tagSize) ^ tagSize
		binary.BigEndian.PutUint16(forged[at:], length)
		return forged
	}
	for _, security := range []Security{SecurityAESGCM, SecurityChaCha20Poly1305} {
		for _, legacy := range []bool{false, true} {
			c := style{legacy: legacy, method: Method{security, masked}}.client(testID)
			t.Run(fmt.Sprintf("%v/legacy %v/up", security, legacy), func(t *testing.T) {
				_, r := recording(t, c, []byte(text))
				server := accept(t, s, &recorder{in: bytes.NewReader(forge(r.writes[0]))})
				wantEnd(t, server, "", io.ErrUnexpectedEOF)
			})
			t.Run(fmt.Sprintf("%v/legacy %v/down", security, legacy), func(t *testing.T) {
				conn, r := recording(t, c, []byte("question"))
				far := &recorder{in: bytes.NewReader(r.writes[0])}
				mustWrite(t, accept(t, s, far), text)
				r.in = bytes.NewReader(forge(bytes.Join(far.writes, nil)))
				wantEnd(t, conn, "", io.ErrUnexpectedEOF)
			})
			t.Run(fmt.Sprintf("%v/legacy %v/datagrams", security, legacy), func(t *testing.T) {
				r := &recorder{}
				p, err := (&Dialer{Client: c, Endpoint: handOver(r)}).DialPacket(t.Context(), destination)
				if err != nil {
					t.Fatal(err)
				}
				if err := p.WritePacket([]byte(text), destination); err != nil {
					t.Fatal(err)
				}
				in, err := s.Accept(t.Context(), &recorder{in: bytes.NewReader(forge(bytes.Join(r.writes, nil)))})
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := in.Packets().ReadPacket(make([]byte, 100)); !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("ended with %v", err)
				}
			})
		}
	}
}
