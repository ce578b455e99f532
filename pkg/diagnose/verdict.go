package diagnose

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Confidence says how sure a verdict is.
type Confidence uint8

// The confidences: Certain where the signal has one meaning, Likely where
// another cause would be a rare one, Possible where several are about as good.
const (
	Possible Confidence = iota
	Likely
	Certain
)

// String returns "possible", "likely" or "certain".
func (c Confidence) String() string {
	switch c {
	case Certain:
		return "certain"
	case Likely:
		return "likely"
	default:
		return "possible"
	}
}

// MarshalText is String, for JSON.
func (c Confidence) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// A Tristate is a yes or no that may be unknown.
type Tristate uint8

// The values of a Known.
const (
	Unknown Tristate = iota
	Yes
	No
)

// A Verdict is what is wrong and what to do. It holds no secret. Its zero
// value is no verdict: IsZero.
type Verdict struct {
	Cause      Cause      `json:"cause"`
	Confidence Confidence `json:"confidence"`
	Sentence   string     `json:"sentence"` // without capital and full stop
	Fix        string     `json:"fix"`
	// Basis is what the confidence rests on in a few words, like
	// "3 of 3 attempts"; may be empty.
	Basis string `json:"basis,omitempty"`
	// Evidence are the facts seen, for those who want more than one line.
	Evidence []string `json:"evidence,omitempty"`
}

// IsZero reports whether v is no verdict.
func (v Verdict) IsZero() bool { return v.Cause == "" }

// Line returns the failure in one line, "CAUSE: SENTENCE [BASIS; CONFIDENCE]".
// What this program sees for itself stands without the brackets.
func (v Verdict) Line() string {
	line := string(v.Cause) + ": " + v.Sentence
	if v.Cause.ownSide() {
		return line
	}
	sure := v.Confidence.String()
	if v.Basis != "" {
		sure = v.Basis + "; " + sure
	}
	return line + " [" + sure + "]"
}

// FixLine returns "fix: " and what to do.
func (v Verdict) FixLine() string { return "fix: " + v.Fix }

// Public returns what is known of the cause in general, "CAUSE: WHAT IT MEANS
// WHAT TO DO": it holds nothing of what is configured or was seen.
func (v Verdict) Public() string {
	for _, c := range Causes() {
		if c.Cause == v.Cause {
			return strings.ReplaceAll(string(c.Cause)+": "+c.Means+" "+c.Fix, "`", "")
		}
	}
	return string(v.Cause)
}

// Record returns the verdict as the message and the attributes of a log record.
func (v Verdict) Record() (msg string, attrs []any) {
	return v.Sentence, []any{"cause", string(v.Cause), "fix", v.Fix, "confidence", v.Confidence.String()}
}

// RepeatLine returns the line that stands for n repeats of v within d.
func RepeatLine(v Verdict, n int, d time.Duration) string {
	return fmt.Sprintf("%s: again %s in %s", v.Cause, plural(n, "time"), spoken(d))
}

// attempts words how many of the attempts failed; "" when they were not counted.
func attempts(failed, all int) string {
	if all <= 0 {
		return ""
	}
	return fmt.Sprintf("%d of %s", failed, plural(all, "attempt"))
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// spoken writes a duration as people do: "350 ms", "10 s", "20 min", "1.5 h",
// "3 days".
func spoken(d time.Duration) string {
	count := func(unit time.Duration, name string) string {
		return strconv.FormatFloat(d.Round(unit/10).Seconds()/unit.Seconds(), 'f', -1, 64) + " " + name
	}
	switch d = d.Abs(); {
	case d < 995*time.Millisecond:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < 10*time.Second:
		return count(time.Second, "s")
	case d <= 15*time.Minute:
		return strconv.FormatInt(int64(d.Round(time.Second)/time.Second), 10) + " s"
	case d < time.Hour-30*time.Second: // above, it would be rounded to 60 min
		return strconv.FormatInt(int64(d.Round(time.Minute)/time.Minute), 10) + " min"
	case d < 48*time.Hour:
		return count(time.Hour, "h")
	}
	return strconv.FormatInt(int64(d.Round(24*time.Hour)/(24*time.Hour)), 10) + " days"
}

// ahead says which way and how far this computer's clock is off.
func ahead(skew time.Duration) string {
	if skew < 0 {
		return spoken(skew) + " behind"
	}
	return spoken(skew) + " ahead"
}

// clean makes a stranger's text fit for a line: one line, printable, at most
// n characters.
func clean(text string, n int) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || !unicode.IsGraphic(r) }), " ")
	text = strings.ToValidUTF8(text, "?")
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n-1]) + "…"
}

// listed joins a few of the words and counts the others.
func listed(words []string, most int) string {
	if len(words) <= most {
		return strings.Join(words, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(words[:most], ", "), len(words)-most)
}
