package clitest

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	flagLine = regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[a-z][a-z-]*)`)
	flagCode = regexp.MustCompile("`(?:-\\w, )?(--[a-z][a-z-]*)")
)

// Readme holds the README's table of commands against a program: each command
// that does something has a row there, in the order of --help, that names its
// flags, and no other has. Rows look like "| `NAME COMMAND` | `--flag`… | …".
func Readme(t *testing.T, file, name string, run Program) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(data)) {
		command, rest, found := strings.Cut(line, "` | ")
		if !found || !strings.HasPrefix(command, "| `"+name+" ") {
			continue
		}
		flags, meaning, _ := strings.Cut(rest, " | ")
		if strings.Trim(meaning, " |\n") == "" {
			t.Errorf("nothing is said of %s", command)
		}
		got = append(got, row(strings.TrimPrefix(command, "| `"), flagCode, flags))
	}
	if want := rows(t, name, run); !slices.Equal(got, want) {
		t.Errorf("the README has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// rows returns the commands under some words of a command line, each with its
// flags.
func rows(t *testing.T, name string, run Program, words ...string) (all []string) {
	t.Helper()
	text := help(t, name, run, append(slices.Clone(words), "--help")...)
	_, list, leads := strings.Cut(text, "\nCommands:\n")
	if !leads {
		_, flags, _ := strings.Cut(text, "\nFlags:\n")
		return []string{row(strings.Join(append([]string{name}, words...), " "), flagLine, flags)}
	}
	list, _, _ = strings.Cut(list, "\n\n")
	for line := range strings.SplitSeq(list, "\n") {
		all = append(all, rows(t, name, run, append(slices.Clone(words), strings.Fields(line)[0])...)...)
	}
	return all
}

// row is a command and the flags in a text; --help is every command's.
func row(command string, pattern *regexp.Regexp, text string) string {
	for _, m := range pattern.FindAllStringSubmatch(text, -1) {
		if m[1] != "--help" {
			command += " " + m[1]
		}
	}
	return command
}
