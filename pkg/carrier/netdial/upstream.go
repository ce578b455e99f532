package netdial

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"vmess-local/pkg/transport/netaddr"
)

// maxConnectHead bounds what a proxy may send in answer to CONNECT.
const maxConnectHead = 16 << 10

// Errors of the upstream proxy's configuration and of its answer.
var (
	ErrUpstreamScheme = errors.New("the upstream proxy must be http:// or socks5://")
	ErrUpstreamHost   = errors.New("the upstream proxy has no usable host and port")
	ErrUpstreamLoop   = errors.New("the upstream proxy is this program itself")
	ErrLongHead       = errors.New("the proxy's answer is longer than 16 KiB")
)

// An UpstreamError is an answer of the upstream proxy other than success. It
// holds no text of the proxy's: that may repeat the credentials it was sent.
type UpstreamError struct {
	Status  int      // HTTP status, or SOCKS reply code (RFC 1928 section 6, below 100); 0: no such answer
	Text    string   // the status or reply code in words, or what is wrong with the answer
	Auth    bool     // it wants credentials, others, or none of the methods at hand
	Schemes []string // what HTTP authentication it offers: "Basic", "Digest", "NTLM", "Negotiate", "Kerberos", "Bearer", "another"
}

// Error tells the answer in words.
func (e *UpstreamError) Error() string {
	text := "the proxy answered"
	if e.Status != 0 {
		text += " " + strconv.Itoa(e.Status)
	}
	if e.Text != "" {
		text += " " + e.Text
	}
	if len(e.Schemes) > 0 {
		text += " (it offers " + strings.Join(e.Schemes, ", ") + ")"
	}
	return text
}

// A route is where the way to the server begins, and the proxy found there.
type route struct {
	hop   netaddr.Addr
	proxy *url.URL // nil: the hop is the server
}

// route reads Upstream. Its errors tell nothing but the proxy's host.
func (d *Dialer) route() (route, error) {
	if d.Upstream == nil {
		if !d.Server.IsValid() {
			return route{}, &Error{Step: StepTCP, Err: netaddr.ErrEmptyHost}
		}
		return route{hop: d.Server}, nil
	}
	var port uint16
	switch d.Upstream.Scheme {
	case "http":
		port = 80
	case "socks5", "socks5h":
		port = 1080
	default:
		return route{}, &Error{Step: StepUpstream, Upstream: true, Addr: d.Upstream.Host, Err: ErrUpstreamScheme}
	}
	hop, err := proxyAddr(d.Upstream, port)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrUpstreamHost, err)
		return route{}, &Error{Step: StepUpstream, Upstream: true, Addr: d.Upstream.Host, Err: err}
	}
	return route{hop: hop, proxy: d.Upstream}, nil
}

func proxyAddr(u *url.URL, port uint16) (netaddr.Addr, error) {
	if text := u.Port(); text != "" {
		var err error
		if port, err = netaddr.ParsePort(text); err != nil {
			return netaddr.Addr{}, err
		}
	}
	return netaddr.FromHost(u.Hostname(), port)
}

// passUpstream asks the proxy at the other end of conn, if there is one, for
// the server, and returns the stream to it. ctx ending closes conn.
func (d *Dialer) passUpstream(ctx context.Context, way route, conn net.Conn) (net.Conn, error) {
	if way.proxy == nil {
		return conn, nil
	}
	run := d.begin(StepUpstream, way.hop.String(), true)
	if way.proxy.Scheme != "http" {
		return conn, run.end(ctx, socksConnect(ctx, conn, way, d.Server))
	}
	rest, err := httpConnect(conn, way.proxy.User, d.Server)
	if len(rest) > 0 {
		conn = &prefixed{StreamConn: streamOf(conn), prefix: rest}
	}
	return conn, run.end(ctx, err)
}

// httpConnect asks an HTTP proxy for a tunnel (RFC 9110 section 9.3.6). What
// the server sent behind the proxy's answer is returned.
func httpConnect(conn net.Conn, user *url.Userinfo, server netaddr.Addr) (rest []byte, err error) {
	if _, err := conn.Write(connectRequest(user, server)); err != nil {
		return nil, err
	}
	var got []byte
	chunk := make([]byte, 2<<10)
	for {
		head, size, err := parseConnectHead(got)
		switch {
		case err != nil:
			return nil, err
		case size > 0 && head.status < 200 && head.status != 101: // interim: RFC 9110 section 15.2
			got = got[size:]
		case size > 0 && head.status/100 == 2:
			return got[size:], nil
		case size > 0:
			return nil, head.refusal()
		default:
			n, err := conn.Read(chunk[:min(len(chunk), maxConnectHead-len(got))])
			got = append(got, chunk[:n]...)
			if n == 0 && err != nil {
				return nil, cutShort(err, got)
			}
		}
	}
}

func cutShort(err error, got []byte) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("after %d bytes of the proxy's answer: %w", len(got), err)
}

func connectRequest(user *url.Userinfo, server netaddr.Addr) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", server, server)
	if user != nil {
		password, _ := user.Password()
		credentials := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		fmt.Fprintf(&b, "Proxy-Authorization: Basic %s\r\n", credentials)
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// A connectHead is what matters of a proxy's answer to CONNECT.
type connectHead struct {
	status  int
	schemes []string
}

func (h connectHead) refusal() error {
	return &UpstreamError{Status: h.status, Text: http.StatusText(h.status), Auth: h.status == 407, Schemes: h.schemes}
}

// parseConnectHead reads a response head (RFC 9112 section 4) from the start of
// b and returns its size, the empty line included; 0 when b holds only a part of
// one. Lines may end with a bare LF and the reason may be missing. Bytes that
// no HTTP answer begins with are an error as soon as they are seen.
func parseConnectHead(b []byte) (head connectHead, size int, err error) {
	const version = "HTTP/1."
	if n := min(len(b), len(version)); string(b[:n]) != version[:n] {
		return head, 0, &UpstreamError{Text: fmt.Sprintf("without HTTP: its first byte is %#02x", b[0])}
	}
	for line := range bytes.Lines(b[:min(len(b), maxConnectHead)]) {
		if line[len(line)-1] != '\n' {
			break
		}
		text := strings.TrimRight(string(line), "\r\n")
		switch {
		case size == 0:
			if head, err = parseStatusLine(text); err != nil {
				return head, 0, err
			}
		case text == "":
			return head, size + len(line), nil
		default:
			head.schemes = appendScheme(head.schemes, text)
		}
		size += len(line)
	}
	if len(b) >= maxConnectHead {
		return head, 0, ErrLongHead
	}
	return head, 0, nil
}

// parseStatusLine reads "HTTP/1.1 407 Proxy Authentication Required".
func parseStatusLine(line string) (connectHead, error) {
	version, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.ParseUint(code, 10, 16)
	if len(version) != len("HTTP/1.1") || len(code) != 3 || err != nil || status < 100 {
		return connectHead{}, &UpstreamError{Text: "with a broken status line"}
	}
	return connectHead{status: int(status)}, nil
}

// appendScheme adds the scheme of a Proxy-Authenticate line.
func appendScheme(schemes []string, line string) []string {
	name, value, _ := strings.Cut(line, ":")
	fields := strings.Fields(value)
	if !strings.EqualFold(name, "Proxy-Authenticate") || len(fields) == 0 {
		return schemes
	}
	if scheme := schemeOf(fields[0]); !slices.Contains(schemes, scheme) {
		schemes = append(schemes, scheme)
	}
	return schemes
}

// schemeOf names an authentication scheme. What is none that proxies speak is
// not repeated.
func schemeOf(text string) string {
	for _, known := range [...]string{"Basic", "Digest", "NTLM", "Negotiate", "Kerberos", "Bearer"} {
		if strings.EqualFold(text, known) {
			return known
		}
	}
	return "another"
}
