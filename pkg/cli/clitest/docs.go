package clitest

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var flagLine = regexp.MustCompile(`(?m)^ +((?:-\w, )?--[a-z][a-z-]*)`)

var update = flag.Bool("update", false, "write the tables of docs/commands.md")

// Docs compares a program's table of commands in a file with the program: each
// command that does something has a row, in the order of --help, with its flags
// and its summary, and there are no other rows. -update writes the table, which
// is the one under "## NAME".
func Docs(t *testing.T, file, name string, run Program) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := rows(t, name, "", run)
	for _, row := range want {
		if strings.HasSuffix(row, "|  |") {
			t.Errorf("a command without a summary: %s", row)
		}
	}
	head, table, found := strings.Cut(string(data), "\n## "+name+"\n\n")
	if !found {
		t.Fatalf("%s has no section %s", file, name)
	}
	var got []string
	rest := table
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		rest = rest[len(line):]
		if got = append(got, strings.TrimSuffix(line, "\n")); len(got) == 2 {
			head += "\n## " + name + "\n\n" + strings.Join(got, "\n") + "\n"
		}
	}
	if len(got) < 2 {
		t.Fatalf("%s has no table of %s", file, name)
	}
	got = got[2:]
	switch {
	case slices.Equal(got, want):
	case *update:
		if err := os.WriteFile(file, []byte(head+strings.Join(want, "\n")+"\n"+rest), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s has\n%s\nwant\n%s\n(-update writes it)", file, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// rows returns the rows of the commands under some words of a command line:
// command, flags, summary. --help is every command's.
func rows(t *testing.T, name, summary string, run Program, words ...string) (all []string) {
	t.Helper()
	text := help(t, name, run, append(slices.Clone(words), "--help")...)
	_, list, leads := strings.Cut(text, "\nCommands:\n")
	if !leads {
		_, text, _ := strings.Cut(text, "\nFlags:\n")
		var flags []string
		for _, m := range flagLine.FindAllStringSubmatch(text, -1) {
			if !strings.HasSuffix(m[1], "--help") {
				flags = append(flags, "`"+m[1]+"`")
			}
		}
		if flags == nil {
			flags = []string{"none"}
		}
		command := strings.Join(append([]string{name}, words...), " ")
		return []string{"| `" + command + "` | " + strings.Join(flags, ", ") + " | " + summary + " |"}
	}
	list, _, _ = strings.Cut(list, "\n\n")
	for line := range strings.SplitSeq(list, "\n") {
		word, summary, _ := strings.Cut(strings.TrimSpace(line), " ")
		all = append(all, rows(t, name, strings.TrimSpace(summary), run, append(slices.Clone(words), word)...)...)
	}
	return all
}

// Mentions checks that README.md and docs, under top, name no command of a
// program that it does not have. A mention is in code: the program's name, and
// the words behind it.
func Mentions(t *testing.T, top, name string, run Program) {
	t.Helper()
	known, groups := map[string]bool{"man": true, "help": true}, map[string]bool{}
	for _, row := range rows(t, name, "", run) {
		command, _, _ := strings.Cut(strings.TrimPrefix(row, "| `"+name+" "), "`")
		known[command] = true
		if group, _, ok := strings.Cut(command, " "); ok {
			groups[group] = true
		}
	}
	pages, err := filepath.Glob(filepath.Join(top, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	mention := regexp.MustCompile("(?m)(?:`|^ {4,})(?:sudo )?(?:bin/|\\./)?" + name + " ([a-z]+)(?: ([a-z]+))?")
	found := 0
	for _, page := range append(pages, filepath.Join(top, "README.md")) {
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mention.FindAllStringSubmatch(string(data), -1) {
			found++
			if !known[m[1]] && !known[m[1]+" "+m[2]] && (!groups[m[1]] || m[2] != "") {
				t.Errorf("%s names %q, which is not a command", page, m[0])
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d commands found in the documentation", found)
	}
}
