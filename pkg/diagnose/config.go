package diagnose

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"vmess-local/pkg/config"
)

// A manual is what a program's users are pointed to.
type manual struct{ write, example string }

// Config is a problem of the client's configuration as a verdict. Its sentence
// begins with the place.
func Config(p config.Problem) Verdict {
	return mistake(p, manual{write: "vmess-local link import LINK -o " + first(p.File, "config.json"), example: "config.example.json"})
}

// ConfigOfServer is [Config] for vmess-server's configuration.
func ConfigOfServer(p config.Problem) Verdict {
	return mistake(p, manual{write: "vmess-server init", example: "docs/server.example.json"})
}

func mistake(p config.Problem, m manual) Verdict {
	said := p
	said.Want, said.DidYouMean = "", ""
	v := Verdict{Cause: Cause(p.Cause), Confidence: Certain, Sentence: strings.TrimSuffix(said.String(), ": "), Fix: configFix(p, m)}
	if said.Text() == "" { // all that is known is what is wanted
		v.Sentence += ": invalid"
	}
	return v
}

func configFix(p config.Problem, m manual) string {
	where := configPlace(p)
	switch {
	case p.Cause == config.CauseUnreadable:
		return unreadableFix(p, m)
	case p.Cause == config.CauseNeedsAuth:
		return "set auth.username and auth.password, or use a loopback address like 127.0.0.1:1080" + where
	case p.DidYouMean != "":
		return "did you mean " + strconv.Quote(p.DidYouMean) + "? write " + first(p.Want, "that") + where
	case p.Want != "" && p.Cause == config.CauseMissing:
		return "add " + strconv.Quote(lastKey(p.Path)) + " (" + p.Want + ")" + where
	case p.Want != "" && p.Cause == config.CauseUnknownKey:
		return "remove it, or write " + p.Want + where
	case p.Want != "":
		return "write " + p.Want + where
	case strings.Contains(p.Message, "given twice"):
		return "remove one of the two"
	case p.Cause == config.CauseUnknownKey:
		return "remove it" + where + "; " + m.example + " has every key"
	}
	return "correct the text" + where
}

func lastKey(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

func configPlace(p config.Problem) string {
	if p.File == "" || p.Line == 0 {
		return ""
	}
	return fmt.Sprintf(" at %s:%d:%d", p.File, p.Line, p.Column)
}

func unreadableFix(p config.Problem, m manual) string {
	switch {
	case errors.Is(p.Err, fs.ErrNotExist):
		return "pass the right file with -c, or create one: " + m.write
	case errors.Is(p.Err, fs.ErrPermission):
		return "make " + first(p.File, "the file") + " readable for you (its owner, or chmod u+r)"
	}
	return "pass a configuration file with -c"
}
