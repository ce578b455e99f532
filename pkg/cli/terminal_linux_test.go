package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openTerminal returns both sides of a new pseudo terminal.
func openTerminal(t *testing.T) (screen, terminal *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("there are no pseudo terminals here:", err)
		}
		t.Skip("not tested: there are no pseudo terminals here:", err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetUint32(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	return screen, terminal
}

// TestTerminal writes to a real terminal, in colours unless they are not
// wanted there.
func TestTerminal(t *testing.T) {
	const plain, coloured = "error: it broke\r\nfix: mend it\r\n", "\x1b[1;31merror:\x1b[0m    it broke\r\n\x1b[36mfix:\x1b[0m      mend it\r\n"
	for _, c := range []struct {
		name string
		env  map[string]string
		want string
	}{
		{"a terminal", map[string]string{"TERM": "xterm"}, coloured},
		{"NO_COLOR empty", map[string]string{"TERM": "xterm", "NO_COLOR": ""}, coloured},
		{"NO_COLOR", map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, plain},
		{"dumb", map[string]string{"TERM": "dumb"}, plain},
	} {
		t.Run(c.name, func(t *testing.T) {
			screen, terminal := openTerminal(t)
			w := onTerminal(terminal, func(key string) (string, bool) { v, ok := c.env[key]; return v, ok })
			if Coloured(w) != (c.want == coloured) {
				t.Errorf("coloured: %v", Coloured(w))
			}
			if _, err := io.WriteString(w, "error: it broke\nfix: mend it\n"); err != nil {
				t.Fatal(err)
			}
			got := make(chan string, 1)
			go func() {
				r := bufio.NewReader(screen)
				first, _ := r.ReadString('\n')
				second, _ := r.ReadString('\n')
				got <- first + second
			}()
			select {
			case text := <-got:
				if text != c.want {
					t.Errorf("%q, want %q", text, c.want)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("nothing is shown")
			}
		})
	}
}

// TestMainOnTerminal runs a command line whose error goes to a terminal, and
// its log as JSON to the same: only the former is coloured.
func TestMainOnTerminal(t *testing.T) {
	for args, want := range map[string]string{
		"run --log-format xml":          "\x1b[1;31merror:\x1b[0m    --log-format: saw \"xml\"\r\n",
		"run --log-format json":         "{\"time\"",
		"run --log-format text nothing": "\x1b[1;31merror:\x1b[0m    it broke\r\n",
	} {
		t.Setenv("TERM", "xterm")
		t.Setenv("NO_COLOR", "")
		screen, terminal := openTerminal(t)
		Main(testRoot(fmt.Errorf("it broke")), strings.Fields(args), strings.NewReader(""), io.Discard, terminal)
		if line, err := bufio.NewReader(screen).ReadString('\n'); !strings.HasPrefix(line, want) {
			t.Errorf("%s: %q, %v, want %q", args, line, err, want)
		}
	}
}
