package cli

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newManCommand(name string) *cobra.Command {
	return &cobra.Command{
		Use:   "man",
		Short: "Print the manual page",
		Long: `Man prints the manual page as roff, for man and mandoc. It says what --help says,
of all commands at once.`,
		Example: "  " + name + " man | man -l -\n" +
			"  " + name + " man > ~/.local/share/man/man1/" + name + ".1",
		Args:   NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return writeMan(cmd.OutOrStdout(), cmd.Root())
		},
	}
}

// exitCodes begins the paragraph of a command's help that tells its exit
// codes.
const exitCodes = "Exit codes: "

// writeMan writes a program's manual page, in the macros of man(7).
func writeMan(w io.Writer, root *cobra.Command) error {
	p := &manPage{w: bufio.NewWriter(w)}
	commands := shownCommands(root)
	p.macro("TH", strings.ToUpper(root.Name()), "1", "", root.Name(), "User Commands")
	p.section("NAME")
	p.line(root.Name(), ` \- `, escapeRoff(root.Short))
	p.section("SYNOPSIS")
	for _, cmd := range commands {
		if !cmd.HasSubCommands() {
			p.macro("B", cmd.UseLine())
			p.macro("br")
		}
	}
	p.section("DESCRIPTION")
	p.prose(root.Long)
	p.examples(root)
	p.section("OPTIONS")
	p.flags(root)
	p.section("COMMANDS")
	for _, cmd := range commands {
		p.command(cmd)
	}
	p.environment(commands)
	p.files(root, commands)
	p.exitStatus(root, commands)
	return p.w.Flush()
}

// shownCommands returns all commands that do something and are no secret, by
// name, those of a command after it.
func shownCommands(root *cobra.Command) (all []*cobra.Command) {
	for _, cmd := range root.Commands() {
		if !cmd.IsAvailableCommand() {
			continue
		}
		all = append(all, cmd)
		all = append(all, shownCommands(cmd)...)
	}
	return all
}

// A manPage writes roff; its writer keeps the first error.
type manPage struct{ w *bufio.Writer }

// line writes parts as they are.
func (p *manPage) line(parts ...string) {
	for _, part := range parts {
		_, _ = p.w.WriteString(part)
	}
	_ = p.w.WriteByte('\n')
}

// macro writes a request with its arguments, each of which is text.
func (p *manPage) macro(name string, args ...string) {
	line := "." + name
	for _, arg := range args {
		line += ` "` + strings.ReplaceAll(escapeRoff(arg), `"`, `\(dq`) + `"`
	}
	p.line(line)
}

func (p *manPage) section(title string) { p.macro("SH", title) }

// prose writes paragraphs, which roff fills anew; lines that are indented keep
// their form. Exit codes have a section of their own.
func (p *manPage) prose(text string) {
	for i, paragraph := range paragraphs(text) {
		if strings.HasPrefix(paragraph, exitCodes) {
			continue
		}
		if i > 0 {
			p.macro("PP")
		}
		p.text(paragraph)
	}
}

// text writes lines of one paragraph.
func (p *manPage) text(text string) {
	kept := false
	for line := range strings.SplitSeq(text, "\n") {
		if indented := strings.HasPrefix(line, " "); indented != kept {
			p.macro(map[bool]string{true: "nf", false: "fi"}[indented])
			kept = indented
		}
		p.line(escapeRoff(line))
	}
	if kept {
		p.macro("fi")
	}
}

func (p *manPage) command(cmd *cobra.Command) {
	title := strings.TrimPrefix(cmd.UseLine(), cmd.Root().Name()+" ")
	if cmd.HasSubCommands() {
		title += " COMMAND"
	}
	p.macro("SS", title)
	if cmd.Long == "" {
		p.text(cmd.Short + ".")
	}
	p.prose(cmd.Long)
	p.examples(cmd)
	p.flags(cmd)
}

func (p *manPage) examples(cmd *cobra.Command) {
	if cmd.HasExample() {
		p.macro("PP")
		p.text("Examples:")
		p.macro("PP")
		p.macro("nf")
		for line := range strings.SplitSeq(cmd.Example, "\n") {
			p.line(escapeRoff(line))
		}
		p.macro("fi")
	}
}

// flags writes a command's flags. --help is that of every command.
func (p *manPage) flags(cmd *cobra.Command) {
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if value != "" {
			name += " " + value
		}
		if !slices.Contains([]string{"", "false", "[]", "0", "0s"}, f.DefValue) {
			usage += " (default " + f.DefValue + ")"
		}
		p.macro("TP")
		p.macro("B", name)
		p.text(usage)
	})
}

var (
	variable = regexp.MustCompile(`\b(V2RAY_[A-Z_]+)`)
	place    = regexp.MustCompile(`(?:^|[\s(])((?:\./)?[a-z][a-z/-]*\.(?:example\.)?json)\b`)
)

// environment writes the paragraphs that tell of an environment variable.
func (p *manPage) environment(commands []*cobra.Command) {
	p.found("ENVIRONMENT", variable, longs(commands))
}

// files writes the paragraphs that tell of a file, else the examples that do.
func (p *manPage) files(root *cobra.Command, commands []*cobra.Command) {
	told := longs(commands)
	if !slices.ContainsFunc(told, place.MatchString) {
		told = []string{root.Example}
	}
	p.found("FILES", place, told)
}

// longs returns the paragraphs of what commands say of themselves.
func longs(commands []*cobra.Command) (all []string) {
	for _, cmd := range commands {
		all = append(all, paragraphs(cmd.Long)...)
	}
	return all
}

// found writes a section of the paragraphs in which something new matches,
// under its names; none when there are none.
func (p *manPage) found(title string, what *regexp.Regexp, told []string) {
	var seen []string
	for _, paragraph := range told {
		var names []string
		for _, match := range what.FindAllStringSubmatch(paragraph, -1) {
			if name := match[1]; !slices.Contains(seen, name) {
				seen, names = append(seen, name), append(names, name)
			}
		}
		if len(names) == 0 {
			continue
		}
		if len(seen) == len(names) {
			p.section(title)
		}
		p.macro("TP")
		p.macro("B", strings.Join(names, ", "))
		p.text(paragraph)
	}
}

// exitStatus writes the exit codes of the program, and those of the commands
// that have their own.
func (p *manPage) exitStatus(root *cobra.Command, commands []*cobra.Command) {
	p.section("EXIT STATUS")
	for _, cmd := range append([]*cobra.Command{root}, commands...) {
		for _, paragraph := range paragraphs(cmd.Long) {
			if codes, ok := strings.CutPrefix(paragraph, exitCodes); ok {
				p.macro("TP")
				p.macro("B", cmd.CommandPath())
				p.text(codes)
			}
		}
	}
}

// paragraphs returns the parts of a text that empty lines set apart.
func paragraphs(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.Trim(text, "\n"), "\n\n")
}

// escapeRoff makes a line of text one of roff that shows it as it is: hyphens
// that can be copied, quotes that stay straight, and nothing that is taken for
// a request or a character outside ASCII.
func escapeRoff(line string) string {
	var b strings.Builder
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		b.WriteString(`\&`)
	}
	for _, r := range line {
		switch {
		case r == '\\':
			b.WriteString(`\e`)
		case r == '-':
			b.WriteString(`\-`)
		case r == '\'':
			b.WriteString(`\(aq`)
		case r == '`':
			b.WriteString("\\`")
		case r == '^':
			b.WriteString(`\(ha`)
		case r == '~':
			b.WriteString(`\(ti`)
		case r > '~':
			fmt.Fprintf(&b, `\[u%04X]`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
