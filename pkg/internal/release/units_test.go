package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// installFile reads a file of docs/install.
func installFile(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(top(t), "docs", "install", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// services are the systemd units, with the variable that each has a line for.
var services = []struct {
	program, variable string
	user              bool
}{
	{clientName, "V2RAY_VMESS_AEAD_DISABLED=true", true},
	{serverName, "V2RAY_VMESS_AEAD_FORCED=false", false},
}

// TestUnitsAreValid: systemd understands every line of the units, and says
// where the variables go.
func TestUnitsAreValid(t *testing.T) {
	for _, s := range services {
		text := installFile(t, "systemd/"+s.program+".service")
		if !strings.Contains(text, "\n#Environment="+s.variable+"\n") {
			t.Errorf("%s: no line for %s", s.program, s.variable)
		}
		if !strings.Contains(text, "\nExecReload="+s.program+" reload") {
			t.Errorf("%s: no reload", s.program)
		}
		t.Run(s.program, func(t *testing.T) {
			verifyUnit(t, text, s.program, s.user)
			verifyUnit(t, strings.Replace(text, "\n#Environment", "\nEnvironment", 1), s.program, s.user)
		})
	}
}

// verifyUnit has systemd look at a unit, in which a program stands for ours:
// verify wants it to be installed.
func verifyUnit(t *testing.T, text, program string, user bool) {
	t.Helper()
	analyze := need(t, "systemd-analyze")
	dir := t.TempDir()
	for _, key := range []string{"ExecStart", "ExecReload"} {
		text = strings.Replace(text, "\n"+key+"="+program+" ", "\n"+key+"=/bin/sh ", 1)
	}
	unit := filepath.Join(dir, program+".service")
	if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"verify", "--man=no", unit}
	if user {
		args = append([]string{"--user"}, args...)
	}
	cmd := exec.Command(analyze, args...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		// What else is wrong on this machine is not our unit's fault.
		if strings.Contains(line, program) {
			t.Errorf("systemd-analyze: %s", line)
		}
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Error(err)
	}
}

// TestVerifyFindsMistakes: the look at units sees what is wrong with them.
func TestVerifyFindsMistakes(t *testing.T) {
	analyze := need(t, "systemd-analyze")
	unit := filepath.Join(t.TempDir(), "wrong.service")
	if err := os.WriteFile(unit, []byte("[Service]\nExecStart=/bin/sh\nProtectSistem=strict\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := exec.Command(analyze, "verify", "--man=no", unit).CombinedOutput()
	if !strings.Contains(string(out), "wrong.service") || !strings.Contains(string(out), "ProtectSistem") {
		t.Errorf("systemd-analyze says %s", out)
	}
}

// TestServerUnitIsHardened: systemd's own judgement, and what must be there
// whatever it says.
func TestServerUnitIsHardened(t *testing.T) {
	text := installFile(t, "systemd/vmess-server.service")
	for _, want := range []string{
		"User=vmess-server", "CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "AmbientCapabilities=CAP_NET_BIND_SERVICE",
		"ProtectSystem=strict", "NoNewPrivileges=yes", "ConditionPathExists=/etc/vmess-server/server.json",
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("there is no %s", want)
		}
	}
	analyze := need(t, "systemd-analyze")
	unit := filepath.Join(top(t), "docs", "install", "systemd", "vmess-server.service")
	output(t, analyze, "security", "--offline=yes", "--threshold=20", unit) // 2.0; "OK" ends at 5
	open := filepath.Join(t.TempDir(), "vmess-server.service")
	if err := os.WriteFile(open, []byte(strings.Replace(text, "CapabilityBoundingSet", "#", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "security", "--offline=yes", "--threshold=20", open).CombinedOutput(); err == nil {
		t.Errorf("a service with all capabilities passes:\n%s", out)
	}
}

// TestPropertyList: launchd's file is well-formed, of keys and values in turn,
// and says where the variable goes.
func TestPropertyList(t *testing.T) {
	text := installFile(t, "launchd/vmess-local.plist")
	if !strings.Contains(text, "<key>V2RAY_VMESS_AEAD_DISABLED</key>") {
		t.Error("no place for V2RAY_VMESS_AEAD_DISABLED")
	}
	uncommented := regexp.MustCompile(`(?s)<!-- Legacy[^\n]*\n(.*?)-->`).ReplaceAllString(text, "$1")
	if uncommented == text {
		t.Error("there is nothing to uncomment")
	}
	for _, text := range []string{text, uncommented} {
		keys, err := plistKeys(text)
		if err != nil {
			t.Error(err)
		}
		for _, want := range []string{"Label", "ProgramArguments", "RunAtLoad", "KeepAlive"} {
			if !slices.Contains(keys, want) {
				t.Errorf("no key %s", want)
			}
		}
	}
	if _, err := plistKeys(`<plist><dict><key>a</key><key>b</key><true/></dict></plist>`); err == nil {
		t.Error("a key without a value passes")
	}
}

// plistKeys returns the keys of all dictionaries of a property list, each of
// which must have a value.
func plistKeys(text string) (keys []string, err error) {
	type level struct {
		name   string
		before string // the element before
	}
	var at []level
	var key strings.Builder
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		token, err := d.Token()
		if err == io.EOF {
			return keys, nil
		}
		if err != nil {
			return nil, err
		}
		switch e := token.(type) {
		case xml.StartElement:
			if n := len(at); n > 0 && at[n-1].name == "dict" {
				if (e.Name.Local == "key") == (at[n-1].before == "key") {
					return nil, errors.New("keys and values do not take turns before " + e.Name.Local)
				}
				at[n-1].before = e.Name.Local
			}
			at = append(at, level{name: e.Name.Local})
			key.Reset()
		case xml.CharData:
			key.Write(e)
		case xml.EndElement:
			if e.Name.Local == "key" {
				keys = append(keys, key.String())
			}
			if n := len(at); at[n-1].name == "dict" && at[n-1].before == "key" {
				return nil, errors.New("the last key has no value")
			}
			at = at[:len(at)-1]
		}
	}
}

// TestInstallPage: the files that docs/install.md names are there, in the
// sources or in the archive.
func TestInstallPage(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(top(t), "docs", "install.md"))
	if err != nil {
		t.Fatal(err)
	}
	files := regexp.MustCompile(`(?:docs/|\()(install/[\w./-]*\w)`).FindAllStringSubmatch(string(data), -1)
	if len(files) < 6 {
		t.Errorf("only %d files are named", len(files))
	}
	for _, f := range files {
		installFile(t, strings.TrimPrefix(f[1], "install/"))
	}
}

// TestDockerfile: what it copies exists, its build command works, and what it
// makes is what scratch can run. No engine runs here that could build it.
func TestDockerfile(t *testing.T) {
	text := installFile(t, "Dockerfile")
	var last []string // of the final stage
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		switch words[0] {
		case "FROM":
			last = nil
		case "COPY":
			if !strings.HasPrefix(words[1], "--from=") {
				for _, from := range words[1 : len(words)-1] {
					if _, err := os.Stat(filepath.Join(top(t), from)); err != nil {
						t.Errorf("%s: %v", strings.TrimSpace(line), err)
					}
				}
			}
		}
		last = append(last, strings.TrimSpace(line))
	}
	for _, want := range []string{
		"FROM scratch", "COPY --from=build /out/vmess-server /vmess-server", "USER 65532:65532",
		`ENTRYPOINT ["/vmess-server"]`, `CMD ["run", "-c", "/etc/vmess-server/server.json"]`,
	} {
		if !slices.Contains(last, want) {
			t.Errorf("the last stage has no %s", want)
		}
	}
	m := regexp.MustCompile(`(?m)^RUN (CGO_ENABLED=0 go build .*)$`).FindStringSubmatch(text)
	if m == nil {
		t.Fatal("it builds nothing")
	}
	out := t.TempDir()
	cmd := exec.Command(need(t, "sh"), "-c", strings.Replace(m[1], "-o /out/ ", "-buildvcs=false -o "+out+"/ ", 1))
	cmd.Dir = top(t)
	cmd.Env = append(os.Environ(), "GOOS=linux")
	if _, err := outputOf(cmd); err != nil {
		t.Fatal(err)
	}
	if static, err := isStatic(filepath.Join(out, serverName)); err != nil || !static {
		t.Errorf("static: %v, %v", static, err)
	}
}
