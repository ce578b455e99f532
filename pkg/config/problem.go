package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The causes of problems. They are stable: users and programs rely on them.
const (
	CauseSyntax     = "config.syntax"
	CauseUnknownKey = "config.unknown-key"
	CauseValue      = "config.value"
	CauseMissing    = "config.missing"
	CauseUnreadable = "config.unreadable"
	CauseNeedsAuth  = "listen.needs-auth"
)

// A Problem is one thing that is wrong with a configuration. No part of it
// shows an id, a password, a link, an upstream's URL or a header's value.
type Problem struct {
	Cause      string // one of the causes above
	File       string // "" when the configuration is no file's
	Line       int    // from 1; 0 when there is no place
	Column     int    // from 1, in characters
	Path       string // of the key, like "server.ws.path"; "" for the whole file
	Message    string // what is wrong in words; may be empty when Seen says it
	Seen       string // the value, or what may be said of it
	Want       string // what would be right
	DidYouMean string // the key that was probably meant
	Err        error  // the system's error of CauseUnreadable
}

// String returns the problem in one line, "FILE:LINE:COLUMN: PATH: TEXT".
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File + ":")
		if p.Line > 0 {
			fmt.Fprintf(&b, "%d:%d:", p.Line, p.Column)
		}
		b.WriteByte(' ')
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Text())
	return b.String()
}

// Text returns what is wrong, without place and path.
func (p Problem) Text() string {
	var parts []string
	if p.Message != "" {
		parts = append(parts, p.Message)
	}
	if p.Seen != "" {
		parts = append(parts, "saw "+p.Seen)
	}
	if p.Want != "" {
		parts = append(parts, "want "+p.Want)
	}
	if p.DidYouMean != "" {
		parts = append(parts, "did you mean "+strconv.Quote(p.DidYouMean)+"?")
	}
	return strings.Join(parts, "; ")
}

// Problems is the error of this package: everything that is wrong with one
// configuration, in the order of the file.
type Problems struct {
	All     []Problem // at least one
	Omitted int       // how many more were found and not kept
}

// Error returns one line for each problem.
func (p *Problems) Error() string {
	lines := make([]string, 0, len(p.All)+1)
	for _, problem := range p.All {
		lines = append(lines, problem.String())
	}
	if p.Omitted > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", p.Omitted))
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the system's errors among the problems.
func (p *Problems) Unwrap() []error {
	var errs []error
	for _, problem := range p.All {
		if problem.Err != nil {
			errs = append(errs, problem.Err)
		}
	}
	return errs
}

// maxProblems bounds what a hopeless file can cost.
const maxProblems = 100

// A finding is a problem on its way to its place in the file.
type finding struct {
	Problem
	offset int // in the file's bytes; -1 when there is no file
	first  int // of a duplicate: where the key stood before, else 0
}

// findings collects what is wrong. Nothing is said about a key whose path, or
// that of an object around it, is settled.
type findings struct {
	all     []finding
	settled map[string]bool
	omitted int
}

// add keeps a finding that settles its key.
func (f *findings) add(x finding) {
	f.settle(x.Path)
	f.note(x)
}

// note keeps a finding after which its key's value still counts.
func (f *findings) note(x finding) {
	if f.full() {
		f.omitted++
		return
	}
	f.all = append(f.all, x)
}

// full reports whether more findings would only be counted.
func (f *findings) full() bool { return len(f.all) >= maxProblems }

// settle silences what else could be said about path.
func (f *findings) settle(path string) {
	if f.settled == nil {
		f.settled = make(map[string]bool)
	}
	f.settled[path] = true
}

func (f *findings) isSettled(path string) bool {
	for ; path != ""; path = parentPath(path) {
		if f.settled[path] {
			return true
		}
	}
	return false
}

// err returns the findings as *Problems with their places, or nil.
func (f *findings) err(file string, index *lineIndex) error {
	if len(f.all) == 0 {
		return nil
	}
	slices.SortStableFunc(f.all, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.offset, b.offset), cmp.Compare(a.Path, b.Path))
	})
	problems := &Problems{Omitted: f.omitted}
	for _, x := range f.all {
		x.File = file
		if x.offset >= 0 {
			x.Line, x.Column = index.at(x.offset)
		}
		if x.first > 0 {
			line, column := index.at(x.first)
			x.Message += fmt.Sprintf(", first at %d:%d", line, column)
		}
		problems.All = append(problems.All, x.Problem)
	}
	return problems
}

// joinPath appends a key to the path of its object.
func joinPath(object, key string) string {
	if object == "" {
		return key
	}
	return object + "." + key
}

// parentPath drops the last key or index of a path.
func parentPath(path string) string { return path[:max(strings.LastIndexAny(path, ".["), 0)] }
