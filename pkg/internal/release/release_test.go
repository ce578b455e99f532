package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// released holds one release for this machine, made on first use and shared by
// the tests.
var released struct {
	once sync.Once
	dir  string // has the program, bin, and the release, dist
	err  error
}

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if released.dir != "" {
			_ = os.RemoveAll(released.dir)
		}
		os.Exit(code)
	}))
}

// top is the project's directory.
func top(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var releasedAt = time.Date(2026, 3, 4, 5, 6, 8, 0, time.UTC)

// thisMachine is the platform of this machine as a release has it.
func thisMachine(t testing.TB) platform {
	t.Helper()
	for _, p := range platforms() {
		if p.os == runtime.GOOS && p.arch == runtime.GOARCH {
			return p
		}
	}
	lacking(t, "nothing is released for "+host().String())
	return platform{}
}

// releasedFiles returns the directory of a release.
func releasedFiles(t testing.TB) (dir string) {
	t.Helper()
	p := thisMachine(t)
	released.once.Do(func() {
		if released.dir, released.err = os.MkdirTemp("", "vmess-released-"); released.err != nil {
			return
		}
		released.err = makeRelease(t, p, released.dir)
	})
	if released.err != nil {
		t.Fatal(released.err)
	}
	return filepath.Join(released.dir, "dist")
}

// makeRelease makes a release in dir/dist, of a copy of the sources in dir/src.
// The command does it, which the race detector does not slow down.
func makeRelease(t testing.TB, p platform, dir string) error {
	t.Helper()
	src, dist, bin := filepath.Join(dir, "src"), filepath.Join(dir, "dist"), filepath.Join(dir, "release")
	for _, name := range []string{"cmd", "pkg", "docs"} {
		if err := os.CopyFS(filepath.Join(src, name), os.DirFS(filepath.Join(top(t), name))); err != nil {
			return err
		}
	}
	for _, name := range []string{"go.mod", "go.sum", "README.md", "LICENSE", "config.example.json"} {
		data, err := os.ReadFile(filepath.Join(top(t), name))
		if err == nil {
			err = os.WriteFile(filepath.Join(src, name), data, 0o600)
		}
		if err != nil {
			return err
		}
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "./pkg/internal/release")
	run := exec.Command(bin, "-out", dist, "-platforms", p.String())
	run.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", releasedAt.Unix()))
	for _, cmd := range []*exec.Cmd{build, run} {
		cmd.Dir = src
		if _, err := outputOf(cmd); err != nil {
			return err
		}
	}
	return nil
}

// TestReleaseIsReproducible: another run, of a copy of the sources elsewhere,
// gives the same bytes; SHA256SUMS tells them.
func TestReleaseIsReproducible(t *testing.T) {
	dir, other := releasedFiles(t), filepath.Join(t.TempDir(), "elsewhere")
	if err := makeRelease(t, thisMachine(t), other); err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(other, "dist")
	made, madeAgain := namesIn(t, dir), namesIn(t, again)
	if !slices.Equal(made, madeAgain) {
		t.Fatalf("made %v, then %v", made, madeAgain)
	}
	sums, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(sums), "\n"); got != len(made)-1 {
		t.Errorf("%d sums of %d files", got, len(made))
	}
	for _, name := range made {
		one, err1 := os.ReadFile(filepath.Join(dir, name))
		two, err2 := os.ReadFile(filepath.Join(again, name))
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(one, two) {
			t.Errorf("%s is not what it was in the other run", name)
		}
		sum := sha256.Sum256(one)
		if name != "SHA256SUMS" && !strings.Contains(string(sums), hex.EncodeToString(sum[:])+"  "+name+"\n") {
			t.Errorf("SHA256SUMS does not have %s", name)
		}
	}
}

func namesIn(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestArchive: the archive holds what a user needs, and its programs run.
func TestArchive(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("not tested: no tar archive for this system")
	}
	dir := releasedFiles(t)
	name := "vmess-local_devel_" + thisMachine(t).String()
	files := readTarGz(t, filepath.Join(dir, name+".tar.gz"))
	for _, want := range []string{
		"vmess-local", "vmess-server", "README.md", "LICENSE", noticesFile, "config.example.json", exampleOfServer,
		"man/vmess-local.1", "man/vmess-server.1", "completions/vmess-local.bash", "completions/_vmess-local",
		"completions/vmess-local.fish", "completions/vmess-server.ps1", "docs/install.md",
		"docs/install/systemd/vmess-local.service", "docs/install/systemd/vmess-server.service", "docs/install/launchd/vmess-local.plist",
	} {
		f, ok := files[name+"/"+want]
		if !ok || len(f.data) == 0 {
			t.Errorf("there is no %s", want)
		}
		if mode := map[bool]fs.FileMode{true: programme, false: plainFile}[slices.Contains(programs, want)]; f.mode != mode {
			t.Errorf("%s has the mode %v", want, f.mode)
		}
	}
	for _, prog := range programs {
		data := files[name+"/"+prog].data
		if bytes.Contains(data, []byte(top(t))) {
			t.Errorf("%s tells where it was built", prog)
		}
		exe := filepath.Join(t.TempDir(), prog)
		if err := os.WriteFile(exe, data, 0o700); err != nil {
			t.Fatal(err)
		}
		said, err := exec.Command(exe, "version").Output()
		if err != nil || !strings.HasPrefix(string(said), prog+" ") {
			t.Errorf("%s says %q: %v", prog, said, err)
		}
		if static, err := isStatic(exe); err != nil || runtime.GOOS == "linux" && !static {
			t.Errorf("%s needs libraries: %v", prog, err)
		}
	}
	if page := string(files[name+"/man/vmess-server.1"].data); !strings.HasPrefix(page, `.TH "VMESS\-SERVER"`) {
		t.Errorf("the manual page begins %.60q", page)
	}
}

// isStatic reports whether an ELF file needs no loader.
func isStatic(name string) (bool, error) {
	f, err := elf.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }), nil
}

// readTarGz returns the files of an archive; all must be root's, of the
// release's time, and in order.
func readTarGz(t *testing.T, name string) map[string]file {
	t.Helper()
	in, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	return readTar(t, z)
}

func readTar(t *testing.T, in io.Reader) map[string]file {
	t.Helper()
	files, last := map[string]file{}, ""
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "root" || h.Gname != "root" || !h.ModTime.Equal(releasedAt) {
			t.Errorf("%s: %d:%d %s:%s %v", h.Name, h.Uid, h.Gid, h.Uname, h.Gname, h.ModTime)
		}
		key := strings.TrimSuffix(h.Name, "/")
		if key <= last {
			t.Errorf("%s comes after %s", key, last)
		}
		last = key
		files[key] = file{key, h.FileInfo().Mode(), data}
	}
}

// TestZip: archives for Windows have the modes and times of the others.
func TestZip(t *testing.T) {
	var b bytes.Buffer
	in := tree{{"a/prog.exe", programme, []byte("MZ")}, {"a/README.md", plainFile, []byte("text")}}
	if err := writeZip(&b, in, releasedAt); err != nil {
		t.Fatal(err)
	}
	r, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.File) != 2 || r.File[0].Name != "a/README.md" || r.File[1].Mode() != programme || !r.File[1].Modified.Equal(releasedAt) {
		t.Errorf("%+v", r.File)
	}
}

// TestPlatforms: there are those that are promised, and they can be chosen.
func TestPlatforms(t *testing.T) {
	var names []string
	for _, p := range platforms() {
		names = append(names, p.String())
	}
	const want = "linux_amd64 linux_arm64 linux_armv7 windows_amd64 windows_arm64 darwin_amd64 darwin_arm64 freebsd_amd64 freebsd_arm64"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("platforms: %s", got)
	}
	if chosen, err := choose("linux_armv7,windows_arm64"); err != nil || len(chosen) != 2 || chosen[0].arm != "7" {
		t.Errorf("%v %v", chosen, err)
	}
	if _, err := choose("plan9_386"); err == nil {
		t.Error("an unknown platform was chosen")
	}
}

// TestNotices: what is linked for each system is named with its notices, and
// nothing that only tests need.
func TestNotices(t *testing.T) {
	g := goTool{top(t)}
	for _, p := range []platform{{os: "linux", arch: "amd64"}, {os: "windows", arch: "amd64"}} {
		modules, err := linked(t.Context(), g, p)
		if err != nil {
			t.Fatal(err)
		}
		text := string(noticesText(modules))
		for _, want := range []string{
			"\nstdlib 1.", "The Go Authors", "github.com/spf13/cobra v1.", "Additional IP Rights Grant", // PATENTS
			"go.yaml.in/yaml/v3", "-- NOTICE", "-- zstd/internal/xxhash/LICENSE.txt",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%v: the notices have no %q", p, want)
			}
		}
		if strings.Contains(text, "mousetrap") != (p.os == "windows") {
			t.Errorf("%v: mousetrap is linked for Windows only", p)
		}
		if strings.Contains(text, "goleak") {
			t.Errorf("%v: what only tests need is named", p)
		}
		bom, err := billOf("v1.2.3", append(modules, modules...), releasedAt)
		if err != nil {
			t.Fatal(err)
		}
		checkBill(t, bom, modules)
	}
}

func checkBill(t *testing.T, bom []byte, modules []module) {
	t.Helper()
	var b bill
	if err := json.Unmarshal(bom, &b); err != nil {
		t.Fatal(err)
	}
	if b.Format != "CycloneDX" || b.SpecVersion != "1.6" || b.Metadata.Timestamp != "2026-03-04T05:06:08Z" || b.Metadata.Component.Version != "v1.2.3" {
		t.Errorf("%+v", b.Metadata)
	}
	if len(b.Components) != len(modules) || len(b.Dependencies[0].DependsOn) != len(modules) {
		t.Fatalf("%d components of %d modules", len(b.Components), len(modules))
	}
	for i, m := range modules {
		c := b.Components[i]
		if c.PURL != "pkg:golang/"+m.path+"@"+m.version || len(c.Licenses) == 0 {
			t.Errorf("%+v", c)
		}
	}
}

// TestNoLicence: a module without a licence, or with one that nobody judged,
// ends the release.
func TestNoLicence(t *testing.T) {
	dir := t.TempDir()
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	packages := make([]linkedPackage, 1)
	packages[0].ImportPath, packages[0].Dir = "example.com/m/sub", sub
	packages[0].Module = &struct {
		Path, Version, Dir string
		Main               bool
	}{Path: "example.com/m", Version: "v1.0.0", Dir: dir}
	if _, err := collect(packages, "1"); !errors.Is(err, errNoLicence) {
		t.Errorf("no licence: %v", err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("NOTICE", "It is mine.")
	write("license.go", "package m")
	if _, err := collect(packages, "1"); !errors.Is(err, errNoLicence) {
		t.Errorf("no licence, but a notice: %v", err)
	}
	write("sub/LICENSE", "All rights reserved.")
	if _, err := collect(packages, "1"); !errors.Is(err, errUnknownLicence) {
		t.Errorf("a licence of no kind: %v", err)
	}
	write("sub/LICENSE", "Permission is hereby granted, free of charge, to any person obtaining\na copy")
	modules, err := collect(packages, "1")
	if err != nil || len(modules) != 1 || !slices.Equal(modules[0].licences, []string{"MIT"}) || len(modules[0].notices) != 2 {
		t.Errorf("%+v %v", modules, err)
	}
}

// TestReleaseTime: SOURCE_DATE_EPOCH goes before the commit's time.
func TestReleaseTime(t *testing.T) {
	if at, err := releaseTime(t.Context(), t.TempDir(), "1772600768"); err != nil || !at.Equal(releasedAt) {
		t.Errorf("%v %v", at, err)
	}
	if _, err := releaseTime(t.Context(), t.TempDir(), ""); !errors.Is(err, errNoTime) {
		t.Errorf("no time: %v", err)
	}
	if _, err := releaseTime(t.Context(), t.TempDir(), "yesterday"); err == nil {
		t.Error("yesterday is a time")
	}
}

// TestComplete: an archive has each directory once, before what is in it.
func TestComplete(t *testing.T) {
	in := tree{{"b/c/d", plainFile, nil}, {"b/c", secretsDir, nil}, {"a", plainFile, nil}, {"b/c/e", plainFile, nil}}
	var got []string
	for _, f := range in.complete() {
		got = append(got, f.name+" "+f.mode.String())
	}
	want := []string{"a -rw-r--r--", "b drwxr-xr-x", "b/c drwxr-x---", "b/c/d -rw-r--r--", "b/c/e -rw-r--r--"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if moved := in.under("x"); moved[0].name != path.Join("x", "b/c/d") || in[0].name != "b/c/d" {
		t.Errorf("%v %v", moved, in)
	}
}
