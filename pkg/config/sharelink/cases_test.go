package sharelink

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"vmess-local/pkg/config"
)

const caseID = "3f620dd4-a6fd-41d4-a31f-065603200675"

// caseServer is the server of the cases from the field, with changes.
func caseServer(name string, change func(r *config.Remote)) config.Remote {
	r := config.DefaultRemote()
	r.Name, r.Address, r.Port, r.ID, r.WS.Path, r.TLS.Enabled = name, "127.0.0.1", 47001, caseID, "/ray", false
	if change != nil {
		change(&r)
	}
	return r
}

func hosted(r *config.Remote) { r.WS.Host = "cdn.example.com" }

// TestCases reads what people with other programs ran into.
func TestCases(t *testing.T) {
	for _, c := range []struct {
		file   string
		want   []config.Remote
		report string // skipped, then notes, then the error
	}{
		{"07-sub-stray-char.txt", []config.Remote{caseServer("🇭🇰 HK 01", nil), caseServer("🇺🇸 US|02", nil)}, `link 3: the server does not speak VMess but "ss"
link 4: the server does not speak VMess but "trojan"
the subscription: its base64 is damaged: there may have been more`},
		{"10-host-comma.txt", []config.Remote{caseServer("n", hosted)}, `the link "n": host: it contains several names; the first is used`},
		{"13-double-base64.txt", []config.Remote{caseServer("n", nil)}, ""},
		{"18-aes-128-cfb.json", []config.Remote{caseServer("", nil)}, `outbounds[0]: security: "aes-128-cfb" is not supported; "auto" is used, since the cipher is the client's choice`},
		{"19-ws-form-of-2020.txt", []config.Remote{caseServer("name", hosted)}, ""},
		{"20-html-amp.txt", []config.Remote{caseServer("a", hosted)}, ""},
		{"21-guiNConfig.json", []config.Remote{caseServer("Old N", hosted)}, ""},
		{"24-flow-ipv6.yaml", []config.Remote{caseServer("ok", nil)}, `line 5 "v6": field server: text with a colon in it, like an IPv6 address, needs quotation marks`},
		{"28-providers-only.yaml", nil, "it contains no server: it refers to lists at other addresses (proxy-providers)"},
		{"33-fake-nodes-first.txt", []config.Remote{
			caseServer("剩余流量：10.2 GB", func(r *config.Remote) { r.Port = 47095 }), caseServer("套餐到期：2027-01-01", func(r *config.Remote) { r.Port = 47095 }),
			caseServer("官网 example.com", func(r *config.Remote) { r.Port = 1 }), caseServer("HK 01", nil),
		}, ""},
		{"36-link-json-bare.txt", []config.Remote{caseServer("n", nil)}, ""},
	} {
		data, err := os.ReadFile(filepath.Join("testdata", "cases", c.file))
		if err != nil {
			t.Fatal(err)
		}
		found, err := Read(data)
		if report := reportOf(found, err); !reflect.DeepEqual(found.Servers, c.want) || report != c.report {
			t.Errorf("%s\ngot  %+v\n%s\nwant %+v\n%s", c.file, found.Servers, report, c.want, c.report)
		}
		var providers *ProvidersError
		if errors.As(err, &providers) && !reflect.DeepEqual(providers.At, []string{"https://sub.example.com/x"}) {
			t.Errorf("%s: lists at %q", c.file, providers.At)
		}
	}
}

func reportOf(found *Found, err error) string {
	var lines []string
	for _, s := range found.Skipped {
		lines = append(lines, s.String())
	}
	lines = append(lines, found.Notes...)
	if err != nil {
		lines = append(lines, err.Error())
	}
	return strings.Join(lines, "\n")
}

// TestTidied: fields in the wrong place, encoded once more or less, escaped,
// with control characters, with lists in them.
func TestTidied(t *testing.T) {
	u := scheme + testID + "@a.example:443"
	invisible := "invisible characters are removed"
	changed := func(name string, change func(r *config.Remote)) config.Remote {
		r := server(change)
		r.Name = name
		return r
	}
	escaped := strings.NewReplacer("/", `\/`, "&", `\u0026`, "=", `\u003d`).Replace(urlLink + "#a")
	damaged := base64Of(strings.Repeat(urlLink+"#a\n", 2) + urlLink + "#b\n" + urlLink + "#c\n" + urlLink + "#d")
	for _, c := range []struct {
		what, text string
		want       []config.Remote
		report     string
	}{
		{"a URL as address", withJSON(`, "add": "https://a.example/"`), []config.Remote{server(nil)}, "the link: add: it is a URL; its host is used"},
		{"the port in the address", withJSON(`, "add": "a.example:443"`), []config.Remote{server(nil)}, "the link: add: it contains the port, which is used"},
		{"another port in the address", withJSON(`, "add": "a.example:444"`), nil, `the link: field add: the address contains a port; saw "a.example:444"; want the port in port
field add: the address contains a port; saw "a.example:444"; want the port in port`},
		{"several addresses", withJSON(`, "add": "a.example, b.example"`), []config.Remote{server(nil)}, "the link: add: it contains several names; the first is used"},
		{"a URL as host", withJSON(`, "host": "https://h.example/"`), []config.Remote{server(func(r *config.Remote) { r.WS.Host = "h.example" })}, "the link: host: it is a URL; its host is used"},
		{"host and path exchanged", withJSON(`, "host": "/p", "path": "h.example"`), []config.Remote{server(func(r *config.Remote) { r.WS.Host, r.WS.Path = "h.example", "/p" })}, "the link: host: it contains the path, and path the host: they are swapped"},
		{"a URL as path", withJSON(`, "path": "wss://h.example/p?ed=9"`), []config.Remote{server(func(r *config.Remote) { r.WS.Host, r.WS.Path, r.WS.EarlyData = "h.example", "/p", 9 })}, "the link: path: it is a URL; its path is used"},
		{"a URL in a path", withJSON(`, "path": "/p?u=http://x/y"`), []config.Remote{server(func(r *config.Remote) { r.WS.Path = "/p?u=http://x/y" })}, ""},
		{"an escaped path", withJSON(`, "path": "%2Fp%3Fed%3D9"`), []config.Remote{server(func(r *config.Remote) { r.WS.Path, r.WS.EarlyData = "/p", 9 })}, "the link: path: it is escaped once too often"},
		{"names and a port as sni", withJSON(`, "sni": "s.example:443,t.example"`), []config.Remote{server(func(r *config.Remote) { r.TLS.ServerName = "s.example" })}, "the link: sni: it contains several names; the first is used\nthe link: sni: it contains a port, which is ignored"},
		{"wss as transport", withJSON(`, "net": "wss", "tls": ""`), []config.Remote{server(nil)}, ""},
		{"the transport in type", withJSON(`, "net": "", "type": "ws"`), []config.Remote{server(nil)}, ""},
		{"tls as cipher", withJSON(`, "tls": "", "security": "tls"`), []config.Remote{server(nil)}, ""},
		{"an unknown cipher", withJSON(`, "scy": "rc4"`), []config.Remote{server(nil)}, `the link: scy: "rc4" is not supported; "auto" is used, since the cipher is the client's choice`},
		{"an unknown cipher of a URL", u + "?type=ws&security=tls&encryption=rc4", []config.Remote{server(nil)}, `the link: encryption: "rc4" is not supported; "auto" is used, since the cipher is the client's choice`},
		{"an invisible character", withJSON(`, "add": "a.example\u200b", "id": "` + testID + `\u00a0\ufeff"`), []config.Remote{server(nil)}, "the link: " + invisible},
		{"control characters", encode(strings.ReplaceAll(`{"ps": "a|b", "add": "a.example", "port": 443, "id": "`+testID+`", "net": "ws|", "tls": "tls"}`, "|", "\x01")), []config.Remote{named1("a b")}, ""},
		{"an id in braces", withJSON(`, "id": "{` + strings.ToUpper(testID) + `}"`), []config.Remote{server(nil)}, ""},
		{"a long id", withJSON(`, "id": "` + strings.Repeat("xy", 20) + `"`), []config.Remote{server(func(r *config.Remote) { r.ID = config.Secret(strings.Repeat("xy", 20)) })}, "the link: id: the id is text of 40 bytes, not a UUID: sing-box and mihomo understand it, V2Ray and Xray do not"},

		{"not encoded", scheme + `{"add": "a.example", "port": 443, "id": "` + testID + `", "net": "ws", "tls": "tls", "ps": "a #1"} and more`, []config.Remote{named1("a #1")}, ""},
		{"percent-encoded", scheme + `%7B%22add%22%3A%22a.example%22,%22port%22:443,%22id%22:%22` + testID + `%22,%22net%22:%22ws%22,%22tls%22:%22tls%22%7D`, []config.Remote{server(nil)}, ""},
		{"a link in a link", encode(urlLink + "#a"), []config.Remote{named1("a")}, ""},
		{"three times", encode(base64Of(base64Of(strings.TrimPrefix(withJSON(`, "ps": "a"`), scheme)))), []config.Remote{named1("a")}, ""},
		{"a subscription of a subscription", base64Of(base64Of(urlLink + "#a\n" + urlLink + "#b")), []config.Remote{named1("a"), named1("b")}, ""},
		{"JSON-escaped", `{"links": "` + escaped + `"}`, []config.Remote{named1("a")}, ""},
		{"JSON-escaped lines", `["` + withJSON(`, "ps": "a"`) + `\n` + withJSON(`, "ps": "b"`) + `\r\n"]`, []config.Remote{named1("a"), named1("b")}, ""},
		{"HTML", `<p title="x">` + strings.ReplaceAll(urlLink, "&", "&amp;amp;") + "#a</p><br>" + strings.ReplaceAll(urlLink, "&", "&#38;") + "#b", []config.Remote{named1("a"), named1("b")}, ""},
		{"a path that looks like HTML", urlLink + "&path=/p%26amp%3B&para=1#a", []config.Remote{changed("a", func(r *config.Remote) { r.WS.Path = "/p&amp;" })}, ""},
		{"in another link", "v2rayng://install-config?url=" + strings.NewReplacer(":", "%3A", "/", "%2F", "?", "%3F", "=", "%3D", "&", "%26").Replace(urlLink), []config.Remote{server(nil)}, ""},

		{"a lost character", damaged[:100] + damaged[101:], []config.Remote{named1("a"), named1("b"), named1("c"), named1("d")}, `link 1: not a VMess share link: a part of it is lost
the subscription: its base64 is damaged: there may have been more`},
		{"a lost end", damaged[:len(damaged)-19], []config.Remote{named1("a"), named1("b"), named1("c")}, `link 5: not a VMess share link: a part of it is lost
the subscription: its base64 is damaged: there may have been more`},
		{"a stray character", damaged[:100] + "*" + damaged[100:], []config.Remote{named1("a"), named1("b"), named1("c"), named1("d")}, "the subscription: its base64 is damaged: there may have been more"},

		{"Clash, several Hosts", clash("ws-opts: {headers: {Host: [h.example, i.example]}}"), []config.Remote{server(func(r *config.Remote) { r.WS.Host = "h.example" })}, "proxies[0]: ws-opts.headers: it contains several names; the first is used"},
		{"Clash, old and new", clash("ws-opts: {headers: {Host: h.example}}", "ws-path: /p"), []config.Remote{server(func(r *config.Remote) { r.WS.Host, r.WS.Path = "h.example", "/p" })}, ""},
		{"Clash, a control character", strings.Replace(clash("name: a"), "name: a", "name: a\x07", 1), []config.Remote{named1("a")}, ""},
		{"Clash, broken entries", "proxies:\n- {name: x, type: vmess, a: [b}\n- {name: \"y\n" + strings.TrimPrefix(clash("name: a"), "proxies:\n") + "- name: z\n  type: [\n# end\nrules: []\n", []config.Remote{named1("a")}, `line 2 "x": its YAML is invalid
line 3 "y": its YAML is invalid
line 12 "z": its YAML is invalid`},
		{"Clash, an anchor among broken entries", "proxies:\n- &b {type: vmess, port: 443, uuid: " + testID + ", network: ws, tls: true, server: a.example}\n- {<<: *b, name: a}\n- {a: [b}\n", []config.Remote{server(nil), named1("a")}, "line 4: its YAML is invalid"},
		{"Clash, an inline provider", "proxy-providers:\n  p: {type: inline, payload: [{name: a, type: vmess, server: a.example, port: 443, uuid: " + testID + ", network: ws, tls: true}]}\n", []config.Remote{named1("a")}, ""},
		{"Clash, a bad field", strings.Replace(clash("name: a"), "port: 443", "port: [1]", 1) + strings.TrimPrefix(clash("name: b"), "proxies:\n"), []config.Remote{named1("b")}, `proxies[0] "a": field port: it is a list or an object; expected text`},
		{"sing-box, a host", singBox(`, "transport": {"type": "ws", "host": "h.example"}`), []config.Remote{server(func(r *config.Remote) { r.WS.Host = "h.example" })}, ""},
		{
			"v2rayN, others", `{"vmess": [{"configType": 3, "remarks": "s", "id": "x"}, {"configType": 1, "address": "a.example", "port": 443, "id": "` + testID + `", "network": "ws", "streamSecurity": "tls", "remarks": "a", "sni": ""}]}`,
			[]config.Remote{named1("a")},
			`vmess[0] "s": the server does not speak VMess but "shadowsocks"`,
		},
		{"JSON, a broken entry", strings.Replace(vmessOutbound("", `, "tag": "a"`), `"outbounds": [`, "\"outbounds\": [\n{\"protocol\": \"vmess\" \"settings\": {}},\n{\"protocol\": \"freedom\", \"settings\": {\"x\": 1}},\n", 1), []config.Remote{named1("a")}, "the text: its JSON is invalid at line 2; what could be read of it is used"},
		{"JSON, cut", strings.TrimSuffix(vmessOutbound("", `, "tag": "a"`), "]}") + ",\n{\"protocol\": \"vmess\", \"sett", []config.Remote{named1("a")}, "the text: its JSON is invalid at line 2; what could be read of it is used"},
		{"JSON of links, a broken one", `[{"add" "x"}, {"add": "a.example", "port": 443, "id": "` + testID + `", "net": "ws", "tls": "tls", "ps": "a"}]`, []config.Remote{named1("a")}, "the text: its JSON is invalid at byte 9 of 132; what could be read of it is used"},
		{"a web page", "<!DOCTYPE html>\n<html><title>Log in</title></html>", nil, "it contains no server: it is a web page, such as panels show to browsers or without a login; expected the content of the subscription's address"},
	} {
		found, err := Read([]byte(c.text))
		if report := reportOf(found, err); !reflect.DeepEqual(found.Servers, c.want) || c.report != "" && report != c.report || c.report == "" && (err != nil || len(found.Skipped) > 0) {
			t.Errorf("%s: %s\ngot  %+v\n%s\nwant %+v\n%s", c.what, c.text, found.Servers, report, c.want, c.report)
		}
	}
}

// TestMuxAndRules: Mux is taken over, routing rules are named as left out.
func TestMuxAndRules(t *testing.T) {
	standard := config.DefaultClient().Mux
	on := func(n int) config.Mux { return config.Mux{Enabled: true, Concurrency: n} }
	second := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(vmessOutbound("", ""), `{"outbounds": [`), "]}"), testID, otherID)
	routed := func(routing string) string {
		return strings.TrimSuffix(vmessOutbound("", ""), "}") + ", " + routing + "}"
	}
	left := "routing rules are left out, everything goes through the server: "
	for _, c := range []struct {
		text   string
		mux    config.Mux
		report string
	}{
		{vmessOutbound("", `, "mux": {"enabled": true}`), on(standard.Concurrency), ""},
		{vmessOutbound("", `, "mux": {"enabled": true, "concurrency": 4}`), on(4), ""},
		{vmessOutbound("", `, "mux": {"enabled": true, "concurrency": 5000}`), on(1024), ""},
		{vmessOutbound("", `, "mux": {"enabled": true, "concurrency": -1}`), standard, ""},
		{vmessOutbound("", `, "mux": {"enabled": false, "concurrency": 4}`), standard, ""},
		{strings.TrimSuffix(vmessOutbound("", `, "mux": {"enabled": true, "concurrency": 4}`), "]}") + ", " + second + "]}", on(4), "mux: it is on for some servers and off for others; here it is on for all, as for the first"},
		{`{"muxEnabled": true, "vmess": [{"address": "a.example", "port": 443, "id": "` + testID + `", "network": "ws"}]}`, on(standard.Concurrency), ""},
		{clash("smux: {enabled: true}"), standard, "proxies[0]: smux: it is not supported; each connection has its own tunnel"},

		{routed(`"routing": {"rules": [{"type": "field", "inboundTag": ["api"], "outboundTag": "api"}, {"type": "field", "domain": ["geosite:cn", "x"], "outboundTag": "direct"}]}`), standard, "routing.rules: " + left + `"geosite:cn to direct"`},
		{strings.Replace(singBox(""), "{", `{"route": {"rules": [{"action": "sniff"}, {"geoip": "cn", "outbound": "direct"}, {"ip_is_private": true, "outbound": "direct"}]}, `, 1), standard, "route.rules: " + left + `"cn to direct", "true to direct"`},
		{clash() + "rules: ['MATCH,a']\n", standard, ""},
		{clash() + "rules:\n- DOMAIN-SUFFIX,a.cn,DIRECT\n- GEOIP,CN,DIRECT\n- DOMAIN,b,REJECT\n- MATCH,DIRECT\n- MATCH,p\n", standard, "rules: " + left + `text of 25 characters, "GEOIP,CN,DIRECT", "DOMAIN,b,REJECT" and 1 more`},
	} {
		found, err := Read([]byte(c.text))
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if report := reportOf(found, err); found.Config().Mux != c.mux || report != c.report {
			t.Errorf("%s\ngot  %+v, %s\nwant %+v, %s", c.text, found.Config().Mux, report, c.mux, c.report)
		}
	}
}
