package clitest

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

// Help checks that a program and each of its commands have help with an
// example, on stdout and on 80 columns.
func Help(t *testing.T, name string, run Program) {
	_, list, _ := strings.Cut(help(t, name, run, "--help"), "\nCommands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	commands := strings.Split(list, "\n")
	if len(commands) < 3 {
		t.Fatalf("%s --help lists %d commands", name, len(commands))
	}
	for _, line := range commands {
		command := strings.Fields(line)[0]
		if asked, byName := help(t, name, run, command, "--help"), help(t, name, run, "help", command); asked != byName {
			t.Errorf("%s help %s is not what %s %s --help says", name, command, name, command)
		}
	}
}

func help(t *testing.T, name string, run Program, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(args, strings.NewReader(""), &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Errorf("%s %q: exit code %d, stderr %s", name, args, code, stderr.String())
	}
	text := stdout.String()
	if !strings.Contains(text, "\nExamples:\n  ") || !strings.Contains(text, name+" ") {
		t.Errorf("%s %q: no example in\n%s", name, args, text)
	}
	for line := range strings.Lines(text) {
		if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 80 {
			t.Errorf("%s %q: longer than 80 characters: %s", name, args, line)
		}
	}
	return text
}
