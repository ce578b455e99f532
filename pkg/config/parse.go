package config

import (
	"bytes"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/tailscale/hujson"
)

// ParseClient reads the client's configuration. name is the file's name in
// messages. The error is *Problems with all that is wrong.
func ParseClient(name string, data []byte) (*Client, error) {
	c := DefaultClient()
	file := parse(data, reflect.ValueOf(c).Elem())
	if file.root {
		c.check(validator{&file.findings, file.offsets})
	}
	if err := file.err(name, file.index); err != nil {
		return nil, err
	}
	c.source = source{name, file.places()}
	return c, nil
}

// ParseServer reads the server's configuration, as [ParseClient] does the
// client's.
func ParseServer(name string, data []byte) (*Server, error) {
	s := DefaultServer()
	file := parse(data, reflect.ValueOf(s).Elem())
	if file.root {
		s.check(validator{&file.findings, file.offsets})
	}
	if err := file.err(name, file.index); err != nil {
		return nil, err
	}
	s.source = source{name, file.places()}
	return s, nil
}

// A parser carries what is known of one file: what its keys hold goes into a
// struct tree, where they stand into offsets, what is wrong into findings.
type parser struct {
	findings
	offsets map[string]int // of each key's value; "" is the outermost brace
	index   *lineIndex
	schema  reflect.Type // of the whole file
	root    bool         // the file is an object, so its values can be checked
}

// parse fills dst, which holds the defaults, from the file's text.
func parse(data []byte, dst reflect.Value) *parser {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	p := &parser{offsets: make(map[string]int), index: newLineIndex(data), schema: dst.Type()}
	if mistake := checkText(data); mistake != nil {
		p.add(*mistake)
		return p
	}
	// The parser wants a line break after a comment even on the last line.
	tree, err := hujson.Parse(append(bytes.Clone(data), '\n'))
	if err != nil {
		p.add(explainSyntax(data, err))
		return p
	}
	if _, isObject := tree.Value.(*hujson.Object); !isObject {
		p.add(finding{Problem: Problem{
			Cause: CauseSyntax, Message: "the configuration is " + kindOf(tree), Want: "an object in braces { }",
		}, offset: tree.StartOffset})
		return p
	}
	p.root = true
	p.value(tree, dst, "")
	return p
}

// places returns where the keys stand.
func (p *parser) places() map[string]position {
	delete(p.offsets, "")
	return p.index.positions(p.offsets)
}

// value stores v in dst, or finds out why it cannot.
func (p *parser) value(v hujson.Value, dst reflect.Value, path string) {
	p.offsets[path] = v.StartOffset
	switch node := v.Value.(type) {
	case *hujson.Object:
		switch dst.Kind() {
		case reflect.Struct:
			p.object(node, dst, path)
			return
		case reflect.Map:
			p.textMap(node, dst, path)
			return
		}
	case *hujson.Array:
		if dst.Kind() == reflect.Slice {
			p.list(node, dst, path)
			return
		}
	case hujson.Literal:
		if node.Kind() == '"' {
			if _, ok := unquote(node); !ok {
				p.add(badText(path, v.StartOffset))
				return
			}
		}
		if setLiteral(dst, node) {
			return
		}
	}
	p.add(finding{Problem: Problem{
		Cause: CauseValue, Path: path, Seen: seenValue(v, dst.Type()), Want: wantedValue(dst.Type()),
	}, offset: v.StartOffset})
}

// object stores the members of an object in the fields of a struct.
func (p *parser) object(o *hujson.Object, dst reflect.Value, path string) {
	known := fieldsOf(dst.Type())
	seen := make(map[string]int)       // key to its offset
	meant := make(map[string]struct{}) // keys that misspelt ones were meant to be
	for _, m := range o.Members {
		key, ok := p.key(m.Name, path, seen)
		if !ok {
			continue
		}
		f, ok := known.find(key)
		if !ok {
			meant[p.unknownKey(key, m.Name.StartOffset, known, path)] = struct{}{}
			continue
		}
		p.value(m.Value, dst.Field(f.index), joinPath(path, key))
	}
	for _, f := range known {
		if _, present := seen[f.name]; present {
			continue
		}
		if _, misspelt := meant[f.name]; misspelt {
			p.settle(joinPath(path, f.name))
		} else if f.required {
			p.add(finding{Problem: Problem{
				Cause: CauseMissing, Path: joinPath(path, f.name), Message: "missing", Want: wantedValue(dst.Field(f.index).Type()),
			}, offset: p.offsets[path]})
		}
	}
}

// key reads a member's name; ok is false for one that cannot be used.
func (p *parser) key(name hujson.Value, object string, seen map[string]int) (key string, ok bool) {
	key, ok = unquote(name.Value.(hujson.Literal))
	if !ok {
		p.add(badText(object, name.StartOffset))
		return "", false
	}
	if first, twice := seen[key]; twice {
		p.note(finding{Problem: Problem{
			Cause: CauseValue, Path: joinPath(object, printableKey(key)), Message: "given twice",
		}, offset: name.StartOffset, first: first})
		return "", false
	}
	seen[key] = name.StartOffset
	return key, true
}

// unknownKey reports a key that the object does not have, and returns the key
// of this object that was probably meant.
func (p *parser) unknownKey(key string, offset int, known fields, object string) string {
	if p.full() {
		p.omitted++
		return ""
	}
	here := nearest(key, known.names())
	if home := homeOf(p.schema, key); home != "" && !strings.EqualFold(here, key) {
		here = home // a key of that very name, only in the wrong object
	}
	problem := Problem{Cause: CauseUnknownKey, Path: joinPath(object, printableKey(key)), Message: "unknown key", DidYouMean: here}
	if problem.DidYouMean == "" {
		problem.Want = "one of " + strings.Join(known.names(), ", ")
	}
	p.add(finding{Problem: problem, offset: offset})
	return here
}

// maxElements bounds every list.
const maxElements = 1000

func (p *parser) list(a *hujson.Array, dst reflect.Value, path string) {
	if len(a.Elements) > maxElements {
		p.add(finding{Problem: Problem{
			Cause: CauseValue, Path: path, Message: "the list is too long", Seen: count(len(a.Elements), "element"),
			Want: fmt.Sprintf("at most %d", maxElements),
		}, offset: p.offsets[path]})
		return
	}
	elements := reflect.MakeSlice(dst.Type(), 0, len(a.Elements))
	for i, v := range a.Elements {
		element := reflect.New(dst.Type().Elem()).Elem()
		element.Set(elementDefault(element.Type()))
		p.value(v, element, path+"["+strconv.Itoa(i)+"]")
		elements = reflect.Append(elements, element)
	}
	if elements.Len() == 0 {
		elements = reflect.Zero(dst.Type())
	}
	dst.Set(elements)
}

// textMap stores an object of texts. The texts may be secrets.
func (p *parser) textMap(o *hujson.Object, dst reflect.Value, path string) {
	texts := make(map[string]string, len(o.Members))
	seen := make(map[string]int)
	for _, m := range o.Members {
		key, ok := p.key(m.Name, path, seen)
		if !ok {
			continue
		}
		var text Secret
		p.value(m.Value, reflect.ValueOf(&text).Elem(), joinPath(path, printableKey(key)))
		texts[key] = string(text)
	}
	if len(texts) > 0 {
		dst.Set(reflect.ValueOf(texts))
	}
}

// setLiteral stores a text, number or truth value where it fits.
func setLiteral(dst reflect.Value, lit hujson.Literal) bool {
	text, isText := unquote(lit)
	switch {
	case dst.Type() == reflect.TypeFor[Duration]():
		d, err := ParseDuration(text)
		if !isText || err != nil {
			return false
		}
		dst.SetInt(int64(d))
	case dst.Kind() == reflect.String:
		if !isText {
			return false
		}
		dst.SetString(text)
	case dst.Kind() == reflect.Bool:
		if lit.Kind() != 't' && lit.Kind() != 'f' {
			return false
		}
		dst.SetBool(lit.Kind() == 't')
	case dst.Kind() == reflect.Int:
		n, err := strconv.Atoi(string(lit))
		if err != nil {
			return false
		}
		dst.SetInt(int64(n))
	default:
		return false
	}
	return true
}

// unquote returns the text of a literal; ok is false when it is none.
func unquote(lit hujson.Literal) (text string, ok bool) {
	if lit.Kind() != '"' {
		return "", false
	}
	b, err := jsontext.AppendUnquote(nil, []byte(lit))
	return string(b), err == nil
}

func badText(path string, offset int) finding {
	return finding{Problem: Problem{
		Cause: CauseSyntax, Path: path, Message: "the text is not valid UTF-8 or holds half of a \\u pair",
	}, offset: offset}
}

// wantedValue says what the file may hold for a Go type.
func wantedValue(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Duration]():
		return `a duration like "30s", "2m" or "1h30m"`
	case t.Kind() == reflect.Bool:
		return "true or false, without quotes"
	case t.Kind() == reflect.Int:
		return "a whole number, without quotes"
	case t.Kind() == reflect.Slice:
		return "a list in brackets [ ]"
	case t.Kind() == reflect.Struct:
		return "an object in braces { }"
	case t.Kind() == reflect.Map:
		return "an object of names and texts in braces { }"
	default:
		return "text in double quotes"
	}
}

// seenValue says what a value of the wrong type is. Only values in the place
// of public scalars are shown: what stands for an object may be a password.
func seenValue(v hujson.Value, wanted reflect.Type) string {
	lit, scalar := v.Value.(hujson.Literal)
	switch {
	case !scalar || lit.Kind() == 'n':
		return kindOf(v)
	case wanted == reflect.TypeFor[Secret]() && lit.Kind() != '"',
		wanted.Kind() == reflect.Slice, wanted.Kind() == reflect.Struct, wanted.Kind() == reflect.Map:
		return kindOf(v)
	}
	if text, isText := unquote(lit); isText {
		return quote(text)
	}
	return shorten(string(lit))
}

// kindOf names the kind of a value.
func kindOf(v hujson.Value) string {
	switch v.Value.Kind() {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "text"
	case 'n':
		return "null"
	case 't', 'f':
		return "true or false"
	default:
		return "a number"
	}
}

// maxSeen is how many characters of a value a message shows.
const maxSeen = 60

// quote shows a text in a message. Text that looks like a link or a URL may
// hold a password or an id and is only measured.
func quote(text string) string {
	if strings.ContainsRune(text, '@') || strings.Contains(text, "://") {
		return measure(text)
	}
	return strconv.Quote(shorten(text))
}

// measure describes a text without showing it.
func measure(text string) string {
	return "text of " + count(utf8.RuneCountInString(text), "character")
}

// count returns "1 character", "2 characters".
func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}

func shorten(text string) string {
	if utf8.RuneCountInString(text) <= maxSeen {
		return text
	}
	return string([]rune(text)[:maxSeen]) + "…"
}

// printableKey is a key as part of a path in a message.
func printableKey(key string) string {
	odd := func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }
	if key == "" || strings.ContainsFunc(key, odd) {
		return strconv.Quote(shorten(key))
	}
	return shorten(key)
}
