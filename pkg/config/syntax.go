package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxSize is the most bytes a configuration may have.
	MaxSize = 1 << 20
	// maxDepth bounds nesting, and with it the parser's recursion.
	maxDepth = 32
)

// checkText refuses what is no text to parse, and what would cost the parser
// too much; nil is fine.
func checkText(data []byte) *finding {
	mistake := func(offset int, message, want string) *finding {
		return &finding{Problem: Problem{Cause: CauseSyntax, Message: message, Want: want}, offset: offset}
	}
	switch {
	case len(data) > MaxSize:
		return mistake(0, "the configuration is larger than 1 MiB", "")
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return mistake(0, "the text is UTF-16", "UTF-8: save the file again with that encoding")
	case len(bytes.TrimSpace(data)) == 0:
		return mistake(0, "the configuration is empty", "an object in braces { }")
	case bytes.HasPrefix(bytes.TrimSpace(data), []byte("vmess://")):
		return mistake(0, "this is a share link, not a configuration", "the configuration that \"vmess-local link import\" prints for it")
	}
	if b := scanBrackets(data); b.tooDeep {
		return mistake(b.innermost(), fmt.Sprintf("nested more than %d levels deep", maxDepth), "")
	}
	return nil
}

// brackets are the brackets that are open at some place of a text.
type brackets struct {
	open    []int // offsets
	tooDeep bool
}

// innermost returns the offset of the bracket opened last, or -1.
func (b *brackets) innermost() int {
	if len(b.open) == 0 {
		return -1
	}
	return b.open[len(b.open)-1]
}

// scanBrackets follows the brackets outside of text and comments, to the end
// or to where they are too deep.
func scanBrackets(data []byte) brackets {
	var b brackets
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case c == '"':
			i += skipText(data[i:]) - 1
		case c == '/':
			i += max(skipComment(data[i:]), 1) - 1
		case c == '{' || c == '[':
			b.open = append(b.open, i)
			if len(b.open) > maxDepth {
				b.tooDeep = true
				return b
			}
		case (c == '}' || c == ']') && len(b.open) > 0:
			b.open = b.open[:len(b.open)-1]
		}
	}
	return b
}

// skipText returns the length of the text that data begins with.
func skipText(data []byte) int {
	for i := 1; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(data)
}

// skipComment returns the length of the comment that data begins with, 0 if
// it is none.
func skipComment(data []byte) int {
	var end string
	switch {
	case bytes.HasPrefix(data, []byte("//")):
		end = "\n"
	case bytes.HasPrefix(data, []byte("/*")):
		end = "*/"
	default:
		return 0
	}
	if i := bytes.Index(data[2:], []byte(end)); i >= 0 {
		return 2 + i + len(end)
	}
	return len(data)
}

// explainSyntax turns the parser's error into words and a place. The words
// never repeat a text: it may be a secret that lacks a quote.
func explainSyntax(data []byte, err error) finding {
	offset := errorOffset(data, err)
	problem := Problem{Cause: CauseSyntax}
	text := err.Error()
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		offset, problem.Message = explainEnd(data, offset, text)
	case strings.Contains(text, "invalid literal: "):
		problem.Message, problem.Want = explainLiteral(data[offset:])
	case strings.Contains(text, "comment"):
		problem.Message = "the comment is not valid UTF-8 or holds a Unicode line separator"
	default:
		problem.Message, problem.Want = explainCharacter(data[offset:], text)
	}
	return finding{Problem: problem, offset: offset}
}

// errorOffset finds the place that the parser's error tells as line and
// column, both from 1, the column in bytes.
func errorOffset(data []byte, err error) int {
	var line, column int
	if _, scanErr := fmt.Sscanf(err.Error(), "hujson: line %d, column %d:", &line, &column); scanErr != nil {
		return 0
	}
	starts := newLineIndex(data).starts
	if line < 1 || line > len(starts) {
		return len(data)
	}
	return min(starts[line-1]+column-1, len(data))
}

func explainEnd(data []byte, offset int, text string) (int, string) {
	switch {
	case strings.Contains(text, "parsing comment"):
		return offset, "the comment that begins here is not closed by */"
	case strings.Contains(text, "parsing string"):
		return lastText(data), "the text that begins here has no closing quote"
	}
	b := scanBrackets(data)
	if b.innermost() < 0 {
		return len(data), "the file ends too early"
	}
	line, column := newLineIndex(data).at(b.innermost())
	return len(data), fmt.Sprintf("the file ends, but the %q of %d:%d is still open", data[b.innermost()], line, column)
}

// lastText returns where the last text of data begins.
func lastText(data []byte) int {
	last := 0
	for i := 0; i < len(data); {
		switch data[i] {
		case '"':
			last = i
			i += skipText(data[i:])
		case '/':
			i += max(skipComment(data[i:]), 1)
		default:
			i++
		}
	}
	return last
}

func explainLiteral(data []byte) (message, want string) {
	if data[0] == '"' {
		return explainText(data[:skipText(data)])
	}
	end := bytes.IndexFunc(data, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("+-._", r)
	})
	if end < 0 {
		end = len(data)
	}
	after := bytes.TrimLeft(data[end:], " \t\r\n")
	switch word := strings.ToLower(string(data[:end])); {
	case len(after) > 0 && after[0] == ':':
		return "a key without quotes", "keys in double quotes"
	case word == "true" || word == "false" || word == "null":
		return "", word + " in lower-case letters"
	case strings.ContainsRune("0123456789+-.", rune(data[0])):
		return "this is not a valid JSON number", "digits without leading zeros, or text in double quotes"
	default:
		return "a word without quotes", "text in double quotes"
	}
}

func explainText(text []byte) (message, want string) {
	switch {
	case bytes.ContainsAny(text, "\r\n"):
		return "the text that begins here has no closing quote on its line", ""
	case bytes.ContainsFunc(text, unicode.IsControl):
		return "the text contains a tab or another control character", `\t and the like instead`
	case !utf8.Valid(text):
		return "the text is not valid UTF-8", ""
	default:
		return "the text contains an invalid JSON escape sequence", `\\ for a backslash`
	}
}

func explainCharacter(data []byte, text string) (message, want string) {
	if len(data) == 0 {
		return "the file ends too early", ""
	}
	r, _ := utf8.DecodeRune(data)
	switch r {
	case '\'', '`', '‘', '’', '“', '”', '„':
		return "saw the quotation mark " + string(r), "plain double quotes"
	case '#':
		return "", "// before a comment, not #"
	}
	switch {
	case strings.HasSuffix(text, "after object name"):
		return "a colon is missing before this", ""
	case strings.Contains(text, "after object value"), strings.Contains(text, "after array value"):
		return explainAfterValue(r, strings.Contains(text, "after object value"))
	case strings.HasSuffix(text, "at start of object name"):
		return "", "a key in double quotes"
	case strings.HasSuffix(text, "after top-level value"):
		return "the configuration ends before this", "nothing after its last brace"
	default:
		return "a value is missing before " + character(r), ""
	}
}

func explainAfterValue(r rune, inObject bool) (message, want string) {
	end := ']'
	if inObject {
		end = '}'
	}
	if r == '}' || r == ']' || r == ':' {
		return "saw " + character(r), fmt.Sprintf("a comma or %q", end)
	}
	return "a comma is missing before this", ""
}

// character shows one character in a message.
func character(r rune) string {
	if r == utf8.RuneError {
		return "a byte that is not valid UTF-8"
	}
	return strconv.QuoteRune(r)
}
