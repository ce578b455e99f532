package logging

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestLines(t *testing.T) {
	for _, c := range []struct {
		log  func(*slog.Logger)
		text string
		json string // a part of it
	}{
		{func(l *slog.Logger) { l.Info("ready", Text("ready: proxy on %s", "a:1"), "listen", "a:1") }, "ready: proxy on a:1\n", `"msg":"ready","listen":"a:1"}`},
		{func(l *slog.Logger) { l.Error("dial", "err", errors.New("no \"way\"")) }, `error: dial err="no \"way\""` + "\n", `"level":"ERROR","msg":"dial","err":"no \"way\""`},
		{func(l *slog.Logger) { l.Warn("w", "n", 3, "empty", "") }, "warning: w n=3 empty=\"\"\n", `"n":3`},
		{func(l *slog.Logger) { l.Debug("not shown") }, "", ""},
		{func(l *slog.Logger) { l.With("a", 1).WithGroup("g").Info("m", "b", 2) }, "m a=1 g.b=2\n", `"a":1,"g":{"b":2}`},
		{func(l *slog.Logger) { l.Info("x\x1b[31m\r") }, "x�[31m�\n", "x"},
		{func(l *slog.Logger) { l.Info("v", slog.Group("g", "k", "a b")) }, "v g.k=\"a b\"\n", `"g":{"k":"a b"}`},
	} {
		var text, json bytes.Buffer
		c.log(slog.New(New(&text, slog.LevelInfo, false)))
		c.log(slog.New(New(&json, slog.LevelInfo, true)))
		if text.String() != c.text {
			t.Errorf("text %q, want %q", text.String(), c.text)
		}
		if !strings.Contains(json.String(), c.json) || strings.Contains(json.String(), `"text"`) {
			t.Errorf("JSON %q, want %q in it and no text", json.String(), c.json)
		}
	}
}

func TestParseLevel(t *testing.T) {
	for name, want := range map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError} {
		if l, err := ParseLevel(name); l != want || err != nil {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
	if _, err := ParseLevel("loud"); err == nil {
		t.Error("loud is taken for a level")
	}
}
