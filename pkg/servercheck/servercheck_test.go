package servercheck

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testID = "5ec2e700-0000-4000-8000-000000000001"

// parse reads a configuration whose other keys are given, from a file.
func parse(t *testing.T, more string) *config.Server {
	t.Helper()
	text := `{"listen": "127.0.0.1:0", "users": [{"id": "` + testID + `", "name": "me", "alterId": 4}]` + more + `}`
	file := filepath.Join(t.TempDir(), "server.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.ParseServer(file, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func noEnv(string) (string, bool) { return "", false }

func check(t *testing.T, cfg *config.Server, opt Options) *diagnose.Report {
	t.Helper()
	if opt.LookupEnv == nil {
		opt.LookupEnv = noEnv
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := Run(ctx, cfg, opt)
	var names []string
	for _, s := range r.Steps {
		names = append(names, s.Name)
	}
	if !slices.Equal(names, Steps()) {
		t.Errorf("steps %q", names)
	}
	return r
}

// expect compares a report with steps of the form "name status detail…", and
// with causes.
func expect(t *testing.T, r *diagnose.Report, steps []string, causes ...diagnose.Cause) {
	t.Helper()
	for _, want := range steps {
		name, rest, _ := strings.Cut(want, " ")
		i := slices.IndexFunc(r.Steps, func(s diagnose.CheckStep) bool { return s.Name == name })
		if got := r.Steps[i].Status.String() + " " + r.Steps[i].Detail; !strings.HasPrefix(got, rest) {
			t.Errorf("%s: %s, want %s", name, got, rest)
		}
	}
	var got []diagnose.Cause
	if !r.Verdict.IsZero() {
		got = append(got, r.Verdict.Cause)
	}
	for _, v := range r.Others {
		got = append(got, v.Cause)
	}
	if !slices.Equal(got, causes) || r.OK() != (len(causes) == 0) {
		t.Errorf("%q, want %q; OK %v; %+v", got, causes, r.OK(), r)
	}
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil || strings.Contains(text.String(), "5ec2e7") {
		t.Errorf("%v, %s", err, text.String())
	}
}

// keyPair writes a self-signed certificate and its key, and returns the keys of
// the configuration that name them.
func keyPair(t *testing.T, until time.Time, mode os.FileMode) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"vps.example.com"}, NotBefore: until.AddDate(0, -3, 0), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, keyFile := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), mode); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf(`, "tls": {"certFile": %q, "keyFile": %q}`, cert, keyFile)
}

// TestWell walks through servers that work.
func TestWell(t *testing.T) {
	pages := t.TempDir()
	bare := fmt.Sprintf(`, "fallback": %q`, pages)
	expect(t, check(t, parse(t, bare), Options{}), []string{"fallback warn " + pages + " has no index.html"})
	if err := os.WriteFile(filepath.Join(pages, "index.html"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, check(t, parse(t, bare), Options{}), []string{"fallback pass " + pages})

	expect(t, check(t, parse(t, ""), Options{}), []string{
		"configuration pass ", "listen pass 127.0.0.1:0 is free", "certificate skip ", "fallback skip ", "egress skip ", "status skip ", "log skip ",
		"start pass ", "tls skip ", "upgrade pass ", `aead pass an answer came through for the user "me"`,
		`md5 skip MD5 clients are refused, by "aeadForced"`,
	})
	expect(t, check(t, parse(t, `, "aeadForced": false`), Options{}), []string{"aead pass an answer", "md5 pass an answer"})
	allowed := func(name string) (string, bool) { return "false", name == "V2RAY_VMESS_AEAD_FORCED" }
	expect(t, check(t, parse(t, ""), Options{LookupEnv: allowed}), []string{"aead pass an answer", "md5 pass an answer"})
	forced := func(name string) (string, bool) { return "true", name == "V2RAY_VMESS_AEAD_FORCED" }
	expect(t, check(t, parse(t, `, "aeadForced": false`), Options{LookupEnv: forced}), []string{"md5 skip MD5 clients are refused, by V2RAY_VMESS_AEAD_FORCED"})

	expect(t, check(t, parse(t, `, "ws": {"path": "/a", "host": "vps.example.com"}`+keyPair(t, time.Now().AddDate(0, 2, 0), 0o600)), Options{}), []string{
		"certificate warn for vps.example.com, valid until ", "key pass ", "tls pass certificate good until ", "upgrade pass ", "aead pass ",
	})
	expect(t, check(t, parse(t, `, "trustedProxies": ["127.0.0.0/8"], "status": {"enabled": true, "listen": "127.0.0.1:0"}`), Options{Warnings: []string{"others can read it"}}), []string{
		"configuration warn others can read it", "status pass ", "aead pass ",
	})
}

// TestUsers: each user is tried, up to a bound, and with MD5 too.
func TestUsers(t *testing.T) {
	cfg := parse(t, `, "aeadForced": false`)
	cfg.Users = append(cfg.Users, config.User{ID: "5ec2e700-0000-4000-8000-000000000002"})
	each := "pass an answer came through for each of 2 users"
	expect(t, check(t, cfg, Options{}), []string{"aead " + each, "md5 " + each})

	for i := len(cfg.Users); i <= mostUsers; i++ {
		cfg.Users = append(cfg.Users, config.User{ID: config.Secret(fmt.Sprintf("5ec2e700-0000-4000-8000-%012d", i+1))})
	}
	cfg.AEADForced = true
	expect(t, check(t, cfg, Options{}), []string{"aead pass an answer came through for each of the first 100 of 101 users"})
}

// TestUserRefused: a server that does not know one of the users is not well.
func TestUserRefused(t *testing.T) {
	known := parse(t, "")
	s, err := server.New(known, server.Options{LookupEnv: noEnv})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	cfg := parse(t, "")
	cfg.Users = append(cfg.Users, config.User{ID: "5ec2e700-0000-4000-8000-000000000002"})
	k := &checker{cfg: cfg, opt: Options{Now: time.Now}, report: new(diagnose.Report)}
	k.accounts(ctx, stepAEAD, visit{host: "127.0.0.1", port: s.Addr().(*net.TCPAddr).Port})
	if got := k.report.Verdict; got.Cause != diagnose.VMessUnknownUser || !strings.HasPrefix(got.Sentence, `"users[1]"`) {
		t.Errorf("%+v", got)
	}
}

// TestLog: the log file must be one that can be written, and is left as it was.
func TestLog(t *testing.T) {
	name := filepath.Join(t.TempDir(), "talk.log")
	file := fmt.Sprintf(`, "log": {"file": %q}`, name)
	expect(t, check(t, parse(t, file), Options{}), []string{"log pass " + name + " can be written"})
	if _, err := os.Lstat(name); !os.IsNotExist(err) {
		t.Errorf("the check left its log file: %v", err)
	}
	if err := os.WriteFile(name, []byte("talk"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, check(t, parse(t, file), Options{}), []string{"log pass "})
	if text, err := os.ReadFile(name); err != nil || string(text) != "talk" {
		t.Errorf("%q, %v", text, err)
	}
	below := filepath.Join(name, "log")
	r := check(t, parse(t, fmt.Sprintf(`, "log": {"file": %q}`, below)), Options{})
	expect(t, r, []string{"log fail", "aead pass "}, diagnose.ConfigValue)
	if !strings.Contains(r.Verdict.Fix, `"log.file" at `) {
		t.Errorf("%s", r.Verdict.Fix)
	}
}

// TestWrong tells all that is wrong, at once.
func TestWrong(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = free.Close()
	notDir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(notDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := keyPair(t, time.Now().AddDate(0, 0, -1), 0o644)
	cfg := parse(t, old+fmt.Sprintf(`, "fallback": %q, "egress": {"dial": "socks5://me:5ec2e7word@%s"}, "status": {"enabled": true, "listen": %q}`, notDir, free.Addr(), taken.Addr()))
	cfg.Listen = taken.Addr().String()
	r := check(t, cfg, Options{})
	expect(t, r, []string{
		"listen fail", "certificate fail", "key warn " + cfg.TLS.KeyFile + " is readable by everyone", "fallback fail", "egress fail", "status fail", "start pass ", "aead pass ",
	}, diagnose.ListenInUse, diagnose.TLSExpired, diagnose.ConfigValue, diagnose.UpstreamFailed, diagnose.ListenInUse)
	for i, want := range []string{`"listen" at `, "renew it", `"fallback" at `, `"egress.dial" at `, `"status.listen" at `} {
		if fix := append([]diagnose.Verdict{r.Verdict}, r.Others...)[i].Fix; !strings.Contains(fix, want) {
			t.Errorf("%q, want %s in it", fix, want)
		}
	}
	expect(t, check(t, parse(t, `, "fallback": "absent"`), Options{}), []string{"fallback fail", "start pass "}, diagnose.ConfigValue)
	expect(t, check(t, parse(t, `, "ws": {"host": "cdn.example.com"}`+keyPair(t, time.Now().AddDate(0, 2, 0), 0o600)), Options{}),
		[]string{"certificate fail", "aead pass "}, diagnose.TLSWrongName)

	yesterday := func() time.Time { return time.Now().AddDate(0, 0, -1) }
	expect(t, check(t, parse(t, ""), Options{Now: yesterday}), []string{"clock fail"}, diagnose.VMessClockSkew)
}

// TestServes tells a server of ours whose process has no name for us from
// another program.
func TestServes(t *testing.T) {
	ours := parse(t, "")
	s, err := server.New(ours, server.Options{LookupEnv: noEnv})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for _, host := range []string{"", "0.0.0.0"} {
		cfg := parse(t, "")
		cfg.Listen = net.JoinHostPort(host, fmt.Sprint(s.Addr().(*net.TCPAddr).Port))
		if !(&checker{cfg: cfg, opt: Options{Now: time.Now}, report: new(diagnose.Report)}).serves(ctx) {
			t.Errorf("%s: not known", cfg.Listen)
		}
		if host == "" {
			continue
		}
		cfg.Users[0].ID = "5ec2e700-0000-4000-8000-000000000002"
		if (&checker{cfg: cfg, opt: Options{Now: time.Now}, report: new(diagnose.Report)}).serves(ctx) {
			t.Errorf("%s: another's users are taken for ours", cfg.Listen)
		}
	}
}
