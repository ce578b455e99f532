// Package clitest runs testscripts of the programs: scripts that call them
// as a user does, each as a process of its own. Besides testscript's own
// commands, scripts have
//
//	code N PROGRAM ARG...         runs a program that must end with exit code N
//	start NAME [VARIABLE=VALUE...] PROGRAM ARG...
//	                              runs one in the background until it is ready;
//	                              $NAME is then where it listens
//	end NAME INT|TERM N           signals it and waits for exit code N; stdout
//	                              and stderr are what it said
//	[!] fetch PROXY URL           gets a URL through a proxy (a URL, too)
//	listening ADDR FILE OUT       copies a configuration that listens elsewhere
//	certificate CERT KEY          writes a fresh certificate and its key
//	width N FILE                  no line of the file is longer than N characters
//
// the condition [tool:NAME], that somebody else's program is installed, which
// with CI=true it must be, and $ORIGIN, the HOST:PORT of a web server on
// loopback. Their *.json files are readable by their owner only.
package clitest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// A Program is the main function of a program, without its process.
type Program func(args []string, stdin io.Reader, stdout, stderr io.Writer) int

// Main runs a package's tests with a program as a command. It does not return.
func Main(m *testing.M, name string, run Program) {
	if os.Getenv("GORACE") == "" {
		// The race detector's own programs take a second to end without this.
		_ = os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
	testscript.Main(leakChecked{m}, map[string]func(){
		name: func() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// leakChecked fails tests that leave goroutines behind.
type leakChecked struct{ *testing.M }

// Run implements testscript.TestingM.
func (m leakChecked) Run() int {
	code := m.M.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// Answer is what $ORIGIN serves.
const Answer = "the origin's answer\n"

// Run runs the scripts in testdata/script.
func Run(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": code, "start": start, "end": end, "fetch": fetch, "width": width, "listening": listening,
			"certificate": certificate,
		},
		Condition: condition,
	})
}

// condition knows "tool:NAME": that somebody else's program is installed. With
// CI=true it must be.
func condition(cond string) (bool, error) {
	name, ok := strings.CutPrefix(cond, "tool:")
	if !ok {
		return false, fmt.Errorf("unknown condition %q", cond)
	}
	_, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") == "true" {
		return false, fmt.Errorf("not tested, but CI=true asks for all tests: %s is not installed", name)
	}
	return err == nil, nil
}

func setup(env *testscript.Env) error {
	files, err := filepath.Glob(filepath.Join(env.WorkDir, "*.json"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := os.Chmod(file, 0o600); err != nil {
			return err
		}
	}
	env.Values[backgrounds{}] = make(map[string]*Background)
	env.Setenv("GORACE", os.Getenv("GORACE"))
	return serveOrigin(env)
}

func serveOrigin(env *testscript.Env) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, Answer)
	})}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	env.Defer(func() {
		_ = s.Close()
		<-done
	})
	env.Setenv("ORIGIN", ln.Addr().String())
	return nil
}

func usage(ts *testscript.TestScript, ok bool, text string) {
	if !ok {
		ts.Fatalf("usage: %s", text)
	}
}

func code(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "code N PROGRAM ARG...")
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%v", err)
	}
	got := 0
	if exit != nil {
		got = exit.ExitCode()
	}
	if args[0] != strconv.Itoa(got) {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// backgrounds is the key of the programs that a script has started.
type backgrounds struct{}

func start(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "start NAME [VARIABLE=VALUE...] PROGRAM ARG...")
	name, env, rest := args[0], []string(nil), args[1:]
	for len(rest) > 1 && strings.Contains(rest[0], "=") {
		env, rest = append(env, rest[0]), rest[1:]
	}
	cmd := exec.Command(rest[0], rest[1:]...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), append(os.Environ(), env...)
	b, err := Start(cmd)
	ts.Check(err)
	ts.Defer(b.Kill)
	ts.Value(backgrounds{}).(map[string]*Background)[name] = b
	listen, err := b.Ready()
	if err != nil {
		ts.Fatalf("%s: %v; it said:\n%s%s", name, err, b.Stdout(), b.Stderr())
	}
	ts.Setenv(name, listen)
}

func end(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 3, "end NAME INT|TERM N")
	b := ts.Value(backgrounds{}).(map[string]*Background)[args[0]]
	if b == nil {
		ts.Fatalf("%s was not started", args[0])
	}
	var sig os.Signal = os.Interrupt
	if args[1] == "TERM" {
		sig = syscall.SIGTERM
	}
	ts.Check(b.Signal(sig))
	got, err := b.Wait()
	_, _ = io.WriteString(ts.Stdout(), b.Stdout())
	_, _ = io.WriteString(ts.Stderr(), b.Stderr())
	if err != nil || strconv.Itoa(got) != args[2] {
		ts.Fatalf("%s: exit code %d, want %s; %v", args[0], got, args[2], err)
	}
}

func fetch(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 2, "fetch PROXY URL")
	err := Get(args[0], args[1])
	switch {
	case neg && err == nil:
		ts.Fatalf("%s came through %s", args[1], args[0])
	case !neg && err != nil:
		ts.Fatalf("%s through %s: %v", args[1], args[0], err)
	}
}

// Get gets a URL of $ORIGIN through a proxy, and returns an error unless its
// answer came.
func Get(proxy, target string) error {
	proxyURL, err := url.Parse(proxy)
	if err != nil {
		return err
	}
	way := &http.Transport{Proxy: func(*http.Request) (*url.URL, error) { return proxyURL, nil }, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: way, Timeout: patience}).Get(target)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err == nil && string(body) != Answer {
		err = fmt.Errorf("%s: %q", resp.Status, body)
	}
	return err
}

var listenKey = regexp.MustCompile(`"listen": "[^"]*"`)

func listening(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 3, "listening ADDR FILE OUT")
	text := listenKey.ReplaceAllLiteralString(ts.ReadFile(args[1]), `"listen": "`+args[0]+`"`)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(text), 0o600))
}

func width(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "width N FILE")
	most, err := strconv.Atoi(args[0])
	ts.Check(err)
	for line := range strings.Lines(ts.ReadFile(args[1])) {
		if line = strings.TrimRight(line, "\n"); utf8.RuneCountInString(line) > most {
			ts.Fatalf("longer than %d characters: %s", most, line)
		}
	}
}
