package diagnose

import (
	"fmt"
	"time"
)

// A ProbeResult is what came of one mux probe (docs/diagnosis.md 3b).
type ProbeResult uint8

// The results.
const (
	ProbeNotTried  ProbeResult = iota
	ProbeAccepted              // an authentic answer
	ProbePending               // a filled probe still open after two round trips: accepted for the time being
	ProbeRefused               // closed without an answer
	ProbeSilent                // open, but not filled: a server that drains looks the same
	ProbeBadAnswer             // an answer that does not decrypt
	ProbeFailed                // the way did not come about
)

// taken reports whether the server accepts such requests.
func (r ProbeResult) taken() bool { return r == ProbeAccepted || r == ProbePending }

// turnedDown reports whether it does not, as far as can be told.
func (r ProbeResult) turnedDown() bool { return r == ProbeRefused || r == ProbeSilent }

// String names the result.
func (r ProbeResult) String() string {
	names := [...]string{"not tried", "accepted", "held open", "refused", "silent", "unreadable answer", "server not reachable"}
	if int(r) < len(names) {
		return names[r]
	}
	return "?"
}

// AccountSignals are what probes found after a request was refused or stayed
// silent.
type AccountSignals struct {
	Configured      ProbeResult // in the configured mode, at this computer's clock
	Other           ProbeResult // in the other of VMessAEAD and MD5
	ServerTime      ProbeResult // in the configured mode, signed with the server's time
	OtherServerTime ProbeResult // in the other mode, with the server's time
	// Skew is this clock minus the server's by its Date; nil when it tells none.
	Skew *time.Duration
	// Drain tells whether the refused connection was closed after just the
	// number of bytes that belongs to our id.
	Drain Tristate
	// BadResponse: the user's own request got an answer that does not decrypt.
	BadResponse bool
	// EarlyDataLost: accepted without early data, lost with.
	EarlyDataLost bool
	// Failed of Attempts requests failed in this way; 0 when not counted.
	Failed, Attempts int
	// Destination is how the user's request ended, for when the account turns
	// out to be fine.
	Destination DestinationFacts
}

// Account judges a request that was refused or stayed silent. When the account
// is fine it returns what [Destination] says.
func Account(sig AccountSignals, s ServerContext) Verdict {
	v := account(sig, s)
	v.Evidence = append(v.Evidence, sig.evidence(s)...)
	if v.Basis == "" {
		v.Basis = attempts(sig.Failed, sig.Attempts)
	}
	return v
}

func account(sig AccountSignals, s ServerContext) Verdict {
	switch {
	case sig.EarlyDataLost:
		return earlyDataLost(s)
	case sig.Configured.taken() && sig.BadResponse:
		v := badResponse(s)
		v.Confidence = Likely
		v.Sentence = "the server's answer does not decrypt although it accepts us: something on the path corrupts it"
		return v
	case sig.Configured.taken():
		d := sig.Destination
		d.Account = sig.Configured
		return Destination(d, s)
	case sig.BadResponse, sig.Configured == ProbeBadAnswer:
		return badResponse(s)
	case sig.Other.taken():
		return wrongMode(sig.Other, s)
	case sig.Skew != nil && (sig.ServerTime.taken() || sig.OtherServerTime.taken()):
		return wrongClock(sig, s)
	case !sig.Configured.turnedDown():
		return undecided(sig, s)
	case sig.Drain == Yes:
		return knownButRefused(sig, s)
	case sig.Skew == nil, !sig.Other.turnedDown(), sig.Configured == ProbeSilent && sig.Other == ProbeSilent:
		return undecided(sig, s)
	case sig.Skew.Abs() > margin && !sig.ServerTime.turnedDown():
		return undecided(sig, s)
	}
	return unknownUser(sig, s)
}

func (sig AccountSignals) evidence(s ServerContext) []string {
	mode, other := "VMessAEAD", "MD5"
	if s.legacy() {
		mode, other = other, mode
	}
	facts := []string{fmt.Sprintf("probes: %s %s, %s %s", mode, sig.Configured, other, sig.Other)}
	if sig.ServerTime != ProbeNotTried || sig.OtherServerTime != ProbeNotTried {
		facts = append(facts, fmt.Sprintf("probes with the server's time: %s %s, %s %s", mode, sig.ServerTime, other, sig.OtherServerTime))
	}
	if sig.Skew == nil {
		facts = append(facts, "the server sends no Date header")
	} else {
		facts = append(facts, "this clock is "+ahead(*sig.Skew)+", according to the server's Date")
	}
	switch sig.Drain {
	case Yes:
		facts = append(facts, "the server closed after the number of bytes that belongs to this id")
	case No:
		facts = append(facts, "the server did not close after the number of bytes that belongs to this id")
	}
	return facts
}

func badResponse(s ServerContext) Verdict {
	return Verdict{
		Cause: VMessBadResponse, Confidence: Certain,
		Sentence: "the server's answer does not decrypt: it could not read the request, or is older than V2Ray 4.28.1",
		Fix:      "check that " + s.at("ws.path") + " leads to a VMess inbound of V2Ray 4.28.1 or later",
	}
}

// sure is how sure a probe's acceptance makes: a held one may yet be refused.
func sure(r ProbeResult) Confidence {
	if r == ProbeAccepted {
		return Certain
	}
	return Likely
}

func wrongMode(other ProbeResult, s ServerContext) Verdict {
	switch {
	case s.AlterID > 0: // what MD5 with the derived ids is refused for, nobody tells
		return Verdict{
			Cause: VMessAEADRequired, Confidence: Likely,
			Sentence: "the server refuses MD5 authentication and accepts VMessAEAD: it enforces that, or has another alterId for this id",
			Fix:      useAEAD(s),
		}
	case s.legacy():
		return Verdict{
			Cause: VMessAEADRequired, Confidence: sure(other),
			Sentence: "the server refuses MD5 authentication (it enforces VMessAEAD)",
			Fix:      useAEAD(s),
		}
	}
	return Verdict{
		Cause: VMessAEADUnsupported, Confidence: sure(other),
		Sentence: "the server refuses VMessAEAD and accepts only the old MD5 authentication",
		Fix:      "update the server to V2Ray 4.28.1 or later; until then set V2RAY_VMESS_AEAD_DISABLED=true, which is weaker: MD5 can be replayed and altered",
	}
}

// useAEAD says how to leave the legacy mode.
func useAEAD(s ServerContext) string {
	const unset = "unset V2RAY_VMESS_AEAD_DISABLED"
	switch {
	case s.AlterID > 0 && s.AEADDisabled:
		return s.set("alterId", "0") + " and " + unset
	case s.AlterID > 0:
		return s.set("alterId", "0")
	}
	return unset
}

func wrongClock(sig AccountSignals, s ServerContext) Verdict {
	if sig.Skew.Abs() <= margin {
		return Verdict{
			Cause: VMessRefused, Confidence: Possible,
			Sentence: "the server refused requests and then accepted one: its replay filter has occasional false positives",
			Fix:      `try again; if it happens often, restart V2Ray on the server ("heal.refused" resends such requests automatically)`,
		}
	}
	result := sig.ServerTime
	v := Verdict{
		Cause:    VMessClockSkew,
		Sentence: "this computer's clock is " + ahead(*sig.Skew) + " of the server's, and VMess allows 2 minutes",
		Fix:      "set this computer's clock (turn on automatic time)",
	}
	if *sig.Skew < 0 {
		v.Sentence = "this computer's clock is " + ahead(*sig.Skew) + " the server's, and VMess allows 2 minutes"
	}
	if !result.taken() {
		result = sig.OtherServerTime
		v.Fix += "; also, the server accepts only MD5: update it to V2Ray 4.28.1 or later"
		if s.legacy() {
			v.Fix = "set this computer's clock (turn on automatic time); also, the server requires VMessAEAD: " + useAEAD(s)
		}
	}
	v.Confidence = sure(result)
	return v
}

// knownButRefused judges a V2Ray server that knows the id and refuses.
func knownButRefused(sig AccountSignals, s ServerContext) Verdict {
	if sig.Skew != nil {
		return Verdict{
			Cause: VMessClockSkew, Confidence: Possible,
			Sentence: "the server knows the id but rejects this clock's time: most likely the server's own clock is wrong",
			Fix:      "set the clock of the machine that V2Ray runs on (a CDN or reverse proxy may report a different time)",
		}
	}
	return Verdict{
		Cause: VMessClockSkew, Confidence: Likely,
		Sentence: "the server knows the id but rejects the request: most likely this computer's clock is wrong",
		Fix:      "set this computer's clock (turn on automatic time); if it is right, check the server's clock",
	}
}

func unknownUser(sig AccountSignals, s ServerContext) Verdict {
	v := Verdict{
		Cause: VMessUnknownUser, Confidence: Likely,
		Sentence: "the server does not know this id: it rejects both VMessAEAD and MD5, and the clock is right",
		Fix:      "compare " + s.at("id") + " with the server's configuration, or ask for a new link: the user may have been deleted",
	}
	if s.AlterID > 0 {
		v.Fix = "compare " + s.at("id") + " and " + s.at("alterId") + " with the server's configuration, or ask for a new link: the user may have been deleted"
	}
	if sig.Skew.Abs() > margin {
		v.Sentence = "the server does not know this id, whatever the time; in addition, this computer's clock is " + ahead(*sig.Skew)
		v.Fix = "set this computer's clock first; then compare " + s.at("id") + " with the server's"
	}
	return v
}

func undecided(sig AccountSignals, s ServerContext) Verdict {
	v := Verdict{
		Cause: VMessRefused, Confidence: Possible,
		Sentence: "the server rejects us: either the id or this computer's clock is wrong (the server sends no Date header)",
		Fix:      "check this computer's clock, then " + s.at("id"),
	}
	switch {
	case sig.Configured == ProbeSilent && sig.Other == ProbeSilent:
		v.Sentence = "the server accepts the connection but never responds: either there is no VMess inbound at this path, or the id or clock is wrong"
		v.Fix = "check that " + s.at("ws.path") + " leads to a VMess inbound, then " + s.at("id") + " and this computer's clock"
	case !sig.Configured.turnedDown(), sig.Skew != nil && !sig.Other.turnedDown():
		v.Sentence = "the server rejected the request, and the follow-up probe failed"
	case sig.Skew != nil:
		v.Sentence = "the server rejects us, and this computer's clock is " + ahead(*sig.Skew)
		v.Fix = "set this computer's clock first; then compare " + s.at("id") + " with the server's"
	}
	if s.AlterID > 0 {
		v.Fix += ", and " + s.set("alterId", "0") + ": servers since 2022 require that"
	}
	return v
}
