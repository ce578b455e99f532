package cli

import (
	"errors"
	"fmt"
	"strings"
)

// A Finding is something that is wrong, in words for people and for programs.
type Finding interface {
	// Line says in one line what is wrong.
	Line() string
	// FixLine is "fix: " and what to do.
	FixLine() string
	// Record is the same as the message and the attributes of a log record.
	Record() (msg string, attrs []any)
}

// Findings is an error that says all that is wrong: for people two lines each,
// as JSON a record each.
type Findings struct {
	All     []Finding // at least one
	Omitted int       // how many more there were
	Err     error     // what they were made of; may be nil
}

// NewFindings makes findings of err.
func NewFindings[F Finding](err error, omitted int, all ...F) *Findings {
	f := &Findings{Omitted: omitted, Err: err}
	for _, one := range all {
		f.All = append(f.All, one)
	}
	return f
}

// Error returns the lines for people.
func (f *Findings) Error() string {
	lines := make([]string, 0, 2*len(f.All)+1)
	for _, one := range f.All {
		lines = append(lines, one.Line(), one.FixLine())
	}
	if f.Omitted > 0 {
		lines = append(lines, f.more())
	}
	return strings.Join(lines, "\n")
}

func (f *Findings) more() string { return fmt.Sprintf("and %d more", f.Omitted) }

// Unwrap returns what the findings were made of.
func (f *Findings) Unwrap() error { return f.Err }

// findings returns those that err is, if it is some.
func findings(err error) *Findings {
	var f *Findings
	errors.As(err, &f)
	return f
}
