package control

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shortDir is a directory whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "c")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "p")
}

func serve(t *testing.T, dir, name string, answer Handler) *Server {
	t.Helper()
	s, err := Serve(dir, name, answer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestQuestionsAreAnswered(t *testing.T) {
	dir := shortDir(t)
	for _, name := range []string{"one", "two"} {
		serve(t, dir, name, func(_ context.Context, q string) string { return name + " heard\n" + q + ` and \n` })
	}
	if names, err := Names(dir); err != nil || !slices.Equal(names, []string{"one", "two"}) {
		t.Errorf("%q, %v", names, err)
	}
	if got, err := Request(t.Context(), dir, "one", "reload"); err != nil || got != "one heard\nreload and \\n" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := Request(t.Context(), dir, "two", "x"); err != nil || !strings.HasPrefix(got, "two ") {
		t.Errorf("%q, %v", got, err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	dir := shortDir(t)
	if names, err := Names(dir); err != nil || len(names) > 0 {
		t.Errorf("without a directory: %q, %v", names, err)
	}
	// A program that died leaves its socket; it is removed, and can be made anew.
	s := serve(t, dir, "dead", nil)
	s.listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Request(t.Context(), dir, "dead", "reload"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("of a dead one: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A program that is there and does not answer is not taken for a dead one.
func TestSilentProgram(t *testing.T) {
	dir := shortDir(t)
	serve(t, dir, "one", func(ctx context.Context, _ string) string { <-ctx.Done(); return "" })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Request(ctx, dir, "one", "reload"); !errors.Is(err, ErrSilent) {
		t.Errorf("%v", err)
	}
	if names, err := Names(dir); err != nil || len(names) != 1 {
		t.Errorf("its socket is gone: %q, %v", names, err)
	}
}

// Only the user may enter the directory.
func TestOnlyTheUserMayAsk(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the user's directory is the user's there")
	}
	dir := shortDir(t)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	serve(t, dir, "one", nil)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// A question without an end costs little and ends.
func TestEndlessQuestion(t *testing.T) {
	dir := shortDir(t)
	asked := make(chan string, 1)
	serve(t, dir, "one", func(_ context.Context, q string) string { asked <- q; return "" })
	conn, err := net.Dial("unix", filepath.Join(dir, "one.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range maxLine/1024 + 1 {
		if _, err := conn.Write(make([]byte, 1024)); err != nil {
			break
		}
	}
	if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("answered %d bytes, %v", n, err)
	}
	if len(asked) > 0 {
		t.Error("it was taken for a question")
	}
}

// TestAskersAreBounded: however many ask at one time, few are answered at one
// time, and the others in their turn.
func TestAskersAreBounded(t *testing.T) {
	dir := shortDir(t)
	var (
		now, most atomic.Int64
		once      sync.Once
	)
	full, open := make(chan struct{}), make(chan struct{})
	serve(t, dir, "one", func(context.Context, string) string {
		n := now.Add(1)
		most.Store(max(n, most.Load()))
		if n == maxAskers {
			once.Do(func() { close(full) })
		}
		<-open
		now.Add(-1)
		return "yes"
	})
	var all sync.WaitGroup
	for range 3 * maxAskers {
		all.Go(func() {
			if answer, err := Request(t.Context(), dir, "one", "anything"); err != nil || answer != "yes" {
				t.Errorf("%q, %v", answer, err)
			}
		})
	}
	<-full
	time.Sleep(50 * time.Millisecond) // for one more to come through, if it could
	close(open)
	all.Wait()
	if n := most.Load(); n > maxAskers {
		t.Errorf("%d were answered at one time", n)
	}
}

func TestDir(t *testing.T) {
	runtimeDir := filepath.Join(t.TempDir(), "run")
	got, err := Dir("prog", func(string) (string, bool) { return runtimeDir, true })
	if err != nil || got != filepath.Join(runtimeDir, "prog") {
		t.Errorf("%s, %v", got, err)
	}
}
