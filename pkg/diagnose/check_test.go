package diagnose_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/netdial"
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
	failed.Verdict, _ = diagnose.Way(step(netdial.StepTCP, errno(syscall.ECONNREFUSED)), fixture(t, 0, true), diagnose.WayFacts{Failed: 1, Attempts: 1})
	failed.Complete()

	hinted := &diagnose.Report{}
	hinted.Add(diagnose.StepUDP, diagnose.Fail, 0, "no datagram came back")
	return map[string]*diagnose.Report{"well": well, "failed": failed, "hinted": hinted}
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
		}
		if err := json.Unmarshal([]byte(data.String()), &back); err != nil {
			t.Fatal(err)
		}
		if back.OK != (name == "well") || r.OK() != back.OK || (back.Verdict != nil) != (name == "failed") {
			t.Errorf("%s: %+v", name, back)
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
