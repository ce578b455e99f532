package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"vmess-local/pkg/config"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// mostRefused is the most bytes that a server takes in of a request that it
// refuses, as V2Ray's.
const mostRefused = 3382

// firstFlight is what a client sends first, request header and data, to get
// an echo of data from origin.
func firstFlight(t *testing.T, origin string, legacy bool, data string) []byte {
	t.Helper()
	id, err := vmess.ParseID(userID)
	if err != nil {
		t.Fatal(err)
	}
	method, err := vmess.ParseMethod("aes-128-gcm", true, false)
	if err != nil {
		t.Fatal(err)
	}
	dst, err := netaddr.Parse(origin)
	if err != nil {
		t.Fatal(err)
	}
	var flight []byte
	d := vmess.Dialer{
		Client: vmess.NewAccount(vmess.AccountConfig{ID: id, AEADDisabled: legacy, Method: method}),
		Endpoint: transport.EndpointFunc(func(_ context.Context, first []byte) (transport.StreamConn, error) {
			flight = bytes.Clone(first)
			return nil, errors.New("seen enough")
		}),
	}
	if _, err := d.DialStream(t.Context(), dst, []byte(data)); err == nil || len(flight) == 0 {
		t.Fatalf("no first flight: %v", err)
	}
	return flight
}

// A rawTunnel is a WebSocket to a server, of an implementation that is not
// ours, without VMess.
type rawTunnel struct {
	t   *testing.T
	ctx context.Context
	ws  *websocket.Conn
}

func openTunnel(t *testing.T, addr string) *rawTunnel {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	web := &http.Transport{DisableKeepAlives: true}
	ws, _, err := websocket.Dial(ctx, "ws://"+addr+wsPath, &websocket.DialOptions{HTTPClient: &http.Client{Transport: web}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = ws.CloseNow()
	})
	return &rawTunnel{t, ctx, ws}
}

func (r *rawTunnel) send(data []byte) error {
	return r.ws.Write(r.ctx, websocket.MessageBinary, data)
}

// wantAnswer sends a first flight and wants some answer.
func (r *rawTunnel) wantAnswer(flight []byte) {
	r.t.Helper()
	if err := r.send(flight); err != nil {
		r.t.Fatal(err)
	}
	if _, data, err := r.ws.Read(r.ctx); err != nil || len(data) == 0 {
		r.t.Fatalf("no answer: %v", err)
	}
}

// wantRefusal sends an opening that must be refused, and more and more behind
// it, and wants what every refusal looks like: not a byte, and close 1000 once
// a number of bytes has come. It returns that number, rounded up to step.
func (r *rawTunnel) wantRefusal(opening []byte) (count int) {
	r.t.Helper()
	closed := make(chan error, 1)
	go func() {
		_, data, err := r.ws.Read(r.ctx)
		if err == nil {
			err = fmt.Errorf("the server sent %q", data)
		}
		closed <- err
	}()
	next := opening
	for count = 0; count <= mostRefused+step; next = make([]byte, step) {
		// A server that has answered a ping has taken in what came before it.
		if r.send(next) != nil {
			break
		}
		count += len(next)
		if r.ws.Ping(r.ctx) != nil {
			break
		}
	}
	select {
	case err := <-closed:
		var c websocket.CloseError
		if !errors.As(err, &c) || c.Code != websocket.StatusNormalClosure || c.Reason != "" {
			r.t.Errorf("after %d bytes: %v, want an empty close 1000", count, err)
		}
	case <-r.ctx.Done():
		r.t.Errorf("still open after %d bytes", count)
	}
	return count
}

// step is how many bytes wantRefusal adds at a time.
const step = 8

// TestTaintFuse replays a recorded legacy request: the replay is refused and
// burns the credential, and AEAD clients do not notice.
func TestTaintFuse(t *testing.T) {
	t.Parallel()
	cfg := serverConfig()
	cfg.AEADForced = false
	far := ourServer(t, cfg)
	origin := echoOrigin(t)
	near := ourClient(t, clientConfig(remoteAt(t, far.addr)))

	flight := firstFlight(t, origin, true, "first use\n")
	openTunnel(t, far.addr).wantAnswer(flight)
	exchange(t, near.addr, bulkOrigin(t), 1000, 1000)

	openTunnel(t, far.addr).wantRefusal(flight)
	far.log.waitFor(t, "duplicated session id, possibly under replay attack, userHash tainted")
	if far.log.contains("ErrTainted") {
		t.Error("the credential was tainted before its replay")
	}
	openTunnel(t, far.addr).wantRefusal(flight)
	far.log.waitFor(t, "ErrTainted")

	exchange(t, near.addr, bulkOrigin(t), 1000, 1000)
}

// TestReplayRefused replays a recorded AEAD request.
func TestReplayRefused(t *testing.T) {
	t.Parallel()
	far := ourServer(t, serverConfig())
	flight := firstFlight(t, echoOrigin(t), false, "first use\n")
	openTunnel(t, far.addr).wantAnswer(flight)
	openTunnel(t, far.addr).wantRefusal(flight)
	far.log.waitFor(t, "replayed request")
}

// TestRefusalsLookAlike shows that nobody outside can tell why a request was
// refused, nor that there is VMess at all: not a byte comes back, and the
// count that closes the tunnel is within the same 64 whatever was sent.
func TestRefusalsLookAlike(t *testing.T) {
	t.Parallel()
	far := ourServer(t, serverConfig()).addr
	origin := echoOrigin(t)
	noise := make([]byte, 60)
	_, _ = rand.Read(noise)
	used := firstFlight(t, origin, false, "used\n")
	openTunnel(t, far).wantAnswer(used)
	damaged := firstFlight(t, origin, false, "damaged\n")
	damaged[20] ^= 1
	legacy := firstFlight(t, origin, true, "legacy\n")
	// Our client's first flights may be longer than what a refusal takes in
	// (so that it is refused at once): their beginnings tell the server enough.
	const judged = 16 + 18 + 8

	// The count comes from the users' ids: with this one it is known to be
	// above what the openings have themselves.
	counts := map[string]int{}
	for name, opening := range map[string][]byte{
		"noise":                       noise,
		"a line of HTTP":              []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"a replay":                    used[:judged],
		"a damaged length":            damaged[:judged],
		"legacy where AEAD is forced": legacy[:judged],
	} {
		counts[name] = openTunnel(t, far).wantRefusal(opening)
	}
	low, high := counts["noise"], counts["noise"]
	for _, n := range counts {
		low, high = min(low, n), max(high, n)
	}
	if high-low >= 64+step || low < 54 || high > mostRefused+step {
		t.Errorf("the counts differ by what was sent: %v", counts)
	}
}

// TestNoiseWithoutWebSocket sends what is no upgrade at all to each of our
// ports, which must close and live on.
func TestNoiseWithoutWebSocket(t *testing.T) {
	t.Parallel()
	short := config.Duration(time.Second)
	scfg := serverConfig()
	scfg.Limits.Handshake = short
	far := ourServer(t, scfg)
	ccfg := clientConfig(remoteAt(t, far.addr))
	ccfg.Limits.Handshake = short
	near := ourClient(t, ccfg)
	noise := make([]byte, 64<<10)
	_, _ = rand.Read(noise)
	var all sync.WaitGroup
	for name, data := range map[string][]byte{
		"nothing":            nil,
		"noise":              noise,
		"one byte of SOCKS5": {5},
		"half a greeting":    {5, 200, 0},
		"no common method":   {5, 1, 0x80},
		"half a SOCKS4a":     []byte("\x04\x01\x00\x50\x00\x00\x00\x01user\x00host-without-end"),
		"an endless header":  []byte("GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 1<<20)),
		"half a header":      []byte("GET http://localhost/ HTTP/1.1\r\nHost:"),
	} {
		for _, addr := range []string{near.addr, far.addr} {
			all.Go(func() {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(5 * time.Second))
				_, _ = c.Write(data) // may be cut off
				if _, err := io.Copy(io.Discard, c); isTimeout(err) {
					t.Errorf("%s: %s still open after 5 s", name, addr)
				}
			})
		}
	}
	all.Wait()
	exchange(t, near.addr, bulkOrigin(t), 1000, 1000)
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
