package diagnose_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
)

var update = flag.Bool("update", false, "write the expected files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The marked secrets of every setting in these tests.
const (
	secretID       = "5ec2e75e-c2e7-5ec2-e75e-c2e75ec2e75e"
	secretUser     = "sekritUser"
	secretPassword = "sekritPassword"
	secretQuery    = "sekritQuery"
)

// A judged is one verdict of the table: what must come of it, and what did.
type judged struct {
	name  string
	cause diagnose.Cause // "" for no verdict
	sure  diagnose.Confidence
	got   diagnose.Verdict
}

// fixture is a configuration with places and marked secrets.
func fixture(t *testing.T, alterID int, tlsEnabled bool) diagnose.ServerContext {
	t.Helper()
	text := fmt.Sprintf(`{
  "listen": "127.0.0.1:1080",
  "auth": {"username": %q, "password": %q},
  "upstream": "http://%s:%s@proxy.corp:3128",
  "server": {
    "address": "vps.example.com",
    "port": 443,
    "id": %q,
    "alterId": %d,
    "ws": {"path": "/ray", "host": "cdn.example.com", "earlyData": 0},
    "tls": {"enabled": %v, "serverName": "sni.example.com"}
  }
}`, secretUser, secretPassword, secretUser, secretPassword, secretID, alterID, tlsEnabled)
	cfg, err := config.ParseClient("config.json", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return diagnose.ServerContextOf(cfg, "server", &cfg.Server)
}

func all(t *testing.T) []judged {
	t.Helper()
	return slices.Concat(wayCases(t), certificateCases(t), upgradeCases(t), accountCases(t),
		tunnelCases(t), destinationCases(t), localCases(), configCases(t))
}

// TestVerdicts holds every case against its cause and confidence, which stand
// beside it, and its words, which stand in testdata.
func TestVerdicts(t *testing.T) {
	var words strings.Builder
	seen := map[string]bool{}
	for _, c := range all(t) {
		if seen[c.name] {
			t.Errorf("two cases are called %q", c.name)
		}
		seen[c.name] = true
		if c.got.Cause != c.cause || c.got.Confidence != c.sure && c.cause != "" {
			t.Errorf("%s: got %s (%s), want %s (%s)\n%s", c.name, c.got.Cause, c.got.Confidence, c.cause, c.sure, c.got.Sentence)
		}
		if c.cause != "" {
			fmt.Fprintf(&words, "# %s\n%s\n%s\n\n", c.name, c.got.Line(), c.got.FixLine())
		}
	}
	golden(t, filepath.Join("testdata", "verdicts.txt"), words.String())
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(string(data), "\r\n", "\n")
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		a, b := at(g, i), at(w, i)
		if a != b {
			t.Fatalf("%s:%d differs (go test -update writes it anew):\ngot  %s\nwant %s", file, i+1, a, b)
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(nothing)"
}

// TestEveryCause: each cause of the table can come about, and none other does.
func TestEveryCause(t *testing.T) {
	missing := map[diagnose.Cause]bool{}
	for _, info := range diagnose.Causes() {
		if missing[info.Cause] {
			t.Errorf("%s stands twice in the table", info.Cause)
		}
		missing[info.Cause] = true
		if info.Means == "" || info.Signs == "" || info.Fix == "" {
			t.Errorf("%s is not explained", info.Cause)
		}
	}
	known := maps.Clone(missing)
	for _, c := range all(t) {
		if c.cause != "" && !known[c.got.Cause] {
			t.Errorf("%s: the cause %q is not in the table", c.name, c.got.Cause)
		}
		delete(missing, c.got.Cause)
	}
	if len(missing) > 0 {
		t.Errorf("no case brings about %v", slices.Collect(maps.Keys(missing)))
	}
}

// TestForm: two lines at most, each of a length people read, and a fix always.
func TestForm(t *testing.T) {
	for _, c := range all(t) {
		if c.got.IsZero() {
			continue
		}
		v := c.got
		if n := utf8.RuneCountInString(v.Sentence); n == 0 || n > 160 {
			t.Errorf("%s: the sentence has %d characters", c.name, n)
		}
		if n := utf8.RuneCountInString(v.Fix); n < 5 || n > 260 {
			t.Errorf("%s: the fix has %d characters", c.name, n)
		}
		for _, text := range append([]string{v.Sentence, v.Fix, v.Basis}, v.Evidence...) {
			if strings.ContainsAny(text, "\r\n\t\x1b") || strings.HasSuffix(text, ".") || strings.TrimSpace(text) != text || strings.Contains(text, "%!") {
				t.Errorf("%s: bad form: %q", c.name, text)
			}
		}
	}
}

func TestNoSecrets(t *testing.T) {
	for _, c := range all(t) {
		text, err := json.Marshal(c.got)
		if err != nil {
			t.Fatal(err)
		}
		whole := string(text) + c.got.Line() + c.got.FixLine() + fmt.Sprintf("%+v %#v", c.got, c.got)
		for _, secret := range []string{"sekrit", secretID, secretID[:8]} {
			if strings.Contains(whole, secret) {
				t.Errorf("%s shows a secret: %s", c.name, whole)
			}
		}
	}
	if s := fmt.Sprintf("%+v", fixture(t, 0, true)); strings.Contains(s, "sekrit") || strings.Contains(s, secretID) {
		t.Errorf("the setting holds a secret: %s", s)
	}
}

func TestLine(t *testing.T) {
	v := diagnose.Verdict{Cause: diagnose.VMessAEADRequired, Confidence: diagnose.Certain, Sentence: "so", Fix: "do", Basis: "3 of 3 attempts"}
	for got, want := range map[string]string{
		v.Line():                                "vmess.aead-required: so [3 of 3 attempts; certain]",
		v.FixLine():                             "fix: do",
		diagnose.RepeatLine(v, 37, time.Minute): "vmess.aead-required: again 37 times in 60 s",
		diagnose.RepeatLine(v, 1, 20*time.Minute):                "vmess.aead-required: again 1 time in 20 min",
		diagnose.RepeatLine(v, 2, 59*time.Minute+29*time.Second): "vmess.aead-required: again 2 times in 59 min",
		diagnose.RepeatLine(v, 3, time.Hour-time.Millisecond):    "vmess.aead-required: again 3 times in 1 h",
		diagnose.RepeatLine(v, 4, 90*time.Minute):                "vmess.aead-required: again 4 times in 1.5 h",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	text, err := json.Marshal(v)
	if want := `{"cause":"vmess.aead-required","confidence":"certain","sentence":"so","fix":"do","basis":"3 of 3 attempts"}`; err != nil || string(text) != want {
		t.Errorf("got %s, %v", text, err)
	}
}

func TestHealed(t *testing.T) {
	s := fixture(t, 64, true)
	for got, want := range map[string]string{
		diagnose.HealedClock(312*time.Second + 200*time.Millisecond): "healed: vmess.clock-skew: signing with the server's time, this clock is 312 s ahead",
		diagnose.HealedClock(-time.Hour):                             "healed: vmess.clock-skew: signing with the server's time, this clock is 3600 s behind",
		diagnose.HealedAEAD(s):                                       `healed: vmess.aead-required: using VMessAEAD, the server refuses MD5; to make it permanent: set "alterId": 0 at config.json:9:16`,
		diagnose.HealedEarlyData(s):                                  `healed: ws.early-data-refused: continuing without early data; to make it permanent: set "ws.earlyData": 0 at config.json:10:68`,
		diagnose.HintBareAddresses():                                 "hint: a program resolves names itself before using the proxy, so its DNS server sees what you visit: use \"socks5h\", or turn on \"proxy DNS\" in that program",
		diagnose.HealedRefused(1):                                    "healed: vmess.refused: 1 request refused by the server's replay filter sent again",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestPlaces: the same fix for a file that has the key, one that has not, and
// a link, which has no file.
func TestPlaces(t *testing.T) {
	text := `{"server": {"address": "a", "port": 1, "id": "` + secretID + `"}}`
	cfg, err := config.ParseClient("my.json", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	refused := diagnose.AccountSignals{Configured: diagnose.ProbeRefused, Other: diagnose.ProbeAccepted}
	absent := diagnose.ServerContextOf(cfg, "server", &cfg.Server)
	absent.AlterID = 4
	link := diagnose.ServerContext{Address: "a", Port: 1, AlterID: 4}
	for _, c := range []struct {
		s    diagnose.ServerContext
		want string
	}{
		{fixture(t, 4, true), `set "alterId": 0 at config.json:9:16`},
		{absent, `set "alterId": 0 in "server" of my.json`},
		{link, `set "alterId": 0 in the file that "vmess-local link import LINK -o config.json" writes`},
	} {
		if got := diagnose.Account(refused, c.s).Fix; got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	unknown := diagnose.AccountSignals{Configured: diagnose.ProbeRefused, Other: diagnose.ProbeRefused, Skew: new(time.Duration)}
	if got, want := diagnose.Account(unknown, link).Fix, `compare "id" (the link's "id") and "alterId" (the link's "aid")`; !strings.HasPrefix(got, want) {
		t.Errorf("got %q", got)
	}
}
