package diagnose

import (
	"strings"
	"time"

	"vmess-local/pkg/transport/netaddr"
)

// An End is how a request ended beyond an account that is fine.
type End uint8

// The ends.
const (
	StillSilent  End = iota // nothing has come back yet, or ever did
	NoData                  // an authentic answer that ended without data
	NoWord                  // closed without any answer
	GivenUp                 // closed without any answer, by a server that waited for one in vain
	Broke                   // broken off by the destination, as vmess-server says
	BrokeSession            // a Mux.Cool session was ended with an error in use
	HeldUp                  // it did not take what was sent, and held up other sessions, as vmess-server says
	NotRead                 // the program did not read what came, and held up other sessions
)

// DestinationFacts are what is known of a request that the server accepted.
type DestinationFacts struct {
	End   End
	After time.Duration // from the request to its end, or to now
	// Account is what a probe found: not tried where the server's answer to
	// the request itself, or to an earlier one, proves the account.
	Account ProbeResult
	// To is the destination. It is only looked at, and named if Show is set:
	// destinations are private.
	To   netaddr.Addr
	Show bool
}

// Destination judges a request that brought no data though the account is
// fine.
func Destination(f DestinationFacts, s ServerContext) Verdict {
	v := destination(f)
	if f.Account == ProbePending {
		v.Confidence = Possible
	}
	v.Evidence = append(v.Evidence, "the account at "+s.server()+" works")
	switch {
	case f.After <= 0:
	case f.End == StillSilent:
		v.Evidence = append(v.Evidence, "nothing came back within "+spoken(f.After))
	default:
		v.Evidence = append(v.Evidence, "the request ended after "+spoken(f.After))
	}
	return v
}

func destination(f DestinationFacts) Verdict {
	what := "the destination"
	if f.Show && f.To.IsValid() {
		what = clean(f.To.String(), 60)
	}
	local := f.To.IsName() && localName(f.To.Host())
	private := f.To.IsValid() && !f.To.IsName() && (f.To.IP().IsPrivate() || f.To.IP().IsLoopback() || f.To.IP().IsLinkLocalUnicast())
	switch {
	case f.End == StillSilent && private:
		return Verdict{
			Cause: DestinationNoAnswer, Confidence: Likely,
			Sentence: "the server accepted the request, but " + what + " is a private address: many servers silently drop those",
			Fix:      "exempt private addresses from the proxy in your browser or system",
		}
	case f.End == StillSilent:
		return Verdict{
			Cause: DestinationNoAnswer, Confidence: Likely,
			Sentence: "the server accepted the request; " + what + " does not answer" + since(f.After),
			Fix:      "try another destination; if none answers, check the server's own internet connection",
		}
	case f.End == Broke, f.End == BrokeSession:
		v := Verdict{
			Cause: DestinationReset, Confidence: Certain,
			Sentence: what + " reset the connection (reported by the server); the path to the server is fine",
			Fix:      "try again; if it happens every time, the destination is faulty or forbids the request",
		}
		if f.End == BrokeSession {
			v.Confidence = Likely // the server may have had a reason of its own
		}
		return v
	case f.End == HeldUp:
		return Verdict{
			Cause: DestinationStalled, Confidence: Certain,
			Sentence: what + " accepted no data for 10 s and blocked the other connections of its Mux tunnel, so the server closed this one",
			Fix:      `set "enabled": false in "mux" if you send much to slow destinations`,
		}
	case f.End == NotRead:
		return Verdict{
			Cause: LocalStalled, Confidence: Certain,
			Sentence: "a program read nothing of what " + what + " sent for 10 s; that held up the other connections of its Mux tunnel, so this one was ended",
			Fix:      `set "enabled": false in "mux" if you pause downloads or videos`,
		}
	case f.End == GivenUp:
		return Verdict{
			Cause: DestinationNoAnswer, Confidence: Likely,
			Sentence: "the server accepted the request and gave up after " + spoken(f.After) + ": " + what + " had not answered",
			Fix: `try another destination; if its answers take that long, raise "connIdle" (where the application ends its side first: "downlinkOnly") ` +
				"in the policy of the server's V2Ray",
		}
	case local:
		return Verdict{
			Cause: DestinationUnresolvable, Confidence: Likely,
			Sentence: "the server accepted the request but cannot resolve " + what + ": the name belongs to a local network",
			Fix:      "exempt local names from the proxy in your browser or system, or use a public name",
		}
	case private:
		return Verdict{
			Cause: DestinationRefused, Confidence: Possible,
			Sentence: "the server accepted us; " + what + " refused it, or is a private address that the server does not allow",
			Fix:      "check the address and port; the server can allow private addresses (egress.allowPrivate in vmess-server)",
		}
	}
	v := Verdict{
		Cause: DestinationRefused, Confidence: Likely,
		Sentence: "the server accepted us; " + what + " refused it, or its name does not resolve there",
		Fix:      "check the destination's name and port; see the server's log",
	}
	if f.To.IsValid() && !f.To.IsName() {
		v.Sentence = "the server accepted us; " + what + " refused the server's connection"
	}
	if f.End == NoWord && f.Account == ProbeNotTried {
		v.Confidence = Possible
	}
	return v
}

func since(d time.Duration) string {
	if d < time.Second {
		return ""
	}
	return " (" + spoken(d) + " so far)"
}

// localName reports whether only a local network can know a name: it has no
// dot, or a suffix that is reserved for that (RFC 6761, RFC 6762, RFC 8375).
func localName(name string) bool {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	top := name[strings.LastIndexByte(name, '.')+1:]
	switch top {
	case name, "local", "localhost", "lan", "home", "internal", "intranet", "corp", "test", "invalid", "onion":
		return true
	}
	return strings.HasSuffix(name, ".home.arpa")
}
