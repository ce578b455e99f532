package diagnose_test

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/diagnose"
)

func reports(t *testing.T) map[string]*diagnose.Report {
	well := &diagnose.Report{Server: "vps"}
	well.Add(diagnose.StepConfiguration, diagnose.Pass, 0, "config.json")
	well.Add(diagnose.StepDNS, diagnose.Pass, 12*time.Millisecond+340*time.Microsecond, "vps.example.com is 192.0.2.7")
	well.Add(diagnose.StepTCP, diagnose.Pass, 38*time.Millisecond, "192.0.2.7:443")
	well.Add(diagnose.StepTLS, diagnose.Pass, 41*time.Millisecond, "TLS 1.3, <valid> until 2026-12-30")
	well.Add(diagnose.StepUpgrade, diagnose.Pass, 40*time.Millisecond, "")
	well.Add(diagnose.StepAccount, diagnose.Pass, 1040*time.Millisecond, "accepted with VMessAEAD")
	well.Add(diagnose.StepClock, diagnose.Pass, 900*time.Microsecond, "0.3 s ahead of the server")
	well.Complete()

	failed := &diagnose.Report{}
	failed.Add(diagnose.StepConfiguration, diagnose.Pass, 0, "config.json")
	failed.Add(diagnose.StepDNS, diagnose.Skip, 0, "an IP address")
	failed.Add(diagnose.StepTCP, diagnose.Fail, 3*time.Millisecond, "connection\x1b[31m\nrefused")
	failed.Verdict, _ = diagnose.Connect(step(netdial.StepTCP, errno(syscall.ECONNREFUSED)), fixture(t, 0, true), diagnose.ConnectFacts{Failed: 1, Attempts: 1})
	failed.Complete()

	hinted := &diagnose.Report{}
	hinted.Add(diagnose.StepUDP, diagnose.Fail, 0, "no datagram came back")

	healed := &diagnose.Report{Healing: diagnose.Healing{Clock: true, AEAD: true}}
	healed.Add(diagnose.StepConfiguration, diagnose.Pass, 0, "config.json")
	healed.Add(diagnose.StepAccount, diagnose.Heal, 40*time.Millisecond, "refused as configured, accepted once the client "+healed.Healing.String())
	skew := time.Hour
	healed.Add(diagnose.StepClock, diagnose.Heal, 2*time.Millisecond, diagnose.ClockDetail(skew))
	sig := diagnose.AccountSignals{
		Configured: diagnose.ProbeRefused, Other: diagnose.ProbeRefused, OtherServerTime: diagnose.ProbeAccepted, Skew: &skew,
	}
	healed.Verdict = diagnose.Account(sig, fixture(t, 4, true))
	healed.Complete()
	worse := *healed
	worse.Add(diagnose.StepDestination, diagnose.Fail, 0, "")
	return map[string]*diagnose.Report{"well": well, "failed": failed, "hinted": hinted, "healed": healed, "healed-in-vain": &worse}
}

func TestReport(t *testing.T) {
	for name, r := range reports(t) {
		var text, data strings.Builder
		if err := r.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		if err := r.WriteJSON(&data); err != nil {
			t.Fatal(err)
		}
		golden(t, filepath.Join("testdata", "check-"+name+".txt"), text.String())
		golden(t, filepath.Join("testdata", "check-"+name+".json"), data.String())
		var back struct {
			OK      bool
			Steps   []struct{ Name, Status string }
			Verdict *struct{ Cause, Fix, Confidence string }
			Healed  string
		}
		if err := json.Unmarshal([]byte(data.String()), &back); err != nil {
			t.Fatal(err)
		}
		if back.OK != (name == "well") || r.OK() != back.OK || (back.Verdict != nil) != (r.Verdict.Cause != "") {
			t.Errorf("%s: %+v", name, back)
		}
		if said := strings.Contains(text.String(), "\nhealed: "); said != (name == "healed") || said != (back.Healed != "") {
			t.Errorf("%s: %q\n%s", name, back.Healed, text.String())
		}
	}
}

func TestClockDetail(t *testing.T) {
	for skew, want := range map[time.Duration]string{
		300 * time.Millisecond: "this computer and the server agree",
		2 * time.Second:        "this computer is 2 s ahead of the server",
		-time.Hour:             "this computer is 1 h behind the server",
	} {
		if got := diagnose.ClockDetail(skew); got != want {
			t.Errorf("%v: %q, want %q", skew, got, want)
		}
	}
}

func TestReportHasAllSteps(t *testing.T) {
	r := new(diagnose.Report)
	r.Complete()
	r.Complete()
	if len(r.Steps) != 9 || r.Steps[0].Name != "configuration" || r.Steps[8].Name != "udp" || !r.OK() {
		t.Errorf("%+v", r.Steps)
	}
}

// Failures that do not build on each other are all told, and what should be
// mended does not make a check fail.
func TestReportOthers(t *testing.T) {
	r := &diagnose.Report{Verdict: diagnose.Verdict{Cause: diagnose.TLSExpired, Sentence: "one", Fix: "mend it", Confidence: diagnose.Certain}}
	r.Others = []diagnose.Verdict{{Cause: diagnose.ListenInUse, Sentence: "two", Fix: "stop it", Confidence: diagnose.Certain}}
	r.Add("certificate", diagnose.Fail, 0, "")
	r.Add("listen", diagnose.Fail, 0, "")
	var text, data strings.Builder
	if err := errors.Join(r.WriteText(&text), r.WriteJSON(&data)); err != nil {
		t.Fatal(err)
	}
	const want = "fail  certificate\nfail  listen\n\nerror: tls.expired: one [certain]\nfix: mend it\nerror: listen.in-use: two\nfix: stop it\n"
	if text.String() != want || !strings.Contains(data.String(), `"others": [`) || r.OK() {
		t.Errorf("%s\n%s", text.String(), data.String())
	}
	warned := new(diagnose.Report)
	warned.Add("key", diagnose.Warn, 0, "others can read it")
	text.Reset()
	if err := warned.WriteText(&text); err != nil || !warned.OK() || text.String() != "warn  key    others can read it\n\nit works, but fix what is marked warn\n" {
		t.Errorf("%v, %q", err, text.String())
	}
	if text.Reset(); diagnose.WriteReports(&text, []*diagnose.Report{warned, r}) != nil || !strings.HasPrefix(text.String(), "{\n  \"ok\": false,\n  \"servers\": [\n") {
		t.Errorf("%s", text.String())
	}
}
