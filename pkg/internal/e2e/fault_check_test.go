package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	exit "vmess-local/pkg/cli"
	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/transport/netaddr"
)

// A checked is what vmess-local check said and ended with.
type checked struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

// runCheck runs vmess-local check in a directory with a configuration
// called config.json.
func runCheck(t testing.TB, cfg []byte, args ...string) checked {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "config.json"), cfg)
	cmd := exec.CommandContext(t.Context(), program(t, "vmess-local"), append([]string{"check"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, cleanEnv(), &stdout, &stderr
	setGroup(cmd)
	start := time.Now()
	err := cmd.Run()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return checked{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), time.Since(start)}
}

// A checkResult is the result for programs.
type checkResult struct {
	OK     bool
	Server string
	Steps  []struct {
		Name, Status, Detail string
		MS                   float64
	}
	Verdict *struct {
		Cause, Confidence, Sentence, Fix string
		Evidence                         []string
	}
}

// statuses are "pass", "fail" and "skip" by step.
func (r checkResult) statuses() map[string]string {
	all := map[string]string{}
	for _, s := range r.Steps {
		all[s.Name] = s.Status
	}
	return all
}

// TestCheck runs the program against servers that are well and that are not,
// in both formats, beside a running client and without one.
func TestCheck(t *testing.T) {
	t.Parallel()
	ours := inProcessServer(t, serverConfig(), inProcess{}).addr
	v2ray := labV2ray(t).addr
	web := rawAnswer(t, webPage("200 OK", "origin", "hello"))
	closed := freePort(t)
	otherID := func(r *config.Remote) { r.ID = "00000000-0000-4000-8000-0000005ec2e7" }
	certs := newCertificates(t)
	secure := serverConfig()
	secure.TLS = config.ServerTLS{CertFile: certs.certFile, KeyFile: certs.keyFile}
	ourTLS := inProcessServer(t, secure, inProcess{}).addr

	for _, tt := range []struct {
		name   string
		remote config.Remote
		args   []string
		client bool   // one runs beside it
		cause  string // "": every check passes
		fix    string
		status string // of some steps
	}{
		{
			name: "our server", remote: remoteAt(t, ours), client: true,
			status: "configuration:pass dns:skip tcp:pass tls:skip upgrade:pass account:pass clock:pass destination:skip",
		},
		{name: "V2Ray", remote: remoteAt(t, v2ray), client: true, status: "tcp:pass upgrade:pass account:pass clock:pass"},
		{name: "TLS", remote: overTLS(remoteAt(t, ourTLS), certs), status: "dns:pass tcp:pass tls:pass upgrade:pass account:pass clock:pass"},
		{name: "a destination", remote: remoteAt(t, v2ray), args: []string{"--target", web}, status: "account:pass destination:pass"},
		{
			name: "a destination that is not there", remote: remoteAt(t, v2ray), args: []string{"--target", closed},
			cause: "destination.refused", fix: "private addresses", status: "account:pass destination:fail",
		},
		{
			name: "wrong id, our server", remote: with(remoteAt(t, ours), otherID), client: true,
			cause: "vmess.unknown-user", fix: `compare "id" at config.json:`, status: "upgrade:pass account:fail clock:pass destination:skip",
		},
		{
			name: "wrong id, V2Ray", remote: with(remoteAt(t, v2ray), otherID),
			cause: "vmess.unknown-user", fix: `compare "id" at config.json:`, status: "upgrade:pass account:fail clock:pass",
		},
		{
			name: "wrong path", remote: with(remoteAt(t, v2ray), otherPath),
			cause: "ws.not-found", fix: `correct "ws.path" at config.json:`, status: "tcp:pass upgrade:fail account:skip",
		},
		{
			name: "dead server", remote: remoteAt(t, closed), client: true,
			cause: "tcp.refused", fix: `check "port" at config.json:`, status: "tcp:fail upgrade:skip account:skip",
		},
		{
			name: "certificate", remote: with(overTLS(remoteAt(t, ourTLS), certs), func(r *config.Remote) { r.TLS.CAFile = "" }),
			cause: "tls.unknown-issuer", fix: `set "tls.pin": ["` + certs.pin + `"]`, status: "tcp:pass tls:fail upgrade:skip",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := clientConfig(tt.remote)
			if tt.client {
				// The check is for the same port: that is taken, and no matter.
				cfg.Listen = ourClient(t, cfg).addr
			}
			text := config.MarshalClient(cfg)
			people := runCheck(t, text, tt.args...)
			programs := runCheck(t, text, append(tt.args, "--json")...)
			t.Logf("%v and %v\n%s", people.took, programs.took, people.stdout)
			code := exit.ExitOK
			if tt.cause != "" {
				code = exit.ExitFailed
			}
			for _, c := range []checked{people, programs} {
				if c.code != code || c.stderr != "" || strings.Contains(c.stdout, "5ec2e7") || strings.Contains(c.stdout, userID) {
					t.Errorf("exit code %d, want %d; stderr %q", c.code, code, c.stderr)
				}
				if c.took > 6*time.Second {
					t.Errorf("it took %v", c.took)
				}
			}
			var r checkResult
			if err := json.Unmarshal([]byte(programs.stdout), &r); err != nil {
				t.Fatalf("%v in %s", err, programs.stdout)
			}
			for i, name := range diagnose.Steps() {
				if len(r.Steps) <= i || r.Steps[i].Name != name {
					t.Fatalf("the steps are %+v", r.Steps)
				}
			}
			for _, s := range strings.Fields(tt.status) {
				if step, want, _ := strings.Cut(s, ":"); r.statuses()[step] != want {
					t.Errorf("%s: %s, want %s", step, r.statuses()[step], want)
				}
			}
			switch {
			case tt.cause == "":
				if !r.OK || r.Verdict != nil || !strings.HasSuffix(people.stdout, "\nall checks passed\n") {
					t.Errorf("%+v\n%s", r, people.stdout)
				}
			case r.OK || r.Verdict == nil || r.Verdict.Cause != tt.cause || !strings.Contains(r.Verdict.Fix, tt.fix):
				t.Errorf("%s, want %s with %q", programs.stdout, tt.cause, tt.fix)
			case strings.Count(people.stdout, "\nerror: "+tt.cause+": ") != 1 || !strings.HasSuffix(people.stdout, "\nfix: "+r.Verdict.Fix+"\n"):
				t.Errorf("people read\n%s", people.stdout)
			}
		})
	}
}

// TestCheckMistakes: what cannot be used as a configuration is named, each
// mistake with its cause, place and fix.
func TestCheckMistakes(t *testing.T) {
	t.Parallel()
	const server = `"server": {"address": "vps.example", "port": 1, "id": "5ec2e700-0000-4000-8000-000000000001"}`
	for _, tt := range []struct {
		name, text string
		args       []string
		want       string // on stdout, line by line
	}{
		{name: "unknown key", text: "{\n \"serverr\": 1,\n " + server + "}", want: `error: config.unknown-key: config.json:2:2: serverr: unknown key
fix: did you mean "server"? write that at config.json:2:2
`},
		{name: "value", text: "{\n \"log\": {\"level\": \"loud\"},\n " + server + "}", want: `error: config.value: config.json:2:19: log.level: saw "loud"
fix: write one of debug, info, warn, error at config.json:2:19
`},
		{name: "missing, two of them", text: `{"server": {"address": "vps.example"}}`, want: `error: config.missing: config.json:1:12: server.id: missing
fix: add "id" (text in double quotes) at config.json:1:12
error: config.missing: config.json:1:12: server.port: missing
fix: add "port" (a whole number, without quotes) at config.json:1:12
`},
		{name: "syntax", text: "{\n \"listen\": \":1\"\n \"log\": {}}", want: `error: config.syntax: config.json:3:2: a comma is missing before this
fix: correct the text at config.json:3:2
`},
		{name: "others could use it", text: `{"listen": "0.0.0.0:1080", ` + server + `}`, want: `error: listen.needs-auth: config.json:1:12: listen: others can reach this address; saw "0.0.0.0:1080"
fix: set auth.username and auth.password, or use a loopback address like 127.0.0.1:1080 at config.json:1:12
`},
		{name: "unreadable", args: []string{"-c", "absent.json"}, want: `error: config.unreadable: absent.json: the file cannot be read: no such file or directory
fix: pass the right file with -c, or create one: vmess-local link import LINK -o absent.json
`},
		{name: "no file of authorities", text: `{"server": {"address": "vps.example", "port": 1, "id": "5ec2e700-0000-4000-8000-000000000001", "tls": {"caFile": "absent.pem"}}}`, want: `error: config.value: config.json:1:114: server.tls.caFile: read the CA file: open absent.pem: no such file or directory
fix: write a file of certificates in PEM form at config.json:1:114
`},
		{name: "no link", args: []string{"vmess://NWVjMmU3"}, want: `error: config.syntax: the link: not a VMess share link: its base64 contains neither a JSON object nor what Shadowrocket or Quantumult write
fix: copy the whole link again, or pass a configuration file with -c
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			people := runCheck(t, []byte(tt.text), tt.args...)
			if people.code != exit.ExitUsage || people.stdout != tt.want || people.stderr != "" {
				t.Errorf("exit code %d, stdout\n%swant\n%sstderr %q", people.code, people.stdout, tt.want, people.stderr)
			}
			programs := runCheck(t, []byte(tt.text), append(tt.args, "--json")...)
			var r checkResult
			if err := json.Unmarshal([]byte(programs.stdout), &r); err != nil {
				t.Fatalf("%v in %s", err, programs.stdout)
			}
			if programs.code != exit.ExitUsage || r.OK || r.Verdict == nil || r.statuses()["configuration"] != "fail" {
				t.Fatalf("exit code %d, %s", programs.code, programs.stdout)
			}
			first := "error: " + r.Verdict.Cause + ": " + r.Verdict.Sentence + "\nfix: " + r.Verdict.Fix + "\n"
			if !strings.HasPrefix(tt.want, first) || len(r.Verdict.Evidence) != strings.Count(tt.want[len(first):], "\n") {
				t.Errorf("%s", programs.stdout)
			}
			if strings.Contains(people.stdout+programs.stdout, "5ec2e7") || strings.Contains(people.stdout+programs.stdout, "NWVjMmU3") {
				t.Error("a secret is shown")
			}
		})
	}
	t.Run("usage", func(t *testing.T) {
		t.Parallel()
		for _, args := range [][]string{{"--target", "somewhere"}, {"--target", "somewhere:0"}, {"-c", "config.json", "vmess://e30"}, {"a", "b"}} {
			if c := runCheck(t, nil, args...); c.code != exit.ExitUsage || c.stdout != "" || !strings.HasPrefix(c.stderr, "error: ") {
				t.Errorf("%q: exit code %d, stdout %q, stderr %q", args, c.code, c.stdout, c.stderr)
			}
		}
	})
}

// TestCheckWarns: what works and leaves the traffic readable is not called fine.
func TestCheckWarns(t *testing.T) {
	t.Parallel()
	ours := inProcessServer(t, serverConfig(), inProcess{}).addr
	for _, tt := range []struct {
		name   string
		change func(*config.Remote)
		env    []string
		want   string // "" is a pass
	}{
		{"zero", func(r *config.Remote) { r.Security = "zero" }, nil, `nothing encrypts the traffic: "security" is zero and "tls.enabled" is false`},
		{"none", func(r *config.Remote) { r.Security = "none" }, nil, `nothing encrypts the traffic: "security" is none`},
		{"auto", func(*config.Remote) {}, nil, ""},
		{"an odd variable", func(*config.Remote) {}, []string{"V2RAY_VMESS_AEAD_DISABLED=1"}, `V2RAY_VMESS_AEAD_DISABLED is "1"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			parsed, err := config.ParseClient("config.json", config.MarshalClient(clientConfig(with(remoteAt(t, ours), tt.change))))
			if err != nil {
				t.Fatal(err)
			}
			r, err := client.Check(t.Context(), parsed, client.Options{LookupEnv: lookup(tt.env)}, netaddr.Addr{})
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			if err := r.WriteText(&text); err != nil {
				t.Fatal(err)
			}
			last, want := "all checks passed\n", diagnose.Pass
			if tt.want != "" {
				last, want = "it works, but fix what is marked warn\n", diagnose.Warn
			}
			if step := r.Steps[0]; step.Status != want || !strings.Contains(step.Detail, tt.want) || !r.OK() || !strings.HasSuffix(text.String(), last) {
				t.Errorf("%v %q:\n%s", step.Status, step.Detail, &text)
			}
		})
	}
}
