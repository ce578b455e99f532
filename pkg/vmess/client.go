package vmess

import (
	"context"
	"crypto/cipher"
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"vmess-local/pkg/netaddr"
	"vmess-local/pkg/transport"
)

// A ClientConfig says whose requests a Client makes and how.
type ClientConfig struct {
	ID ID
	// AlterID above 0 asks for the legacy mode with the first derived id, which
	// every server accepts that accepts any (section 2).
	AlterID int
	// AEADDisabled asks for the legacy mode even with AlterID 0, with the main
	// id ([AEADDisabled]).
	AEADDisabled bool
	Method       Method
	// Now is the clock that requests are stamped with; nil means time.Now.
	Now func() time.Time
	// EndPatience is how long an answer may be silent before a held-back end
	// mark is sent; 0 means 10 s.
	EndPatience time.Duration
}

// A Client seals requests of one user. It may be used concurrently.
type Client struct {
	method   Method
	now      func() time.Time
	patience time.Duration

	cmdKey     [16]byte
	authID     cipher.Block // nil in legacy mode
	legacyID   ID
	answeredAt atomic.Int64 // Unix nanoseconds of the last authentic answer
	apart      atomic.Bool  // the server lets directions end apart
}

// NewClient returns a Client; the configuration is not kept.
func NewClient(c ClientConfig) *Client {
	cl := &Client{method: c.Method, now: c.Now, patience: c.EndPatience, cmdKey: c.ID.cmdKey()}
	if cl.now == nil {
		cl.now = time.Now
	}
	if cl.patience == 0 {
		cl.patience = endMarkPatience
	}
	switch {
	case c.AlterID > 0:
		cl.legacyID = c.ID.next()
	case c.AEADDisabled:
		cl.legacyID = c.ID
	default:
		cl.authID = authIDCipher(cl.cmdKey)
	}
	return cl
}

// Legacy reports whether requests carry MD5 headers instead of VMessAEAD.
func (c *Client) Legacy() bool { return c.authID == nil }

// Answered returns when the server last proved by an authentic answer that it
// accepts this client; the zero time when it never did.
func (c *Client) Answered() time.Time {
	if n := c.answeredAt.Load(); n != 0 {
		return time.Unix(0, n)
	}
	return time.Time{}
}

// newHeader draws a fresh header.
func (c *Client) newHeader(command Command, dst netaddr.Addr) *requestHeader {
	h := &requestHeader{
		option: c.method.forCommand(command), security: c.method.Security,
		command: command, address: dst,
	}
	var random [33]byte
	fillRandom(random[:])
	h.iv, h.key, h.v = [16]byte(random[:16]), [16]byte(random[16:32]), random[32]
	return h
}

// seal appends the header as it goes on the wire.
func (c *Client) seal(dst []byte, h *requestHeader) []byte {
	var padding [15]byte
	fillRandom(padding[:])
	plain := h.append(make([]byte, 0, 320), padding[:rand.IntN(16)])
	if c.Legacy() {
		return sealLegacy(dst, c.cmdKey, c.legacyID, c.now(), plain)
	}
	var random [12]byte
	fillRandom(random[:])
	id := sealAuthID(c.authID, c.now(), [4]byte(random[:4]))
	return sealAEAD(dst, c.cmdKey, id, [8]byte(random[4:]), plain)
}

func fillRandom(p []byte) {
	_, _ = crand.Read(p) // never fails: the program would have ended
}

// request makes the client's side of a request whose header is not sent yet.
func (c *Client) request(command Command, dst netaddr.Addr) *Conn {
	h := c.newHeader(command, dst)
	legacy := c.Legacy()
	keys := deriveResponse(h, legacy)
	conn := &Conn{
		writer:  newBodyWriter(requestFormat(h, legacy), nil),
		pending: c.seal(nil, h),
		hold:    &endHold{patience: c.patience},
	}
	conn.hold.apart.Store(c.apart.Load())
	conn.prologue = func() error { return c.readResponse(conn, h, keys) }
	return conn
}

// readResponse reads the response's header and starts the body behind it.
func (c *Client) readResponse(conn *Conn, h *requestHeader, keys responseKeys) error {
	option, stream, err := keys.open(&conn.reader.in, h.v)
	if err != nil {
		return noAnswer(&conn.reader.in, err)
	}
	c.answeredAt.Store(time.Now().UnixNano())
	if apart := option&responseEndsApart != 0; apart {
		c.apart.Store(true)
		conn.hold.release()
		conn.reader.marks = h.option.has(OptionChunked)
	}
	conn.reader.start(responseFormat(h, keys), stream)
	return nil
}

// attach gives the request its carrier.
func (conn *Conn) attach(carrier transport.StreamConn) {
	conn.carrier = carrier
	conn.reader.in = newInbuf(carrier)
}

// A Dialer reaches any destination by VMess over an endpoint. It may be used
// concurrently.
type Dialer struct {
	Client   *Client
	Endpoint transport.StreamEndpoint
}

var (
	_ transport.StreamDialer = (*Dialer)(nil)
	_ transport.PacketDialer = (*Dialer)(nil)
)

// firstFlight is the most payload that travels with the dial; the rest
// follows by Write.
const firstFlight = 32 << 10

// DialStream implements transport.StreamDialer. It returns once the endpoint
// is connected: nothing is known then of the destination, nor whether the
// server accepts the request (section 14); reads tell.
func (d *Dialer) DialStream(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
	conn := d.Client.request(CommandTCP, dst)
	if len(first) == 0 {
		if err := d.connect(ctx, conn, nil); err != nil {
			return nil, err
		}
		return conn, nil
	}
	buf := transport.GetBuffer()
	defer buf.Release()
	n := min(len(first), firstFlight)
	flight := conn.writer.seal(append(buf[:0], conn.pending...), first[:n])
	conn.pending = nil
	if err := d.connect(ctx, conn, flight); err != nil {
		return nil, err
	}
	if _, err := conn.Write(first[n:]); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// DialPacket implements transport.PacketDialer: every datagram goes to dst.
func (d *Dialer) DialPacket(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	conn := d.Client.request(CommandUDP, dst)
	if err := d.connect(ctx, conn, nil); err != nil {
		return nil, err
	}
	return &PacketConn{conn: conn, peer: dst}, nil
}

func (d *Dialer) connect(ctx context.Context, conn *Conn, flight []byte) error {
	carrier, err := d.Endpoint.ConnectStream(ctx, flight)
	if err != nil {
		return fmt.Errorf("connect to the server: %w", err)
	}
	conn.attach(carrier)
	return nil
}
