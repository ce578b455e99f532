package e2e

import (
	"bufio"
	"context"
	"crypto/aes"
	"crypto/md5"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"vmess-local/pkg/carrier/wsconn"
	"vmess-local/pkg/dispatch"
	"vmess-local/pkg/outbound/direct"
	"vmess-local/pkg/protocol/mux"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
)

// A labServer is a VMess server in process that can be told to misbehave: the
// zero value serves userID, by VMessAEAD and MD5, and goes to any destination.
// What it refuses it keeps open as V2Ray 5 was measured to (docs/diagnosis.md
// 2): until 54 + base + r bytes have come, or for 60 s.
type labServer struct {
	alterID    int
	aeadForced bool
	md5Only    bool          // as before V2Ray 4.28: AuthIDs are noise to it
	noDate     bool          // tells no time
	clock      time.Duration // how far its clock is ahead
	muxPause   time.Duration // before a mux probe is answered: V2Ray takes 1.0 s
	deaf       bool          // to early data
	noise      bool          // answers noise
	resolver   *net.Resolver // nil knows no names
}

// start serves until the test ends, and returns the address.
func (s labServer) start(t testing.TB) string {
	t.Helper()
	id, err := vmess.ParseID(userID)
	if err != nil {
		t.Fatal(err)
	}
	account, err := vmess.NewServer(vmess.ServerConfig{
		Users: []vmess.User{{ID: id, AlterID: s.alterID}}, AEADForced: s.aeadForced, Now: clockOff(s.clock),
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.resolver == nil {
		s.resolver = newKnowsNothing(t).Resolver
	}
	way := &direct.Dialer{AllowPrivate: true, Resolver: s.resolver}
	out := &dispatch.Dispatcher{Dialer: way, Packets: way}
	ctx, cancel := context.WithCancel(context.Background())
	var streams sync.WaitGroup
	ws := &wsconn.Server{Path: wsPath, Context: ctx, NotFound: http.HandlerFunc(s.notFound)}
	ws.Serve = func(ctx context.Context, c *wsconn.Conn, _ *http.Request) {
		defer streams.Done()
		defer c.Close()
		defer context.AfterFunc(ctx, func() { _ = c.Close() })()
		s.serve(ctx, account, out, c)
	}
	web := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.deaf {
			r.Header.Del("Sec-WebSocket-Protocol")
		}
		if strings.HasPrefix(r.URL.Path, wsPath) && r.Header.Get("Upgrade") != "" {
			streams.Add(1)
		}
		ws.ServeHTTP(w, r)
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- web.Serve(ln) }()
	t.Cleanup(func() {
		_ = web.Close()
		<-done
		cancel()
		streams.Wait()
	})
	return ln.Addr().String()
}

func (s labServer) notFound(w http.ResponseWriter, _ *http.Request) {
	if s.noDate {
		w.Header()["Date"] = nil
	} else {
		w.Header().Set("Date", time.Now().Add(s.clock).UTC().Format(http.TimeFormat))
	}
	w.WriteHeader(http.StatusNotFound)
}

// serve serves one upgraded connection.
func (s labServer) serve(ctx context.Context, account *vmess.Server, out *dispatch.Dispatcher, c *wsconn.Conn) {
	var carrier transport.StreamConn = c
	if s.md5Only {
		carrier = &noAEAD{StreamConn: c}
	}
	if s.noise {
		_, _ = c.Read(make([]byte, 64))
		noise := make([]byte, 100)
		_, _ = rand.Read(noise)
		_, _ = c.Write(noise)
		return
	}
	in, err := account.Accept(ctx, carrier)
	if err != nil {
		return
	}
	if in.Command == vmess.CommandUDP {
		out.HandlePackets(ctx, &transport.Request{Destination: in.Destination, Inbound: "vmess"}, in.Packets())
		return
	}
	if in.Command != vmess.CommandMux {
		out.HandleStream(ctx, &transport.Request{Destination: in.Destination, Inbound: "vmess", Pending: in})
		return
	}
	conn, err := in.Proceed(netip.AddrPort{})
	if err != nil {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(s.muxPause):
		packets := func(ctx context.Context, p *mux.PacketRequest) {
			out.HandlePackets(ctx, &transport.Request{Inbound: "mux"}, p.Conn)
		}
		sessions := mux.Server{HandleStream: out.HandleStream, HandlePackets: packets, Patience: 5 * time.Second}
		_ = sessions.Serve(ctx, conn, in.User, netip.AddrPort{})
	}
}

// noAEAD is a connection to a server from before VMessAEAD: an AuthID is no
// user's hash to it, as good as noise.
type noAEAD struct {
	transport.StreamConn
	begun bool
}

// Read implements io.Reader.
func (c *noAEAD) Read(p []byte) (int, error) {
	if c.begun || len(p) < 16 {
		return c.StreamConn.Read(p)
	}
	n, err := io.ReadAtLeast(c.StreamConn, p, 16)
	c.begun = true
	if n >= 16 && isAuthID(p[:16]) {
		_, _ = rand.Read(p[:16])
	}
	return n, err
}

// isAuthID tells whether a request begins as VMessAEAD does for userID
// (docs/protocol.md 3).
func isAuthID(p []byte) bool {
	id, err := hex.DecodeString(strings.ReplaceAll(userID, "-", ""))
	if err != nil {
		return false
	}
	cmdKey := md5.Sum(append(id, "c48619fe-8f02-49e0-b9e9-edf763e17e21"...))
	block, err := aes.NewCipher(fakeKDF(cmdKey[:], "AES Auth ID Encryption")[:16])
	if err != nil {
		return false
	}
	var plain [16]byte
	block.Decrypt(plain[:], p)
	return crc32.ChecksumIEEE(plain[:12]) == binary.BigEndian.Uint32(plain[12:])
}

// A programmableServer refuses some of the requests that it understands. It is a
// closingOrigin itself and written without our own packages, as fakeServer is:
// AEAD, aes-128-gcm, no padding.
type programmableServer struct {
	addr string
	// option is its response's option byte: 0 as V2Ray's, or an echo of the
	// request's as sing-box's.
	option byte
	// refuses tells whether to refuse the n-th request, from 0 on.
	refuses func(n int) bool
	// asV2Ray: a refused request is drained first, up to the most that V2Ray
	// takes in; sing-box closes at once.
	asV2Ray bool

	mu        sync.Mutex
	requests  int
	delivered map[string]int // first lines carried out
}

func (s *programmableServer) start(t testing.TB) *programmableServer {
	t.Helper()
	s.delivered = map[string]int{}
	s.addr = serveOrigin(t, func(c *net.TCPConn) {
		if err := s.serve(c); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) {
			t.Logf("the moody server: %v", err)
		}
	})
	return s
}

func (s *programmableServer) serve(c *net.TCPConn) error {
	buffered := bufio.NewReader(c)
	head, err := buffered.Peek(5 + len(wsPath))
	if err != nil {
		return err
	}
	if string(head) != "GET "+wsPath+" " {
		_, err = io.WriteString(c, "HTTP/1.1 404 Not Found\r\nDate: "+time.Now().UTC().Format(http.TimeFormat)+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return err
	}
	if err := fakeUpgrade(c, buffered); err != nil {
		return err
	}
	ws := &countedReader{r: &fakeFrames{r: buffered}}
	request, err := openFakeRequest(ws)
	if err != nil {
		return err
	}
	if s.next() {
		if s.asV2Ray {
			_, _ = io.CopyN(io.Discard, ws, max(0, mostRefused-ws.n))
		}
		_, err := c.Write(fakeFrame(nil, 8, []byte{1000 >> 8, 1000 & 0xff}))
		return err
	}
	line, err := request.readLine(ws)
	if err != nil {
		return err
	}
	answer, err := shortAnswer(line)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.delivered[line]++
	s.mu.Unlock()
	out := fakeFrame(nil, 2, append(request.header(4, request.v, s.option, 0, 0), request.chunks(answer)...))
	_, err = c.Write(fakeFrame(out, 8, []byte{1000 >> 8, 1000 & 0xff}))
	return err
}

// next counts a request and tells whether to refuse it.
func (s *programmableServer) next() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.requests
	s.requests++
	return s.refuses(n)
}

// seen returns how many requests came, and which were carried out how often.
func (s *programmableServer) seen() (requests int, delivered map[string]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests, s.delivered
}

type countedReader struct {
	r io.Reader
	n int64
}

// Read implements io.Reader.
func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
