package config

import (
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the keys and defaults of docs/configuration.md")

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

// TestDocs compares the tables of keys in docs/configuration.md with the
// configurations: each key has one row, with its default, in the same order,
// and a meaning. -update writes keys and defaults and keeps the meanings.
func TestDocs(t *testing.T) {
	const file = "../../docs/configuration.md"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for title, config := range map[string]reflect.Value{
		"## Keys of the client\n": reflect.ValueOf(DefaultClient()).Elem(), "## Keys of the server\n": reflect.ValueOf(DefaultServer()).Elem(),
	} {
		head, table, found := strings.Cut(text, title)
		if !found {
			t.Fatalf("%s has no %q", file, title)
		}
		table, rest, _ := strings.Cut(table, "\n#")
		want := keysOf(t, config, "")
		if *update {
			table = withKeys(table, want)
			text = head + title + table + "\n#" + rest
		}
		var got []string
		for line := range strings.Lines(table) {
			if key, meaning, ok := cutRow(line); ok {
				got = append(got, key)
				if meaning == "" {
					t.Errorf("%s has no meaning", key)
				}
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%shas\n%s\nwant\n%s\n(-update writes it)", title, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if *update && text != string(data) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// cutRow splits a row of a table of keys into key and default, as keysOf
// returns them, and meaning.
func cutRow(line string) (key, meaning string, ok bool) {
	name, rest, ok := strings.Cut(line, "` | ")
	if !ok || !strings.HasPrefix(line, "| `") {
		return "", "", false
	}
	value, meaning, _ := strings.Cut(rest, " | ")
	return name + "` | " + value + " |", strings.Trim(meaning, " |\n"), true
}

// withKeys replaces the rows of a table of keys and keeps the meanings.
func withKeys(table string, keys []string) string {
	meanings := map[string]string{}
	var before, after strings.Builder
	for line := range strings.Lines(table) {
		key, meaning, ok := cutRow(line)
		switch {
		case ok:
			name, _, _ := strings.Cut(key, " | ")
			meanings[name] = meaning
		case strings.HasPrefix(line, "|") || len(meanings) == 0:
			before.WriteString(line)
		default:
			after.WriteString(line)
		}
	}
	for _, key := range keys {
		name, _, _ := strings.Cut(key, " | ")
		before.WriteString(key + " " + meanings[name] + " |\n")
	}
	return before.String() + after.String()
}
