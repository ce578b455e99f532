package vmess

import (
	"context"
	"crypto/cipher"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// A AccountConfig says whose requests a Client makes and how.
type AccountConfig struct {
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

// A Mode is how a request's header vouches for its user (section 2).
type Mode uint32

// The modes.
const (
	ModeAEAD        Mode = iota // VMessAEAD
	ModeLegacy                  // MD5 with the main id
	ModeLegacyAlter             // MD5 with the first derived id
)

// A ServerKind is what sort of server answers, as far as its answers tell.
type ServerKind uint32

// The kinds.
const (
	KindUnknown ServerKind = iota // no answer yet
	KindNative                    // vmess-server
	KindV2Ray                     // V2Ray or Xray
	KindSingBox                   // sing-box or mihomo
)

// A Account seals requests of one user. It may be used concurrently.
type Account struct {
	method   Method
	clock    func() time.Time
	patience time.Duration

	id     ID
	alter  ID // the first derived id
	cmdKey [16]byte
	authID cipher.Block

	mode       atomic.Uint32             // Mode
	offset     atomic.Int64              // of the server's clock to ours, nanoseconds
	answeredAt atomic.Pointer[time.Time] // of the last authentic answer
	kind       atomic.Uint32             // Kind
	marking    atomic.Bool               // the server, a V2Ray, has marked the end of an answer
}

// NewAccount returns a Client; the configuration is not kept.
func NewAccount(c AccountConfig) *Account {
	mode := ModeAEAD
	switch {
	case c.AlterID > 0:
		mode = ModeLegacyAlter
	case c.AEADDisabled:
		mode = ModeLegacy
	}
	cl := &Account{
		method: c.Method, clock: c.Now, patience: c.EndPatience,
		id: c.ID, alter: c.ID.next(), cmdKey: c.ID.cmdKey(),
	}
	cl.authID = authIDCipher(cl.cmdKey)
	if cl.clock == nil {
		cl.clock = time.Now
	}
	if cl.patience == 0 {
		cl.patience = endMarkPatience
	}
	cl.SetMode(mode)
	return cl
}

// Security returns the cipher of its requests.
func (c *Account) Security() Security { return c.method.Security }

// With returns a Client of the same user that has its own mode and clock
// offset and has seen no answer yet.
func (c *Account) With(m Mode, offset time.Duration) *Account {
	f := &Account{
		method: c.method, clock: c.clock, patience: c.patience,
		id: c.id, alter: c.alter, cmdKey: c.cmdKey, authID: c.authID,
	}
	f.SetMode(m)
	f.SetOffset(offset)
	return f
}

// Format keeps the user's keys out of logs, whatever the verb.
func (c *Account) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "(vmess client)") }

// Mode returns how requests vouch for the user.
func (c *Account) Mode() Mode { return Mode(c.mode.Load()) }

// SetMode changes the mode of the requests to come.
func (c *Account) SetMode(m Mode) { c.mode.Store(uint32(m)) }

// Legacy reports whether requests carry MD5 headers instead of VMessAEAD.
func (c *Account) Legacy() bool { return c.Mode() != ModeAEAD }

// Offset returns what SetOffset set.
func (c *Account) Offset() time.Duration { return time.Duration(c.offset.Load()) }

// SetOffset makes requests carry the clock's time plus d.
func (c *Account) SetOffset(d time.Duration) { c.offset.Store(int64(d)) }

// Now returns the time that requests carry.
func (c *Account) Now() time.Time { return c.clock().Add(c.Offset()) }

// ServerKind returns what sort of server answered last.
func (c *Account) ServerKind() ServerKind { return ServerKind(c.kind.Load()) }

// LastAnswer returns when the server last proved by an authentic answer that it
// accepts this client; the zero time when it never did. It holds both clocks: by
// the monotonic one it is as long ago as this computer has been awake since, where
// that clock stands still during sleep; Round(0) leaves the wall clock's.
func (c *Account) LastAnswer() time.Time {
	if at := c.answeredAt.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// newHeader draws a fresh header.
func (c *Account) newHeader(command Command, dst netaddr.Addr) *requestHeader {
	h := &requestHeader{
		option: c.method.forCommand(command), security: c.method.Security,
		command: command, address: dst,
	}
	var random [33]byte
	fillRandom(random[:])
	h.iv, h.key, h.v = [16]byte(random[:16]), [16]byte(random[16:32]), random[32]
	return h
}

// flightFloor is the size of a first flight from which on every server closes
// a refused connection at once: V2Ray reads on until it has up to 3,382 bytes
// (section 13, docs/diagnosis.md k). What lies above it hides that it is fixed.
const (
	flightFloor  = minRefused + 3265 + 63
	flightSpread = 512
)

// A plainHeader is a request's header before it is sealed, which happens when it
// is about to leave: it says what time it is.
type plainHeader struct {
	client *Account
	mode   Mode
	plain  []byte
	fill   int // zeros behind it

	offset time.Duration // it was sealed with
	stamp  int64         // the second that it was sealed at
}

// plainHeader makes a header that travels before payload bytes in the first
// flight. Servers ignore what stands behind an AEAD header's checksum: it is
// filled up so that a refusal shows after one round trip, except towards
// servers that answer a refusal at once anyway.
func (c *Account) plainHeader(h *requestHeader, m Mode, payload int) *plainHeader {
	var padding [15]byte
	fillRandom(padding[:])
	p := &plainHeader{client: c, mode: m, plain: h.append(nil, padding[:rand.IntN(16)])}
	if kind := c.ServerKind(); m == ModeAEAD && kind != KindSingBox {
		flags := byte(noteBreaks)
		if kind == KindUnknown {
			flags |= noteTell
		}
		p.plain = appendNote(p.plain, flags)
		size := authIDSize + sealedLenSize + nonceSize + len(p.plain) + tagSize + payload
		p.fill = max(0, flightFloor+rand.IntN(flightSpread)-size)
	}
	return p
}

// seal appends the header as it goes on the wire now. It always has the same
// length.
func (p *plainHeader) seal(dst []byte) []byte {
	c := p.client
	p.offset = c.Offset()
	now := c.clock().Add(p.offset)
	p.stamp = now.Unix()
	switch p.mode {
	case ModeLegacy:
		return sealLegacy(dst, c.cmdKey, c.id, now, p.plain)
	case ModeLegacyAlter:
		return sealLegacy(dst, c.cmdKey, c.alter, now, p.plain)
	}
	plain := append(make([]byte, 0, len(p.plain)+p.fill), p.plain...)
	var random [12]byte
	fillRandom(random[:])
	id := sealAuthID(c.authID, now, [4]byte(random[:4]))
	return sealAEAD(dst, c.cmdKey, id, [8]byte(random[4:]), plain[:cap(plain)])
}

// refresh seals the header anew, in the place of its seal of before, if the time
// in that is not what it would say now.
func (p *plainHeader) refresh(sealed []byte) {
	if p.client.Now().Unix() != p.stamp {
		p.seal(sealed[:0])
	}
}

func fillRandom(p []byte) {
	_, _ = crand.Read(p) // never fails: the program would have ended
}

// request makes the client's side of a request whose header is not sent yet.
// payload is how many bytes are known to travel with it.
func (c *Account) request(command Command, dst netaddr.Addr, payload int) *Conn {
	h, m := c.newHeader(command, dst), c.Mode()
	legacy := m != ModeAEAD
	keys := deriveResponse(h, legacy)
	plain := c.plainHeader(h, m, payload)
	conn := &Conn{
		writer:  newBodyWriter(requestFormat(h, legacy), nil),
		pending: plain.seal(nil), plain: plain,
		delayedEnd: &delayedEnd{patience: c.patience},
	}
	conn.countNonces(conn.writer.chunks)
	conn.delayedEnd.halfCloseSafe.Store(c.ServerKind() == KindNative)
	conn.prologue = func() error { return c.readResponse(conn, h, keys) }
	return conn
}

// readResponse reads the response's header and starts the body behind it.
func (c *Account) readResponse(conn *Conn, h *requestHeader, keys responseKeys) error {
	option, stream, err := keys.open(&conn.reader.in, h.v)
	if err != nil {
		return noAnswer(&conn.reader.in, err)
	}
	kind := kindOf(option)
	now := time.Now()
	c.answeredAt.Store(&now)
	c.kind.Store(uint32(kind)) // of the server now behind the address
	conn.answered.Store(true)
	conn.delayedEnd.serverKind(kind == KindNative)
	conn.marksBreaks.Store(option&responseBreaks != 0 || kind == KindV2Ray && h.option.has(OptionChunked))
	conn.reader.marksEnds = kind == KindNative && h.option.has(OptionChunked)
	// Of those who leave the option byte clear, mihomo does not, and without
	// chunks sing-box may be among them.
	conn.reader.closesCleanly = kind == KindNative || kind == KindV2Ray && h.option.has(OptionChunked)
	if kind == KindV2Ray && h.command == CommandTCP && h.option.has(OptionChunked) {
		conn.reader.markedBefore, conn.reader.givenUp = &c.marking, conn.givenUp
	}
	conn.reader.start(responseFormat(h, keys), stream)
	conn.countNonces(conn.reader.chunks)
	return nil
}

// kindOf tells the server's kind by the option byte of its response (section
// 6). One that speaks without chunks to sing-box looks like V2Ray.
func kindOf(option byte) ServerKind {
	switch {
	case option&responseEndsApart != 0:
		return KindNative
	case option != 0:
		return KindSingBox
	}
	return KindV2Ray
}

// attach gives the request its carrier.
func (conn *Conn) attach(carrier transport.StreamConn) {
	conn.carrier = carrier
	conn.reader.in = newInbuf(carrier)
}

// A Dialer reaches any destination by VMess over an endpoint. It may be used
// concurrently.
type Dialer struct {
	Client   *Account
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
	if !dst.IsValid() {
		return nil, errNoDestination
	}
	conn, err := d.dialWith(ctx, d.Client.request(CommandTCP, dst, len(first)), first)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// dialWith connects and sends the request with its first bytes, or holds it
// back where there are none. What it says of the time is that of its leaving.
func (d *Dialer) dialWith(ctx context.Context, conn *Conn, first []byte) (*Conn, error) {
	if len(first) == 0 {
		return conn, d.connect(ctx, conn, nil)
	}
	buf := transport.GetBuffer()
	defer buf.Release()
	n := min(len(first), firstFlight)
	head := append(buf[:0], conn.pending...)
	flight := conn.writer.seal(head, first[:n])
	// A tunnel may be minutes away.
	ctx = transport.WithRefresh(ctx, func() { conn.plain.refresh(head) })
	if err := d.connect(ctx, conn, flight); err != nil {
		return nil, err
	}
	conn.sent()
	if err := writeRest(ctx, conn, first[n:]); err != nil {
		_ = conn.Reset()
		return nil, fmt.Errorf("%w (%w)", err, transport.ErrPartSent)
	}
	return conn, nil
}

// writeRest writes what did not fit the first flight, and gives up with ctx.
func writeRest(ctx context.Context, conn *Conn, rest []byte) error {
	if len(rest) == 0 {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Reset() })
	_, err := conn.Write(rest)
	if !stop() {
		return context.Cause(ctx)
	}
	return err
}

var errNoDestination = errors.New("a request needs a destination")

// DialMux opens a Mux.Cool request, whose stream carries the frames of package
// mux (section 10); first are the first of them and travel with the request.
func (d *Dialer) DialMux(ctx context.Context, first []byte) (*Conn, error) {
	return d.dialWith(ctx, d.Client.request(CommandMux, netaddr.Addr{}, len(first)), first)
}

func (d *Dialer) connect(ctx context.Context, conn *Conn, flight []byte) error {
	carrier, err := d.Endpoint.ConnectStream(ctx, flight)
	if err != nil {
		return fmt.Errorf("connect to the server: %w", err)
	}
	conn.attach(carrier)
	return nil
}
