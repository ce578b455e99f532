package diagnose

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"vmess-local/pkg/config"
)

// Config is a configuration's problem as a verdict. Its sentence begins with
// the place.
func Config(p config.Problem) Verdict {
	said := p
	said.Want, said.DidYouMean = "", ""
	v := Verdict{Cause: Cause(p.Cause), Confidence: Certain, Sentence: strings.TrimSuffix(said.String(), ": "), Fix: configFix(p)}
	if said.Text() == "" { // all that is known is what is wanted
		v.Sentence += ": not right"
	}
	return v
}

func configFix(p config.Problem) string {
	where := configPlace(p)
	switch {
	case p.Cause == config.CauseUnreadable:
		return unreadableFix(p)
	case p.Cause == config.CauseNeedsAuth:
		return "set auth.username and auth.password, or write a loopback address like 127.0.0.1:1080" + where
	case p.DidYouMean != "":
		return "did you mean " + strconv.Quote(p.DidYouMean) + "? write " + first(p.Want, "that") + where
	case p.Want != "" && p.Cause == config.CauseMissing:
		return "add " + strconv.Quote(lastKey(p.Path)) + " (" + p.Want + ")" + where
	case p.Want != "":
		return "write " + p.Want + where
	case strings.Contains(p.Message, "given twice"):
		return "remove one of the two"
	case p.Cause == config.CauseUnknownKey:
		return "remove it" + where + "; config.example.json has every key"
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

func unreadableFix(p config.Problem) string {
	switch {
	case errors.Is(p.Err, fs.ErrNotExist):
		return `name the right file with -c, or write one: vmess-local link import LINK > ` + first(p.File, "config.json")
	case errors.Is(p.Err, fs.ErrPermission):
		return "make " + first(p.File, "the file") + " readable for you (its owner, or chmod u+r)"
	}
	return "name a configuration file with -c"
}
