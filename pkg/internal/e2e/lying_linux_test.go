package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// A lie is what a lying server, or whoever answers in its place, does with a
// connection. It returns when its peer is gone, at the latest.
type lie struct {
	name  string
	cause string // what the user is told
	tell  func(c *net.TCPConn) error
}

// TestLyingServer has servers that lie, without end where they can: each ends
// with a named cause within the dial limit and what a refusal takes to be
// named, and none makes the client, in a process of its own, hold or do much.
func TestLyingServer(t *testing.T) {
	t.Parallel()
	const dial = 2 * time.Second
	for _, l := range lies() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			told := make(chan error, 16)
			addr := serveOrigin(t, func(c *net.TCPConn) {
				select {
				case told <- l.tell(c):
				default:
				}
			})
			remote := remoteAt(t, addr)
			remote.Security, remote.GlobalPadding = "aes-128-gcm", false
			cfg := clientConfig(remote)
			cfg.Warm.Max, cfg.Limits.Dial = 0, config.Duration(dial)
			cfg.Log.Level = "info"
			near := ourClient(t, cfg)
			w := weigh(t, "the client", near)
			start := time.Now()
			r := askVia(near.addr, "somewhere.example:80", "hello\n", 1<<20, labPatience)
			w.look(t)
			if isTimeout(r.end) {
				t.Fatalf("the request hangs: code %d, %d bytes", r.code, len(r.data))
			}
			if r.data != "" {
				t.Errorf("the application got %d bytes of a lie", len(r.data))
			}
			if took, most := time.Since(start), dial+soon+slowness; took > most {
				t.Errorf("it took %v, want %v at most", took, most)
			}
			ctx, cancel := context.WithTimeout(t.Context(), startPatience)
			defer cancel()
			m, err := near.log.wait(ctx, regexp.MustCompile(`error: ([a-z.-]+): (.*)\n(?:fix: (.*)\n)?`))
			if err != nil {
				t.Fatal("nothing is said")
			}
			t.Logf("%s", m[0])
			if m[1] != l.cause || m[3] == "" {
				t.Errorf("the cause is %s, want %s with a fix", m[1], l.cause)
			}
			w.judge(t)
		})
	}
}

// lies are those before and after the upgrade, and of one who has the id.
func lies() []lie {
	return []lie{
		{"endless header", "ws.not-http", answer("HTTP/1.1 101 Switching Protocols\r\nX: ", "x")},
		{"endless headers", "ws.not-http", answer("HTTP/1.1 101 Switching Protocols\r\n", "X: y\r\n")},
		{"endless informational answers", "ws.not-http", answer("", "HTTP/1.1 100 Continue\r\n\r\n")},
		{"endless refusal", "ws.forbidden", answer("HTTP/1.1 403 Forbidden\r\n\r\n", "no ")},
		{"endless compressed refusal", "ws.forbidden", answer("HTTP/1.1 403 Forbidden\r\nContent-Encoding: gzip\r\n\r\n", "\x00")},
		{"chunks without end", "ws.forbidden", answer("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n")},
		{"chunk size without end", "ws.forbidden", answer("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n", "0")},
		{"negative length", "ws.not-http", answer("HTTP/1.1 403 Forbidden\r\nContent-Length: -1\r\n\r\n", "")},
		{"redirect to itself", "ws.redirect", answer("HTTP/1.1 302 Found\r\nLocation: /tunnel\r\nContent-Length: 0\r\n\r\n", "")},
		{"byte by byte", "ws.silent", slowly("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n")},
		{"noise", "ws.not-http", answer("", "\x00\xff\x80")},

		{"endless pings", "tunnel.reset", frames(nil, fakeFrame(nil, 9, make([]byte, 125)))},
		{"endless pongs", "tunnel.reset", frames(nil, fakeFrame(nil, 10, nil))},
		{"endless empty fragments", "tunnel.reset", frames([]byte{0x02, 0}, []byte{0x00, 0})},
		{"endless empty frames", "tunnel.reset", frames(nil, fakeFrame(nil, 2, nil))},
		{"a frame of 2^62 bytes", "vmess.bad-response", frames([]byte{0x82, 127, 0x40, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 1<<10))},
		{"a frame of more than 2^63 bytes", "tunnel.reset", frames([]byte{0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 1<<10))},
		{"a ping of 2^62 bytes", "tunnel.reset", frames([]byte{0x89, 127, 0x40, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 1<<10))},
		{"compressed", "tunnel.reset", frames(nil, append([]byte{0xc2}, fakeFrame(nil, 2, make([]byte, 100))[1:]...))},
		{"reserved operation", "tunnel.reset", frames(nil, fakeFrame(nil, 3, make([]byte, 100)))},
		{"masked", "tunnel.reset", frames(nil, []byte{0x82, 0x81, 1, 2, 3, 4, 5})},
		{"text", "vmess.bad-response", frames(nil, fakeFrame(nil, 1, []byte(strings.Repeat("hello ", 20))))},
		{"one byte a frame", "vmess.bad-response", frames(nil, fakeFrame(nil, 2, []byte{0}))},

		{"an answer of another session", "vmess.bad-response", authentic(func(q *fakeRequest) []byte { q.v++; return q.seal([]byte("x")) })},
		{"an answer's header of 64 KiB", "vmess.bad-response", authentic(func(q *fakeRequest) []byte { return q.header(0xffff, make([]byte, 0xffff)...) })},
		{"an answer's header of no bytes", "vmess.bad-response", authentic(func(q *fakeRequest) []byte { return q.header(0) })},
	}
}

// answer answers a request of HTTP, without end if there is more.
func answer(head, more string) func(c *net.TCPConn) error {
	return func(c *net.TCPConn) error {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return err
		}
		return pour(c, []byte(head), []byte(more))
	}
}

// pour writes a beginning, and then the same for ever.
func pour(c *net.TCPConn, head, more []byte) error {
	if _, err := c.Write(head); err != nil {
		return err
	}
	for many := bytes.Repeat(more, 1+(16<<10)/max(1, len(more))); len(more) > 0; {
		if _, err := c.Write(many); err != nil {
			return err
		}
	}
	_, err := io.Copy(io.Discard, c)
	return err
}

// slowly answers a request of HTTP with some bytes a second.
func slowly(text string) func(c *net.TCPConn) error {
	return func(c *net.TCPConn) error {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return err
		}
		for i := range text {
			if _, err := c.Write([]byte{text[i]}); err != nil {
				return err
			}
			time.Sleep(200 * time.Millisecond) // slow
		}
		return nil
	}
}

// frames upgrades to a WebSocket and then speaks it as it likes.
func frames(head, more []byte) func(c *net.TCPConn) error {
	return func(c *net.TCPConn) error {
		if err := fakeUpgrade(c, bufio.NewReader(c)); err != nil {
			return err
		}
		return pour(c, head, more)
	}
}

// authentic answers a request of VMess, with its keys.
func authentic(lie func(q *fakeRequest) []byte) func(c *net.TCPConn) error {
	return func(c *net.TCPConn) error {
		buffered := bufio.NewReader(c)
		if err := fakeUpgrade(c, buffered); err != nil {
			return err
		}
		q, err := openFakeRequest(&fakeFrames{r: buffered})
		if err != nil {
			return fmt.Errorf("request: %w", err)
		}
		return pour(c, fakeFrame(nil, 2, lie(q)), nil)
	}
}
