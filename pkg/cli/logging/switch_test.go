package logging

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
)

// A logger made before the change writes where its Switch leads now, with its
// own attributes and groups.
func TestSwitch(t *testing.T) {
	var before, after strings.Builder
	s := NewSwappableHandler(New(&before, slog.LevelWarn, false))
	log := slog.New(s)
	with := log.With("a", 1).WithGroup("g").With("b", 2)
	log.Info("not yet")
	with.Warn("one", "c", 3)
	s.Set(New(&after, slog.LevelInfo, false))
	log.Info("now")
	with.Warn("two", "c", 3)
	if want := "warning: one a=1 g.b=2 g.c=3\n"; before.String() != want {
		t.Errorf("before: %q, want %q", before.String(), want)
	}
	if want := "now\nwarning: two a=1 g.b=2 g.c=3\n"; after.String() != want {
		t.Errorf("after: %q, want %q", after.String(), want)
	}
}

// A Switch is a handler as the standard library wants them.
func TestSwitchIsHandler(t *testing.T) {
	var out strings.Builder
	slogtest.Run(t, func(*testing.T) slog.Handler {
		out.Reset()
		return NewSwappableHandler(slog.NewTextHandler(&out, nil))
	}, func(*testing.T) map[string]any { return fields(out.String()) })
}

// fields reads a line of slog.TextHandler.
func fields(line string) map[string]any {
	top := map[string]any{}
	for _, pair := range strings.Fields(line) {
		key, value, _ := strings.Cut(pair, "=")
		m := top
		parts := strings.Split(key, ".")
		for _, group := range parts[:len(parts)-1] {
			if m[group] == nil {
				m[group] = map[string]any{}
			}
			m = m[group].(map[string]any)
		}
		m[parts[len(parts)-1]] = value
	}
	return top
}

// Once Set has returned, nothing goes to the handler before: its file may be
// closed.
func TestSwitchWhileInUse(t *testing.T) {
	var writers sync.WaitGroup
	first := &guardedWriter{t: t}
	s := NewSwappableHandler(New(first, slog.LevelInfo, false))
	for range 8 {
		writers.Go(func() {
			for range 200 {
				slog.New(s).Info("line")
			}
		})
	}
	s.Set(New(&guardedWriter{t: t}, slog.LevelInfo, false))
	first.close()
	writers.Wait()
}

// guardedWriter fails the test when it is written to after its end.
type guardedWriter struct {
	t      *testing.T
	mu     sync.Mutex
	closed bool
}

// Write implements io.Writer.
func (g *guardedWriter) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		g.t.Error("written to after its end")
	}
	return len(p), nil
}

func (g *guardedWriter) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}
