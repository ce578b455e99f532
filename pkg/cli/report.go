package cli

import (
	"io"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"vmess-local/pkg/cli/logging"
)

// fixMark begins the lines of an error that say what to do.
const fixMark = "fix: "

// orMark begins the lines that say what else could be done.
const orMark = "  or "

// report tells an error line by line: "error: …", "fix: …", "  or …"; as JSON
// each error is a record, with its fix.
func report(w io.Writer, err error, json bool) {
	log := slog.New(logging.New(w, slog.LevelError, json))
	if f := findings(err); f != nil && json {
		f.log(log)
		return
	}
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, fixMark) || strings.HasPrefix(line, orMark) {
			if !json {
				_, _ = io.WriteString(w, line+"\n")
			}
			continue
		}
		if fix, ok := fixAfter(lines, i); ok && json {
			log.Error(line, "fix", fix)
		} else {
			log.Error(line)
		}
	}
}

// log writes a record for each finding.
func (f *Findings) log(log *slog.Logger) {
	for _, one := range f.All {
		msg, attrs := one.Record()
		log.Error(msg, attrs...)
	}
	if f.Omitted > 0 {
		log.Error(f.more())
	}
}

func fixAfter(lines []string, i int) (string, bool) {
	if i+1 == len(lines) {
		return "", false
	}
	return strings.CutPrefix(lines[i+1], fixMark)
}

// longestShown is how much of a stray word is repeated to the user. Ids are
// longer, and so are links that lost their beginning.
const longestShown = 24

// Show quotes a word of the command line for a message. Links, and what is
// long enough to be an id, are not repeated: they are secrets.
func Show(word string) string {
	if scheme, _, ok := strings.Cut(word, "://"); ok && len(scheme) <= longestShown {
		return strconv.Quote(scheme + "://…")
	}
	if n := utf8.RuneCountInString(word); n > longestShown {
		return "a word of " + strconv.Itoa(n) + " characters"
	}
	return strconv.Quote(word)
}

var (
	link    = regexp.MustCompile(`://[^\s"]*`)
	parsing = regexp.MustCompile(`strconv\.\w+: parsing "[^"]*": `)
)

// flagText is what the flag parser has to say, without links and without the
// names of Go's functions.
func flagText(err error) string {
	return parsing.ReplaceAllString(link.ReplaceAllString(err.Error(), "://…"), "")
}
