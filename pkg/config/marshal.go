package config

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// MarshalClient returns the configuration as indented JSON: the required keys
// and those that differ from their defaults. [ParseClient] reads it back to
// an equal configuration. It holds the secrets.
func MarshalClient(c *Client) []byte {
	plain := *c
	if len(c.Servers) > 0 {
		plain.Server = DefaultRemote()
	}
	return marshal(reflect.ValueOf(plain), reflect.ValueOf(*DefaultClient()))
}

// MarshalServer is [MarshalClient] for the server.
func MarshalServer(s *Server) []byte {
	return marshal(reflect.ValueOf(*s), reflect.ValueOf(*DefaultServer()))
}

// Equal reports whether two configurations say the same, wherever their keys
// stand.
func (c *Client) Equal(other *Client) bool {
	return bytes.Equal(MarshalClient(c), MarshalClient(other))
}

// Differences returns the outermost keys whose values are others in the other
// configuration.
func (s *Server) Differences(other *Server) (keys []string) {
	one, two := reflect.ValueOf(*s), reflect.ValueOf(*other)
	for _, f := range fieldsOf(one.Type()) {
		if !same(one.Field(f.index), two.Field(f.index)) {
			keys = append(keys, f.name)
		}
	}
	return keys
}

func marshal(v, defaults reflect.Value) []byte {
	return append(appendObject(nil, v, defaults, 0), '\n')
}

func appendObject(b []byte, v, defaults reflect.Value, depth int) []byte {
	var members members
	for _, f := range fieldsOf(v.Type()) {
		value, standard := v.Field(f.index), defaults.Field(f.index)
		if f.required || !same(value, standard) {
			members.add(f.name, appendValue(nil, value, standard, depth+1))
		}
	}
	return members.append(b, '{', '}', depth)
}

func appendValue(b []byte, v, defaults reflect.Value, depth int) []byte {
	switch {
	case v.Type() == reflect.TypeFor[Duration]():
		return appendText(b, Duration(v.Int()).String())
	case v.Kind() == reflect.Struct:
		return appendObject(b, v, defaults, depth)
	case v.Kind() == reflect.Slice:
		return appendList(b, v, depth)
	case v.Kind() == reflect.Map:
		return appendMap(b, v.Interface().(map[string]string), depth)
	case v.Kind() == reflect.Bool:
		return strconv.AppendBool(b, v.Bool())
	case v.Kind() == reflect.Int:
		return strconv.AppendInt(b, v.Int(), 10)
	default:
		return appendText(b, v.String())
	}
}

func appendList(b []byte, v reflect.Value, depth int) []byte {
	var elements members
	for i := range v.Len() {
		elements.add("", appendValue(nil, v.Index(i), elementDefault(v.Type().Elem()), depth+1))
	}
	return elements.append(b, '[', ']', depth)
}

func appendMap(b []byte, texts map[string]string, depth int) []byte {
	var all members
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		all.add(name, appendText(nil, texts[name]))
	}
	return all.append(b, '{', '}', depth)
}

// appendText quotes a text; bytes that are no UTF-8 become U+FFFD.
func appendText(b []byte, text string) []byte {
	b, _ = jsontext.AppendQuote(b, strings.ToValidUTF8(text, "\ufffd")) // valid text has no error
	return b
}

// members are the lines between two brackets.
type members [][]byte

// add appends a member; a list's element has no name.
func (m *members) add(name string, value []byte) {
	var line []byte
	if name != "" {
		line = append(appendText(line, name), ": "...)
	}
	*m = append(*m, append(line, value...))
}

func (m members) append(b []byte, open, end byte, depth int) []byte {
	b = append(b, open)
	if len(m) > 0 {
		newline := []byte("\n" + strings.Repeat("  ", depth))
		inner := append(slices.Clone(newline), "  "...)
		b = append(b, inner...)
		b = append(b, bytes.Join(m, append([]byte{','}, inner...))...)
		b = append(b, newline...)
	}
	return append(b, end)
}

// same reports whether two values are written alike: an absent list is an
// empty one.
func same(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Struct:
		for _, f := range fieldsOf(a.Type()) {
			if !same(a.Field(f.index), b.Field(f.index)) {
				return false
			}
		}
		return true
	case reflect.Slice, reflect.Map:
		if a.Len() == 0 && b.Len() == 0 {
			return true
		}
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}
