package diagnose

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/transport"
)

// upstream judges a failure at the company proxy.
func upstream(e *netdial.Error, s ServerContext) Verdict {
	proxy := "the proxy " + first(s.Upstream, clean(e.Addr, 60))
	key := s.at("/upstream")
	var answer *netdial.UpstreamError
	if errors.As(e.Err, &answer) {
		return upstreamAnswer(answer, s, proxy, key)
	}
	v := Verdict{Cause: UpstreamFailed, Confidence: Certain, Fix: "check " + key + ", and that you are on the network the proxy belongs to"}
	var d *net.DNSError
	switch {
	case errors.Is(e.Err, netdial.ErrUpstreamScheme), errors.Is(e.Err, netdial.ErrUpstreamHost):
		v.Sentence = clean(e.Err.Error(), 120)
		v.Fix = `write "http://HOST:PORT" or "socks5://HOST:PORT" as ` + key
	case errors.Is(e.Err, netdial.ErrUpstreamLoop):
		v.Cause = UpstreamLoop
		v.Sentence = proxy + " is this program itself"
		v.Fix = "set your network's proxy as " + key + `, or leave it empty if there is none; with "env" check HTTP_PROXY and HTTPS_PROXY`
	case errors.As(e.Err, &d) && d.IsNotFound:
		v.Sentence = "the name of " + proxy + " does not exist"
	case e.Step == netdial.StepDNS:
		v.Sentence = "the name of " + proxy + " cannot be resolved"
	case e.Timeout():
		v.Sentence = fmt.Sprintf("no answer from %s within %s", proxy, spoken(e.Took))
	case transport.CodeOf(e.Err) == transport.CodeConnectionRefused:
		v.Sentence = proxy + " is not running: its port refuses the connection"
	case e.Step == netdial.StepTCP:
		v.Sentence = proxy + " cannot be reached"
	default:
		v.Sentence = proxy + " closed the connection without an answer"
		v.Confidence = Likely
	}
	return v
}

func upstreamAnswer(a *netdial.UpstreamError, s ServerContext, proxy, key string) Verdict {
	switch {
	case a.Auth:
		return upstreamAuth(a, proxy, key)
	case a.Status == 0:
		return Verdict{
			Cause: UpstreamFailed, Confidence: Certain,
			Sentence: proxy + " sent an unexpected answer: is it a proxy of that type?",
			Fix:      "check the scheme (http or socks5), host and port of " + key,
		}
	case a.Status == 2, a.Status >= 400 && a.Status < 500 && a.Status != 408 && a.Status != 429:
		return Verdict{
			Cause: UpstreamRefused, Confidence: Certain,
			Sentence: fmt.Sprintf("%s refuses to connect to %s: %s", proxy, s.server(), answerText(a)),
			Fix:      "ask for the server to be allowed there, or use a port that the proxy allows (usually 443) as " + s.at("port"),
		}
	}
	return Verdict{
		Cause: UpstreamFailed, Confidence: Certain,
		Sentence: fmt.Sprintf("%s cannot reach %s: %s", proxy, s.server(), answerText(a)),
		Fix:      "check " + s.at("address") + " and " + s.at("port") + ", and that the server is up",
	}
}

func upstreamAuth(a *netdial.UpstreamError, proxy, key string) Verdict {
	offers := ""
	if len(a.Schemes) > 0 {
		offers = " (it offers " + clean(listed(a.Schemes, 4), 60) + ")"
	}
	v := Verdict{
		Cause: UpstreamAuth, Confidence: Certain,
		Sentence: proxy + " requires a username and password (or rejected these)" + offers,
		Fix:      "write them into " + key + ", before the host: USER:PASSWORD@HOST:PORT",
	}
	if len(a.Schemes) > 0 && !strings.Contains(strings.ToLower(strings.Join(a.Schemes, " ")), "basic") {
		v.Sentence = proxy + " requires an unsupported authentication scheme" + offers
		v.Fix = "run a helper that supports it, such as cntlm or px, and set it in " + key
	}
	return v
}

func answerText(a *netdial.UpstreamError) string {
	if a.Status < 100 { // SOCKS, whose codes say nothing to people
		return clean(a.Text, 60)
	}
	return clean(fmt.Sprintf("%d %s", a.Status, a.Text), 60)
}
