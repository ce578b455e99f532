package diagnose_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/diagnose"
)

func errno(n syscall.Errno) error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", n)}
}

func step(s netdial.Step, err error) *netdial.Error {
	addr := "vps.example.com:443"
	if s == netdial.StepDNS {
		addr = "vps.example.com"
	}
	return &netdial.Error{Step: s, Addr: addr, Took: 10 * time.Second, Err: err}
}

func atProxy(s netdial.Step, err error) *netdial.Error {
	e := step(s, err)
	e.Upstream, e.Addr = true, "proxy.corp:3128"
	return e
}

func stale(e *netdial.Error) *netdial.Error {
	e.Stale = &net.DNSError{Err: "server misbehaving", Name: "vps.example.com"}
	return e
}

// wrapped is how errors arrive from the layers above.
func wrapped(err error) error { return fmt.Errorf("connect to the server: %w", err) }

func wayCases(t *testing.T) []judged {
	const (
		possible = diagnose.Possible
		likely   = diagnose.Likely
		certain  = diagnose.Certain
	)
	s := fixture(t, 0, true)
	ipv6 := s
	ipv6.Address = "2001:db8::1"
	none := diagnose.ConnectFacts{}
	offline := diagnose.ConnectFacts{Online: diagnose.No}
	other := diagnose.ConnectFacts{OtherTLS: diagnose.Yes}
	unreachable := errno(syscall.ENETUNREACH)
	var cases []judged
	add := func(name string, err error, s diagnose.ServerContext, f diagnose.ConnectFacts, c diagnose.Cause, sure diagnose.Confidence) {
		v, ok := diagnose.Connect(wrapped(err), s, f)
		if ok == v.IsZero() {
			t.Errorf("%s: ok is %v for %+v", name, ok, v)
		}
		cases = append(cases, judged{"way: " + name, c, sure, v})
	}

	add("cancelled", step(netdial.StepTCP, fmt.Errorf("%w: x", context.Canceled)), s, none, "", 0)

	notFound := &net.DNSError{Err: "no such host", Name: "vps.example.com", Server: "192.0.2.53:53", IsNotFound: true}
	add("no such name", step(netdial.StepDNS, notFound), s, none, diagnose.DNSNotFound, certain)
	add("no such name, resolver unknown", step(netdial.StepDNS, &net.DNSError{IsNotFound: true}), s, diagnose.ConnectFacts{Failed: 3, Attempts: 3}, diagnose.DNSNotFound, certain)
	add("resolver silent", step(netdial.StepDNS, fmt.Errorf("%w: %w", context.DeadlineExceeded, &net.DNSError{Err: "i/o timeout", Server: "192.0.2.53:53", IsTimeout: true})), s, none, diagnose.DNSTimeout, certain)
	add("resolver silent, offline", step(netdial.StepDNS, context.DeadlineExceeded), s, offline, diagnose.DNSTimeout, certain)
	add("resolver fails", step(netdial.StepDNS, &net.DNSError{Err: "server misbehaving", Server: "192.0.2.53:53"}), s, none, diagnose.DNSFailed, certain)

	add("refused", step(netdial.StepTCP, errors.Join(errno(syscall.ECONNREFUSED))), s, none, diagnose.TCPRefused, certain)
	add("refused, worked a moment ago", step(netdial.StepTCP, errno(syscall.ECONNREFUSED)), s, diagnose.ConnectFacts{Worked: true}, diagnose.TCPRefused, certain)
	add("refused by IPv4, no IPv6 here", step(netdial.StepTCP, errors.Join(unreachable, errno(syscall.ECONNREFUSED))), s, none, diagnose.TCPRefused, certain)
	add("no answer", step(netdial.StepTCP, errors.Join(unreachable, context.DeadlineExceeded)), s, none, diagnose.TCPTimeout, certain)
	add("no answer, offline", step(netdial.StepTCP, context.DeadlineExceeded), s, offline, diagnose.TCPTimeout, likely)
	add("no answer, name does not resolve now", stale(step(netdial.StepTCP, context.DeadlineExceeded)), s, none, diagnose.TCPTimeout, likely)
	add("refused, name does not resolve now", stale(step(netdial.StepTCP, errno(syscall.ECONNREFUSED))), s, none, diagnose.TCPRefused, likely)
	add("unreachable", step(netdial.StepTCP, unreachable), s, none, diagnose.TCPUnreachable, certain)
	add("unreachable by IPv6", step(netdial.StepTCP, unreachable), ipv6, none, diagnose.TCPUnreachable, certain)
	add("unreachable, offline", step(netdial.StepTCP, errno(syscall.EHOSTUNREACH)), s, offline, diagnose.TCPUnreachable, likely)
	add("forbidden here", step(netdial.StepTCP, errno(syscall.EACCES)), s, none, diagnose.TCPUnreachable, certain)
	add("something else", step(netdial.StepTCP, errors.New("odd")), s, none, diagnose.TCPUnreachable, possible)
	add("reset while connecting", step(netdial.StepTCP, errno(syscall.ECONNRESET)), s, none, diagnose.TCPReset, likely)
	add("out of files", step(netdial.StepTCP, errno(syscall.EMFILE)), s, none, diagnose.LimitConnections, certain)

	add("proxy: password", atProxy(netdial.StepUpstream, &netdial.UpstreamError{Status: 407, Auth: true, Text: "Proxy Authentication Required", Schemes: []string{"Basic"}}), s, none, diagnose.UpstreamAuth, certain)
	add("proxy: NTLM", atProxy(netdial.StepUpstream, &netdial.UpstreamError{Status: 407, Auth: true, Schemes: []string{"NTLM", "Negotiate"}}), s, none, diagnose.UpstreamAuth, certain)
	add("proxy: SOCKS password", atProxy(netdial.StepUpstream, &netdial.UpstreamError{Auth: true, Text: "that user name or password are wrong"}), s, none, diagnose.UpstreamAuth, certain)
	add("proxy: 403", atProxy(netdial.StepUpstream, &netdial.UpstreamError{Status: 403, Text: "Forbidden"}), s, none, diagnose.UpstreamRefused, certain)
	add("proxy: SOCKS rules", atProxy(netdial.StepUpstream, &netdial.UpstreamError{Status: 2, Text: "connection not allowed by ruleset"}), s, none, diagnose.UpstreamRefused, certain)
	add("proxy: 502", atProxy(netdial.StepUpstream, &netdial.UpstreamError{Status: 502, Text: "Bad Gateway"}), s, none, diagnose.UpstreamFailed, certain)
	add("proxy: SOCKS refused", atProxy(netdial.StepUpstream, &netdial.UpstreamError{Status: 5, Text: "connection refused"}), s, none, diagnose.UpstreamFailed, certain)
	add("proxy: no proxy", atProxy(netdial.StepUpstream, &netdial.UpstreamError{Text: `without HTTP: "SSH-"`}), s, none, diagnose.UpstreamFailed, certain)
	add("proxy: hangs up", atProxy(netdial.StepUpstream, io.ErrUnexpectedEOF), s, none, diagnose.UpstreamFailed, likely)
	add("proxy: itself", atProxy(netdial.StepTCP, netdial.ErrUpstreamLoop), s, none, diagnose.UpstreamLoop, certain)
	add("proxy: not there", atProxy(netdial.StepTCP, errno(syscall.ECONNREFUSED)), s, none, diagnose.UpstreamFailed, certain)
	add("proxy: silent", atProxy(netdial.StepTCP, context.DeadlineExceeded), s, none, diagnose.UpstreamFailed, certain)
	add("proxy: unreachable", atProxy(netdial.StepTCP, unreachable), s, none, diagnose.UpstreamFailed, certain)
	add("proxy: no such name", atProxy(netdial.StepDNS, notFound), s, none, diagnose.UpstreamFailed, certain)
	add("proxy: resolver fails", atProxy(netdial.StepDNS, &net.DNSError{Err: "server misbehaving"}), s, none, diagnose.UpstreamFailed, certain)
	add("proxy: scheme", atProxy(netdial.StepUpstream, netdial.ErrUpstreamScheme), s, none, diagnose.UpstreamFailed, certain)

	record := func(b string) error {
		return tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake", RecordHeader: [5]byte([]byte(b))}
	}
	add("TLS answered by HTTP", step(netdial.StepTLS, record("HTTP/")), s, none, diagnose.TLSNotTLS, certain)
	add("TLS answered by SSH", step(netdial.StepTLS, record("SSH-2")), s, none, diagnose.TLSNotTLS, certain)
	add("TLS answered by a mail server", step(netdial.StepTLS, record("220 m")), s, none, diagnose.TLSNotTLS, certain)
	add("TLS answered by noise", step(netdial.StepTLS, record("\x00\x01\x1b\n\xff")), s, none, diagnose.TLSNotTLS, certain)
	add("TLS silent, HTTP answered", step(netdial.StepTLS, context.DeadlineExceeded), s, other, diagnose.TLSNotTLS, certain)
	add("TLS silent", step(netdial.StepTLS, context.DeadlineExceeded), s, diagnose.ConnectFacts{OtherTLS: diagnose.No}, diagnose.WSSilent, certain)
	add("TLS silent, worked a moment ago", step(netdial.StepTLS, context.DeadlineExceeded), s, diagnose.ConnectFacts{OtherTLS: diagnose.No, Worked: true}, diagnose.WSSilent, certain)
	add("TLS alert: name", step(netdial.StepTLS, fmt.Errorf("the server's alert: %w", tls.AlertError(112))), s, none, diagnose.TLSRefused, certain)
	add("TLS alert: version", step(netdial.StepTLS, tls.AlertError(70)), s, none, diagnose.TLSRefused, certain)
	add("TLS alert: client certificate", step(netdial.StepTLS, tls.AlertError(116)), s, none, diagnose.TLSRefused, certain)
	add("TLS alert, HTTP answered", step(netdial.StepTLS, tls.AlertError(112)), s, other, diagnose.TLSRefused, certain)
	add("TLS alert: handshake", step(netdial.StepTLS, tls.AlertError(40)), s, none, diagnose.TLSRefused, certain)
	add("TLS alert: ALPN", step(netdial.StepTLS, tls.AlertError(120)), s, none, diagnose.TLSRefused, certain)
	add("TLS alert: bad certificate", step(netdial.StepTLS, tls.AlertError(42)), s, none, diagnose.TLSRefused, certain)
	add("TLS alert: internal error", step(netdial.StepTLS, tls.AlertError(80)), s, none, diagnose.TLSRefused, certain)
	add("TLS hung up", step(netdial.StepTLS, io.EOF), s, none, diagnose.TLSRefused, likely)
	add("TLS fails otherwise", step(netdial.StepTLS, errors.New("tls: server selected unsupported group")), s, none, diagnose.TLSRefused, possible)
	add("TLS reset", step(netdial.StepTLS, &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}), s, none, diagnose.TCPReset, likely)

	add("TLS reset, HTTP answered", step(netdial.StepTLS, &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}), s, other, diagnose.TLSNotTLS, likely)

	add("upgrade without deadline's name", context.DeadlineExceeded, s, none, diagnose.WSSilent, certain)
	add("unknown error", errors.New("odd"), s, none, diagnose.WSReset, possible)
	return cases
}
