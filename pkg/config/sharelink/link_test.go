package sharelink

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"vmess-local/pkg/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testID = "b831381d-6324-4d53-ad4f-8cda48b30811"

// encode makes a link of JSON.
func encode(text string) string {
	return scheme + base64.StdEncoding.EncodeToString([]byte(text))
}

// withJSON makes a link of a working object; later members win over earlier.
func withJSON(members string) string {
	return encode(`{"v": "2", "add": "a.example", "port": "443", "id": "` + testID + `", "net": "ws", "tls": "tls"` + members + `}`)
}

// parse reads one link and nothing else.
func parse(link string) (*config.Remote, error) {
	f, err := parseLink(link)
	if err != nil {
		return nil, err
	}
	return f.remote()
}

// A vector is a link and what mihomo's converter makes of it.
type vector struct {
	ID    string `json:"id"`
	Link  string `json:"link"`
	Proxy *struct {
		Name    string          `json:"name"`
		Server  string          `json:"server"`
		Port    json.RawMessage `json:"port"`
		UUID    string          `json:"uuid"`
		AlterID json.RawMessage `json:"alterId"`
		Cipher  string          `json:"cipher"`
		TLS     bool            `json:"tls"`
		SNI     string          `json:"servername"`
		WS      struct {
			Path    string            `json:"path"`
			Headers map[string]string `json:"headers"`
			Early   int               `json:"max-early-data"`
		} `json:"ws-opts"`
	} `json:"mihomo_proxy"`
}

func TestVectors(t *testing.T) {
	data, err := os.ReadFile("testdata/links.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []vector `json:"cases"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) == 0 {
		t.Fatal("no vectors")
	}
	for _, v := range file.Cases {
		r, err := parse(v.Link)
		if err != nil {
			t.Errorf("%s: %v", v.ID, err)
			continue
		}
		if v.Proxy != nil {
			v.compare(t, r)
		}
	}
}

// compare checks a server against mihomo's reading. Of a URL's path mihomo
// does not take the early data.
func (v vector) compare(t *testing.T, r *config.Remote) {
	t.Helper()
	p := v.Proxy
	path, early := config.SplitEarlyData(p.WS.Path)
	if early == "2048" {
		p.WS.Early = 2048
	}
	number := func(raw json.RawMessage) string { return strings.Trim(string(raw), `"`) }
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"name", r.Name, p.Name},
		{"address", r.Address, p.Server},
		{"port", jsonOf(r.Port), number(p.Port)},
		{"id", string(r.ID), p.UUID},
		{"alterId", jsonOf(r.AlterID), number(p.AlterID)},
		{"security", r.Security, p.Cipher},
		{"tls", r.TLS.Enabled, p.TLS},
		{"sni", r.TLS.ServerName, p.SNI},
		{"path", r.WS.Path, path},
		{"host", r.WS.Host, p.WS.Headers["Host"]},
		{"early data", r.WS.EarlyData, p.WS.Early},
		{"insecure", r.TLS.AllowInsecure, false},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s is %v, want %v", v.ID, c.what, c.got, c.want)
		}
	}
}

func jsonOf(n int) string {
	b, _ := json.Marshal(n) // an int has no error
	return string(b)
}

func TestLiberties(t *testing.T) {
	standard := config.DefaultRemote()
	standard.Address, standard.Port, standard.ID, standard.WS.Path = "a.example", 443, testID, "/"
	with := func(change func(r *config.Remote)) config.Remote {
		r := standard
		change(&r)
		return r
	}
	plain := withJSON("")
	body := strings.TrimPrefix(plain, scheme)
	shadowing := func(members string) string { return withJSON(", " + members) }
	u := scheme + testID + "@a.example:443"
	for link, want := range map[string]config.Remote{
		"\ufeff " + plain + "\r\n":                            standard,
		"VMess://" + body:                                     standard,
		strings.TrimRight(plain, "="):                         standard,
		scheme + body[:40] + "\n " + body[40:]:                standard,
		plain + "#na%20me":                                    with(func(r *config.Remote) { r.Name = "na me" }),
		plain + "#100%":                                       with(func(r *config.Remote) { r.Name = "100%" }),
		plain + "?remarks=x":                                  standard,
		strings.ReplaceAll(plain, "=", "%3D"):                 standard,
		shadowing(`"host": null, "path": null, "ps": 7`):      with(func(r *config.Remote) { r.Name = "7" }),
		shadowing(`"ps": "a\nb"`) + "#other":                  with(func(r *config.Remote) { r.Name = "a b" }),
		shadowing(`"port": 443.0, "aid": "4", "v": 2`):        with(func(r *config.Remote) { r.AlterID = 4 }),
		shadowing(`"aid": null, "scy": "", "type": []`):       standard,
		shadowing(`"cipher": "chacha20-ietf-poly1305"`):       with(func(r *config.Remote) { r.Security = "chacha20-poly1305" }),
		shadowing(`"scy": "zero", "alpn": "h2,http/1.1"`):     with(func(r *config.Remote) { r.Security = "zero" }),
		shadowing(`"tls": true`):                              standard,
		shadowing(`"tls": 1, "net": "WS"`):                    standard,
		shadowing(`"tls": "none"`):                            with(func(r *config.Remote) { r.TLS.Enabled = false }),
		shadowing(`"tls": false`):                             with(func(r *config.Remote) { r.TLS.Enabled = false }),
		shadowing(`"tls": ""`):                                with(func(r *config.Remote) { r.TLS.Enabled = false }),
		shadowing(`"insecure": "1"`):                          with(func(r *config.Remote) { r.TLS.AllowInsecure = true }),
		shadowing(`"allowInsecure": true`):                    with(func(r *config.Remote) { r.TLS.AllowInsecure = true }),
		shadowing(`"verify_cert": false`):                     with(func(r *config.Remote) { r.TLS.AllowInsecure = true }),
		shadowing(`"verify_cert": true`):                      standard,
		shadowing(`"path": "ray?ed=2048"`):                    with(func(r *config.Remote) { r.WS.Path, r.WS.EarlyData = "/ray", 2048 }),
		shadowing(`"path": "/?ed=65536"`):                     with(func(r *config.Remote) { r.WS.EarlyData = config.MaxEarlyData }),
		shadowing(`"v": null, "host": "h;/p"`):                with(func(r *config.Remote) { r.WS.Host, r.WS.Path = "h", "/p" }),
		shadowing(`"add": "[::1]"`):                           with(func(r *config.Remote) { r.Address = "::1" }),
		shadowing(`"id": "` + strings.ToUpper(testID) + ` "`): standard,
		shadowing(`"fp": "Chrome", "sni": "s"`): with(func(r *config.Remote) {
			r.TLS.Fingerprint, r.TLS.ServerName = "chrome", "s"
		}),

		u + "?type=ws&security=tls":                    standard,
		u + "/?type=ws&security=tls&sni=&x":            standard,
		u + "?security=tls&type=ws&type=tcp#%E9%A6%99": with(func(r *config.Remote) { r.Name = "香" }),
		u + "?type=ws&path=%2Fa%2Bb+c%3Fed%3D9":        with(func(r *config.Remote) { r.WS.Path, r.WS.EarlyData, r.TLS.Enabled = "/a+b+c", 9, false }),
		u + "?type=ws&security=tls&path=/ray?ed=9":     with(func(r *config.Remote) { r.WS.Path, r.WS.EarlyData = "/ray", 9 }),
		u + "?type=ws&security=tls&ed=9&eh=X-Data":     with(func(r *config.Remote) { r.WS.EarlyData, r.WS.EarlyDataHeader = 9, "X-Data" }),
		u + "?type=ws&security=tls&allowInsecure=1":    with(func(r *config.Remote) { r.TLS.AllowInsecure = true }),
		u + "?type=ws&security=tls&encryption=none":    with(func(r *config.Remote) { r.Security = "none" }),
	} {
		got, err := parse(link)
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s\ngot  %+v, %v\nwant %+v", link, got, err, want)
		}
	}
}

func TestMistakes(t *testing.T) {
	u := scheme + testID + "@a.example:443"
	for _, c := range []struct {
		link, want string
		is         error
	}{
		{"", "not a VMess share link: it does not begin with vmess://", ErrNotVMess},
		{"vless://x", "not a VMess share link: it does not begin with vmess://", ErrNotVMess},
		{"vmess://", "not a VMess share link: there is nothing after vmess://", ErrNotVMess},
		{"vmess://#x", "not a VMess share link: there is nothing after vmess://", ErrNotVMess},
		{"vmess://eyJ2!", "not a VMess share link: its base64 is invalid at character 5", ErrNotVMess},
		{scheme + strings.Repeat("a", maxLink), "not a VMess share link: it is longer than 64 KiB", ErrNotVMess},
		{encode(`{"v": "2", "id": "` + testID), "not a VMess share link: its JSON is invalid at byte 54 of 54", ErrNotVMess},
		{encode("auto " + testID + "@h;1"), "not a VMess share link: its base64 contains neither a JSON object nor what Shadowrocket or Quantumult write", ErrNotVMess},
		{scheme + "tcp+tls:" + testID + "-0@h:1/?path=x", `the server does not use WebSocket but "tcp"`, ErrTransport},
		{scheme + "ws+tls:" + testID + "-x@h:1/?path=x", `field alterId: saw "x"; expected a whole number`, nil},
		{scheme + "ws+tls:" + testID + "-0@h/?path=x", "field port: it is missing", nil},
		{withJSON(`, "net": "grpc"`), `the server does not use WebSocket but "grpc"`, ErrTransport},
		{withJSON(`, "net": null`), `the server does not use WebSocket but "tcp", which is what links without a transport mean`, ErrTransport},
		{withJSON(`, "net": "` + testID + `"`), `the server does not use WebSocket but text of 36 characters`, ErrTransport},
		{u, `the server does not use WebSocket but "tcp", which is what links without a transport mean`, ErrTransport},
		{withJSON(`, "add": ""`), "field add: the host is empty; want a host name or IP address", nil},
		{withJSON(`, "add": ["a"]`), "field add: it is a list or an object; expected text", nil},
		{withJSON(`, "port": "https"`), `field port: saw "https"; expected a whole number`, nil},
		{withJSON(`, "port": ""`), "field port: saw 0; want a whole number from 1 to 65535", nil},
		{withJSON(`, "port": 65536`), "field port: saw 65536; want a whole number from 1 to 65535", nil},
		{withJSON(`, "aid": -1`), "field aid: saw -1; want a whole number from 0 to 65535", nil},
		{withJSON(`, "id": "` + testID[1:] + `"`), "field id: UUID has 35 of 36 characters; want a UUID, or other text of 1 to 30 bytes", nil},
		{withJSON(`, "id": ""`), "field id: the id is empty; want a UUID, or other text of 1 to 30 bytes", nil},
		{withJSON(`, "tls": "reality"`), `field tls: saw "reality"; expected tls or none`, nil},
		{withJSON(`, "path": "/?ed=x"`), "field path: its ed is not a number", nil},
		{withJSON(`, "path": "/?ed=-1"`), "field path: saw -1; want a whole number from 0 to 4000", nil},
		{withJSON(`, "path": "/` + testID + `#"`), "field path: it is invalid, and contains an id", nil},
		{withJSON(`, "host": "a/b"`), `field host: the host name may hold only letters, digits, '-', '_' and '.': byte 2 is '/'; saw "a/b"`, nil},
		{scheme + testID + "@a.example?type=ws", "field port: it is missing", nil},
		{scheme + testID + "@[::1]?type=ws", "field port: it is missing", nil},
		{scheme + testID + "@:1?type=ws", "field address: the host is empty; want a host name or IP address", nil},
		{u + "?type=ws&path=%2", "field path: a % in it is not followed by two hexadecimal digits", nil},
		{u + "?type=ws&path=%80", "field path: it is not valid UTF-8", nil},
		{u + "?type=ws&security=reality", `field security: saw "reality"; expected tls or none`, nil},
		{u + "?type=ws&ed=9&eh=a%20b", `field eh: saw "a b"; want the name of an HTTP header, or "" for the path`, nil},
	} {
		r, err := parse(c.link)
		if r != nil || err == nil || err.Error() != c.want {
			t.Errorf("%.200s\ngot  %v\nwant %s", c.link, err, c.want)
			continue
		}
		var field *FieldError
		if c.is != nil && !errors.Is(err, c.is) || c.is == nil && !errors.As(err, &field) {
			t.Errorf("%s is %T", err, err)
		}
	}
}

func TestFormat(t *testing.T) {
	r := config.DefaultRemote()
	r.Name, r.Address, r.Port, r.ID = "香 #1", "2001:db8::1", 443, testID
	r.WS.Host, r.WS.EarlyData = "cdn.example", 2048
	link, err := Format(&r, FormURL)
	want := "vmess://" + testID + "@[2001:db8::1]:443?type=ws&encryption=auto&security=tls&path=%2Fray%3Fed%3D2048&host=cdn.example&alpn=http%2F1.1#%E9%A6%99%20%231"
	if err != nil || link != want {
		t.Errorf("got  %s, %v\nwant %s", link, err, want)
	}
	link, err = Format(&r, FormV2rayN)
	if err != nil {
		t.Fatal(err)
	}
	data, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(link, scheme))
	const wantJSON = `{"v":"2","ps":"香 #1","add":"2001:db8::1","port":"443","id":"` + testID + `","aid":"0","scy":"auto","net":"ws","type":"none",` +
		`"host":"cdn.example","path":"/ray?ed=2048","tls":"tls","sni":"","alpn":"http/1.1","fp":"","insecure":"0"}`
	if err != nil || string(data) != wantJSON {
		t.Errorf("got  %s, %v\nwant %s", data, err, wantJSON)
	}
	r.ID = config.Secret(testID[1:])
	if link, err := Format(&r, FormURL); link != "" || err == nil || err.Error() != "field id: UUID has 35 of 36 characters; want a UUID, or other text of 1 to 30 bytes" {
		t.Errorf("a wrong server became %q, %v", link, err)
	}
}

func TestParseForm(t *testing.T) {
	for name, want := range map[string]Form{"v2rayn": FormV2rayN, "url": FormURL} {
		if form, err := ParseForm(name); form != want || err != nil {
			t.Errorf("%s is %v, %v", name, form, err)
		}
	}
	if _, err := ParseForm("qr"); err == nil {
		t.Error("qr is a form")
	}
}

func TestLost(t *testing.T) {
	standard := config.DefaultRemote()
	for _, form := range []Form{FormV2rayN, FormURL} {
		if lost := Lost(&standard, form); len(lost) != 0 {
			t.Errorf("the defaults lose %v", lost)
		}
	}
	r := config.Remote{AlterID: 1, AuthenticatedLength: true}
	r.WS = config.WS{Headers: map[string]string{"A": "b"}, EarlyData: 1, EarlyDataHeader: "X"}
	r.TLS = config.TLS{Pin: []string{""}, CAFile: "f"}
	both := []string{"globalPadding", "authenticatedLength", "ws.headers"}
	rest := []string{"ws.ping", "tls.alpn", "tls.pin", "tls.caFile"}
	want := append(append(append([]string{}, both...), "ws.earlyData", "ws.earlyDataHeader"), rest...)
	if lost := Lost(&r, FormV2rayN); !reflect.DeepEqual(lost, want) {
		t.Errorf("got %v, want %v", lost, want)
	}
	want = append(append([]string{"alterId"}, both...), rest...)
	if lost := Lost(&r, FormURL); !reflect.DeepEqual(lost, want) {
		t.Errorf("got %v, want %v", lost, want)
	}
}

// drawRemote makes servers that nothing of is lost in the form, but for
// values of theirs that the form has no field for.
func drawRemote(t *rapid.T, form Form) config.Remote {
	r := config.DefaultRemote()
	host := rapid.OneOf(rapid.StringMatching(`[a-z][a-z0-9_-]{0,20}(\.[a-z]{2,8}){0,3}`),
		rapid.SampledFrom([]string{"192.0.2.1", "2001:db8::1", "fe80::1%eth0"}))
	optionalHost := rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[a-z]{1,20}(\.[a-z]{2,8}){0,3}`))
	r.Name = rapid.StringOf(rapid.Rune().Filter(func(r rune) bool { return oneLine(string(r)) == string(r) })).Draw(t, "name")
	r.Address = host.Draw(t, "address")
	r.Port = rapid.IntRange(1, 65535).Draw(t, "port")
	r.ID = config.Secret(rapid.OneOf(rapid.StringMatching(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`),
		rapid.StringMatching(`[g-zG-Z!-/:-@ö]([ -~]{0,25}[g-z])?`)).Draw(t, "id"))
	r.Security = rapid.SampledFrom([]string{"auto", "aes-128-gcm", "chacha20-poly1305", "none", "zero"}).Draw(t, "security")
	r.WS.Path = "/" + rapid.StringMatching(`([a-zA-Z0-9/+&=;:@ö-]|%20){0,30}(\?([a-z]{3}=[a-z+]{0,5}&?){0,3})?`).Draw(t, "path")
	r.WS.Host = optionalHost.Draw(t, "host")
	r.WS.EarlyData = rapid.IntRange(0, config.MaxEarlyData).Draw(t, "early data")
	r.TLS.Enabled = rapid.Bool().Draw(t, "tls")
	r.TLS.AllowInsecure = rapid.Bool().Draw(t, "insecure")
	r.TLS.ServerName = optionalHost.Draw(t, "sni")
	r.TLS.Fingerprint = rapid.SampledFrom([]string{"", "chrome", "random"}).Draw(t, "fp")
	if form == FormV2rayN {
		r.AlterID = rapid.IntRange(0, 65535).Draw(t, "aid")
	} else {
		r.WS.EarlyDataHeader = rapid.SampledFrom([]string{config.EarlyDataProtocol, "X-Data"}).Draw(t, "eh")
	}
	return r
}

func TestRoundTrip(t *testing.T) {
	for _, form := range []Form{FormV2rayN, FormURL} {
		rapid.Check(t, func(t *rapid.T) {
			r := drawRemote(t, form)
			if err := r.Normalize(); err != nil {
				t.Skip(err)
			}
			if lost := Lost(&r, form); len(lost) != 0 {
				t.Fatalf("lost %v", lost)
			}
			link, err := Format(&r, form)
			if err != nil {
				t.Fatal(err)
			}
			again, err := parse(link)
			if err != nil || !reflect.DeepEqual(*again, r) {
				t.Fatalf("%s\ngot  %#v, %v\nwant %#v", link, again, err, r)
			}
		})
	}
}

// TestImportOfExport: what was exported is imported as the same configuration,
// whatever the form, with text round the links and as a subscription.
func TestImportOfExport(t *testing.T) {
	for _, form := range []Form{FormV2rayN, FormURL} {
		rapid.Check(t, func(t *rapid.T) {
			want := config.DefaultClient()
			var links []string
			for range rapid.IntRange(1, 3).Draw(t, "servers") {
				r := drawRemote(t, form)
				if err := r.Normalize(); err != nil {
					t.Skip(err)
				}
				if slices.ContainsFunc(want.Servers, func(other config.Remote) bool { return reflect.DeepEqual(r, other) }) {
					continue
				}
				link, err := Format(&r, form)
				if err != nil {
					t.Fatal(err)
				}
				links, want.Servers = append(links, link), append(want.Servers, r)
			}
			if want.Server = want.Servers[0]; len(links) == 1 {
				want.Servers = nil
			}
			text := rapid.SampledFrom([]string{"", "yours: "}).Draw(t, "before") + strings.Join(links, "\n")
			if rapid.Bool().Draw(t, "subscription") {
				text = base64.StdEncoding.EncodeToString([]byte(text))
			}
			found, err := Read([]byte(text))
			if err != nil || len(found.Skipped)+len(found.Notes) > 0 {
				t.Fatalf("%s\n%v, %+v", text, err, found)
			}
			again, err := config.ParseClient("config.json", config.MarshalClient(found.Config()))
			if err != nil || !again.Equal(want) {
				t.Fatalf("%s\n%v\ngot  %s\nwant %s", text, err, config.MarshalClient(again), config.MarshalClient(want))
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(withJSON(`, "path": "/ray?ed=2048", "host": null, "aid": 4`))
	f.Add(encode(`{"v": "1", "add": "h", "host": "h;/p"}`))
	f.Add(scheme + testID + "@[::1]:443?type=ws&security=tls&path=%2Fray%3Fed%3D2048&eh=X#%E9%A6%99")
	f.Add("vmess://eyJ2Ijo_-=#x")
	f.Add(scheme + testID + "@h:1?type=ws&path=%80#%80")
	f.Fuzz(func(t *testing.T, link string) {
		r, err := parse(link)
		if err != nil {
			if len(link) > len(scheme)+30 && strings.Contains(err.Error(), link[len(scheme):]) {
				t.Fatalf("the link is in %v", err)
			}
			return
		}
		link, err = Format(r, FormV2rayN)
		if err != nil {
			t.Fatalf("format %#v: %v", r, err)
		}
		again, err := parse(link)
		if err != nil {
			t.Fatalf("%s is refused: %v", link, err)
		}
		if len(Lost(r, FormV2rayN)) == 0 && !reflect.DeepEqual(r, again) {
			t.Fatalf("%#v became %#v", r, again)
		}
	})
}
