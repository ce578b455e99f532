package config

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// keysOf returns each key of a configuration with its default, in the rows of a
// table: "| `listen` | `"127.0.0.1:1080"` |".
func keysOf(t *testing.T, v reflect.Value, path string) (rows []string) {
	t.Helper()
	for _, f := range fieldsOf(v.Type()) {
		at, value := joinPath(path, f.name), v.Field(f.index)
		switch {
		case value.Type() == reflect.TypeFor[[]Remote](): // what "server" has
			rows = append(rows, "| `"+at+"` | none |")
		case value.Type() == reflect.TypeFor[[]User]():
			rows = append(rows, keysOf(t, reflect.ValueOf(User{}), at+"[]")...)
		case value.Kind() == reflect.Struct:
			rows = append(rows, keysOf(t, value, at)...)
		case f.required:
			rows = append(rows, "| `"+at+"` | required |")
		default:
			rows = append(rows, "| `"+at+"` | `"+defaultText(t, value)+"` |")
		}
	}
	return rows
}

func defaultText(t *testing.T, v reflect.Value) string {
	t.Helper()
	if (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0 {
		return map[reflect.Kind]string{reflect.Slice: "[]", reflect.Map: "{}"}[v.Kind()]
	}
	if d, ok := v.Interface().(Duration); ok {
		return `"` + d.String() + `"`
	}
	text, err := json.Marshal(v.Interface())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestReadme holds the README's tables of keys against the configurations: each
// key stands there once, with its default, in the same order.
func TestReadme(t *testing.T) {
	data, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	client := DefaultClient()
	for title, config := range map[string]reflect.Value{
		"### Keys of the client\n": reflect.ValueOf(client).Elem(), "### Keys of the server\n": reflect.ValueOf(DefaultServer()).Elem(),
	} {
		_, table, found := strings.Cut(string(data), title)
		if !found {
			t.Fatalf("the README has no %q", title)
		}
		table, _, _ = strings.Cut(table, "\n#")
		var got []string
		for line := range strings.Lines(table) {
			if key, rest, ok := strings.Cut(line, "` | "); ok && strings.HasPrefix(line, "| `") {
				value, meaning, _ := strings.Cut(rest, " | ")
				got = append(got, key+"` | "+value+" |")
				if strings.Trim(meaning, " |\n") == "" {
					t.Errorf("nothing is said of %s", key)
				}
			}
		}
		if want := keysOf(t, config, ""); !slices.Equal(got, want) {
			t.Errorf("%shas\n%s\nwant\n%s", title, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}
