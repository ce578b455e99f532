package diagnose

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/carrier/wsconn"
	"vmess-local/pkg/host/errno"
	"vmess-local/pkg/transport"
)

// ConnectFacts are what a second look at a failed way found. Each may be left out.
type ConnectFacts struct {
	// Now is what this computer's clock says; zero: time.Now().
	Now time.Time
	// Skew is this clock minus the server's, from a Date header, even one read
	// over an unverified handshake; nil when none could be had.
	Skew *time.Duration
	// OtherTLS: does the port answer when the other of ws and wss is spoken,
	// that is a ClientHello where TLS is off, plain HTTP where it is on?
	// An answer to plain HTTP that asks for TLS is none.
	OtherTLS Tristate
	// VMessBelow: does the port accept VMess without a WebSocket?
	VMessBelow Tristate
	// HTTP2: does the port answer HTTP/2's preface?
	HTTP2 Tristate
	// WithoutEarlyData: does the way work without early data?
	WithoutEarlyData Tristate
	// Online: does another, earlier good address answer?
	Online Tristate
	// Worked: the server did a moment ago.
	Worked bool
	// Failed of Attempts failed in this way; 0 when not counted.
	Failed, Attempts int
}

func (f ConnectFacts) now() time.Time {
	if f.Now.IsZero() {
		return time.Now()
	}
	return f.Now
}

// margin is how far a clock may be off without harm: VMess takes 120 s, and
// older clients stray by 30 s (docs/diagnosis.md 2).
const margin = 90 * time.Second

// Connect judges why the way to the server failed, up to the end of the WebSocket
// upgrade. ok is false where there is nothing to judge: no error, or an
// attempt that was cancelled.
func Connect(err error, s ServerContext, f ConnectFacts) (v Verdict, ok bool) {
	if err == nil || errors.Is(err, context.Canceled) {
		return Verdict{}, false
	}
	v = way(err, s, f)
	v.Basis = attempts(f.Failed, f.Attempts)
	v.Evidence = append(v.Evidence, clean(err.Error(), 300))
	return v, true
}

func way(err error, s ServerContext, f ConnectFacts) Verdict {
	var (
		step    *netdial.Error
		status  *wsconn.HandshakeError
		garbled *wsconn.ProtocolError
		silent  *wsconn.TimeoutError
	)
	isStep := errors.As(err, &step)
	alert, alerted := netdial.AlertOf(err)
	switch {
	case errno.IsTooManyFiles(err):
		return limitOfFiles(s.at("/limits.connections"))
	case isStep && step.Upstream:
		return upstream(step, s)
	case isStep && step.Step == netdial.StepDNS:
		return dns(step, s, f)
	case isStep && step.Step == netdial.StepTLS:
		return handshake(step, s, f)
	case isStep:
		return connect(step, s, f)
	case s.EarlyData > 0 && f.WithoutEarlyData == Yes:
		return earlyDataLost(s)
	case errors.As(err, &status):
		return refusedUpgrade(status, s)
	case errors.As(err, &garbled):
		return garbledUpgrade(garbled, s)
	case f.VMessBelow == Yes:
		return vmessBelow(s)
	case f.HTTP2 == Yes:
		return onlyHTTP2(s, "speaks only HTTP/2 and does not answer the WebSocket upgrade", Likely)
	case alerted:
		return refusedTLS(alert, s)
	case errors.As(err, &silent):
		return silentUpgrade(silent.After, s, f)
	case errno.IsTimeout(err):
		return silentUpgrade(0, s, f)
	case errors.Is(err, wsconn.ErrClosedEarly), isReset(err), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return cutUpgrade(err, s, f)
	}
	return Verdict{
		Cause: WSReset, Confidence: Possible,
		Sentence: "the WebSocket to " + s.server() + " could not be opened: " + clean(err.Error(), 80),
		Fix:      "check " + s.at("ws.path") + " and " + s.at("port"),
	}
}

func dns(e *netdial.Error, s ServerContext, f ConnectFacts) Verdict {
	name, resolver := clean(e.Addr, 60), asked(e.Err)
	sure, offline := Certain, ""
	if f.Online == No {
		offline = ", and this computer appears to be offline"
	}
	direct := `put the server's IP address into ` + s.at("address") + ` and its name into "ws.host" and "tls.serverName"`
	var d *net.DNSError
	switch found := errors.As(e.Err, &d); {
	case found && d.IsNotFound:
		return Verdict{
			Cause: DNSNotFound, Confidence: sure,
			Sentence: fmt.Sprintf("%s reports that the name %s does not exist", resolver, name),
			Fix:      "correct " + s.at("address") + "; if it is right, use another resolver: some networks block names",
		}
	case e.Timeout(), found && d.IsTimeout:
		return Verdict{
			Cause: DNSTimeout, Confidence: sure,
			Sentence: fmt.Sprintf("%s did not answer the query for %s%s", resolver, name, offline),
			Fix:      "check that this computer is online, and its DNS settings; or " + direct,
		}
	}
	why := ""
	if d != nil {
		why = " (" + clean(d.Err, 40) + ")"
	}
	return Verdict{
		Cause: DNSFailed, Confidence: sure,
		Sentence: fmt.Sprintf("%s cannot resolve %s%s%s", resolver, name, why, offline),
		Fix:      "try again, or use another resolver; or " + direct,
	}
}

// asked names the resolver.
func asked(err error) string {
	var d *net.DNSError
	if errors.As(err, &d) && d.Server != "" {
		return "the resolver " + clean(d.Server, 50)
	}
	return "this system's resolver"
}

func connect(e *netdial.Error, s ServerContext, f ConnectFacts) Verdict {
	v := connectVerdict(e, s, f)
	if e.Stale != nil {
		v.Confidence = min(v.Confidence, Likely)
		v.Sentence += "; its name currently does not resolve"
		v.Evidence = append(v.Evidence, "a previously resolved address was tried because: "+clean(e.Stale.Error(), 120))
	}
	return v
}

func connectVerdict(e *netdial.Error, s ServerContext, f ConnectFacts) Verdict {
	offline := f.Online == No || f.Online == Unknown && e.Stale != nil
	code := transport.CodeOf(e.Err)
	unreachable := code == transport.CodeNetworkUnreachable || code == transport.CodeHostUnreachable
	switch {
	case code == transport.CodeConnectionRefused && f.Worked:
		return Verdict{
			Cause: TCPRefused, Confidence: Certain,
			Sentence: s.server() + " refuses the connection: nothing is listening on that port any more",
			Fix:      "start the service on the server again, or wait for it to restart: requests wait for it as well",
		}
	case code == transport.CodeConnectionRefused:
		return Verdict{
			Cause: TCPRefused, Confidence: Certain,
			Sentence: s.server() + " refuses the connection: nothing is listening on that port",
			Fix:      "check " + s.at("port") + ", and that the service is running on the server",
		}
	case isReset(e.Err):
		return reset(s, "while connecting")
	case (e.Timeout() || unreachable) && offline:
		v := Verdict{
			Cause: TCPUnreachable, Confidence: Likely,
			Sentence: s.server() + " is unreachable: this computer appears to be offline",
			Fix:      "check this computer's network connection (cable, Wi-Fi, VPN)",
		}
		if e.Timeout() {
			v.Cause, v.Sentence = TCPTimeout, "no answer from "+s.server()+": this computer appears to be offline"
		}
		return v
	case e.Timeout():
		return Verdict{
			Cause: TCPTimeout, Confidence: Certain,
			Sentence: fmt.Sprintf("no answer from %s within %s: firewall, wrong address, or the server is down", s.server(), spoken(e.Took)),
			Fix:      "check " + s.at("address") + " and " + s.at("port") + ", the server's firewall, and whether the server is up",
		}
	case errno.IsPermission(e.Err):
		return Verdict{
			Cause: TCPUnreachable, Confidence: Certain,
			Sentence: "this computer does not allow the connection to " + s.server(),
			Fix:      "allow vmess-local in this computer's firewall or sandbox",
		}
	case unreachable:
		return Verdict{
			Cause: TCPUnreachable, Confidence: Certain,
			Sentence: "there is no route from this computer to " + s.server() + familyHint(s.Address),
			Fix:      "check this computer's network connection and " + s.at("address"),
		}
	}
	return Verdict{
		Cause: TCPUnreachable, Confidence: Possible,
		Sentence: "no connection to " + s.server() + ": " + clean(e.Err.Error(), 80),
		Fix:      "check " + s.at("address") + " and " + s.at("port"),
	}
}

// familyHint explains an IPv6 address in a network that has none.
func familyHint(address string) string {
	if ip := net.ParseIP(address); ip != nil && ip.To4() == nil {
		return " (an IPv6 address: does this network support IPv6?)"
	}
	return ""
}

func reset(s ServerContext, when string) Verdict {
	return Verdict{
		Cause: TCPReset, Confidence: Likely,
		Sentence: "the connection to " + s.server() + " was reset " + when + ": wrong port, or something on the path blocks it",
		Fix:      "check " + s.at("port") + "; if it works from another network, this one blocks the server or its name",
	}
}

// handshake judges a failed TLS handshake.
func handshake(e *netdial.Error, s ServerContext, f ConnectFacts) Verdict {
	var (
		cert   *netdial.CertificateError
		record tls.RecordHeaderError
	)
	alert, alerted := netdial.AlertOf(e.Err)
	switch {
	case errors.As(e.Err, &cert):
		return certificate(cert, s, f)
	case errors.As(e.Err, &record):
		return notTLS(s, "answers TLS with "+protocolOf(record.RecordHeader[:]), Certain)
	case alerted: // which only TLS servers send
		return refusedTLS(alert, s)
	case f.OtherTLS == Yes && isReset(e.Err): // or something cuts TLS by its name
		return notTLS(s, "resets TLS connections and answers plain HTTP", Likely)
	case f.OtherTLS == Yes:
		return notTLS(s, "answers plain HTTP but not TLS", Certain)
	case isReset(e.Err):
		return reset(s, "during the TLS handshake")
	case e.Timeout():
		v := Verdict{
			Cause: WSSilent, Confidence: Certain,
			Sentence: fmt.Sprintf("%s accepts the connection but does not answer the TLS handshake within %s", s.server(), spoken(e.Took)),
			Fix:      "check " + s.at("port") + " and " + s.at("tls.enabled") + "; if both are right, check the server: it hangs or is overloaded",
		}
		if f.Worked {
			v.Fix = hangs
		}
		return v
	case errors.Is(e.Err, io.EOF), errors.Is(e.Err, io.ErrUnexpectedEOF):
		return Verdict{
			Cause: TLSRefused, Confidence: Likely,
			Sentence: s.server() + " closed the connection during the TLS handshake",
			Fix:      "check " + s.at("port") + " and " + s.at("tls.serverName") + `, and that the server enables TLS 1.2 or later; a port that expects the PROXY protocol also hangs up`,
		}
	}
	return Verdict{
		Cause: TLSRefused, Confidence: Possible,
		Sentence: "the TLS handshake with " + s.server() + " failed: " + clean(e.Err.Error(), 80),
		Fix:      "check " + s.at("port") + " and " + s.at("tls.serverName"),
	}
}

func notTLS(s ServerContext, does string, sure Confidence) Verdict {
	return Verdict{
		Cause: TLSNotTLS, Confidence: sure,
		Sentence: s.server() + " " + does + ": the port does not speak TLS",
		Fix:      s.set("tls.enabled", "false") + ", or use the TLS port (usually 443) as " + s.at("port"),
	}
}

// refusedTLS judges an alert (RFC 8446 section 6). Ours is the side without a
// certificate, so those about certificates ask for one.
func refusedTLS(alert tls.AlertError, s ServerContext) Verdict {
	fix := "check " + s.at("tls.serverName") + " and " + s.at("port")
	switch uint8(alert) {
	case 112: // unrecognized_name
		fix = "correct " + s.at("tls.serverName") + ": the server has no site with that name"
	case 40: // handshake_failure; what Cloudflare sends for names that it does not have
		fix = "correct " + s.at("tls.serverName") + "; if it is right, configure the server to allow the usual ciphers for its certificate and not to require a client certificate"
	case 70: // protocol_version
		fix = "enable TLS 1.2 or 1.3 on the server: older versions are not supported"
	case 120: // no_application_protocol
		fix = `configure the server to accept HTTP/1.1 on this port (ALPN "http/1.1"): a WebSocket upgrade needs it, while h2 and gRPC transports are HTTP/2 only`
	case 42, 43, 44, 45, 46, 48, 116: // of bad_certificate to unknown_ca, certificate_required
		fix = "the server requires a client certificate, which is not supported: turn that off on the server (at a CDN's origin: connect through the CDN)"
	}
	return Verdict{
		Cause: TLSRefused, Confidence: Certain,
		Sentence: fmt.Sprintf("%s rejects the TLS handshake for the name %s: %s", s.server(), s.ServerName, alertText(alert)),
		Fix:      fix,
	}
}

func alertText(alert tls.AlertError) string {
	return fmt.Sprintf("alert %d, %s", uint8(alert), strings.TrimPrefix(alert.Error(), "tls: "))
}

// protocolOf names what begins with b.
func protocolOf(b []byte) string {
	text := string(b)
	switch {
	case strings.HasPrefix(text, "HTTP/"):
		return "plain HTTP"
	case strings.HasPrefix(text, "SSH-"):
		return "SSH"
	case strings.HasPrefix(text, "220"):
		return "a mail or FTP greeting"
	case isTLSRecord(b):
		return "TLS"
	case isHTTP2(b):
		return "HTTP/2"
	case len(b) == 0:
		return "nothing"
	}
	return fmt.Sprintf("unknown bytes (%.5q)", text)
}

// isTLSRecord recognises an alert or handshake record (RFC 8446 section 5.1).
func isTLSRecord(b []byte) bool {
	return len(b) >= 2 && (b[0] == 0x15 || b[0] == 0x16) && b[1] == 3
}

// isHTTP2 recognises the SETTINGS frame that HTTP/2 servers begin with (RFC
// 9113 section 3.4).
func isHTTP2(b []byte) bool { return len(b) >= 4 && b[0] == 0 && b[1] == 0 && b[3] == 4 }

func isReset(err error) bool { return transport.IsReset(err) }
