package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDebianVersion: versions sort in Debian as they do in Go.
func TestDebianVersion(t *testing.T) {
	inOrder := []string{"devel", "v0.0.0-20261123125536-398c63398c63", "v0.9.0", "v1.0.0-rc.1", "v1.0.0-rc.2", "v1.0.0", "v1.0.1-0.20261123125536-398c63398c63", "v1.0.1", "v1.0.1+dirty"}
	dpkg := need(t, "dpkg")
	for i, v := range inOrder {
		output(t, dpkg, "--validate-version", debianVersion(v))
		if i > 0 && exec.Command(dpkg, "--compare-versions", debianVersion(inOrder[i-1]), "lt", debianVersion(v)).Run() != nil {
			t.Errorf("%s does not come before %s", debianVersion(inOrder[i-1]), debianVersion(v))
		}
	}
}

// packageFile returns the file of a package of the release.
func packageFile(t testing.TB, name string) string {
	t.Helper()
	dir, p := releasedFiles(t), thisMachine(t)
	if p.debian == "" {
		lacking(t, "there is no Debian package for this machine")
	}
	return filepath.Join(dir, name+"_0~devel_"+p.debian+".deb")
}

// TestPackages looks at the packages as lintian does.
func TestPackages(t *testing.T) {
	dpkg := need(t, "dpkg-deb")
	for _, pkg := range debianPackages() {
		t.Run(pkg.name, func(t *testing.T) {
			deb := packageFile(t, pkg.name)
			control := filepath.Join(t.TempDir(), "control")
			output(t, dpkg, "--control", deb, control)
			checkControl(t, pkg, output(t, dpkg, "--field", deb))
			checkScripts(t, pkg, control)
			tarball, err := exec.Command(dpkg, "--fsys-tarfile", deb).Output()
			if err != nil {
				t.Fatal(err)
			}
			files := readTar(t, bytes.NewReader(tarball))
			checkContents(t, pkg, files)
			sums, err := os.ReadFile(filepath.Join(control, "md5sums"))
			if err != nil {
				t.Fatal(err)
			}
			checkSums(t, string(sums), files)
		})
	}
}

func checkControl(t *testing.T, pkg debianPackage, fields string) {
	t.Helper()
	for _, want := range []string{
		"Package: " + pkg.name, "Version: 0~devel", "Section: net", "Priority: optional",
		"Architecture: " + thisMachine(t).debian, "Maintainer: " + maintainer, "Description: " + pkg.short,
	} {
		if !strings.Contains("\n"+fields, "\n"+want+"\n") {
			t.Errorf("control has no %q", want)
		}
	}
	for line := range strings.Lines(fields) {
		if len(line) > 81 {
			t.Errorf("a long line: %q", line)
		}
	}
	if !regexp.MustCompile(`(?m)^Installed-Size: [1-9]\d{3,4}$`).MatchString(fields) {
		t.Errorf("Installed-Size: %s", fields)
	}
}

func checkScripts(t *testing.T, pkg debianPackage, control string) {
	t.Helper()
	entries, err := os.ReadDir(control)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := append([]string{"control", "md5sums"}, pkg.scripts...)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("control files: %v", names)
	}
	for _, script := range pkg.scripts {
		file := filepath.Join(control, script)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "#!/bin/sh\nset -e\n") {
			t.Errorf("%s does not end at the first error", script)
		}
		output(t, need(t, "sh"), "-n", file)
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != programme {
			t.Errorf("%s: %v %v", script, info.Mode(), err)
		}
	}
}

func checkContents(t *testing.T, pkg debianPackage, files map[string]file) {
	t.Helper()
	doc := "./usr/share/doc/" + pkg.name + "/"
	for _, want := range []string{
		"./usr/bin/" + pkg.name, "./usr/share/man/man1/" + pkg.name + ".1.gz",
		"./" + pkg.unitDir + "/" + pkg.name + ".service", "./usr/share/bash-completion/completions/" + pkg.name,
		doc + "copyright", doc + "changelog.gz", doc + noticesFile + ".gz", doc + "examples/" + filepath.Base(pkg.examples[0]),
	} {
		if _, ok := files[want]; !ok {
			t.Errorf("there is no %s", want)
		}
	}
	for name, f := range files {
		mode := plainFile
		switch {
		case f.mode.IsDir() && pkg.config != "" && name == "./"+pkg.config:
			mode = secretsDir
		case f.mode.IsDir():
			mode = directory
		case strings.HasPrefix(name, "./usr/bin/"):
			mode = programme
		}
		if f.mode != mode {
			t.Errorf("%s has the mode %v", name, f.mode)
		}
		if !f.mode.IsDir() && !strings.HasPrefix(name, "./usr/") || strings.HasPrefix(name, "./usr/local") {
			t.Errorf("%s is no place for a package's files", name)
		}
	}
}

func checkSums(t *testing.T, sums string, files map[string]file) {
	t.Helper()
	var contents tree
	for name, f := range files {
		if name != "." {
			contents.add(strings.TrimPrefix(name, "./"), f.mode, f.data)
		}
	}
	if want := string(md5sums(contents)); sums != want {
		t.Errorf("md5sums:\n%s\nwant:\n%s", sums, want)
	}
}

// A system is a directory that dpkg takes for a whole system: it changes its
// root to it before it runs a maintainer script.
type system struct {
	dir  string
	dpkg string
}

// newSystem makes a system that has a shell, rm and chown, and stands for the
// rest: adduser adds to /etc/passwd, systemctl writes down what it is told.
func newSystem(t *testing.T) *system {
	t.Helper()
	if os.Geteuid() != 0 {
		lacking(t, "only root can install packages into a directory")
	}
	s := &system{t.TempDir(), need(t, "dpkg")}
	for _, dir := range []string{"bin", "dev", "etc", "usr/bin", "tmp", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log"} {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.write(t, "var/lib/dpkg/status", "", 0o644)
	s.write(t, "dev/null", "", 0o644)
	s.write(t, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644)
	s.write(t, "etc/group", "root:x:0:\n", 0o644)
	for _, name := range []string{"sh", "rm", "chown", "chmod"} {
		s.bring(t, need(t, name), "bin/"+name)
	}
	const script = "#!/bin/sh\nset -e\n"
	s.write(t, "usr/bin/getent", script+`while IFS=: read -r name rest; do [ "$name" != "$2" ] || exit 0; done </etc/$1; exit 2`+"\n", 0o755)
	s.write(t, "usr/bin/adduser", script+`echo "adduser $*" >>/var/log/calls
echo vmess-server:x:900:900::/nonexistent:/usr/sbin/nologin >>/etc/passwd
echo vmess-server:x:900: >>/etc/group
`, 0o755)
	s.write(t, "usr/bin/systemctl", script+`echo "systemctl $*" >>/var/log/calls`+"\n", 0o755)
	return s
}

func (s *system) path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

func (s *system) write(t *testing.T, name, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// bring copies a program of this machine, and the libraries it needs.
func (s *system) bring(t *testing.T, from, to string) {
	t.Helper()
	pieces := map[string]string{from: to}
	for _, lib := range regexp.MustCompile(`/\S+`).FindAllString(output(t, need(t, "ldd"), from), -1) {
		pieces[lib] = lib
	}
	for from, to := range pieces {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(s.path(to)), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.write(t, to, string(data), 0o755)
	}
}

// run has dpkg work on the system.
func (s *system) run(t *testing.T, args ...string) {
	t.Helper()
	output(t, s.dpkg, append([]string{
		"--root=" + s.dir, "--log=" + s.path("var/log/dpkg.log"), "--force-depends", "--path-include=*",
	}, args...)...)
}

// calls returns what the maintainer scripts have had done since the last time.
func (s *system) calls(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(s.path("var/log/calls"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	_ = os.Remove(s.path("var/log/calls"))
	return string(data)
}

// files returns what is in the system but for dpkg's own.
func (s *system) files(t *testing.T) (names []string) {
	t.Helper()
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(s.dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() && name == filepath.Join("var", "lib") || name == filepath.Join("var", "log") {
			return filepath.SkipDir
		}
		names = append(names, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// owner returns a file's owner, group and mode.
func (s *system) owner(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(output(t, need(t, "stat"), "--format=%u:%g %a", s.path(name)))
}

// TestClientPackage: it installs, runs, and leaves nothing.
func TestClientPackage(t *testing.T) {
	s := newSystem(t)
	before := s.files(t)
	s.run(t, "--install", packageFile(t, clientName))
	if said := output(t, s.path("usr/bin/vmess-local"), "version"); !strings.HasPrefix(said, "vmess-local ") {
		t.Errorf("it says %q", said)
	}
	s.run(t, "--verify", clientName)
	s.run(t, "--remove", clientName)
	s.run(t, "--purge", clientName)
	if left := s.files(t); !slices.Equal(left, before) {
		t.Errorf("left: %v", left)
	}
	if calls := s.calls(t); calls != "" {
		t.Errorf("done: %s", calls)
	}
}

// TestServerPackage: it makes the service's user, starts nothing, and leaves
// the configuration alone until it is purged.
func TestServerPackage(t *testing.T) {
	s := newSystem(t)
	deb := packageFile(t, serverName)
	s.run(t, "--install", deb)
	if got, want := s.calls(t), "adduser --system --group --quiet --home /nonexistent --no-create-home vmess-server\n"; got != want {
		t.Errorf("done without systemd: %q", got)
	}
	if got := s.owner(t, "etc/vmess-server"); got != "0:900 750" {
		t.Errorf("/etc/vmess-server is %s", got)
	}
	output(t, s.path("usr/bin/vmess-server"), "version")

	if err := os.MkdirAll(s.path("run/systemd/system"), 0o755); err != nil {
		t.Fatal(err)
	}
	before := s.files(t)
	s.run(t, "--remove", serverName)
	s.run(t, "--install", deb)
	if got, want := s.calls(t), "systemctl disable --now vmess-server.service\n"+
		"systemctl daemon-reload\nsystemctl daemon-reload\nsystemctl try-restart vmess-server.service\n"; got != want {
		t.Errorf("removed and installed: %q", got)
	}
	s.run(t, "--install", deb)
	if got, want := s.calls(t), "systemctl daemon-reload\nsystemctl daemon-reload\nsystemctl try-restart vmess-server.service\n"; got != want {
		t.Errorf("installed again: %q", got)
	}
	if after := s.files(t); !slices.Equal(after, before) {
		t.Errorf("installed three times: %v", after)
	}

	s.write(t, "etc/vmess-server/server.json", "{}", 0o600)
	s.run(t, "--remove", serverName)
	for _, name := range s.files(t) {
		if strings.Contains(name, serverName) && name != "etc/vmess-server" && name != "etc/vmess-server/server.json" {
			t.Errorf("removal left %s", name)
		}
	}
	if got, err := os.ReadFile(s.path("etc/vmess-server/server.json")); err != nil || string(got) != "{}" {
		t.Errorf("the configuration: %q %v", got, err)
	}
	s.run(t, "--purge", serverName)
	if _, err := os.Stat(s.path("etc/vmess-server")); !os.IsNotExist(err) {
		t.Errorf("purged: %v", err)
	}
}

// TestCertbotHook: the certificate comes to where the service's user can read
// it, and nobody else its key.
func TestCertbotHook(t *testing.T) {
	s := newSystem(t)
	s.run(t, "--install", packageFile(t, serverName))
	s.bring(t, need(t, "install"), "bin/install")
	s.write(t, "tmp/privkey.pem", "key", 0o600)
	s.write(t, "tmp/fullchain.pem", "chain", 0o600)
	for range 2 {
		hook := exec.Command(need(t, "chroot"), s.dir, "/bin/sh", "-c", installFile(t, "certbot-deploy-hook.sh"))
		hook.Env = []string{"RENEWED_LINEAGE=/tmp", "PATH=/bin"}
		if _, err := outputOf(hook); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"": "0:900 750", "/privkey.pem": "900:900 400", "/fullchain.pem": "900:900 444"} {
		if got := s.owner(t, "etc/vmess-server/tls"+name); got != want {
			t.Errorf("tls%s is %s", name, got)
		}
	}
}

// TestOddMember: members of odd length are padded, as ar wants it.
func TestOddMember(t *testing.T) {
	var b bytes.Buffer
	if err := writeMember(&b, "x", []byte("abc"), releasedAt); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("x               %d  0     0     100644  3         `\nabc\n", releasedAt.Unix()); b.String() != want {
		t.Errorf("%q", b.String())
	}
}
