package wsconn

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// A server that repeats the further headers, which may be tokens, does not
// bring them into what people are shown.
func TestHeadersAreNotRepeated(t *testing.T) {
	const token, word = `Bearer s3kr1t+ab/cd; edge="s3kr1t2"`, "S3KR1T2"
	shown := func(t *testing.T, what string) {
		t.Helper()
		if strings.Contains(strings.ToLower(what), "s3kr1t") {
			t.Errorf("shown: %s", what)
		}
	}
	header := http.Header{"X-Edge": {token}, "User-Agent": {"nginx/1.22.1"}, "X-Short": {"nginx"}}
	for name, answer := range map[string]string{
		"Server":        "HTTP/1.1 403 no\r\nServer: nginx/1.22.1 " + token + "\r\nContent-Length: 0\r\n\r\n",
		"a word of it":  "HTTP/1.1 403 no\r\nServer: nginx/1.22.1 " + word + "\r\nContent-Length: 0\r\n\r\n",
		"Location":      "HTTP/1.1 302 no\r\nServer: nginx/1.22.1\r\nLocation: https://h/s3kr1t%2Bab%2Fcd/s3kr1t+ab/cd/s3kr1t+ab%2Fcd\r\nContent-Length: 0\r\n\r\n",
		"broken line":   "HTTP/1.1 403 no\r\n" + token + "\r\n\r\n",
		"broken status": "HTTP/1.1 " + token + "\r\n\r\n",
		"no HTTP":       token + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			endpoint := overTCP(t, func(p *rawPeer) {
				if p.accept() == nil {
					_, _ = p.Write([]byte(answer))
				}
			})
			d := &Dialer{Endpoint: endpoint, Host: "h", Header: header}
			_, err := d.ConnectStream(context.Background(), nil)
			switch e := err.(type) {
			case *HandshakeError:
				shown(t, fmt.Sprint(e, e.Header))
				if !strings.HasPrefix(e.Server(), "nginx/1.22.1") {
					t.Errorf("the Server is %q", e.Server())
				}
			case *ProtocolError:
				shown(t, fmt.Sprintf("%v %s", e, e.Seen))
			default:
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("upgraded", func(t *testing.T) {
		endpoint := overTCP(t, func(p *rawPeer) {
			if p.accept() == nil {
				_, _ = p.Write(p.switching("Server: nginx/1.22.1 " + token + "\r\n"))
				_, _ = p.Write(frame(0x88, append([]byte{0x03, 0xf3}, token...)))
			}
		})
		c := dialWith(t, &Dialer{Endpoint: endpoint, Host: "h", Header: header}, nil)
		if server := c.Handshake().Header.Get("Server"); server != "nginx/1.22.1 …" {
			t.Errorf("the Server is %q", server)
		}
		_, err := c.Read(make([]byte, 1))
		if _, ok := errors.AsType[*CloseError](err); !ok {
			t.Errorf("got %v", err)
		}
		shown(t, fmt.Sprint(err))
	})
}
