package socks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"

	"vmess-local/pkg/transport/netaddr"
)

// An exchange is one plain request and its answer.
type exchange struct {
	server *Server
	conn   *httpConn
	in     *httpRequest
	body   *requestBody

	turn      chan struct{} // holds a token while nobody writes to the client
	answering chan struct{} // closed when the answer itself has taken the token
	connected atomic.Bool   // there was a connection to the origin
	answered  atomic.Bool   // something came back on it
}

// forward carries one plain request (RFC 9112 section 3.2.2, absolute-form). It
// reports whether the client may send another.
func (s *Server) forward(ctx context.Context, h *httpConn, r *httpRequest, dst netaddr.Addr) (again bool) {
	if h.origins == nil {
		h.origins = s.newOrigins()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h.patience, h.moves = s.idle(), true
	x := &exchange{server: s, conn: h, in: r, body: newRequestBody(r, h, s.idle()), turn: make(chan struct{}, 1), answering: make(chan struct{})}
	x.turn <- struct{}{}
	x.body.ended = func() { h.startWatch(cancel) }
	x.body.wanted = func() { x.interim(ctx, "100 Continue", nil) }
	if x.body.over {
		h.startWatch(cancel)
	}
	defer func() {
		_ = x.body.Close() // it starts no watch any more
		h.stopWatch()
	}()
	out := x.request(ctx, dst)
	answer, err := h.origins.RoundTrip(out)
	select {
	case <-x.turn: // for good
		close(x.answering)
	case <-ctx.Done():
		if err == nil {
			_ = answer.Body.Close()
		}
		return false
	}
	if err == nil {
		if err = unusable(out, answer); err != nil {
			_ = answer.Body.Close()
		}
	}
	switch {
	case err != nil:
		return x.fail(ctx, err)
	case answer.StatusCode == http.StatusSwitchingProtocols:
		x.upgrade(ctx, answer)
		return false
	}
	return x.answer(answer)
}

// request makes the request that goes out: what the client wrote, without what
// was for us (RFC 9110 section 7.6.1).
func (x *exchange) request(ctx context.Context, dst netaddr.Addr) *http.Request {
	in := x.in
	header := in.Header.Clone()
	upgrade, trailers := upgradeOf(header), httpguts.HeaderValuesContainsToken(header["Te"], "trailers")
	removeHopByHop(header)
	if trailers {
		header.Set("Te", "trailers")
	}
	if upgrade != "" {
		header.Set("Connection", "Upgrade")
		header.Set("Upgrade", upgrade)
	}
	if _, ok := header["User-Agent"]; !ok {
		header.Set("User-Agent", "") // or http.Transport sends its own
	}
	out := &http.Request{
		Method: in.Method, URL: in.target.url(dst), Host: in.target.authority, Header: header,
		ProtoMajor: 1, ProtoMinor: 1, ContentLength: in.ContentLength,
	}
	if !x.body.over {
		out.Body = x.body
		out.TransferEncoding = in.TransferEncoding
		out.Trailer = x.body.trailer
	}
	ctx = context.WithValue(ctx, errandKey{}, originRequest{ctx, x.conn, dst})
	return out.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:              func(httptrace.GotConnInfo) { x.connected.Store(true) },
		GotFirstResponseByte: func() { x.answered.Store(true) },
		Got1xxResponse: func(status int, header textproto.MIMEHeader) error {
			// The client gets its 100 when its body is called for, which is when
			// the origin's has come.
			if status != http.StatusContinue {
				x.interim(ctx, fmt.Sprintf("%d %s", status, http.StatusText(status)), http.Header(header))
			}
			return nil
		},
	}))
}

// interim sends an answer before the answer, which HTTP/1.0 does not know.
// It is dropped once the answer itself has its turn.
func (x *exchange) interim(ctx context.Context, status string, header http.Header) {
	if !x.in.ProtoAtLeast(1, 1) {
		return
	}
	removeHopByHop(header)
	select {
	case <-x.turn:
		_, _ = x.conn.Write(appendHead(nil, 1, status, header, ""))
		x.turn <- struct{}{}
	case <-x.answering:
	case <-ctx.Done():
	}
}

// fail answers that there is no answer.
func (x *exchange) fail(ctx context.Context, err error) (again bool) {
	if ctx.Err() != nil {
		return false // the client has left
	}
	status, text := x.words(err)
	return x.server.refuse(x.body, status, text)
}

var (
	errOtherProtocol = errors.New("it switches to another protocol than was asked for")
	errStatus        = errors.New("its status is below 100")
)

// unusable returns what http.Transport lets through and is no answer to r.
func unusable(r *http.Request, answer *http.Response) error {
	switch {
	case answer.StatusCode < 100: // whether it has a body is undefined
		return errStatus
	case answer.StatusCode == http.StatusSwitchingProtocols && !wasOffered(r, answer):
		return errOtherProtocol
	}
	return nil
}

// words explains why there is no answer.
func (x *exchange) words(err error) (status int, text string) {
	_, ofStream := errors.AsType[*streamError](err)
	switch {
	case x.body.failed() != nil:
		return x.wordsOfBody(x.body.failed())
	case ofStream:
		return statusOf(err), publicText(err)
	case errors.Is(err, errIdle):
		return http.StatusGatewayTimeout, "The site did not answer in time.\n"
	case !x.connected.Load():
		x.server.report(malformed(protocolHTTP, "it cannot be forwarded"), x.conn.source)
		return http.StatusBadRequest, "The request cannot be forwarded: its header is invalid.\n"
	case !x.answered.Load(), isEnd(err):
		return http.StatusBadGateway, "The site closed the connection without answering.\n"
	}
	wrong := wrongAnswer(err)
	if n, ok := x.server.badAnswer.pass(); ok {
		report := fmt.Errorf("%w: %s", ErrBadAnswer, wrong)
		if n > 1 {
			report = fmt.Errorf("%w (the last of %d)", report, n)
		}
		x.server.report(report, x.conn.source)
	}
	return http.StatusBadGateway, "The site's answer is not valid HTTP: " + wrong + ".\n"
}

// wordsOfBody explains why the body of the request could not be read.
func (x *exchange) wordsOfBody(err error) (status int, text string) {
	_, ofConn := errors.AsType[net.Error](err)
	switch {
	case isTimeout(err):
		return http.StatusRequestTimeout, textSilent
	case ofConn, isEnd(err):
		return http.StatusBadRequest, textSilent
	}
	x.server.report(malformed(protocolHTTP, "its body is malformed"), x.conn.source)
	return http.StatusBadRequest, "The request cannot be used: its body is malformed.\n"
}

// isEnd reports whether err is the clean end of a stream.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// wrongAnswer puts an error of net/http's into words that hold nothing of the
// answer.
func wrongAnswer(err error) string {
	text := err.Error()
	for _, known := range []struct{ has, words string }{
		{errStatus.Error(), "it does not begin with an HTTP status line"},
		{"malformed HTTP response", "it does not begin with an HTTP status line"},
		{"malformed HTTP status", "it does not begin with an HTTP status line"},
		{"malformed HTTP version", "it does not begin with an HTTP status line"},
		{"multiple Content-Length", "it has more than one length (Content-Length)"},
		{"headers exceeded", "its header is larger than 256 KiB"},
		{"transfer encoding", "its transfer encoding is unknown"},
		{errOtherProtocol.Error(), errOtherProtocol.Error()},
	} {
		if strings.Contains(text, known.has) {
			return known.words
		}
	}
	return "its header is malformed"
}

// answer sends the origin's answer. Its end shows by a length or by chunks; where
// only the connection's end can show it (HTTP/1.0), an answer that breaks off
// resets the connection.
func (x *exchange) answer(answer *http.Response) (again bool) {
	defer answer.Body.Close()
	h, minor := x.conn, x.in.ProtoMinor
	removeHopByHop(answer.Header)
	length := answer.ContentLength
	bodied := x.in.Method != http.MethodHead && answer.StatusCode >= 200 && answer.StatusCode != http.StatusNoContent && answer.StatusCode != http.StatusNotModified
	chunked := bodied && length < 0 && minor > 0
	toEnd := bodied && length < 0 && !chunked
	closing := toEnd || x.in.Close || x.server.isDraining() || x.body.awaits100()

	framing := connectionField(minor, closing)
	switch {
	case !bodied && answer.StatusCode != http.StatusNoContent: // the length that the body would have
		if v := answer.Header.Get("Content-Length"); v != "" {
			framing = "Content-Length: " + v + "\r\n" + framing
		}
	case bodied && length >= 0:
		framing = fmt.Sprintf("Content-Length: %d\r\n", length) + framing
	case chunked:
		framing = "Transfer-Encoding: chunked\r\n" + trailerField(answer.Trailer) + framing
	}
	delete(answer.Header, "Content-Length")
	if toEnd {
		h.frail(true)
	}
	if _, err := h.Write(appendHead(nil, minor, answer.Status, answer.Header, framing)); err != nil {
		return false
	}
	if bodied && !x.copyBody(answer, chunked) {
		return false
	}
	_ = answer.Body.Close()
	whole := x.body.finish(x.server.handshake())
	if toEnd {
		h.frail(false)
	}
	h.stopWatch()
	if closing || !whole {
		h.endInOrder()
		return false
	}
	return true
}

// copyBody sends the body of an answer and, behind chunks, its trailers. It
// reports whether that is all of it.
func (x *exchange) copyBody(answer *http.Response, chunked bool) bool {
	buf := chunkBuffers.Get().(*chunkBuffer)
	defer chunkBuffers.Put(buf)
	for {
		n, err := answer.Body.Read(buf[chunkHead : chunkHead+chunkData])
		if n > 0 {
			piece := buf[chunkHead : chunkHead+n]
			if chunked {
				piece = buf.frame(n)
			}
			if _, err := x.conn.Write(piece); err != nil {
				return false
			}
		}
		switch {
		case err == io.EOF && chunked:
			_, err = x.conn.Write(appendFields([]byte("0\r\n"), answer.Trailer))
			return err == nil
		case err == io.EOF:
			return true
		case err != nil:
			return false
		}
	}
}

const (
	chunkHead = len("8000\r\n")
	chunkData = 32 << 10
)

// A chunkBuffer has room for a chunk with what is put round it, so that it
// leaves in one write.
type chunkBuffer [chunkHead + chunkData + len("\r\n")]byte

var chunkBuffers = sync.Pool{New: func() any { return new(chunkBuffer) }}

// frame puts a chunk's size before n bytes of data and its end behind them.
func (b *chunkBuffer) frame(n int) []byte {
	size := fmt.Appendf(make([]byte, 0, chunkHead), "%x\r\n", n)
	start := chunkHead - len(size)
	copy(b[start:], size)
	copy(b[chunkHead+n:], "\r\n")
	return b[start : chunkHead+n+2]
}

// appendHead appends the head of an answer. framing are lines of ours.
func appendHead(p []byte, minor int, status string, header http.Header, framing string) []byte {
	code, reason, _ := strings.Cut(status, " ") // what stands there may end in the code
	p = fmt.Appendf(p, "HTTP/1.%d %s %s\r\n", minor, code, strings.ReplaceAll(reason, "\r", " "))
	b := bytes.NewBuffer(p)
	_ = header.Write(b)
	b.WriteString(framing + "\r\n")
	return b.Bytes()
}

// appendFields appends trailers and the end of them.
func appendFields(p []byte, fields http.Header) []byte {
	b := bytes.NewBuffer(p)
	_ = fields.Write(b)
	b.WriteString("\r\n")
	return b.Bytes()
}

// trailerField announces trailers.
func trailerField(trailer http.Header) string {
	if len(trailer) == 0 {
		return ""
	}
	names := make([]string, 0, len(trailer))
	for name := range trailer {
		names = append(names, name)
	}
	slices.Sort(names)
	return "Trailer: " + strings.Join(names, ", ") + "\r\n"
}

// upgrade passes on that the origin switches protocols, and then bytes both ways
// until one way fails or both have ended.
func (x *exchange) upgrade(ctx context.Context, answer *http.Response) {
	h := x.conn
	origin := answer.Body.(io.ReadWriteCloser) // as net/http documents
	defer origin.Close()
	defer context.AfterFunc(ctx, func() { _ = origin.Close() })()
	whole := x.body.finish(x.server.handshake())
	h.stopWatch()
	if !whole {
		return
	}
	h.frail(true)
	if _, err := h.Write(appendHead(nil, x.in.ProtoMinor, answer.Status, answer.Header, "")); err != nil {
		return
	}
	ends := make(chan error, 2)
	pass := func(dst io.Writer, src io.Reader) {
		buf := chunkBuffers.Get().(*chunkBuffer)
		defer chunkBuffers.Put(buf)
		_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buf[:])
		if end, ok := dst.(interface{ CloseWrite() error }); ok && err == nil {
			err = end.CloseWrite()
		}
		ends <- err
	}
	var passing sync.WaitGroup
	passing.Go(func() { pass(origin, h.in) })
	passing.Go(func() { pass(h, origin) })
	if <-ends == nil {
		<-ends
	}
	_ = origin.Close()
	_ = h.Close()
	passing.Wait()
}

// upgradeOf returns what a message wants to switch to: a list in a request.
func upgradeOf(header http.Header) string {
	if !httpguts.HeaderValuesContainsToken(header["Connection"], "Upgrade") {
		return ""
	}
	return strings.Join(header["Upgrade"], ", ")
}

// wasOffered reports whether all that an origin switches to was offered to it.
func wasOffered(r *http.Request, answer *http.Response) bool {
	offered, chosen := []string{upgradeOf(r.Header)}, upgradeOf(answer.Header)
	for protocol := range strings.SplitSeq(chosen, ",") {
		if !httpguts.HeaderValuesContainsToken(offered, strings.TrimSpace(protocol)) {
			return false
		}
	}
	return chosen != ""
}

// removeHopByHop takes out the fields that are for one connection only (RFC 9110
// section 7.6.1) or for a proxy.
func removeHopByHop(header http.Header) {
	for _, list := range header["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			header.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{"Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade"} {
		header.Del(name)
	}
	for name := range header {
		if strings.HasPrefix(name, "Proxy-") {
			delete(header, name)
		}
	}
}
