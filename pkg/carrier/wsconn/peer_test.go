package wsconn

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/tcpconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of the tests.
const patience = 10 * time.Second

// A rawPeer is a WebSocket server made of bytes: it knows nothing of the
// package under test.
type rawPeer struct {
	net.Conn
	br   *bufio.Reader
	req  *http.Request
	head []byte // the request as it came
}

// accept reads the upgrade request.
func (p *rawPeer) accept() error {
	var head bytes.Buffer
	p.br = bufio.NewReaderSize(p.Conn, 256<<10)
	for {
		line, err := p.br.ReadBytes('\n')
		head.Write(line)
		if err != nil {
			return err
		}
		if len(line) == 2 {
			break
		}
	}
	p.head = bytes.Clone(head.Bytes())
	var err error
	p.req, err = http.ReadRequest(bufio.NewReader(&head))
	return err
}

// switching is the answer that upgrades.
func (p *rawPeer) switching(more string) []byte {
	sum := sha1.Sum([]byte(p.req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + more +
		"Sec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n")
}

// readFrame reads one whole frame and unmasks it.
func readFrame(r io.Reader) (first byte, payload []byte, err error) {
	var b [8]byte
	if _, err = io.ReadFull(r, b[:2]); err != nil {
		return 0, nil, err
	}
	first, masked := b[0], b[1]&0x80 != 0
	length := uint64(b[1] & 0x7f)
	switch length {
	case 126:
		_, err = io.ReadFull(r, b[:2])
		length = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		_, err = io.ReadFull(r, b[:8])
		length = binary.BigEndian.Uint64(b[:])
	}
	var key [4]byte
	if masked && err == nil {
		_, err = io.ReadFull(r, key[:])
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, length)
	_, err = io.ReadFull(r, payload)
	for i := range payload {
		payload[i] ^= key[i&3]
	}
	return first, payload, err
}

// frame builds a server's frame, or a client's when a mask key is given.
func frame(first byte, payload []byte, key ...byte) []byte {
	b := []byte{first}
	mask := byte(0)
	if len(key) > 0 {
		mask = 0x80
	}
	switch n := len(payload); {
	case n < 126:
		b = append(b, mask|byte(n))
	case n < 65536:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(n))
	}
	b = append(b, key...)
	start := len(b)
	b = append(b, payload...)
	for i := range b[start:] {
		if len(key) > 0 {
			b[start+i] ^= key[i&3]
		}
	}
	return b
}

func closeFrame(code uint16, text string) []byte {
	return frame(0x88, append(binary.BigEndian.AppendUint16(nil, code), text...))
}

// overTCP is an endpoint whose far end runs serve for each connection.
func overTCP(t testing.TB, serve func(p *rawPeer)) transport.StreamEndpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			serve(&rawPeer{Conn: conn})
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return tcpEndpoint(l.Addr().String())
}

func tcpEndpoint(addr string) transport.StreamEndpoint {
	return transport.EndpointFunc(func(ctx context.Context, _ []byte) (transport.StreamConn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return tcpconn.New(conn.(*net.TCPConn)), nil
	})
}

// upgraded is overTCP whose serve is called after the upgrade.
func upgraded(t testing.TB, serve func(p *rawPeer)) transport.StreamEndpoint {
	return overTCP(t, func(p *rawPeer) {
		if p.accept() != nil {
			return
		}
		if _, err := p.Write(p.switching("")); err == nil {
			serve(p)
		}
	})
}

// A memConn makes a StreamConn of one end of net.Pipe.
type memConn struct{ net.Conn }

func (memConn) CloseWrite() error { return errors.ErrUnsupported }

// overPipe is an endpoint in memory; serve is called after the upgrade.
func overPipe(serve func(p *rawPeer)) transport.StreamEndpoint {
	return transport.EndpointFunc(func(context.Context, []byte) (transport.StreamConn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			p := &rawPeer{Conn: far}
			if p.accept() != nil {
				return
			}
			if _, err := far.Write(p.switching("")); err == nil {
				serve(p)
			}
		}()
		return memConn{near}, nil
	})
}

// dial connects a client to endpoint; the test's end closes it.
func dial(t testing.TB, endpoint transport.StreamEndpoint) *Conn {
	t.Helper()
	return dialWith(t, &Dialer{Endpoint: endpoint, Host: "example.com"}, nil)
}

func dialWith(t testing.TB, d *Dialer, first []byte) *Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := d.ConnectStream(ctx, first)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s.(*Conn)
}

// pattern is n bytes that differ from their neighbours.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}
