package sharelink

import (
	"encoding/json"
	"html"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// A whole file that was escaped once more on its way has the servers that it has
// unescaped.
func TestWrappedFile(t *testing.T) {
	quoted := func(s string) string {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	wraps := map[string]func(string) string{
		"for a URL's path":      url.PathEscape,
		"for HTML":              html.EscapeString,
		"as a JSON string":      quoted,
		"for HTML and a URL":    func(s string) string { return url.PathEscape(html.EscapeString(s)) },
		"as JSON and for HTML":  func(s string) string { return html.EscapeString(quoted(s)) },
		"for a URL, twice over": func(s string) string { return url.PathEscape(url.PathEscape(s)) },
	}
	for _, name := range []string{"18-aes-128-cfb.json", "21-guiNConfig.json", "24-flow-ipv6.yaml", "36-link-json-bare.txt", "20-html-amp.txt"} {
		data, err := os.ReadFile(filepath.Join("testdata", "cases", name))
		if err != nil {
			t.Fatal(err)
		}
		want, err := Read(data)
		if err != nil || len(want.Servers) == 0 {
			t.Fatal(name, len(want.Servers), err)
		}
		for how, wrap := range wraps {
			t.Run(name+" "+how, func(t *testing.T) {
				got, err := Read([]byte(wrap(string(data))))
				if err != nil || !reflect.DeepEqual(got.Servers, want.Servers) {
					t.Errorf("got %+v, %v, want %+v", got.Servers, err, want.Servers)
				}
			})
		}
	}
}
