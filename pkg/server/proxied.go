package server

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"vmess-local/pkg/transport"
)

// The PROXY protocol, by which a proxy tells whose connection it passes on, in
// version 1 (a line) and 2 (binary).

const (
	// proxyHeaderMost is the longest header that is read: version 1 has at
	// most 107 bytes, version 2 is said to fit a first packet.
	proxyHeaderMost = 536
	proxyV2Head     = 16
)

var (
	proxyV1Start = []byte("PROXY ")
	proxyV2Start = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

var (
	errProxyHeader = errors.New("bad PROXY header")
	errProxyShort  = errors.New("the PROXY header is not whole yet")
)

// parseProxyHeader reads a header off the start of a connection: who is behind
// the proxy (zero when it does not say), and how long the header is: 0 when
// there is none. More bytes are needed for errProxyShort.
func parseProxyHeader(p []byte) (source netip.AddrPort, size int, err error) {
	switch {
	case begins(p, proxyV2Start):
		return parseProxyV2(p)
	case begins(p, proxyV1Start):
		return parseProxyV1(p)
	}
	return source, 0, nil
}

// begins reports whether p starts with start, as far as it goes.
func begins(p, start []byte) bool {
	n := min(len(p), len(start))
	return bytes.Equal(p[:n], start[:n])
}

func parseProxyV1(p []byte) (source netip.AddrPort, size int, err error) {
	end := bytes.Index(p, []byte("\r\n"))
	if end < 0 {
		if len(p) >= 107 {
			return source, 0, errProxyHeader
		}
		return source, 0, errProxyShort
	}
	words := strings.Split(string(p[:end]), " ")
	size = end + 2
	switch {
	case len(words) >= 2 && words[1] == "UNKNOWN":
		return source, size, nil
	case len(words) != 6 || words[1] != "TCP4" && words[1] != "TCP6":
		return source, 0, errProxyHeader
	}
	source, err = netip.ParseAddrPort(net.JoinHostPort(words[2], words[4]))
	if err != nil {
		return netip.AddrPort{}, 0, errProxyHeader
	}
	return source, size, nil
}

func parseProxyV2(p []byte) (source netip.AddrPort, size int, err error) {
	if len(p) < proxyV2Head {
		return source, 0, errProxyShort
	}
	size = proxyV2Head + int(binary.BigEndian.Uint16(p[14:]))
	switch {
	case p[12]>>4 != 2 || size > proxyHeaderMost:
		return source, 0, errProxyHeader
	case len(p) < size:
		return source, 0, errProxyShort
	case p[12]&0xf == 0: // LOCAL: the proxy's own
		return source, size, nil
	}
	switch a := p[proxyV2Head:size]; {
	case p[13] == 0x11 && len(a) >= 12:
		source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(a)), binary.BigEndian.Uint16(a[8:]))
	case p[13] == 0x21 && len(a) >= 36:
		source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(a)), binary.BigEndian.Uint16(a[32:]))
	}
	return source, size, nil
}

// A proxied is a connection from a trusted proxy, which may begin with a PROXY
// header. The header is read by whoever asks first for the address or for data:
// by then the connection has a goroutine of its own.
type proxied struct {
	transport.StreamConn
	patience time.Duration

	once   sync.Once
	source netip.AddrPort
	rest   []byte // what was read behind the header
	err    error
}

func (c *proxied) open() {
	c.once.Do(func() {
		_ = c.SetReadDeadline(time.Now().Add(c.patience))
		defer func() { _ = c.SetReadDeadline(time.Time{}) }()
		buf := make([]byte, 0, proxyHeaderMost)
		for {
			n, err := c.StreamConn.Read(buf[len(buf):cap(buf)])
			buf = buf[:len(buf)+n]
			var size int
			var bad error
			if c.source, size, bad = parseProxyHeader(buf); bad == nil {
				c.rest, c.err = append([]byte(nil), buf[size:]...), err
				return
			}
			switch {
			case err != nil:
				c.err = err
				return
			case !errors.Is(bad, errProxyShort) || len(buf) == cap(buf):
				c.err = errProxyHeader
				return
			}
		}
	})
}

// RemoteAddr implements net.Conn by what the proxy says.
func (c *proxied) RemoteAddr() net.Addr {
	if c.open(); c.source.IsValid() {
		return net.TCPAddrFromAddrPort(c.source)
	}
	return c.StreamConn.RemoteAddr()
}

// Read implements net.Conn.
func (c *proxied) Read(p []byte) (int, error) {
	c.open()
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	if c.err != nil {
		return 0, c.err
	}
	c.rest = nil
	return c.StreamConn.Read(p)
}

// WaitRead implements transport.ReadWaiter.
func (c *proxied) WaitRead() error {
	c.open()
	w, ok := c.StreamConn.(transport.ReadWaiter)
	if len(c.rest) > 0 || c.err != nil || !ok {
		return c.err
	}
	return w.WaitRead()
}

// ReadPooled implements transport.LazyReader.
func (c *proxied) ReadPooled(head, most int) (*transport.Buffer, int, error) {
	c.open()
	if len(c.rest) == 0 && c.err == nil {
		return transport.ReadPooled(c.StreamConn, head, most)
	}
	b := transport.GetBuffer()
	n, err := c.Read(b[head : head+most])
	if n == 0 {
		b.Release()
		b = nil
	}
	return b, n, err
}

// Reset implements transport.Resetter.
func (c *proxied) Reset() error { return transport.Reset(c.StreamConn) }

// NetConn returns the connection below ([transport.As]).
func (c *proxied) NetConn() net.Conn { return c.StreamConn }
