package e2e

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// A fakeCore is a server for datagrams that understands what V2Ray 4, V2Ray 5 or
// Xray does (docs/protocol.md 9 to 11): the plain form, V2Ray 5 packetaddr, and
// Xray XUDP, of which the others take as much as looks like a UDP session of
// Mux.Cool, all of whose datagrams go to the first destination. As fakeServer it
// is written without our own packages: AEAD, aes-128-gcm, no padding, IPv4.
type fakeCore struct {
	addr     string
	brand    string
	resolver netip.AddrPort // where datagrams to fakeResolver go

	mu   sync.Mutex
	seen map[string]int // requests: "plain", "packetaddr" and "XUDP"
}

const (
	fakeV2Ray4 = "V2Ray 4"
	fakeV2Ray5 = "V2Ray 5"
	fakeXray   = "Xray"
)

// fakeResolver is an address of a resolver that no test can listen on.
var fakeResolver = netip.MustParseAddrPort("192.0.2.53:53")

func startFakeCore(t testing.TB, brand string, resolver netip.AddrPort) *fakeCore {
	t.Helper()
	s := &fakeCore{brand: brand, resolver: resolver, seen: map[string]int{}}
	s.addr = serveOrigin(t, func(c *net.TCPConn) {
		if err := s.serve(c); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) {
			t.Logf("the fake %s: %v", brand, err)
		}
	})
	return s
}

// requests returns how many of a form came so far.
func (s *fakeCore) requests(form string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[form]
}

func (s *fakeCore) count(form string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[form]++
}

func (s *fakeCore) serve(c *net.TCPConn) error {
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
	ws := &fakeFrames{r: buffered}
	request, err := openFakeRequest(ws)
	if err != nil {
		return err
	}
	out, err := newFakeDatagrams(c, request, s.resolver)
	if err != nil {
		return err
	}
	defer out.close()
	chunks := &fakeChunks{body: newFakeBody(request.key, request.iv), r: ws}
	name := append([]byte{0, 0, 2, byte(len(packetAddrName))}, packetAddrName...)
	switch {
	case request.command == 3:
		return s.session(out, chunks)
	case request.command != 2:
		return fmt.Errorf("command %d is not for this server", request.command)
	case bytes.HasPrefix(request.address, name):
		s.count("packetaddr")
		if s.brand != fakeV2Ray5 {
			return nil // there is no such name
		}
		out.start(func(from netip.AddrPort, data []byte) []byte {
			ip := from.Addr().As4()
			head := binary.BigEndian.AppendUint16(append([]byte{1}, ip[:]...), from.Port())
			return append(head, data...)
		})
		return chunks.each(func(p []byte) error {
			if len(p) < 7 || p[0] != 1 {
				return fmt.Errorf("packetaddr datagram % x", p[:min(len(p), 7)])
			}
			return out.send(netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[1:5])), binary.BigEndian.Uint16(p[5:])), p[7:])
		})
	}
	s.count("plain")
	to, err := fakeAddress(request.address)
	if err != nil {
		return err
	}
	out.start(func(_ netip.AddrPort, data []byte) []byte { return data })
	return chunks.each(func(p []byte) error { return out.send(to, p) })
}

// session serves one UDP session of Mux.Cool, or none for a probe.
func (s *fakeCore) session(out *fakeDatagrams, chunks *fakeChunks) error {
	var to netip.AddrPort
	for {
		meta, data, err := readFakeFrame(chunks)
		if err != nil {
			return err
		}
		if status := meta[2]; status == 1 {
			if len(meta) < 12 || meta[4] != 2 {
				return out.write([]byte{0, 4, meta[0], meta[1], 3, 0}) // End
			}
			s.count("XUDP")
			if to, err = fakeAddress(meta[5:]); err != nil {
				return err
			}
			keep := []byte{0, 4, meta[0], meta[1], 2, 1}
			out.start(func(from netip.AddrPort, data []byte) []byte {
				frame := bytes.Clone(keep)
				if s.brand == fakeXray {
					ip := from.Addr().As4()
					frame = append(binary.BigEndian.AppendUint16(append(frame, 2), from.Port()), 1)
					frame = append(frame, ip[:]...)
					frame[1] = byte(len(frame) - 2)
				}
				return append(binary.BigEndian.AppendUint16(frame, uint16(len(data))), data...)
			})
		} else if status == 2 && s.brand == fakeXray && len(meta) >= 12 {
			if to, err = fakeAddress(meta[5:]); err != nil {
				return err
			}
		} else if status == 3 {
			return nil
		}
		if len(data) > 0 {
			if err := out.send(to, data); err != nil {
				return err
			}
		}
	}
}

// readFakeFrame reads a frame's meta part, without its length, and data.
func readFakeFrame(r io.Reader) (meta, data []byte, err error) {
	if meta, err = readFakeSized(r); err != nil {
		return nil, nil, err
	}
	if len(meta) < 4 {
		return nil, nil, fmt.Errorf("meta % x", meta)
	}
	if meta[3]&1 != 0 {
		data, err = readFakeSized(r)
	}
	return meta, data, err
}

func readFakeSized(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	p := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, p)
	return p, err
}

// fakeAddress reads an IPv4 address behind its port.
func fakeAddress(p []byte) (netip.AddrPort, error) {
	if len(p) < 7 || p[2] != 1 {
		return netip.AddrPort{}, fmt.Errorf("address % x is not for this server", p[:min(len(p), 7)])
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[3:7])), binary.BigEndian.Uint16(p)), nil
}

// fakeChunks reads a request's chunks.
type fakeChunks struct {
	body *fakeBody
	r    io.Reader
	left []byte
}

// each hands on chunk after chunk up to the end mark.
func (c *fakeChunks) each(take func(p []byte) error) error {
	for {
		p, err := c.body.readChunk(c.r)
		if err != nil || len(p) == 0 {
			return err
		}
		if err := take(p); err != nil {
			return err
		}
	}
}

// Read implements io.Reader: the chunks as one stream.
func (c *fakeChunks) Read(p []byte) (int, error) {
	if len(c.left) == 0 {
		data, err := c.body.readChunk(c.r)
		if err == nil && len(data) == 0 {
			err = io.EOF
		}
		if err != nil {
			return 0, err
		}
		c.left = data
	}
	n := copy(p, c.left)
	c.left = c.left[n:]
	return n, nil
}

// fakeDatagrams is a request's UDP socket, and its answer.
type fakeDatagrams struct {
	*net.UDPConn
	resolver netip.AddrPort
	reading  sync.WaitGroup

	mu      sync.Mutex
	tunnel  net.Conn
	request *fakeRequest
	body    *fakeBody // nil before the first answer
}

func newFakeDatagrams(tunnel net.Conn, q *fakeRequest, resolver netip.AddrPort) (*fakeDatagrams, error) {
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	return &fakeDatagrams{UDPConn: socket, resolver: resolver, tunnel: tunnel, request: q}, nil
}

func (d *fakeDatagrams) send(to netip.AddrPort, data []byte) error {
	if to == fakeResolver {
		to = d.resolver
	}
	_, err := d.WriteToUDPAddrPort(data, to)
	return err
}

// start sends what arrives as wrap puts it.
func (d *fakeDatagrams) start(wrap func(from netip.AddrPort, data []byte) []byte) {
	d.reading.Go(func() {
		p := make([]byte, 1<<16)
		for {
			n, from, err := d.ReadFromUDPAddrPort(p)
			if from == d.resolver {
				from = fakeResolver
			}
			if err != nil || d.write(wrap(from, p[:n])) != nil {
				return
			}
		}
	})
}

// write sends one chunk, the first behind the answer's header.
func (d *fakeDatagrams) write(chunk []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []byte
	if d.body == nil {
		out, d.body = d.request.header(4, d.request.v, 0, 0, 0), d.request.answerBody() // 0: as V2Ray answers
	}
	_, err := d.tunnel.Write(fakeFrame(nil, 2, d.body.appendChunk(out, chunk)))
	return err
}

func (d *fakeDatagrams) close() {
	_ = d.Close()
	d.reading.Wait()
}
