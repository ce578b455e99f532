package cli

import (
	"bytes"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"
)

// onTerminal returns w, painted where it is a terminal on which colours are
// welcome: https://no-color.org, and no TERM=dumb. Pipes and files get what is
// written as it is.
func onTerminal(w io.Writer, lookup func(string) (string, bool)) io.Writer {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return w
	}
	if off, _ := lookup("NO_COLOR"); off != "" {
		return w
	}
	if kind, _ := lookup("TERM"); kind == "dumb" || !understandsColours(file) {
		return w
	}
	return &colorWriter{w: w}
}

// Coloured reports whether a command's output goes to a terminal on which
// colours are welcome.
func Coloured(w io.Writer) bool {
	_, ok := w.(*colorWriter)
	return ok
}

// The colours, as SGR parameters (ECMA-48 8.3.117).
const (
	bad   = "1;31" // bold red
	wrong = "33"   // yellow
	good  = "32"   // green
	act   = "36"   // cyan
	faint = "2"
)

// labels are the words that begin lines, and their colours. What stands behind
// them begins in one column.
var labels = []struct{ word, colour string }{
	{"error:", bad},
	{"fix:", act},
	{"  or", act}, // of a fix
	{"warning:", wrong},
	{"healed:", good},
	{"ready:", good},
	{"reloaded:", good},
	{"status:", act},
	{"Firefox:", faint},
	{"Chromium:", faint},
	{"shell:", faint},
	{"debug:", faint},
}

// labelWidth is that of the longest label.
const labelWidth = len("Chromium:")

// words begin lines, too, and keep their places: a check's table is aligned
// already.
var words = []struct{ word, colour string }{
	{"pass  ", good},
	{"fail  ", bad},
	{"heal  ", wrong},
	{"warn  ", wrong},
	{"skip  ", faint},
	{"ok: ", good},
	{"all checks passed\n", good},
	{"some checks did not pass\n", bad},
}

// A colorWriter colours the words that begin lines. Only the program's own lines
// begin with them: what peers send never begins one.
type colorWriter struct {
	mu     sync.Mutex
	w      io.Writer
	inLine bool // the next byte does not begin a line
}

// Write implements io.Writer.
func (p *colorWriter) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b bytes.Buffer
	for line := range bytes.Lines(text) {
		if p.inLine {
			b.Write(line)
		} else {
			b.WriteString(painted(string(line)))
		}
		p.inLine = line[len(line)-1] != '\n'
	}
	if _, err := p.w.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(text), nil
}

func painted(line string) string {
	for _, l := range labels {
		if rest, ok := strings.CutPrefix(line, l.word+" "); ok {
			return colour(l.word, l.colour) + strings.Repeat(" ", labelWidth-len(l.word)+1) + rest
		}
	}
	for _, w := range words {
		if rest, ok := strings.CutPrefix(line, w.word); ok {
			word := strings.TrimRight(w.word, " \n")
			return colour(word, w.colour) + w.word[len(word):] + rest
		}
	}
	return line
}

func colour(word, sgr string) string { return "\x1b[" + sgr + "m" + word + "\x1b[0m" }
