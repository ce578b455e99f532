package diagnose

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/carrier/wsconn"
	"vmess-local/pkg/host/errno"
	"vmess-local/pkg/protocol/mux"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// A Prober asks a server what it thinks of us, in ways that touch nothing: at
// most a name that cannot exist is looked up by the server (docs/diagnosis.md
// 3 b and d). It never runs by itself and may be used concurrently.
type Prober struct {
	// Endpoint is the way to the server, without early data.
	Endpoint transport.StreamEndpoint
	// EarlyEndpoint is the way with early data; needed where it is used.
	EarlyEndpoint transport.StreamEndpoint
	// Below is the same without the WebSocket. Its TLS may be unverified: the
	// Date read there informs, and a probe decides.
	Below transport.StreamEndpoint
	// Secure is Below with its TLS verified: ids are shown to nobody else.
	Secure transport.StreamEndpoint
	// Other is like Below with TLS where that has none, and without it where
	// it has.
	Other transport.StreamEndpoint
	// TLS tells whether Below speaks TLS.
	TLS bool
	// Host is the Host header of plain requests.
	Host string
	// EarlyData tells whether the configured way uses early data.
	EarlyData bool
	// Account is whom to ask for.
	Account *vmess.Account
	// Now is this computer's clock; nil means time.Now.
	Now func() time.Time

	kind atomic.Uint32 // vmess.Kind
}

// Kind returns what sort of server accepted the last probe that was.
func (p *Prober) Kind() vmess.ServerKind { return vmess.ServerKind(p.kind.Load()) }

// Times of a probe. V2Ray answers an accepted one after 1.0 s; what is refused
// is closed after one round trip, where the request can be filled.
const (
	acceptTime  = 1200 * time.Millisecond
	connectTime = 10 * time.Second
	leastWait   = 200 * time.Millisecond
)

// probeName is what the server is asked for: no such name can exist (RFC 6761).
var probeName, _ = netaddr.FromHost("probe.invalid", 80)

// Ask asks the server whether it accepts a request of the mode, signed with
// this computer's clock plus offset.
func (p *Prober) Ask(ctx context.Context, m vmess.Mode, offset time.Duration) ProbeResult {
	return p.ask(ctx, p.Endpoint, m, offset)
}

// AskEarly is Ask by way of EarlyEndpoint: the request travels in the upgrade.
func (p *Prober) AskEarly(ctx context.Context, m vmess.Mode, offset time.Duration) ProbeResult {
	return p.ask(ctx, p.EarlyEndpoint, m, offset)
}

func (p *Prober) ask(ctx context.Context, way transport.StreamEndpoint, m vmess.Mode, offset time.Duration) ProbeResult {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	d := &vmess.Dialer{Client: p.Account.With(m, offset), Endpoint: way}
	open := mux.Frame{Session: 1, Status: mux.StatusNew, Network: mux.NetworkTCP, Address: probeName}
	conn, err := d.DialMux(ctx, open.Append(nil, nil))
	if err != nil {
		return ProbeFailed
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_ = conn.SetReadDeadline(time.Now().Add(acceptTime + 3*roundTrip(conn)))
	_, err = conn.Read(make([]byte, 64))
	if conn.Answered() {
		p.kind.Store(uint32(d.Client.ServerKind()))
	}
	if ctx.Err() != nil && !conn.Answered() {
		return ProbeNotTried // somebody lost interest
	}
	return judge(conn, err, m)
}

// judge says what the end of a probe's read means.
func judge(conn *vmess.Conn, err error, m vmess.Mode) ProbeResult {
	switch {
	case conn.Answered():
		return ProbeAccepted
	case errors.Is(err, vmess.ErrBadResponse):
		return ProbeBadAnswer
	case errno.IsTimeout(err):
		if m == vmess.ModeAEAD {
			return ProbePending // filled, so a refusal would have shown
		}
		return ProbeSilent
	case IsReset(err) && errno.ResetKeepsData:
		return ProbeFailed // a server that refuses sends a close frame
	}
	return ProbeRefused
}

// IsReset reports whether a connection was reset.
func IsReset(err error) bool { return isReset(err) }

// roundTrip is what the upgrade took, at least leastWait.
func roundTrip(conn *vmess.Conn) time.Duration {
	if ws, ok := conn.Carrier().(*wsconn.Conn); ok {
		h := ws.Handshake()
		return max(h.Received.Sub(h.Sent), leastWait)
	}
	return leastWait
}

// lookTime bounds a second look at a failed way: the user's request waits.
const lookTime = 2500 * time.Millisecond

// Look takes a second look at a way to the server that failed with err, where
// that can tell more.
func (p *Prober) Look(ctx context.Context, err error) ConnectFacts {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	f := ConnectFacts{Now: p.now()}
	var (
		certificate *netdial.CertificateError
		step        *netdial.Error
		status      *wsconn.HandshakeError
	)
	switch {
	case errors.As(err, &certificate):
		if skew, err := p.Skew(ctx); err == nil {
			f.Skew = &skew
		}
	case errors.As(err, &step):
		if _, alerted := netdial.AlertOf(err); step.Step == netdial.StepTLS && !alerted {
			f.OtherTLS = p.otherAnswers(ctx)
		}
	case errors.As(err, &status):
		if p.EarlyData {
			f.WithoutEarlyData = p.upgrades(ctx)
		}
	default:
		p.lookBelow(ctx, err, &f)
	}
	return f
}

// lookBelow finds out what a port does that does not answer the upgrade. The
// first that it does is what it is for. TLS that was agreed on is what the port
// wants.
func (p *Prober) lookBelow(ctx context.Context, err error, f *ConnectFacts) {
	ctx, found := context.WithCancel(ctx)
	defer found()
	var all sync.WaitGroup
	defer all.Wait()
	try := func(fact *Tristate, does func(context.Context) bool) {
		all.Go(func() {
			if *fact = No; does(ctx) {
				*fact = Yes
				found()
			}
		})
	}
	if !p.TLS {
		try(&f.OtherTLS, func(ctx context.Context) bool { return p.otherAnswers(ctx) == Yes })
	}
	var garbled *wsconn.ProtocolError
	if _, alerted := netdial.AlertOf(err); alerted || errors.As(err, &garbled) {
		return
	}
	try(&f.HTTP2, p.speaksHTTP2)
	try(&f.VMessBelow, func(ctx context.Context) bool {
		return p.ask(ctx, p.Secure, vmess.ModeAEAD, 0) == ProbeAccepted // not by MD5: recorded, it could be used again
	})
}

// speaksHTTP2 reports whether the port answers HTTP/2's preface (RFC 9113
// section 3.4).
func (p *Prober) speaksHTTP2(ctx context.Context) bool {
	conn, err := p.Below.ConnectStream(ctx, nil)
	if err != nil {
		return false
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		return false
	}
	head := make([]byte, 9)
	_, err = io.ReadFull(conn, head)
	return err == nil && isHTTP2(head)
}

// upgrades reports whether the way works without early data.
func (p *Prober) upgrades(ctx context.Context) Tristate {
	conn, err := p.Endpoint.ConnectStream(ctx, nil)
	if err != nil {
		return No
	}
	_ = conn.Close()
	return Yes
}

// otherAnswers reports whether the port speaks TLS where it is not configured,
// or plain HTTP where TLS is.
func (p *Prober) otherAnswers(ctx context.Context) Tristate {
	conn, err := p.Other.ConnectStream(ctx, nil)
	if err != nil {
		return No
	}
	defer conn.Close()
	if !p.TLS {
		return Yes // the handshake went through
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	resp, err := p.get(conn)
	if err != nil || wantsTLS(resp.body) || strings.HasPrefix(strings.ToLower(resp.header.Get("Location")), "https:") {
		return No
	}
	return Yes
}

// errNoDate means that an answer told no time.
var errNoDate = errors.New("no Date in the answer")

// Skew measures how far this computer's clock is ahead of the server's
// (negative: behind), by the Date of a plain request for a path that does not
// exist. It is good to about a second.
func (p *Prober) Skew(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	conn, err := p.Below.ConnectStream(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	sent, start := p.now(), time.Now()
	resp, err := p.get(conn)
	if err != nil {
		return 0, err
	}
	return SkewOf(sent.Add(time.Since(start)/2), resp.header.Get("Date"))
}

// A plainAnswer is the answer to a plain request.
type plainAnswer struct {
	header http.Header
	body   []byte // its beginning
}

// get asks for a path that does not exist.
func (p *Prober) get(conn net.Conn) (plainAnswer, error) {
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	path := strings.ToLower(rand.Text()[:10])
	if _, err := fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\nConnection: close\r\n\r\n", path, p.Host); err != nil {
		return plainAnswer{}, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, 32<<10)), nil)
	if err != nil {
		return plainAnswer{}, err
	}
	answer := plainAnswer{header: resp.Header}
	if resp.StatusCode == http.StatusBadRequest { // which says why in its body
		answer.body, _ = io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	}
	_ = resp.Body.Close()
	return answer, nil
}

func (p *Prober) now() time.Time {
	if p.Now != nil {
		return p.Now()
	}
	return time.Now()
}

// SkewOf returns how far now is ahead of a Date header. The header counts
// whole seconds, so its middle is meant.
func SkewOf(now time.Time, date string) (time.Duration, error) {
	server, err := http.ParseTime(date)
	if err != nil {
		return 0, errNoDate
	}
	return now.Sub(server.Add(500 * time.Millisecond)), nil
}
