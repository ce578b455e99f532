package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testRoot is a program with a command that fails with err and logs as the
// flags say, or by default as JSON.
func testRoot(err error) *cobra.Command {
	var log LogFlags
	cmd := &cobra.Command{Use: "run [-c FILE | LINK]", Args: OneArg, RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return err // before the configuration is known
		}
		if err := log.Check(); err != nil {
			return err
		}
		l, newErr := log.New(cmd.ErrOrStderr(), "warn", "json", "")
		if newErr != nil {
			return newErr
		}
		l.Info("not shown")
		l.Warn("shown")
		return err
	}}
	log.Add(cmd)
	return NewRoot("prog", "A program", "It does things.", "  prog run", cmd)
}

// A found is a finding with a cause.
type found struct{ what string }

func (f found) Line() string            { return "a.cause: " + f.what }
func (f found) FixLine() string         { return "fix: mend it" }
func (f found) Record() (string, []any) { return f.what, []any{"cause", "a.cause", "fix", "mend it"} }

func TestExecute(t *testing.T) {
	failed := errors.New("it broke\nfix: mend it\nanother")
	several := NewFindings(failed, 2, found{"one"}, found{"two"})
	for _, c := range []struct {
		args string
		err  error
		code int
		want []string // in stderr, in this order; nothing else but these lines
	}{
		{"run x", nil, ExitOK, nil},
		{"run x", failed, ExitFailed, []string{"error: it broke\n", "fix: mend it\n", "error: another\n"}},
		{"run x", fmt.Errorf("around: %w", &UsageError{failed}), ExitUsage, []string{"error: around: it broke\n", "fix: mend it\n", "error: another\n"}},
		{"run", failed, ExitFailed, []string{`"level":"WARN","msg":"shown"}`, `"level":"ERROR","msg":"it broke","fix":"mend it"}`, `"level":"ERROR","msg":"another"}`}},
		{"run x --log-format json", failed, ExitFailed, []string{`"msg":"it broke","fix":"mend it"}`, `"msg":"another"}`}},
		{"run x", several, ExitFailed, []string{"error: a.cause: one\n", "fix: mend it\n", "error: a.cause: two\n", "fix: mend it\n", "error: and 2 more\n"}},
		{"run", &UsageError{several}, ExitUsage, []string{
			`"msg":"shown"}`, `"level":"ERROR","msg":"one","cause":"a.cause","fix":"mend it"}`, `"msg":"two","cause":"a.cause","fix":"mend it"}`, `"msg":"and 2 more"}`,
		}},
		{"run --log-format text --log-level debug", failed, ExitFailed, []string{"not shown\n", "warning: shown\n", "error: it broke\n", "fix: mend it\n", "error: another\n"}},
		{"run --log-format text --log-level error", nil, ExitOK, nil},
		{"run --log-format xml", nil, ExitUsage, []string{`error: --log-format: saw "xml"`, "fix: write text or json"}},
		{"run --log-level 5ec2e700-0000-4000-8000-000000000001", nil, ExitUsage, []string{"error: --log-level: saw a word of 36 characters", "fix: write debug, info, warn or error"}},
		{"run a b", nil, ExitUsage, []string{`error: prog run: unexpected argument "b"`, "fix: prog run [-c FILE | LINK]"}},
		{"ru", nil, ExitUsage, []string{`error: unknown command "ru"`, "fix: did you mean prog run?"}},
		{"Vmess://secret", nil, ExitUsage, []string{`error: unknown command "Vmess://…"`, "fix: prog run 'Vmess://…'"}},
		{"--what=vmess://secret", nil, ExitUsage, []string{"error: unknown flag: --what", "fix: prog --help"}},
		{"run -zvmess://secret", nil, ExitUsage, []string{"error: unknown shorthand flag: 'z' in -zvmess://…", "fix: prog run --help"}},
		{"help nothing", nil, ExitUsage, []string{`error: unknown command "nothing"`, "fix: prog --help"}},
		{"help run more", nil, ExitUsage, []string{`error: prog help: unexpected argument "more"`, "fix: prog help [COMMAND]"}},
		{"version now", nil, ExitUsage, []string{`error: prog version: unexpected argument "now"`, "fix: prog version"}},
	} {
		var stdout, stderr bytes.Buffer
		code := Execute(context.Background(), testRoot(c.err), strings.Fields(c.args), strings.NewReader(""), &stdout, &stderr)
		if code != c.code || stdout.Len() > 0 {
			t.Errorf("%s: exit code %d, want %d; stdout %q", c.args, code, c.code, stdout.String())
		}
		rest := stderr.String()
		for _, want := range c.want {
			line, after, _ := strings.Cut(rest, "\n")
			if rest = after; !strings.Contains(line+"\n", want) {
				t.Errorf("%s: %q, want %q in it", c.args, line, want)
			}
		}
		if rest != "" || strings.Contains(stderr.String(), "secret") || strings.Contains(stderr.String(), "5ec2e7") {
			t.Errorf("%s: stderr\n%s", c.args, stderr.String())
		}
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{nil, {"help"}, {"--help"}} {
		var stdout, stderr bytes.Buffer
		if code := Execute(context.Background(), testRoot(nil), args, strings.NewReader(""), &stdout, &stderr); code != ExitOK || stderr.Len() > 0 {
			t.Errorf("%q: exit code %d, stderr %s", args, code, stderr.String())
		}
		for _, want := range []string{"It does things.\n\nExamples:\n  prog run\n\nUsage:\n  prog COMMAND\n", "\n  completion ", "\n  version "} {
			if !strings.Contains(stdout.String(), want) {
				t.Errorf("%q: no %q in\n%s", args, want, stdout.String())
			}
		}
	}
}

func TestVersion(t *testing.T) {
	for _, args := range []string{"version", "--version"} {
		var stdout, stderr bytes.Buffer
		if code := Execute(context.Background(), testRoot(nil), []string{args}, strings.NewReader(""), &stdout, &stderr); code != ExitOK || stderr.Len() > 0 {
			t.Errorf("%s: exit code %d, stderr %s", args, code, stderr.String())
		}
		if got := stdout.String(); got != Version("prog")+"\n" {
			t.Errorf("%s: %q", args, got)
		}
	}
	if !errors.Is(NewFindings(context.Canceled, 0, found{"one"}), context.Canceled) {
		t.Error("what the findings were made of is lost")
	}
}

func TestShow(t *testing.T) {
	for word, want := range map[string]string{
		"now":                                  `"now"`,
		"":                                     `""`,
		"a\nb\x1b[31m":                         `"a\nb\x1b[31m"`,
		"vmess://secret":                       `"vmess://…"`,
		"socks5://secret":                      `"socks5://…"`,
		"5ec2e700-0000-4000-8000-000000000001": "a word of 36 characters",
		"5ec2e700000040008000000000000001://":  "a word of 35 characters",
		strings.Repeat("ö", 25):                "a word of 25 characters",
	} {
		if got := Show(word); got != want {
			t.Errorf("Show(%q) = %s, want %s", word, got, want)
		}
	}
}

func TestRevision(t *testing.T) {
	settings := func(kv ...string) (all []debug.BuildSetting) {
		for i := 0; i < len(kv); i += 2 {
			all = append(all, debug.BuildSetting{Key: kv[i], Value: kv[i+1]})
		}
		return all
	}
	for _, c := range []struct {
		info *debug.BuildInfo
		want string
	}{
		{nil, "unknown"},
		{&debug.BuildInfo{}, "unknown"},
		{&debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}, Settings: settings("vcs.modified", "true")}, "v1.2.3"},
		{&debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: settings("vcs.revision", "0123456789abcdef", "vcs.modified", "true")}, "0123456789ab (modified)"},
		{&debug.BuildInfo{Settings: settings("vcs.revision", "0123", "vcs.modified", "false")}, "0123"},
	} {
		if got := revision(c.info); got != c.want {
			t.Errorf("%+v: %s, want %s", c.info, got, c.want)
		}
	}
}
