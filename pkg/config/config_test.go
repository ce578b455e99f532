package config

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testID = "b831381d-6324-4d53-ad4f-8cda48b30811"

// withServer returns a client's file whose server has further members on line
// 2.
func withServer(members string) string {
	return `{"server": {"address": "a.example", "port": 443, "id": "` + testID + "\",\n" + members + `}}`
}

// withClient returns a client's file with further members on line 2.
func withClient(members string) string {
	return `{"server": {"address": "a.example", "port": 443, "id": "` + testID + "\"},\n" + members + `}`
}

// withServerFile returns a server's file with further members on line 2.
func withServerFile(members string) string {
	return `{"listen": ":8443", "users": [{"id": "` + testID + "\"}],\n" + members + `}`
}

func mustParse(t *testing.T, text string) *Client {
	t.Helper()
	c, err := ParseClient("c.json", []byte(text))
	if err != nil {
		t.Fatalf("parse %s:\n%v", text, err)
	}
	return c
}

func TestExampleIsTheManual(t *testing.T) {
	data, err := os.ReadFile("../../config.example.json")
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseClient("config.example.json", data)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range keyPaths(reflect.TypeFor[Client](), "") {
		if strings.HasPrefix(path, "servers") {
			continue // excludes server; the text has it in a comment
		}
		if _, _, _, ok := c.Position(path); !ok {
			t.Errorf("%s is not in the example", path)
		}
	}
	if !bytes.Contains(data, []byte(`"servers": [`)) {
		t.Error("the example does not speak of servers")
	}
	c.Server.Address, c.Server.Port, c.Server.ID = "", 0, ""
	if want := DefaultClient(); !c.Equal(want) {
		t.Errorf("the example differs from the defaults:\n%s", MarshalClient(c))
	}
}

func TestServerExampleIsTheManual(t *testing.T) {
	data, err := os.ReadFile("../../docs/server.example.json")
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseServer("server.example.json", data)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range keyPaths(reflect.TypeFor[Server](), "") {
		if _, _, _, ok := s.Position(path); !ok {
			t.Errorf("%s is not in the example", path)
		}
	}
	s.Listen, s.Users = "", nil
	if want := DefaultServer(); len(s.Differences(want)) > 0 {
		t.Errorf("the example differs from the defaults:\n%s", MarshalServer(s))
	}
}

// keyPaths lists every key of a struct tree; lists are looked at by their
// first element.
func keyPaths(t reflect.Type, path string) []string {
	var paths []string
	for _, f := range fieldsOf(t) {
		at, inner := joinPath(path, f.name), t.Field(f.index).Type
		paths = append(paths, at)
		if inner.Kind() == reflect.Slice && inner.Elem().Kind() == reflect.Struct {
			at, inner = indexPath(at, 0), inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			paths = append(paths, keyPaths(inner, at)...)
		}
	}
	return paths
}

func TestDefaultsAreValid(t *testing.T) {
	c := DefaultClient()
	c.Server.Address, c.Server.Port, c.Server.ID = "a.example", 443, testID
	if err := c.Normalize(); err != nil {
		t.Error(err)
	}
	s := DefaultServer()
	s.Listen, s.Users = ":1", []User{{ID: testID}}
	if err := s.Normalize(); err != nil {
		t.Error(err)
	}
}

func TestNormalizeWithoutFile(t *testing.T) {
	c := DefaultClient()
	c.Server.TLS.Fingerprint = "netscape"
	err := c.Normalize()
	const want = "server.address: the host is empty; want a host name or IP address\n" +
		"server.id: the id is empty; want a UUID, or other text of 1 to 30 bytes\n" +
		"server.port: saw 0; want a whole number from 1 to 65535\n" +
		"server.tls.fingerprint: saw \"netscape\"; want one of chrome, firefox, safari, ios, android, edge, random, randomized"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestCanonicalForm(t *testing.T) {
	c := mustParse(t, "\ufeff"+withServer(`
		"ws": {"path": "ray?a=b&ed=2048&c", "headers": {"host": "cdn.example:8080", "X-A": "1"}},
		"tls": {"pin": ["`+strings.Repeat("AB:", 31)+`ab"], "alpn": []}`))
	r := c.Server
	if r.WS.Path != "/ray?a=b&c" || r.WS.EarlyData != 2048 || r.WS.EarlyDataHeader != EarlyDataProtocol {
		t.Errorf("ws = %+v", r.WS)
	}
	if r.WS.Host != "cdn.example:8080" || !reflect.DeepEqual(r.WS.Headers, map[string]string{"X-A": "1"}) {
		t.Errorf("host %q, headers %q", r.WS.Host, r.WS.Headers)
	}
	if len(r.TLS.Pin) != 1 || r.TLS.Pin[0] != strings.Repeat("ab", 32) || len(r.TLS.ALPN) != 0 {
		t.Errorf("tls = %+v", r.TLS)
	}
	for text, want := range map[string]string{
		``: "/ray", `"path": ""`: "/", `"path": "?ed=0"`: "/", `"path": "x?ed="`: "/x",
		`"path": "/a?ed=5&ed=5", "earlyData": 5`: "/a",
	} {
		if got := mustParse(t, withServer(`"ws": {`+text+`}`)).Server.WS.Path; got != want {
			t.Errorf("%s became %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]Secret{
		strings.ToUpper(testID):             testID,
		strings.ReplaceAll(testID, "-", ""): testID,
		"example":                           "example",
		"ö":                                 "ö",
	} {
		c := mustParse(t, `{"server": {"address": "[::1]", "port": 1, "id": "`+text+`"}}`)
		if c.Server.ID != want || c.Server.Address != "::1" {
			t.Errorf("id %s became %s at %s", text, string(c.Server.ID), c.Server.Address)
		}
	}
	s, err := ParseServer("s.json", []byte(withServerFile(`"ws": {"path": "ray?ed=2048"}, "fallback": "404"`)))
	if err != nil || s.WS.Path != "/ray" || s.Fallback != "" {
		t.Errorf("server: %+v, %v", s, err)
	}
}

func TestAccepted(t *testing.T) {
	for _, text := range []string{
		withClient(`"listen": "localhost:0"`),
		withClient(`"listen": "[::1]:1080"`),
		withClient(`"listen": ":1080", "auth": {"username": "u", "password": "p:@"}`),
		withClient(`"upstream": "http://user:p%40ss@proxy.example:3128/"`),
		withClient(`"upstream": "socks5://[::1]:1080"`),
		withClient(`"udp": {"mode": "off"}, "warm": {"max": 0}, "limits": {"drain": "0"}`),
		withClient(`"status": {"enabled": true}, "mux": {"enabled": false}`),
		withServer(`"security": "zero", "globalPadding": true, "ws": {"ping": "0s", "earlyDataHeader": ""}`),
		withServer(`"ws": {"earlyDataHeader": "X-Data", "path": "/ray//%20ö"}, "tls": {"alpn": ["h2", "http/1.1"]}`),
		`{"servers": [{"address": "a", "port": 1, "id": "x"},]} // the last line`,
	} {
		mustParse(t, text)
	}
	for _, text := range []string{
		withServerFile(`"tls": {"certFile": "c", "keyFile": "k"}, "aeadForced": false`),
		withServerFile(`"trustedProxies": [], "status": {"enabled": false}, "egress": {"allowPrivate": true}`),
	} {
		if _, err := ParseServer("s.json", []byte(text)); err != nil {
			t.Errorf("%s:\n%v", text, err)
		}
	}
}

func TestServersBecomeServer(t *testing.T) {
	c := mustParse(t, `{"servers": [{"address": "a", "port": 1, "id": "x", "ws": {"path": "/p"}}]}`)
	if len(c.Servers) != 1 || !reflect.DeepEqual(c.Server, c.Servers[0]) || !c.Server.GlobalPadding {
		t.Errorf("server %+v, servers %+v", c.Server, c.Servers)
	}
	again := mustParse(t, string(MarshalClient(c)))
	if !reflect.DeepEqual(c.Servers, again.Servers) || !reflect.DeepEqual(c.Server, again.Server) {
		t.Errorf("became\n%s", MarshalClient(again))
	}
}

func TestPlace(t *testing.T) {
	c := mustParse(t, "{\n\t\"server\": {\n\t\t/* ö */ \"address\": \"a\", \"port\": 1,\r\n\t\t\"id\": \"x\",\n\t\t\"tls\": {\"pin\": [\n\""+strings.Repeat("0", 64)+"\"]}\n\t}\n}")
	for path, want := range map[string]string{
		"server":            "c.json:2:12",
		"server.address":    "c.json:3:22",
		"server.port":       "c.json:3:35",
		"server.id":         "c.json:4:9",
		"server.tls.pin[0]": "c.json:6:1",
	} {
		file, line, column, ok := c.Position(path)
		if got := fmt.Sprintf("%s:%d:%d", file, line, column); got != want || !ok {
			t.Errorf("%s is at %s, %v; want %s", path, got, ok, want)
		}
	}
	for _, path := range []string{"", "server.alterId", "listen"} {
		if file, line, column, ok := c.Position(path); ok || file != "" || line != 0 || column != 0 {
			t.Errorf("%q is at %s:%d:%d", path, file, line, column)
		}
	}
	if _, _, _, ok := DefaultClient().Position("listen"); ok {
		t.Error("the defaults have a place")
	}
}

func TestMarshalRoundTrip(t *testing.T) {
	c := mustParse(t, withClient(`
		"listen": ":1", "auth": {"username": "u", "password": "p\"\\\u0001"}, "upstream": "http://u:p@h:1",
		"warm": {"max": 0, "idle": "1m30s"}, "heal": {"clock": false}, "limits": {"idle": "1h0m1s", "connections": 7},
		"status": {"enabled": false}, "log": {"level": "debug"}`))
	c.Server.WS.Headers = map[string]string{"B": "2", "A": "1"}
	c.Server.TLS = TLS{Pin: []string{strings.Repeat("0a", 32)}}
	again := mustParse(t, string(MarshalClient(c)))
	c.source, again.source = source{}, source{}
	if !reflect.DeepEqual(c, again) {
		t.Errorf("got\n%s\nfrom\n%s", MarshalClient(again), MarshalClient(c))
	}
	if c.Equal(DefaultClient()) {
		t.Error("Equal sees no difference")
	}
}

// TestDifferences: a server's configurations are compared by their outermost
// keys, in which an absent list is an empty one.
func TestDifferences(t *testing.T) {
	one, two := DefaultServer(), DefaultServer()
	one.Users, two.TrustedProxies = []User{{ID: "a"}}, []string{}
	two.Users = []User{{ID: "a"}}
	if got := one.Differences(two); len(got) > 0 {
		t.Errorf("alike, but %v", got)
	}
	two.Users, two.TLS.KeyFile, two.Limits.Idle = append(two.Users, User{ID: "b"}), "k", 0
	if got := one.Differences(two); !slices.Equal(got, []string{"users", "tls", "limits"}) {
		t.Errorf("%v differ", got)
	}
}

func TestSecretsStaySecret(t *testing.T) {
	c := mustParse(t, withClient(`"auth": {"username": "hunter", "password": "hunter2"}, "upstream": "http://hunter:3@h:1"`))
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "id", c.Server.ID, "auth", c.Auth, "up", c.Upstream)
	for _, text := range []string{
		fmt.Sprint(*c), fmt.Sprintf("%v %+v %#v %s %q", c.Server, c.Server, c.Auth, c.Upstream, c.Auth), log.String(),
	} {
		if strings.Contains(text, "hunter") || strings.Contains(text, "8cda48b30811") {
			t.Errorf("a secret is in %s", text)
		}
	}
	if Secret("").String() != "" {
		t.Error("an empty secret looks like one")
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0s", "30s": "30s", "2m": "2m", "60m": "1h", "1h30m": "1h30m", "90s": "1m30s", "1h1s": "1h0m1s", "500ms": "500ms", "10m": "10m", "100h": "100h",
	} {
		d, err := ParseDuration(text)
		if err != nil || d.String() != want {
			t.Errorf("%s became %s, %v; want %s", text, d, err, want)
		}
		if again, err := ParseDuration(d.String()); err != nil || again != d {
			t.Errorf("%s became %v, %v", d, time.Duration(again), err)
		}
	}
	for _, text := range []string{"", "30", "-1s", "1 s", "forever"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("%q became %s", text, d)
		}
	}
}

func TestNearest(t *testing.T) {
	for _, c := range []struct{ key, want string }{
		{"pth", "path"},
		{"PATH", "path"},
		{"paht", "path"},
		{"hots", "host"},
		{"earlydata", "earlyData"},
		{"early_data", "earlyData"},
		{"earlyDataHaeder", "earlyDataHeader"},
		{"i", ""},
		{"dd", "id"},
		{"x", ""},
		{"uuid", ""},
		{"completely", ""},
		{strings.Repeat("path", 20), ""},
		{"", ""},
	} {
		if got := nearest(c.key, []string{"path", "host", "earlyData", "earlyDataHeader", "id"}); got != c.want && !(c.key == "i" && got == "id") {
			t.Errorf("nearest(%q) = %q, want %q", c.key, got, c.want)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "abc", 3}, {"abc", "", 3}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"öl", "ol", 1}, {"ca", "abc", 3}} {
		if got := editDistance(c.a, c.b); got != c.want {
			t.Errorf("editDistance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestProblemsAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("{")
	for i := range 40_000 {
		fmt.Fprintf(&b, `"listne%d": 1,`, i)
	}
	b.WriteString("}")
	start := time.Now()
	_, err := ParseClient("c.json", []byte(b.String()))
	var problems *Problems
	if !errors.As(err, &problems) || len(problems.All) != maxProblems || problems.Omitted != 40_000-maxProblems+1 {
		t.Fatalf("got %d problems and %d more", len(problems.All), problems.Omitted)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if !strings.HasSuffix(err.Error(), fmt.Sprintf("\nand %d more", problems.Omitted)) {
		t.Error("the omitted problems are not said")
	}
}

func FuzzParseClient(f *testing.F) {
	example, err := os.ReadFile("../../config.example.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example))
	for _, c := range clientMistakes {
		f.Add(c.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseClient("f", []byte(text))
		if err != nil {
			requireProblems(t, err)
			return
		}
		marshalled := MarshalClient(c)
		again, err := ParseClient("g", marshalled)
		if err != nil {
			t.Fatalf("%s\nis refused: %v", marshalled, err)
		}
		again.source = c.source
		if !reflect.DeepEqual(c, again) {
			t.Fatalf("%s\nbecame\n%s", marshalled, MarshalClient(again))
		}
	})
}

func FuzzParseServer(f *testing.F) {
	example, err := os.ReadFile("../../docs/server.example.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example))
	for _, c := range serverMistakes {
		f.Add(c.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseServer("f", []byte(text))
		if err != nil {
			requireProblems(t, err)
			return
		}
		marshalled := MarshalServer(s)
		again, err := ParseServer("g", marshalled)
		if err != nil {
			t.Fatalf("%s\nis refused: %v", marshalled, err)
		}
		again.source = s.source
		if !reflect.DeepEqual(s, again) {
			t.Fatalf("%s\nbecame\n%s", marshalled, MarshalServer(again))
		}
	})
}

// requireProblems checks that each problem has a cause, a place and words.
func requireProblems(t *testing.T, err error) {
	t.Helper()
	var problems *Problems
	if !errors.As(err, &problems) || len(problems.All) == 0 {
		t.Fatalf("the error is %T", err)
	}
	for _, p := range problems.All {
		if p.Cause == "" || p.Line < 1 || p.Column < 1 || p.Text() == "" {
			t.Fatalf("the problem is %#v", p)
		}
	}
}

// TestTextIDs: what is no UUID stands for one as others map it, what may be a
// mistyped one never does.
func TestTextIDs(t *testing.T) {
	const whole = "b831381d-6324-4d53-ad4f-8cda48b30811"
	for _, c := range []struct {
		id, want string // want "": refused
		warned   bool
	}{
		{"example", "example", false},
		{strings.Repeat("x", 30), strings.Repeat("x", 30), false},
		{strings.Repeat("x", 31), strings.Repeat("x", 31), true},
		{"a long pass phrase, of thirty-six by.", "a long pass phrase, of thirty-six by.", true},
		{"{" + strings.ToUpper(whole) + "}", whole, false},
		{"urn:uuid:" + whole, whole, false},
		{"b831381d-6324-4d53-ad4f-8cda48b3O811", "", false}, // the letter O
		{"{b831381d-6324-4d53-ad4f-8cda48b3O811}", "", false},
		{whole + "1", "", false},
		{strings.Repeat("x", 40) + "\xff", "", false},
	} {
		r := DefaultRemote()
		r.Address, r.Port, r.ID = "a.example", 1, Secret(c.id)
		err := r.Normalize()
		if (err == nil) != (c.want != "") || err == nil && string(r.ID) != c.want {
			t.Errorf("%q became %q, %v", c.id, string(r.ID), err)
		}
		if text := IDWarning(r.ID); err == nil && (text != "") != c.warned {
			t.Errorf("%q: the warning is %q", c.id, text)
		}
	}
}
