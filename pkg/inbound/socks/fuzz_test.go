package socks

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// A script is a client that sends one text and takes all answers.
type script struct {
	net.Conn // no other method is called
	in       *bytes.Reader
	out      bytes.Buffer
}

func newScript(send []byte) *script { return &script{in: bytes.NewReader(send)} }

func (s *script) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *script) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *script) Close() error                     { return nil }
func (s *script) CloseWrite() error                { return nil }
func (s *script) LocalAddr() net.Addr              { return nil }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// run is one connection of a client that sends data, from accept to its end.
func run(data []byte, auth *Auth) (sent string, asked *transport.Request, reports []error) {
	s := &Server{
		Auth: auth,
		Handler: HandlerFunc(func(_ context.Context, r *transport.Request) {
			asked = r
			_, _ = r.Pending.Proceed(netip.AddrPort{})
		}),
		Associator: associatorFunc(func(_ context.Context, r *transport.Request) {
			_, _ = r.Pending.Proceed(netip.AddrPort{})
		}),
		Dialer: transport.DialerFunc(func(context.Context, netaddr.Addr, []byte) (transport.StreamConn, error) {
			return nil, io.ErrUnexpectedEOF
		}),
		Report: func(err error, _ netip.AddrPort) { reports = append(reports, err) },
	}
	client := newScript(data)
	ctx, cancel := context.WithCancel(context.Background())
	c := newClient(client, newMemListener(), cancel)
	if err := s.add(c); err != nil {
		panic(err)
	}
	s.serveClient(ctx, c)
	return client.out.String(), asked, reports
}

func FuzzSOCKS5(f *testing.F) {
	for _, seed := range []string{
		connect5, "\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", "\x05\x02\x00\x02\x01\x04anna\x06s3cret\x05\x01\x00\x04" + strings.Repeat("\x01", 18),
		"\x05\x01\x02\x01\x01a\x01b", "\x05\x00", associate5, "\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50",
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, data []byte, auth bool) {
		data = append([]byte{5}, data...)
		var need *Auth
		if auth {
			need = &secret
		}
		sent, asked, reports := run(data, need)
		checkRun(t, sent, asked, reports)
		if sent != "" && sent[0] != 5 {
			t.Errorf("answered % x", sent)
		}
		if asked != nil && auth && asked.User != secret.Username {
			t.Errorf("handed on for %q", asked.User)
		}
	})
}

func FuzzSOCKS4(f *testing.F) {
	for _, seed := range []string{
		"\x04\x01\x00\x50\xc0\x00\x02\x01me\x00", "\x04\x01\x01\xbb\x00\x00\x00\x01\x00example.com\x00", "\x04\x02\x00\x50\xc0\x00\x02\x01\x00",
		"\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00", "\x04\x01\x00\x50\xc0\x00\x02\x01" + strings.Repeat("u", 300),
	} {
		f.Add([]byte(seed[1:]))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		sent, asked, reports := run(append([]byte{4}, data...), nil)
		checkRun(t, sent, asked, reports)
		if sent != "" && (len(sent) != 8 || sent[0] != 0 || (sent[1] == granted4) != (asked != nil)) {
			t.Errorf("answered % x, handed on: %v", sent, asked != nil)
		}
	})
}

func FuzzHTTP(f *testing.F) {
	for _, seed := range []string{
		"CONNECT example.com:443 HTTP/1.1\r\n\r\nearly", "CONNECT [::1]:1 HTTP/1.0\r\nA: b\r\n\r\n", "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "CONNECT : HTTP/1.1\r\n\r\n", "GET http://%41/ HTTP/1.1\r\nHost:\r\n\r\n", "X",
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, data []byte, auth bool) {
		data = append([]byte("C"), bytes.TrimPrefix(data, []byte("C"))...)
		var need *Auth
		if auth {
			need = &secret
		}
		sent, asked, reports := run(data, need)
		checkRun(t, sent, asked, reports)
		if sent != "" && !strings.HasPrefix(sent, "HTTP/1.") {
			t.Errorf("answered %q", sent)
		}
		if asked != nil && auth && asked.User != secret.Username {
			t.Errorf("handed on for %q", asked.User)
		}
	})
}

// checkRun is what holds for any input.
func checkRun(t *testing.T, sent string, asked *transport.Request, reports []error) {
	t.Helper()
	if asked != nil {
		d := asked.Destination
		back, err := netaddr.Parse(d.String())
		if err != nil || back != d || d.Port() == 0 {
			t.Errorf("handed on %q, which is no destination: %v", d, err)
		}
	}
	for _, err := range reports {
		if strings.Contains(err.Error(), "internal error") || strings.Contains(err.Error(), secret.Password) {
			t.Errorf("reported %v", err)
		}
	}
	if len(sent) > 64<<10 {
		t.Errorf("answered %d bytes", len(sent))
	}
}
