package socks

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"vmess-local/pkg/transport/netaddr"
)

// An httpRequest is what a client asks for. Its URL, RequestURI and Host are not
// set: net/url rejects targets that work.
type httpRequest struct {
	*http.Request
	target target
}

// A target is what stands behind the method.
type target struct {
	scheme    string // in lower case; "" where there is none
	authority string // without user and password; "" in the form that is for a web site
	path      string // with the query, as it came; "/" at least, but for CONNECT
}

// readHead reads the head of a request. What is wrong with it is a *refusal where
// that can be answered.
func (s *Server) readHead(h *httpConn) (*httpRequest, error) {
	_ = h.SetReadDeadline(time.Now().Add(s.handshake()))
	h.headLeft, h.readErr = max(1, maxHeader-h.in.Buffered()), nil
	r, err := h.parseHead()
	h.headLeft = -1
	_ = h.SetReadDeadline(time.Time{})
	switch bad := (*headError)(nil); {
	case err == nil:
		return r, nil
	case h.tooLarge:
		bad = &headError{http.StatusRequestHeaderFieldsTooLarge, "the head is larger than 64 KiB"}
		return nil, bad.refusal(malformed(protocolHTTP, "%w", bad))
	case errors.As(err, &bad):
		return nil, bad.refusal(malformed(protocolHTTP, "%w", bad))
	case errors.Is(err, ErrBadHandshake):
		return nil, (&headError{http.StatusBadRequest, "this is not HTTP"}).refusal(err)
	default:
		return nil, readFailure(h.readErr, protocolHTTP, "head of the request")
	}
}

// A headError is why a head cannot be used. It holds nothing of it but what is
// no secret.
type headError struct {
	status int
	wrong  string
}

func (e *headError) Error() string { return e.wrong }

func (e *headError) refusal(err error) error {
	return &refusal{httpText(1, e.status, "The request cannot be used: "+e.wrong+".\n", true), err}
}

func badHead(format string, args ...any) error {
	return &headError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// parseHead reads a head by the standard library's rules, but for the target.
func (h *httpConn) parseHead() (*httpRequest, error) {
	line, err := h.readLine()
	if err != nil {
		return nil, err
	}
	method, rest, _ := bytes.Cut(line, []byte(" "))
	i := bytes.LastIndexByte(rest, ' ')
	if i < 0 || !bytes.HasPrefix(rest[i+1:], []byte("HTTP/")) {
		return nil, notHTTP(line)
	}
	to, proto := string(rest[:i]), string(rest[i+1:])
	switch _, minor, ok := http.ParseHTTPVersion(proto); {
	case !ok:
		return nil, badHead("the HTTP version is malformed")
	case proto != fmt.Sprintf("HTTP/1.%d", minor):
		return nil, &headError{http.StatusHTTPVersionNotSupported, proto + " is not supported"}
	case !httpguts.ValidHeaderFieldName(string(method)): // both are tokens
		return nil, badHead("the method is not valid")
	}
	where, err := parseTarget(string(method), to)
	if err != nil {
		return nil, err
	}
	h.unread(fmt.Sprintf("%s / %s\r\n", method, proto))
	r, err := http.ReadRequest(h.in)
	switch {
	case err != nil && h.readErr == nil: // its text may hold a password
		return nil, badHead("the header is malformed")
	case err != nil:
		return nil, err
	}
	if r.Host != "" && !httpguts.ValidHostHeader(r.Host) {
		return nil, badHead("the header is malformed")
	}
	r.ProtoMinor = min(r.ProtoMinor, 1) // the highest that is answered in
	for name, values := range r.Header {
		for _, v := range values {
			if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(v) {
				return nil, badHead("the header is malformed")
			}
		}
	}
	return &httpRequest{r, where}, nil
}

// notHTTP is about a first line that does not end in a version.
func notHTTP(line []byte) error {
	if speaksHTTP(line) {
		return badHead("the HTTP version is missing")
	}
	return fmt.Errorf("%w: first byte 0x%02x", ErrBadHandshake, line[0])
}

// speaksHTTP reports whether a line without a version starts a request.
func speaksHTTP(line []byte) bool {
	method, _, more := bytes.Cut(line, []byte(" "))
	switch string(method) {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return more
	}
	return false
}

// readLine reads a request line. Empty ones before it are passed over (RFC 9112
// section 2.2).
func (h *httpConn) readLine() ([]byte, error) {
	var line []byte
	for {
		part, err := h.in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err == io.EOF && len(line) > 0 && !h.tooLarge && !speaksHTTP(line):
			return nil, notHTTP(line)
		case err != nil:
			return nil, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) > 0 {
			return line, nil
		}
	}
}

// unread puts text in front of what is to be read.
func (h *httpConn) unread(text string) {
	h.put = append([]byte(text), h.takeEarly()...)
	h.in.Reset(h)
}

// parseTarget takes a request's target apart (RFC 9112 section 3.2) without
// judging what is the origin's to understand.
func parseTarget(method, to string) (target, error) {
	for i := range len(to) {
		switch c := to[i]; {
		case c == ' ':
			return target{}, badHead("the URL has a space in it")
		case c < ' ' || c == 0x7f:
			return target{}, badHead("the URL has a control character in it")
		}
	}
	if method == http.MethodConnect {
		return target{authority: to}, nil
	}
	if to == "*" || strings.HasPrefix(to, "/") {
		return target{path: to}, nil
	}
	scheme, rest, ok := strings.Cut(to, "://")
	if !ok || scheme == "" || strings.ContainsAny(scheme, "/?#") {
		return target{}, badHead("the target is not a URL")
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	t := target{scheme: strings.ToLower(scheme), authority: rest[:end], path: rest[end:]}
	if !strings.HasPrefix(t.path, "/") {
		t.path = "/" + t.path
	}
	t.authority = t.authority[strings.LastIndexByte(t.authority, '@')+1:]
	if t.authority == "" {
		return target{}, badHead("the URL has no host")
	}
	if plain, err := url.PathUnescape(t.authority); err == nil {
		t.authority = plain // names in other scripts may be escaped
	}
	return t, nil
}

// destination is where the target is.
func (t target) destination(method string) (netaddr.Addr, error) {
	host := t.authority
	if method != http.MethodConnect && !hasPort(host) {
		host = strings.TrimSuffix(host, ":") + ":80"
	}
	return parseDestination(host)
}

// hasPort reports whether a port stands behind a host.
func hasPort(host string) bool {
	i := strings.LastIndexByte(host, ':')
	return i >= 0 && i < len(host)-1 && !strings.Contains(host[i:], "]")
}

// url is the target for http.Transport, which sends Opaque as it is.
func (t target) url(dst netaddr.Addr) *url.URL {
	u := &url.URL{Scheme: "http", Host: dst.String(), Opaque: t.path}
	if !strings.HasPrefix(t.path, "//") {
		return u
	}
	// It would be taken for a host there. A % that escapes nothing is escaped then.
	for _, path := range []string{t.path, escapeStray(t.path)} {
		if p, err := url.Parse("http://x" + path); err == nil {
			p.Host, p.Fragment, p.RawFragment = u.Host, "", ""
			return p
		}
	}
	return u
}

// escapeStray escapes each % that is not followed by two hexadecimal digits.
func escapeStray(path string) string {
	var b strings.Builder
	for i := range len(path) {
		b.WriteByte(path[i])
		if path[i] == '%' && (i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2])) {
			b.WriteString("25")
		}
	}
	return b.String()
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}
