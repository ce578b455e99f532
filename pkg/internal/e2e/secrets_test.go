package e2e

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/proxy"

	"vmess-local/pkg/config"
)

// TestAuditFinds shows that the audit of all these tests would find what it
// looks for.
func TestAuditFinds(t *testing.T) {
	c := clientConfig(remoteAt(t, "127.0.0.1:1"))
	c.Auth.Password, c.Upstream = "5ec2e7word", "socks5://5ec2e7user:5ec2e7%2Fpass@proxy.example:1080"
	c.Servers = []config.Remote{{ID: "a name", WS: config.WS{Headers: map[string]string{"X-Edge": "5ec2e7token"}}}}
	const basic = "NWVjMmU3dXNlcjo1ZWMyZTcvcGFzcw=="
	s := ofClient(c)
	s.addDestination("private.example:443")
	for text, want := range map[string]string{
		"id " + userID:                              "an id",
		"id " + strings.ToUpper(userID):             "an id",
		"id " + strings.ReplaceAll(userID, "-", ""): "an id",
		"user a name":                               "an id",
		`{"password":"5ec2e7word"}`:                 "the proxy's password",
		"5ec2e7user@proxy.example":                  "a proxy's user",
		"socks5://…:5ec2e7%2Fpass@…":                "a proxy's password",
		"to 5ec2e7/pass":                            "a proxy's password",
		basic:                                       "a proxy's credentials",
		"edge/5ec2e7token":                          "a header's value",
		"to=private.example:443":                    "a destination",
		"no such host: PRIVATE.example":             "a destination",
		"vmess://eyJ2IjoiMiJ9":                      "a link",
		"vmess://" + userID + "@h:1":                "an id",
		"vmess://…, proxy.example:1080, /tunnel, 127.0.0.1: all well": "",
	} {
		found := s.find(text)
		if want == "" && len(found) > 0 || want != "" && !slices.Contains(found, want) {
			t.Errorf("in %q: %q, want %q", text, found, want)
		}
	}
	if found := ofServer(serverConfig()).find(userID); !slices.Contains(found, "an id") {
		t.Error("a server's id is not found")
	}
}

// TestSecretsOfCrash has our programs fail and then crash with all their
// goroutines shown, and searches that and the log file.
func TestSecretsOfCrash(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		leaveOut(t, "no signal shows goroutines here")
	}
	scfg := serverConfig()
	scfg.Egress.Dial = config.Secret("socks5://5ec2e7user:5ec2e7word@" + deadAddress(t))
	scfg.Log.File = filepath.Join(t.TempDir(), "server.log")
	far := startOurs(t, "vmess-server", config.MarshalServer(scfg), []string{"GOTRACEBACK=system"})
	addr := far.waitLine(t, serverReady)[1]

	ccfg := clientConfig(remoteAt(t, addr))
	ccfg.Auth = config.Auth{Username: "someone", Password: "5ec2e7pass"}
	ccfg.Status.Enabled, ccfg.Status.Listen = true, "127.0.0.1:0"
	ccfg.Log.File = filepath.Join(t.TempDir(), "client.log")
	near := startOurs(t, "vmess-local", config.MarshalClient(ccfg), []string{"GOTRACEBACK=system"})
	proxyAddr := near.waitLine(t, clientReady)[1]

	for _, password := range []string{"5ec2e7pass", "5ec2e7wrong"} {
		if err := failWithPassword(proxyAddr, "someone", password); err == nil {
			t.Errorf("a request with %s went through", password)
		}
	}
	waitInFile(t, ccfg.Log.File, "local.bad-auth")
	for _, p := range []struct {
		name, file string
		*process
		secrets secrecy
	}{
		{"the client", ccfg.Log.File, near, ofClient(ccfg)},
		{"the server", scfg.Log.File, far, ofServer(scfg)},
	} {
		if err := p.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
			t.Fatal(err)
		}
		p.exitCode(t)
		text, err := os.ReadFile(p.file)
		if err != nil {
			t.Error(err)
		}
		dump := p.log.String()
		if !strings.Contains(dump, "goroutine 1 ") || len(text) == 0 {
			t.Errorf("%s has not crashed in full sight, or its log of %d bytes is missing", p.name, len(text))
		}
		p.secrets.add("a wrong password", "5ec2e7wrong")
		p.secrets.search(t, p.name+"'s crash", dump)
		p.secrets.search(t, p.name+"'s log file", string(text))
	}
}

// failWithPassword makes a request that cannot succeed.
func failWithPassword(proxyAddr, user, password string) error {
	d, err := proxy.SOCKS5("tcp", proxyAddr, &proxy.Auth{User: user, Password: password}, boundedDialer{})
	if err != nil {
		return err
	}
	c, err := d.Dial("tcp", "private.example:443")
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Read(make([]byte, 1))
	return err
}

// waitInFile waits until a file holds some text.
func waitInFile(t testing.TB, file, text string) {
	t.Helper()
	for deadline := time.Now().Add(startPatience); ; time.Sleep(10 * time.Millisecond) { // a pause between two looks
		data, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(data), text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not hold %q, %v:\n%s", file, text, err, data)
		}
	}
}
