package e2e

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// How the harness is used, in short:
//
//	origin := bulkOrigin(t)                                // a destination
//	far := startV2rayServer(t, v2rayServer{})              // or ourServer, nginx…
//	near := ourClient(t, clientConfig(far))                // or inProcessClient, startV2rayClient
//	exchange(t, near.addr, origin, 1<<20, 1<<20)           // an application
//
// Everything that is started ends with its test, and its log is shown when
// that test fails. Nothing listens or dials outside of loopback.

// built holds our own programs once they are built.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	runMoreAtOnce()
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if built.dir != "" {
			_ = os.RemoveAll(built.dir)
		}
		if soaked.line != "" {
			fmt.Println(soaked.line)
		}
		os.Exit(code)
	}))
}

// runMoreAtOnce lets more tests run beside each other than there are
// processors, unless the caller said how many: most of them wait for
// processes, or for time to pass.
func runMoreAtOnce() {
	flag.Parse()
	const name = "test.parallel"
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if !given {
		_ = flag.Set(name, strconv.Itoa(max(4, runtime.GOMAXPROCS(0))))
	}
}

// program returns the path of one of our own programs, vmess-local or
// vmess-server, which are built on first use.
func program(t testing.TB, name string) string {
	t.Helper()
	built.once.Do(func() { built.dir, built.err = build() })
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, name)
}

func build() (dir string, err error) {
	root, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		return "", err
	}
	if err := touchSources(root); err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp("", "vmess-e2e-"); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-tags", "nethttpomithttp2", "-o", dir+string(filepath.Separator), "./cmd/...")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("build our programs: %w\n%s", err, out)
	}
	return dir, nil
}

// touchSources looks at every source file: go test remembers what a test
// looked at, and so runs these tests again when a program has changed.
func touchSources(root string) error {
	for _, top := range []string{"cmd", "pkg"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err == nil && slices.Contains([]string{".go", ".html", ".css", ".js", ".svg"}, filepath.Ext(path)) {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// need returns the path of somebody else's program. Where it is not installed
// the test is left out, or fails with CI=true.
func need(t testing.TB, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	leaveOut(t, "%s is not installed", name)
	return ""
}

// leaveOut ends a test that lacks something on this machine: it is left out,
// or fails with CI=true, which asks for all tests.
func leaveOut(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("not tested, but CI=true asks for all tests: "+format, args...)
	}
	t.Skipf("not tested: "+format, args...)
}
