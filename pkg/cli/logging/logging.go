// Package logging writes log records for people, one plain line each, or as
// JSON for programs. A record that has words of its own for people carries
// them as [Text]; all else is its message and its attributes.
package logging

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
)

// textKey is the attribute that holds a record's words for people.
const textKey = "text"

// Text is the whole line that people read instead of the record's message and
// attributes. JSON leaves it out.
func Text(format string, args ...any) slog.Attr {
	return slog.String(textKey, fmt.Sprintf(format, args...))
}

// New returns a handler that writes to w from level on. Writes are whole lines
// and one at a time. json chooses the format for programs.
func New(w io.Writer, level slog.Leveler, json bool) slog.Handler {
	if json {
		return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: dropText})
	}
	return &handler{w: w, level: level, mu: new(sync.Mutex)}
}

// ParseLevel reads debug, info, warn or error.
func ParseLevel(name string) (slog.Level, error) {
	switch name {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("log level %q: want debug, info, warn or error", name)
}

func dropText(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == textKey {
		return slog.Attr{}
	}
	return a
}

// handler writes lines for people, to a terminal without time: a desktop
// program's talk is read as it comes, and a service manager adds the time
// itself.
type handler struct {
	w     io.Writer
	level slog.Leveler
	mu    *sync.Mutex
	attrs string // of WithAttrs, printed
	group string // prefix of keys
	timed bool   // lines begin with their time
}

func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	var line strings.Builder
	if h.timed {
		line.WriteString(r.Time.Format(time.RFC3339))
		line.WriteByte(' ')
	}
	switch {
	case r.Level >= slog.LevelError:
		line.WriteString("error: ")
	case r.Level >= slog.LevelWarn:
		line.WriteString("warning: ")
	case r.Level < slog.LevelInfo:
		line.WriteString("debug: ")
	}
	text, attrs := "", h.attrs
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == textKey && h.group == "" {
			text = a.Value.String()
		} else {
			attrs += format(h.group, a)
		}
		return true
	})
	if text != "" {
		line.WriteString(oneLine(text))
	} else {
		line.WriteString(oneLine(r.Message))
		line.WriteString(attrs)
	}
	line.WriteByte('\n')
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.w, line.String())
	return err
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	for _, a := range attrs {
		c.attrs += format(h.group, a)
	}
	return &c
}

func (h *handler) WithGroup(name string) slog.Handler {
	c := *h
	c.group += name + "."
	return &c
}

func format(group string, a slog.Attr) string {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		var all strings.Builder
		for _, m := range v.Group() {
			all.WriteString(format(group+a.Key+".", m))
		}
		return all.String()
	}
	if a.Equal(slog.Attr{}) {
		return ""
	}
	s := v.String()
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '"' || r == '=' || r == 0x7f }) {
		s = strconv.Quote(s)
	}
	return " " + group + a.Key + "=" + s
}

// oneLine keeps what peers sent from breaking out of the line or into the
// terminal. A line break that the text's author meant stays.
func oneLine(s string) string {
	if !strings.ContainsFunc(s, control) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if control(r) {
			return '�'
		}
		return r
	}, s)
}

func control(r rune) bool { return r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 }
