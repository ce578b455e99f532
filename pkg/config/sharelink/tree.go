package sharelink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// An object is one of a foreign configuration, from JSON or YAML. Its values
// are texts (of numbers and truth values, too: programs mix them), objects,
// lists ([]any) and nil.
type object map[string]any

// child returns the object at a key; nil, in which nothing is found, when
// there is none.
func (o object) child(key string) object {
	inner, _ := o[key].(object)
	return inner
}

// list returns the list at a key; nil when there is none.
func (o object) list(key string) []any {
	elements, _ := o[key].([]any)
	return elements
}

func (o object) has(key string) bool {
	switch value := o[key].(type) {
	case nil:
		return false
	case string:
		return value != ""
	case object:
		return len(value) > 0
	case []any:
		return len(value) > 0
	}
	return true
}

// texts reads texts out of objects and keeps the first mistake.
type texts struct{ err error }

// of returns the first text among the keys that says something.
func (t *texts) of(o object, keys ...string) string {
	for _, key := range keys {
		switch value := o[key].(type) {
		case nil:
		case string:
			if value != "" {
				return value
			}
		default:
			t.mistake(key, "it is a list or an object; expected text")
			return ""
		}
	}
	return ""
}

// all returns the texts of a list, or of a text with commas.
func (t *texts) all(o object, key string) []string {
	elements, isList := o[key].([]any)
	if !isList {
		for _, text := range strings.FieldsFunc(t.of(o, key), func(r rune) bool { return r == ',' || r == '~' || r == ' ' }) {
			elements = append(elements, text)
		}
	}
	var list []string
	for _, element := range elements {
		text, isText := element.(string)
		if !isText {
			t.mistake(key, "it contains something other than text")
		}
		list = append(list, text)
	}
	return list
}

// headers returns HTTP headers, written as an object of texts or of lists of
// one text, or as a list of objects with key and value.
func (t *texts) headers(o object, key string) map[string]string {
	headers := make(map[string]string)
	switch value := o[key].(type) {
	case object:
		for name, content := range value {
			if many, isList := content.([]any); isList {
				content = joined(many)
			}
			text, isText := content.(string)
			if !isText && content != nil {
				t.mistake(key, "a header's value is a list or an object; expected text")
			}
			headers[name] = text
		}
	case []any:
		for _, element := range value {
			pair, _ := element.(object)
			headers[t.of(pair, "key", "name")] = t.of(pair, "value")
		}
	default:
		if t.of(o, key) != "" {
			t.mistake(key, "it is text; expected an object of headers")
		}
	}
	return headers
}

// joined makes one text of several, as HTTP does; it returns anything else as
// it is.
func joined(elements []any) any {
	texts := make([]string, 0, len(elements))
	for _, element := range elements {
		text, isText := element.(string)
		if !isText {
			return elements
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

func (t *texts) mistake(key, reason string) {
	if t.err == nil {
		t.err = &FieldError{key, reason}
	}
}

// maxDepth bounds the nesting of foreign configurations.
const maxDepth = 64

var errTooDeep = errors.New("it is nested too deep")

// parseTree reads JSON with the comments and trailing commas that V2Ray, Xray
// and sing-box tolerate. What it returns is an object or a list; the error
// shows nothing of the text.
func parseTree(data []byte) (any, error) {
	plain := standardJSON(data)
	decoder := json.NewDecoder(bytes.NewReader(plain))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		var syntax *json.SyntaxError
		at := len(data)
		if errors.As(err, &syntax) {
			at = min(int(syntax.Offset), len(data))
		}
		if line := 1 + bytes.Count(data[:at], []byte("\n")); line > 1 {
			return nil, fmt.Errorf("its JSON is invalid at line %d", line)
		}
		return nil, fmt.Errorf("its JSON is invalid at byte %d of %d", at, len(data))
	}
	if rest := bytes.TrimSpace(plain[decoder.InputOffset():]); len(rest) > 0 {
		return nil, errors.New("its JSON goes on after the last bracket")
	}
	return plainTree(value, 0)
}

// maxPieces bounds how many bytes of broken JSON are looked at, again and again.
const maxPieces = 4 * MaxSize

// pieces reads the servers in JSON that breaks somewhere: objects that are whole
// and look like one.
func (r *reader) pieces(data []byte) {
	plain := standardJSON(data)
	line, left := 1, maxPieces
	for i := 0; i < len(plain) && left > 0; i++ {
		if plain[i] == '\n' {
			line++
		}
		if plain[i] != '{' {
			continue
		}
		decoder := json.NewDecoder(bytes.NewReader(plain[i:]))
		decoder.UseNumber()
		var value any
		err := decoder.Decode(&value)
		left -= int(decoder.InputOffset()) + 1
		if err != nil {
			left -= lookedAt(err)
			continue
		}
		value, err = plainTree(value, 0)
		o, _ := value.(object)
		if err != nil || !isServer(o) {
			continue
		}
		if r.object(fmt.Sprintf("line %d", line), o) != nil {
			continue
		}
		size := int(decoder.InputOffset())
		line += bytes.Count(plain[i:i+size], []byte("\n"))
		i += size - 1
	}
}

// lookedAt is how far a decoder came.
func lookedAt(err error) int {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return int(syntax.Offset)
	}
	return MaxSize // to the end
}

// isServer reports whether an object looks like a single server.
func isServer(o object) bool {
	return o.has("protocol") && o.has("settings") || o.has("type") && o.has("server") || o.has("add") && o.has("id")
}

// plainTree makes texts of scalars.
func plainTree(value any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errTooDeep
	}
	switch value := value.(type) {
	case map[string]any:
		o := make(object, len(value))
		for key, inner := range value {
			plain, err := plainTree(inner, depth+1)
			if err != nil {
				return nil, err
			}
			o[key] = plain
		}
		return o, nil
	case []any:
		for i := range value {
			plain, err := plainTree(value[i], depth+1)
			if err != nil {
				return nil, err
			}
			value[i] = plain
		}
		return value, nil
	case json.Number:
		return value.String(), nil
	case bool:
		return fmt.Sprint(value), nil
	default:
		return value, nil // a text or nil
	}
}

// standardJSON puts spaces in the place of comments (//, /* */, #) and of
// commas before a closing bracket and of control characters in texts, so that
// places stay what they are.
func standardJSON(data []byte) []byte {
	plain := bytes.Clone(data)
	comma := -1 // that only white space follows so far
	for i := 0; i < len(plain); {
		size := 1
		switch c := plain[i]; {
		case c == '"':
			size, comma = textLength(plain[i:]), -1
			unbroken(plain[i : i+size])
		case commentLength(plain[i:]) > 0:
			size = commentLength(plain[i:])
			blank(plain[i : i+size])
		case c == ',':
			comma = i
		case (c == '}' || c == ']') && comma >= 0:
			plain[comma], comma = ' ', -1
		case c != ' ' && c != '\t' && c != '\r' && c != '\n':
			comma = -1
		}
		i += size
	}
	return plain
}

// textLength returns the length of the text that data begins with.
func textLength(data []byte) int {
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

// commentLength returns the length of the comment that data begins with; 0
// when there is none.
func commentLength(data []byte) int {
	end, skip := "\n", 1
	switch {
	case bytes.HasPrefix(data, []byte("/*")):
		end, skip = "*/", 2
	case bytes.HasPrefix(data, []byte("//")), bytes.HasPrefix(data, []byte("#")):
	default:
		return 0
	}
	if i := bytes.Index(data[skip:], []byte(end)); i >= 0 {
		return skip + i + len(end)
	}
	return len(data)
}

// unbroken puts spaces in the place of control characters in a text, which JSON
// does not allow there and some programs write.
func unbroken(text []byte) {
	for i, c := range text {
		if c < ' ' {
			text[i] = ' '
		}
	}
}

// blank keeps the line breaks.
func blank(comment []byte) {
	for i, c := range comment {
		if c != '\n' {
			comment[i] = ' '
		}
	}
}
