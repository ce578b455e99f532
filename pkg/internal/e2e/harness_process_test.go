package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// startPatience is how long a program may take until it is ready, and a line
// of its log to come.
const startPatience = 20 * time.Second

// A command is a program to start.
type command struct {
	path string
	args []string
	env  []string // NAME=value, on top of a clean environment
	dir  string
}

// A process is a started program. It ends with its test.
type process struct {
	command
	log  *tail
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// start starts a program in a process group of its own. The test's end kills
// it; a failed test shows what it said.
func start(t testing.TB, c command) *process {
	t.Helper()
	p := &process{log: newTail(), command: c}
	if err := p.run(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		showLog(t, p.cmd.Path, p.log)
	})
	return p
}

// run starts the process, for the first time or after its end.
func (p *process) run() error {
	p.cmd, p.done = exec.Command(p.path, p.args...), make(chan struct{})
	p.cmd.Dir = p.dir
	p.cmd.Env = append(cleanEnv(), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.WaitDelay = 5 * time.Second
	setGroup(p.cmd)
	if err := p.cmd.Start(); err != nil {
		close(p.done)
		return err
	}
	go func(cmd *exec.Cmd, done chan struct{}) {
		defer close(done)
		_ = cmd.Wait() // the state tells
	}(p.cmd, p.done)
	return nil
}

// kill ends the process's group at once and waits for it.
func (p *process) kill() {
	select {
	case <-p.done:
	default:
		killGroup(p.cmd)
		<-p.done
	}
}

// exitCode waits for the process to end by itself.
func (p *process) exitCode(t testing.TB) int {
	t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(startPatience):
		t.Fatalf("%s did not end", p.cmd.Path)
		return -1
	}
}

// waitLine waits until the process has said what re matches, and returns the
// submatches.
func (p *process) waitLine(t testing.TB, re *regexp.Regexp) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startPatience)
	defer cancel()
	go func(done <-chan struct{}) { // of this run
		select {
		case <-done:
			cancel()
		case <-ctx.Done():
		}
	}(p.done)
	m, err := p.log.wait(ctx, re)
	if err != nil {
		t.Fatalf("%s did not say %s", p.cmd.Path, re)
	}
	return m
}

// waitPort waits until the process accepts connections on addr.
func (p *process) waitPort(t testing.TB, addr string) {
	t.Helper()
	if err := p.listens(addr); err != nil {
		t.Fatal(err)
	}
}

// listens is waitPort for any goroutine.
func (p *process) listens(addr string) error {
	deadline := time.Now().Add(startPatience)
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = c.Close()
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not listen on %s: %w", p.path, addr, err)
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before it listened on %s", p.path, addr)
		case <-time.After(pause):
		}
	}
}

// cleanEnv is the environment without what changes the behaviour of the
// programs under test.
func cleanEnv() []string {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(strings.ToLower(e), "=")
		if strings.HasPrefix(name, "v2ray") || strings.HasSuffix(name, "_proxy") {
			continue
		}
		env = append(env, e)
	}
	return env
}

// showLog shows a log's end when the test has failed.
func showLog(t testing.TB, name string, log *tail) {
	if !t.Failed() {
		return
	}
	text := log.String()
	const most = 24 << 10
	if len(text) > most {
		text = "…" + text[len(text)-most:]
	}
	t.Logf("%s said:\n%s", name, text)
}

// ports are those already given out by freePort.
var ports struct {
	sync.Mutex
	taken map[int]bool
}

// freePort returns a loopback address with a port that nobody listens on and
// that is given to nobody else, for programs that cannot pick one themselves.
// It is below the ports that systems take for outgoing connections, of which
// these tests make thousands: one of port 0 could be gone again by the time
// the program listens.
func freePort(t testing.TB) string {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.taken == nil {
		ports.taken = map[int]bool{}
	}
	for range 1000 {
		port := 12000 + rand.IntN(20000)
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if ports.taken[port] {
			continue
		}
		if ln, err := net.Listen("tcp", addr); err == nil {
			_ = ln.Close()
			ports.taken[port] = true
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// A tail keeps the end of what is written to it, and can be waited for.
type tail struct {
	mu      sync.Mutex
	text    []byte
	changed chan struct{} // closed at the next write
}

const tailSize = 4 << 20

func newTail() *tail { return &tail{changed: make(chan struct{})} }

// Write implements io.Writer.
func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.text) > tailSize {
		l.text = append([]byte(nil), l.text[tailSize/2:]...)
	}
	l.text = append(l.text, p...)
	close(l.changed)
	l.changed = make(chan struct{})
	return len(p), nil
}

// String returns what is kept.
func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// contains reports whether text was written.
func (l *tail) contains(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.text, []byte(text))
}

// wait waits for text that re matches, also in what was written before.
func (l *tail) wait(ctx context.Context, re *regexp.Regexp) ([]string, error) {
	for {
		l.mu.Lock()
		m, changed := re.FindSubmatch(l.text), l.changed
		l.mu.Unlock()
		if m != nil {
			var texts []string
			for _, b := range m {
				texts = append(texts, string(b))
			}
			return texts, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, errors.New("not said")
		}
	}
}

// waitCount waits until exact text stands in a log so many times.
func (l *tail) waitCount(t testing.TB, text string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startPatience)
	defer cancel()
	if _, err := l.wait(ctx, regexp.MustCompile(fmt.Sprintf("(?s)(?:%s.*?){%d}", regexp.QuoteMeta(text), n))); err != nil {
		t.Errorf("the log does not say %q %d times", text, n)
	}
}

// waitFor waits for exact text in a log and fails the test when it does not
// come.
func (l *tail) waitFor(t testing.TB, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startPatience)
	defer cancel()
	if _, err := l.wait(ctx, regexp.MustCompile(regexp.QuoteMeta(text))); err != nil {
		t.Errorf("the log does not say %q", text)
	}
}
