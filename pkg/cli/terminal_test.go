package cli

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestPainter(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"labels in one column", "error: a\nfix: b\n  or c\nwarning: d\nreloaded: e\n", "\x1b[1;31merror:\x1b[0m    a\n\x1b[36mfix:\x1b[0m      b\n\x1b[36m  or\x1b[0m      c\n\x1b[33mwarning:\x1b[0m  d\n\x1b[32mreloaded:\x1b[0m e\n"},
		{"a table", "pass  tcp\nfail  tls  1 ms\nskip  udp\n", "\x1b[32mpass\x1b[0m  tcp\n\x1b[1;31mfail\x1b[0m  tls  1 ms\n\x1b[2mskip\x1b[0m  udp\n"},
		{"a result", "\nall checks passed\nsome checks did not pass\n", "\n\x1b[32mall checks passed\x1b[0m\n\x1b[1;31msome checks did not pass\x1b[0m\n"},
		{"only what begins a line", "no error: a\npassed  b\nerror:c\n", "no error: a\npassed  b\nerror:c\n"},
		{"JSON", "{\"level\":\"ERROR\",\"msg\":\"error: a\"}\n", "{\"level\":\"ERROR\",\"msg\":\"error: a\"}\n"},
		{"nothing", "", ""},
	} {
		var out bytes.Buffer
		p := &colorWriter{w: &out}
		if n, err := io.WriteString(p, c.text); n != len(c.text) || err != nil {
			t.Errorf("%s: %d, %v", c.name, n, err)
		}
		if out.String() != c.want {
			t.Errorf("%s: %q, want %q", c.name, out.String(), c.want)
		}
	}
	var out bytes.Buffer
	p := &colorWriter{w: &out}
	for _, part := range []string{"no ", "error: a", "\nfix: b", "\n"} {
		_, _ = io.WriteString(p, part)
	}
	if want := "no error: a\n\x1b[36mfix:\x1b[0m      b\n"; out.String() != want {
		t.Errorf("in parts: %q, want %q", out.String(), want)
	}
}

// What is no terminal gets what is written as it is.
func TestNoTerminal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, w := range []io.Writer{file, w, null, new(bytes.Buffer)} {
		if got := onTerminal(w, os.LookupEnv); got != w || Coloured(got) {
			t.Errorf("%T is painted", w)
		}
	}
}
