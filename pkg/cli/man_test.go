package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// manual is the manual page of a program that has one of everything.
const manual = `.TH "PROG" "1" "" "prog" "User Commands"
.SH "NAME"
prog \- A \(aqprogram\(aq
.SH "SYNOPSIS"
.B "prog group one"
.br
.B "prog run [\-c FILE]"
.br
.SH "DESCRIPTION"
It does things:
.nf
  \- these
.fi
and those.
.PP
Examples:
.PP
.nf
  prog run
.fi
.SH "OPTIONS"
.TP
.B "\-\-version"
print the version
.SH "COMMANDS"
.SS "group COMMAND"
Lead on.
.SS "group one"
Do one.
.SS "run [\-c FILE]"
\&.run reads ./run.json, else a\e"b".
.PP
V2RAY_VMESS_X=1 makes it old.
.PP
Examples:
.PP
.nf
  prog run \(aqvmess://\[u2026]\(aq > \(ti/x
.fi
.TP
.B "\-c, \-\-config FILE"
configuration FILE (default run.json)
.SH "ENVIRONMENT"
.TP
.B "V2RAY_VMESS_X"
V2RAY_VMESS_X=1 makes it old.
.SH "FILES"
.TP
.B "\&./run.json"
\&.run reads ./run.json, else a\e"b".
.SH "EXIT STATUS"
.TP
.B "prog"
0 fine, 1 not.
.TP
.B "prog run"
0 it ran.
`

func TestMan(t *testing.T) {
	nothing := func(*cobra.Command, []string) error { return nil }
	run := &cobra.Command{
		Use: "run [-c FILE]", Short: "Run", RunE: nothing,
		Long:    ".run reads ./run.json, else a\\\"b\".\n\nV2RAY_VMESS_X=1 makes it old.\n\nExit codes: 0 it ran.",
		Example: "  prog run 'vmess://…' > ~/x",
	}
	run.Flags().StringP("config", "c", "run.json", "configuration `FILE`")
	group := &cobra.Command{Use: "group", Short: "Lead on"}
	group.AddCommand(&cobra.Command{Use: "one", Short: "Do one", RunE: nothing}, &cobra.Command{Use: "not", Hidden: true, RunE: nothing})
	root := NewRoot("prog", "A 'program'", "It does things:\n  - these\nand those.\n\nExit codes: 0 fine, 1 not.", "  prog run", run, group)
	var stdout, stderr bytes.Buffer
	if code := Execute(context.Background(), root, []string{"man"}, strings.NewReader(""), &stdout, &stderr); code != ExitOK || stderr.Len() > 0 {
		t.Fatalf("exit code %d, stderr %s", code, stderr.String())
	}
	got := without(stdout.String(), "version", "completion bash|zsh|fish|powershell", "help [COMMAND]")
	if got != manual {
		t.Errorf("got\n%s\nwant\n%s", got, manual)
	}
	for _, c := range stdout.String() {
		if c > '~' {
			t.Errorf("%q is not ASCII", c)
		}
	}
	if root.UsageString() == "" || strings.Contains(root.UsageString(), "\n  man ") {
		t.Errorf("the short list has it:\n%s", root.UsageString())
	}
}

// without leaves commands out of a manual page: what all programs have.
func without(page string, uses ...string) string {
	for _, use := range uses {
		use = strings.ReplaceAll(use, "-", `\-`)
		page = strings.Replace(page, ".B \"prog "+use+"\"\n.br\n", "", 1)
		before, section, found := strings.Cut(page, ".SS \""+use+"\"\n")
		if !found {
			continue
		}
		end := strings.Index(section, "\n.S") + 1
		page = before + section[end:]
	}
	return page
}
