package diagnose_test

import (
	"testing"
	"time"

	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/transport/netaddr"
)

func accountCases(t *testing.T) []judged {
	const (
		possible = diagnose.Possible
		likely   = diagnose.Likely
		certain  = diagnose.Certain

		refused  = diagnose.ProbeRefused
		silent   = diagnose.ProbeSilent
		accepted = diagnose.ProbeAccepted
		held     = diagnose.ProbePending
		failed   = diagnose.ProbeFailed
		yes      = diagnose.Yes
		no       = diagnose.No
	)
	aead, alter := fixture(t, 0, true), fixture(t, 64, true)
	byVariable, both := aead, alter
	byVariable.AEADDisabled, both.AEADDisabled = true, true
	type signals = diagnose.AccountSignals
	off := func(d time.Duration) *time.Duration { return &d }
	right := off(time.Second)
	var cases []judged
	add := func(name string, sig signals, s diagnose.ServerContext, c diagnose.Cause, sure diagnose.Confidence) {
		cases = append(cases, judged{"account: " + name, c, sure, diagnose.Account(sig, s)})
	}

	// The mode.
	add("MD5 by alterId, AEAD accepted", signals{Configured: refused, Other: accepted, Failed: 3, Attempts: 3}, alter, diagnose.VMessAEADRequired, likely)
	add("MD5 by the variable, AEAD accepted", signals{Configured: silent, Other: accepted}, byVariable, diagnose.VMessAEADRequired, certain)
	add("MD5 by both, AEAD held open", signals{Configured: silent, Other: held}, both, diagnose.VMessAEADRequired, likely)
	add("AEAD, MD5 accepted", signals{Configured: refused, Other: accepted, Skew: right}, aead, diagnose.VMessAEADUnsupported, certain)

	// The clock.
	add("clock ahead", signals{Configured: refused, Other: refused, ServerTime: accepted, Skew: off(5 * time.Minute)}, aead, diagnose.VMessClockSkew, certain)
	add("clock behind", signals{Configured: refused, Other: refused, ServerTime: accepted, Skew: off(-5 * time.Minute)}, aead, diagnose.VMessClockSkew, certain)
	add("clock ahead, held open", signals{Configured: refused, Other: silent, ServerTime: held, Skew: off(time.Hour)}, aead, diagnose.VMessClockSkew, likely)
	add("clock and MD5", signals{Configured: refused, Other: refused, ServerTime: refused, OtherServerTime: accepted, Skew: off(time.Hour)}, alter, diagnose.VMessClockSkew, certain)
	add("clock and AEAD", signals{Configured: refused, Other: refused, ServerTime: refused, OtherServerTime: accepted, Skew: off(time.Hour)}, aead, diagnose.VMessClockSkew, certain)
	add("no Date, our count", signals{Configured: refused, Other: refused, Drain: yes}, aead, diagnose.VMessClockSkew, likely)
	add("Date agrees, our count", signals{Configured: refused, Other: refused, Drain: yes, Skew: right}, aead, diagnose.VMessClockSkew, possible)

	// The id.
	add("nobody accepts, clock right", signals{Configured: refused, Other: refused, Skew: right, Failed: 2, Attempts: 2}, aead, diagnose.VMessUnknownUser, likely)
	add("nobody accepts, clock right, alterId", signals{Configured: silent, Other: refused, Skew: right, Drain: no}, alter, diagnose.VMessUnknownUser, likely)
	add("nobody accepts at any time", signals{Configured: refused, Other: silent, ServerTime: refused, OtherServerTime: refused, Skew: off(-time.Hour)}, aead, diagnose.VMessUnknownUser, likely)

	// Undecided: neither id nor clock is blamed alone.
	add("no Date", signals{Configured: refused, Other: refused}, aead, diagnose.VMessRefused, possible)
	add("no Date, another count, alterId", signals{Configured: refused, Other: refused, Drain: no}, alter, diagnose.VMessRefused, possible)
	add("clock off, server's time not tried", signals{Configured: refused, Other: refused, Skew: off(time.Hour)}, aead, diagnose.VMessRefused, possible)
	add("all silent", signals{Configured: silent, Other: silent, Skew: right}, aead, diagnose.VMessRefused, possible)
	add("other mode not tried", signals{Configured: refused, Skew: right}, aead, diagnose.VMessRefused, possible)
	add("probes did not come through", signals{Configured: failed, Other: failed}, aead, diagnose.VMessRefused, possible)
	add("nothing tried", signals{}, aead, diagnose.VMessRefused, possible)
	add("refused once, then not", signals{Configured: refused, ServerTime: accepted, Skew: right}, aead, diagnose.VMessRefused, possible)

	// The answer.
	add("unreadable probe", signals{Configured: diagnose.ProbeBadAnswer}, aead, diagnose.VMessBadResponse, certain)
	add("unreadable request", signals{Configured: refused, Other: refused, BadResponse: true}, aead, diagnose.VMessBadResponse, certain)
	add("unreadable once, account fine", signals{Configured: accepted, BadResponse: true}, aead, diagnose.VMessBadResponse, likely)
	early := aead
	early.EarlyData = 2048
	add("early data lost", signals{Configured: accepted, EarlyDataLost: true}, early, diagnose.WSEarlyDataRefused, certain)

	// The account is fine, so it is not blamed.
	add("fine, destination silent", signals{Configured: accepted, Skew: right}, aead, diagnose.DestinationNoAnswer, likely)
	add("fine for the time being", signals{Configured: held, Skew: off(time.Hour)}, aead, diagnose.DestinationNoAnswer, possible)
	add("fine, closed without a word", signals{Configured: accepted, Destination: diagnose.DestinationFacts{End: diagnose.NoWord}}, alter, diagnose.DestinationRefused, likely)
	return cases
}

func destinationCases(t *testing.T) []judged {
	const (
		possible = diagnose.Possible
		likely   = diagnose.Likely
	)
	type facts = diagnose.DestinationFacts
	s := fixture(t, 0, true)
	addr := func(host string) netaddr.Addr {
		a, err := netaddr.FromHost(host, 8443)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	var cases []judged
	add := func(name string, f facts, c diagnose.Cause, sure diagnose.Confidence) {
		cases = append(cases, judged{"destination: " + name, c, sure, diagnose.Destination(f, s)})
	}
	add("no data", facts{End: diagnose.NoData, After: time.Second}, diagnose.DestinationRefused, likely)
	add("no data, a name", facts{End: diagnose.NoData, To: addr("www.example.net"), Show: true}, diagnose.DestinationRefused, likely)
	add("no data, an address", facts{End: diagnose.NoData, To: addr("192.0.2.7"), Show: true}, diagnose.DestinationRefused, likely)
	add("no data, a private address", facts{End: diagnose.NoData, To: addr("192.168.1.1"), Show: true}, diagnose.DestinationRefused, possible)
	add("no data, a local name", facts{End: diagnose.NoData, To: addr("printer"), Show: true}, diagnose.DestinationUnresolvable, likely)
	add("no data, a local name untold", facts{End: diagnose.NoWord, To: addr("nas.local")}, diagnose.DestinationUnresolvable, likely)
	add("no data, home.arpa", facts{End: diagnose.NoData, To: addr("nas.home.arpa.")}, diagnose.DestinationUnresolvable, likely)
	add("given up", facts{End: diagnose.GivenUp, After: 11 * time.Second, To: addr("192.168.1.1")}, diagnose.DestinationNoAnswer, likely)
	add("no word, known account", facts{End: diagnose.NoWord, To: addr("www.example.net")}, diagnose.DestinationRefused, possible)
	add("no word, probed", facts{End: diagnose.NoWord, Account: diagnose.ProbeAccepted}, diagnose.DestinationRefused, likely)
	add("broken off", facts{End: diagnose.Broke, After: 11 * time.Second, To: addr("192.168.1.1")}, diagnose.DestinationReset, diagnose.Certain)
	add("broken off in a session", facts{End: diagnose.BrokeSession, To: addr("192.168.1.1")}, diagnose.DestinationReset, likely)
	add("held up others", facts{End: diagnose.HeldUp, After: 11 * time.Second, To: addr("192.168.1.1")}, diagnose.DestinationStalled, diagnose.Certain)
	add("not read", facts{End: diagnose.NotRead, After: time.Minute, To: addr("192.168.1.1")}, diagnose.LocalStalled, diagnose.Certain)
	add("silent", facts{After: 12 * time.Second, To: addr("www.example.net"), Show: true}, diagnose.DestinationNoAnswer, likely)
	add("silent, private", facts{To: addr("fd00::1"), Show: true}, diagnose.DestinationNoAnswer, likely)
	add("silent, held probe", facts{Account: diagnose.ProbePending}, diagnose.DestinationNoAnswer, possible)
	return cases
}
