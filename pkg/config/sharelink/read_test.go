package sharelink

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vmess-local/pkg/config"
)

const (
	otherID  = "5ec2e700-0000-4000-8000-000000000001"
	urlLink  = scheme + testID + "@a.example:443?type=ws&security=tls"
	password = "Pa55-word-of-somebody"
)

// server is the one of most tests, with changes.
func server(change func(r *config.Remote)) config.Remote {
	r := config.DefaultRemote()
	r.Address, r.Port, r.ID, r.WS.Path = "a.example", 443, testID, "/"
	if change != nil {
		change(&r)
	}
	return r
}

func named1(name string) config.Remote { return server(func(r *config.Remote) { r.Name = name }) }

func base64Of(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

const v2rayUser = `"vnext": [{"address": "a.example", "port": 443, "users": [{"id": "` + testID + `"}]}]`

// vmessOutbound is V2Ray's with members of streamSettings, and others.
func vmessOutbound(stream, others string) string {
	return `{"outbounds": [{"protocol": "vmess", "settings": {` + v2rayUser + `}, "streamSettings": {"network": "ws", "security": "tls"` + stream + `}` + others + `}]}`
}

func clash(lines ...string) string {
	return "proxies:\n- type: vmess\n  server: a.example\n  port: 443\n  uuid: " + testID + "\n  cipher: auto\n  network: ws\n  tls: true\n  " + strings.Join(lines, "\n  ") + "\n"
}

func singBox(members string) string {
	return `{"outbounds": [{"type": "vmess", "server": "a.example", "server_port": 443, "uuid": "` + testID + `",
		"transport": {"type": "ws"}, "tls": {"enabled": true}` + members + `}]}`
}

func TestReadServers(t *testing.T) {
	early := func(n int, header string) config.Remote {
		return server(func(r *config.Remote) { r.WS.EarlyData, r.WS.EarlyDataHeader = n, header })
	}
	full := server(func(r *config.Remote) {
		r.Name, r.AlterID, r.Security, r.AuthenticatedLength = "香港", 4, "aes-128-gcm", true
		r.WS.Path, r.WS.Host, r.WS.EarlyData, r.WS.Headers = "/ray", "cdn.example", 2048, map[string]string{"User-Agent": "x"}
		r.TLS.ServerName, r.TLS.AllowInsecure, r.TLS.Fingerprint = "sni.example", true, "chrome"
	})
	pin := strings.Repeat("ab", 32)
	pinned := server(func(r *config.Remote) { r.TLS.Pin = []string{pin} })
	second := server(func(r *config.Remote) { r.ID, r.Address = otherID, "b.example" })
	for _, c := range []struct {
		what, text string
		want       []config.Remote
	}{
		{"text round a link", "Your server: " + urlLink + ", have fun!", []config.Remote{server(nil)}},
		{"text round base64", "use `" + withJSON("") + "` (soon).", []config.Remote{server(nil)}},
		{"markdown", "[a](" + urlLink + "#a)", []config.Remote{named1("a")}},
		{"full-width text", "链接：" + urlLink + "#a，谢谢", []config.Remote{named1("a")}},
		{"a name of words", urlLink + "#my own server", []config.Remote{named1("my own server")}},
		{"in JSON", `{"link": "` + urlLink + `"}`, []config.Remote{server(nil)}},
		{"broken base64", "Hello\r\n" + withJSON("")[:40] + "\r\n  " + withJSON("")[40:] + "\r\nbye, bye", []config.Remote{server(nil)}},
		{"spaced base64", withJSON("")[:40] + "  " + withJSON("")[40:], []config.Remote{server(nil)}},
		{"lines", urlLink + "#a\n\n" + withJSON(`, "ps": "b"`) + "\r\n" + urlLink + "#a\n", []config.Remote{named1("a"), named1("b")}},
		{"one line", urlLink + "#a, " + urlLink + "#b " + urlLink, []config.Remote{named1("a"), named1("b"), server(nil)}},
		{"subscription", base64Of(urlLink + "#a\n" + urlLink + "#b"), []config.Remote{named1("a"), named1("b")}},
		{"broken subscription", "  " + strings.TrimRight(base64Of(urlLink + "#a1")[:64]+"\n"+base64Of(urlLink + "#a1")[64:], "="), []config.Remote{named1("a1")}},
		{"subscription of Clash", base64Of(clash()), []config.Remote{server(nil)}},
		{"a link without beginning", strings.TrimPrefix(withJSON(""), scheme), []config.Remote{server(nil)}},
		{"a link's JSON", `{"v": 2, "add": "a.example", "port": 443, "id": "` + testID + `", "net": "ws", "tls": "tls"}`, []config.Remote{server(nil)}},
		{"Shadowrocket", scheme + base64Of("auto:"+testID+"@a.example:443") + "?remarks=%E9%A6%99&obfs=websocket&obfsParam=h.example&path=/p&tls=1&alterId=4&peer=s&allowInsecure=1", []config.Remote{server(func(r *config.Remote) {
			r.Name, r.AlterID, r.WS.Host, r.WS.Path, r.TLS.ServerName, r.TLS.AllowInsecure = "香", 4, "h.example", "/p", "s", true
		})}},
		{"Shadowrocket's object", scheme + base64Of("none:"+testID+"@[::1]:80") + "?obfs=websocket&obfsParam=%7B%22Host%22%3A%22h%22%7D", []config.Remote{server(func(r *config.Remote) {
			r.Security, r.Address, r.Port, r.WS.Host, r.TLS.Enabled = "none", "::1", 80, "h", false
		})}},
		{"Quantumult", scheme + base64Of(`a, b = vmess, a.example, 443, none, "`+testID+`"`), nil},
		{"Quantumult", scheme + base64Of(`n = vmess, a.example, 443, chacha20-ietf-poly1305, "`+testID+`", over-tls=true, tls-host=s, certificate=0, obfs=ws, obfs-path="/p,q", obfs-header="Host: h[Rr][Nn]User-Agent: x"`), []config.Remote{server(func(r *config.Remote) {
			r.Name, r.Security, r.TLS.ServerName, r.TLS.AllowInsecure, r.WS.Path, r.WS.Host = "n", "chacha20-poly1305", "s", true, "/p,q", "h"
		})}},

		{"V2Ray", `// a comment
{ /* another */ "log": null, # a third
  "outbounds": [{"protocol": "freedom"}, {"tag": "香港", "protocol": "vmess",
    "settings": {"vnext": [{"address": "a.example", "port": "443", "users": [
      {"id": "` + testID + `", "alterId": 4, "security": "aes-128-gcm", "experiments": "AuthenticatedLength|NoTerminationSignal"}]}]},
    "streamSettings": {"network": "ws", "security": "tls",
      "wsSettings": {"path": "/ray", "headers": {"Host": "cdn.example", "User-Agent": "x"}, "maxEarlyData": 2048, "earlyDataHeaderName": "Sec-WebSocket-Protocol"},
      "tlsSettings": {"serverName": "sni.example", "alpn": ["h2"], "allowInsecure": true, "fingerprint": "chrome"}},
    "mux": {"enabled": false},
  }],
}`, []config.Remote{full}},
		{"V2Ray, early data in the path", vmessOutbound(`, "wsSettings": {"maxEarlyData": 9}`, ""), []config.Remote{early(9, "")}},
		{"V2Ray, no early data", vmessOutbound(`, "wsSettings": {"maxEarlyData": 0, "earlyDataHeaderName": "X"}`, ""), []config.Remote{server(nil)}},
		{"Xray", vmessOutbound(`, "wsSettings": {"path": "/?ed=9", "host": "h", "headers": {"host": "other"}, "heartbeatPeriod": 7}`, ""), []config.Remote{server(func(r *config.Remote) {
			r.WS.EarlyData, r.WS.Host, r.WS.Ping = 9, "h", config.Duration(7*time.Second)
		})}},
		{"Xray, pinned", vmessOutbound(`, "tlsSettings": {"allowInsecure": true, "pinnedPeerCertSha256": "`+strings.ToUpper(pin)+`"}`, ""), []config.Remote{pinned}},
		{"Xray, flat", `{"protocol": "vmess", "settings": {"address": "a.example", "port": 443, "id": "` + testID + `"}, "streamSettings": {"network": "websocket", "security": "tls"}}`, []config.Remote{server(nil)}},
		{
			"V2Ray 5", `{"outbounds": [{"protocol": "vmess", "settings": {"address": "a.example", "port": 443, "uuid": "` + testID + `"},
			"streamSettings": {"transport": "ws", "transportSettings": {"path": "/p", "header": [{"key": "Host", "value": "h"}]}, "security": "tls", "securitySettings": {"serverName": "s"}}}]}`,
			[]config.Remote{server(func(r *config.Remote) { r.WS.Path, r.WS.Host, r.TLS.ServerName = "/p", "h", "s" })},
		},
		{"V2Ray, many", `[` + vmessOutbound("", "") + `, {"outbound": {"protocol": "vmess", "settings": {"vnext": [
			{"address": "a.example", "port": 443, "users": [{"id": "` + testID + `"}]}, {"address": "b.example", "port": 443, "users": [{"id": "` + otherID + `"}]}]},
			"streamSettings": {"network": "ws", "security": "tls"}}}]`, []config.Remote{server(nil), second}},

		{"sing-box", `{"outbounds": [{"type": "selector"}, {"type": "vmess", "tag": "香港", "server": "a.example", "server_port": 443, "uuid": "` + testID + `", "alter_id": 4,
			"security": "aes-128-gcm", "global_padding": true, "authenticated_length": true, "packet_encoding": "xudp",
			"tls": {"enabled": true, "server_name": "sni.example", "insecure": true, "utls": {"enabled": true}},
			"transport": {"type": "ws", "path": "/ray", "headers": {"Host": ["cdn.example"], "User-Agent": "x"}, "max_early_data": 2048, "early_data_header_name": "Sec-WebSocket-Protocol"}}]}`, []config.Remote{full}},
		{
			"sing-box, an outbound", strings.TrimSuffix(strings.TrimPrefix(singBox(`, "transport": {"type": "ws", "max_early_data": 9}, "global_padding": false`), `{"outbounds": [`), "]}"),
			[]config.Remote{server(func(r *config.Remote) { r.WS.EarlyData, r.WS.EarlyDataHeader, r.GlobalPadding = 9, "", false })},
		},

		{"Clash", clash("name: 香港", "alterId: '4'", "cipher: aes-128-gcm", "udp: true", "servername: sni.example", "skip-cert-verify: true", "client-fingerprint: chrome", "alpn: [h2]",
			"authenticated-length: true", "ws-opts: {path: /ray, headers: {Host: cdn.example, User-Agent: x}, max-early-data: 2048, early-data-header-name: Sec-WebSocket-Protocol}"), []config.Remote{full}},
		{"Clash, old", strings.Replace(clash("ws-path: /?ed=9", "ws-headers:", "  Host: h"), "proxies", "Proxy", 1), []config.Remote{server(func(r *config.Remote) { r.WS.EarlyData, r.WS.Host = 9, "h" })}},
		{"Clash, pinned", clash("fingerprint: "+pin[:2]+":"+pin[2:], "skip-cert-verify: yes"), []config.Remote{pinned}},
		{
			"Clash, anchors", "x: &base {type: vmess, port: 443, uuid: " + testID + ", network: ws, tls: true, server: z.example}\nproxies:\n  - {<<: *base, server: a.example}\n  - <<: [*base, {cipher: none}]\n    name: b\n    server: a.example\nrules: [a, b]\n",
			[]config.Remote{server(nil), server(func(r *config.Remote) { r.Name, r.Security = "b", "none" })},
		},
		{"Clash, an entry", "- {name: a, type: vmess, server: a.example, port: 443, uuid: " + testID + ", network: ws, tls: true}", []config.Remote{named1("a")}},
		{"Clash, a bare entry", "{name: a, type: vmess, server: a.example, port: 443, uuid: " + testID + ", network: ws, tls: true}", []config.Remote{named1("a")}},
		{"Clash in JSON", `{"proxies": [{"name": "a", "type": "vmess", "server": "a.example", "port": 443, "uuid": "` + testID + `", "network": "ws", "tls": true}]}`, []config.Remote{named1("a")}},
		{"an id of digits", "- {type: vmess, server: a.example, port: 443, uuid: 012e3, network: ws, tls: true, ws-opts: {max-early-data: 9}}", nil},
		{"an id of digits", "- {type: vmess, server: a.example, port: 443, uuid: 1_000x, network: ws, tls: true}", []config.Remote{server(func(r *config.Remote) { r.ID = "1_000x" })}},
	} {
		found, err := Read([]byte(c.text))
		if len(c.want) == 0 {
			if err == nil {
				t.Errorf("%s: is taken", c.what)
			}
			continue
		}
		if err != nil || len(found.Skipped) > 0 || !reflect.DeepEqual(found.Servers, c.want) {
			t.Errorf("%s: %s\ngot  %+v, %v, skipped %v\nwant %+v", c.what, c.text, found.Servers, err, found.Skipped, c.want)
		}
		cfg := found.Config()
		if cfg.Server.Address != c.want[0].Address || len(c.want) > 1 != (len(cfg.Servers) == len(c.want)) {
			t.Errorf("%s: the configuration has %d servers", c.what, len(cfg.Servers))
		}
	}
}

// TestReadSkipped: what cannot be used is told, and the rest is there.
func TestReadSkipped(t *testing.T) {
	for _, c := range []struct{ what, text, want string }{
		{"links", "trojan://" + password + "@b.example:1#x\n" + urlLink + "\nvmess://?\nvmess://" + testID + "@b.example:1?type=grpc#Tokyo\nss://YWVz@h:1", `link 1: the server does not speak VMess but "trojan"
link 3: not a VMess share link: there is nothing after vmess://
link 4 "Tokyo": the server does not use WebSocket but "grpc"
link 5: the server does not speak VMess but "ss"`},
		{"Clash", clash("name: a") + "- {name: Tokyo, type: ss, password: " + password + "}\n- {name: " + password + ", type: trojan, password: " + password + "}\n- {type: direct}\n- DIRECT\n" +
			"- {name: " + testID + ", type: vmess, server: h, port: 1, uuid: " + testID + ", network: ws, dialer-proxy: x}\n" +
			"- {name: u, type: vmess, server: h, port: 1, uuid: " + testID + ", network: ws, ws-opts: {v2ray-http-upgrade: true}}\n" +
			"- {type: vmess, server: h, port: 1, uuid: " + testID + ", network: ws, tls: true, reality-opts: {public-key: x}}\n" +
			"- {type: vmess, server: h, port: 1, uuid: " + testID + ", network: ws, tls: true, ech-opts: {enable: true}}\n" +
			"- {type: vmess, server: h, port: 1, uuid: " + testID + ", network: ws, ws-opts: {headers: {Upgrade: " + password + "}}}\n", `proxies[1] "Tokyo": the server does not speak VMess but "ss"
proxies[2]: the server does not speak VMess but "trojan"
proxies[4]: field proxies: it must be an object
proxies[5]: field dialer-proxy: the server is reached through another one, which is not supported
proxies[6] "u": the server does not use WebSocket but "httpupgrade"
proxies[7]: field reality-opts: it is not supported
proxies[8]: field ech-opts: it is not supported
proxies[9]: field ws.headers.Upgrade: the WebSocket upgrade sets this header itself; want the list without it`},
		{"V2Ray", `[` + vmessOutbound("", "") + `, {"outbounds": [{"protocol": "vless", "settings": {"id": "` + testID + `"}, "tag": "v ` + testID + `"}, {"protocol": "dns"}, {"protocol": "vmess"}, 7,
			{"protocol": "vmess", "settings": {"vnext": [{"users": []}]}, "streamSettings": {"network": "ws"}}]}, ` +
			vmessOutbound(`, "tlsSettings": {"certificates": [{}]}`, "") + `,` + vmessOutbound(`, "sockopt": {"dialerProxy": "x"}`, "") + `,` + vmessOutbound("", `, "proxySettings": {"tag": "x"}`) + `,` +
			vmessOutbound(`, "security": "reality"`, "") + `,` + vmessOutbound(`, "wsSettings": {"path": {}}`, "") + `]`, `[1].outbounds[0]: the server does not speak VMess but "vless"
[1].outbounds[2]: the server does not use WebSocket but "tcp", which is what links without a transport mean
[1].outbounds[3]: the server does not speak VMess
[1].outbounds[4]: field address: the host is empty; want a host name or IP address
[2].outbounds[0]: field certificates: the configuration contains certificates; here tls.caFile names a CA file
[3].outbounds[0]: field sockopt.dialerProxy: the server is reached through another one, which is not supported
[4].outbounds[0]: field proxySettings: the server is reached through another one, which is not supported
[5].outbounds[0]: field streamSettings.security: saw "reality"; expected tls or none
[6].outbounds[0]: field path: it is a list or an object; expected text`},
		{"sing-box", `[` + singBox("") + `, ` + singBox(`, "tls": {"enabled": true, "reality": {"enabled": true}}`) + `, ` + singBox(`, "detour": "x"`) + `, ` + singBox(`, "transport": {"type": "quic"}`) + `]`, `[1].outbounds[0]: field tls.reality: it is not supported
[2].outbounds[0]: field detour: the server is reached through another one, which is not supported
[3].outbounds[0]: the server does not use WebSocket but "quic"`},
	} {
		found, err := Read([]byte(c.text))
		var lines []string
		for _, s := range found.Skipped {
			lines = append(lines, s.String())
		}
		if got := strings.Join(lines, "\n"); err != nil || got != c.want || len(found.Servers) != 1 || found.Servers[0].Address != "a.example" {
			t.Errorf("%s: %v, %d servers\ngot\n%s\nwant\n%s", c.what, err, len(found.Servers), got, c.want)
		}
	}
}

func TestReadNotes(t *testing.T) {
	for text, want := range map[string]string{
		singBox(`, "multiplex": {"enabled": true}`):          `outbounds[0]: multiplex: sing-box's own is not supported; each connection has its own tunnel`,
		clash("smux: {enabled: true}"):                       `proxies[0]: smux: it is not supported; each connection has its own tunnel`,
		clash() + "proxy-providers: {a: {url: 'https://x'}}": `proxy-providers: lists at other addresses are not fetched; import them separately`,

		urlLink + "&fp=qq": `the link: the TLS fingerprint it asks for (fp) is unknown`,
	} {
		found, err := Read([]byte(text))
		if err != nil || len(found.Notes) != 1 || found.Notes[0] != want {
			t.Errorf("%s\ngot  %q, %v\nwant %q", text, found.Notes, err, want)
		}
	}
}

func TestReadNothing(t *testing.T) {
	const wanted = "it contains no server: expected vmess:// links, a subscription, or a configuration of V2Ray, Xray, sing-box or Clash"
	for _, c := range []struct {
		text, want string
		is         error
	}{
		{"", wanted, ErrNothing},
		{"hello", wanted, ErrNothing},
		{"{}", wanted, ErrNothing},
		{"[[[[[" + urlLink, "", nil},
		{"see https://a.example/", wanted, ErrNothing},
		{"proxies: []", wanted, ErrNothing},
		{`{"inbounds": [], "outbounds": [{"protocol": "freedom"}]}`, wanted, ErrNothing},
		{"\xff\xfev\x00", "it contains no server: the text is UTF-16; expected UTF-8: save the file again with that encoding", ErrNothing},
		{strings.Repeat("a", MaxSize+1), "it contains no server: it is larger than 4 MiB", ErrNothing},
		{"{\n\"outbounds\": [\n}", "it contains no server: its JSON is invalid at line 3", ErrNothing},
		{`{"a": 1`, "it contains no server: its JSON is invalid at byte 7 of 7", ErrNothing},
		{"{} x", "it contains no server: its JSON goes on after the last bracket", ErrNothing},
		{"proxies:\n- {a: [b}", "it contains no server: its YAML is invalid near line 1", ErrNothing},
		{"proxies:\n- *b", "it contains no server: its YAML is invalid", ErrNothing},
		{"proxies:\n- {[a]: b}", "it contains no server: its YAML has a key that is not text", ErrNothing},
		{`{"server": {"address": "a", "port": 1, "id": "x"}}`, "it contains no server: this is already a configuration of vmess-local: pass it with -c", ErrNothing},
		{"vless://" + password + "@a:1", `the server does not speak VMess but "vless"`, ErrProtocol},
		{"ss://a ssr://b", "none of its servers can be used: 2 are skipped", ErrUnusable},
		{urlLink + "&type=x&security=y#a b", "", nil},
		{"vmess://e30", `the server does not use WebSocket but "tcp", which is what links without a transport mean`, ErrTransport},
		{"text vmess://NWVjMmU3 text", "not a VMess share link: its base64 contains neither a JSON object nor what Shadowrocket or Quantumult write", ErrNotVMess},
		{"{" + strings.Repeat(`"outbounds":{`, maxDepth+1) + strings.Repeat("}", maxDepth+2), "it contains no server: it is nested too deep", ErrNothing},
	} {
		found, err := Read([]byte(c.text))
		if c.is == nil {
			if err != nil || len(found.Servers) != 1 {
				t.Errorf("%s: %v", c.text, err)
			}
			continue
		}
		if found == nil || err == nil || err.Error() != c.want || !errors.Is(err, c.is) {
			t.Errorf("%.100s\ngot  %v\nwant %s", c.text, err, c.want)
		}
	}
}

// TestReadBounds: what is made to cost much costs little.
func TestReadBounds(t *testing.T) {
	bomb := "x0: &x0 [a,a,a,a,a,a,a,a,a,a]\n"
	for i := 1; i < 10; i++ {
		bomb += fmt.Sprintf("x%d: &x%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d,", i-1), 10), ","))
	}
	many := strings.Repeat(urlLink+"#a\nss://x\n", 2_000)
	for i := range maxServers + 5 {
		many += fmt.Sprintf("%s#%d\n", urlLink, i)
	}
	fill := func(unit string) string { return strings.Repeat(unit, 1<<18/len(unit)) }
	for what, text := range map[string]string{
		"YAML bomb":     bomb + "proxies: *x9\n",
		"YAML circle":   "proxies: &a [*a, *a]\n",
		"YAML merges":   "proxies: &a\n- &b {<<: *b}\n- {<<: *a}\n",
		"YAML depth":    "proxies: " + strings.Repeat("[", 1<<16),
		"YAML nodes":    "proxies: [" + strings.Repeat("a,", 1<<18) + "]",
		"YAML keys":     "proxies: {" + strings.Repeat("? ", 1<<16),
		"JSON depth":    fill("["),
		"JSON objects":  fill(`{"a":`),
		"JSON pieces":   fill(`{"a":[`) + fill(`{"b":"`) + strings.Repeat("x", 1<<18),
		"comments":      fill("/*"),
		"commas":        "[" + strings.Repeat(",", 1<<18) + "]",
		"links":         many,
		"short links":   fill("vmess://a "),
		"bare objects":  fill(`vmess://{"a":[`),
		"YAML entries":  "proxies:\n- {a: [b}\n" + fill("- {a: &a [b,b,b,b,b,b], b: &b [*a,*a,*a,*a,*a,*a], c: &c [*b,*b,*b,*b,*b,*b], d: [*c,*c,*c,*c,*c,*c]}\n"),
		"damaged":       base64Of(strings.Repeat(urlLink+"#a\n", 4000)) + "*A",
		"short names":   fill("vmess://a#\n"),
		"base64 lines":  "vmess://" + strings.Repeat("AAAA\n", 1<<16),
		"base64":        fill("AAAA"),
		"quotes":        scheme + base64Of(strings.Repeat(`="",`, 9000)),
		"type of words": fill("type: , {"),
		"keys of words": fill("- proxies\n"),
	} {
		start := time.Now()
		found, err := Read([]byte(text))
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: took %v", what, took)
		} else {
			t.Logf("%s: %v: %d servers, %d skipped, %d more, %v", what, took.Round(time.Millisecond), len(found.Servers), len(found.Skipped), found.Omitted, err)
		}
		if len(found.Servers) > maxServers || len(found.Skipped) > maxRemarks {
			t.Errorf("%s: %d servers, %d skipped", what, len(found.Servers), len(found.Skipped))
		}
		if what == "links" && (len(found.Servers) != maxServers || found.Omitted == 0) {
			t.Errorf("%s: %d servers, %d omitted", what, len(found.Servers), found.Omitted)
		}
	}
}

func TestStandardJSON(t *testing.T) {
	for text, want := range map[string]string{
		`{"a": "//", "b": "\"#", }`:       `{"a": "//", "b": "\"#"  }`,
		"[1, // x\n2, /* ,\n*/ ]#":        "[1,     \n2      \n   ] ",
		`["a,", [1,,], "/*" /**/ ,/*x*/]`: `["a,", [1, ], "/*"            ]`,
		`"\`:                              `"\`,
		"/":                               "/",
	} {
		if got := string(standardJSON([]byte(text))); got != want {
			t.Errorf("%q\ngot  %q\nwant %q", text, got, want)
		}
	}
}

// drawAny makes servers of every kind.
func drawAny(t *rapid.T) config.Remote {
	r := drawRemote(t, FormV2rayN)
	r.GlobalPadding = rapid.Bool().Draw(t, "padding")
	r.AuthenticatedLength = rapid.Bool().Draw(t, "length") && r.Security != "none" && r.Security != "zero"
	r.WS.EarlyDataHeader = rapid.SampledFrom([]string{"", config.EarlyDataProtocol, "X-Data"}).Draw(t, "eh")
	r.WS.Headers = rapid.SampledFrom([]map[string]string{nil, {"A": "b"}}).Draw(t, "headers")
	r.WS.Ping = rapid.SampledFrom([]config.Duration{0, config.Duration(time.Minute), config.DefaultRemote().WS.Ping}).Draw(t, "ping")
	r.TLS.ALPN = rapid.SampledFrom([][]string{nil, {"http/1.1"}, {"h2", "http/1.1"}}).Draw(t, "alpn")
	r.TLS.Pin = rapid.SampledFrom([][]string{nil, {strings.Repeat("ab", 32)}}).Draw(t, "pin")
	r.TLS.CAFile = rapid.SampledFrom([]string{"", "ca.pem"}).Draw(t, "ca")
	return r
}

// TestLostIsAll: what a link brings back differs from what went in by the
// keys that Lost names, and by all of them.
func TestLostIsAll(t *testing.T) {
	standard := config.DefaultRemote()
	defaults := map[string]func(r *config.Remote){
		"alterId":             func(r *config.Remote) { r.AlterID = 0 },
		"globalPadding":       func(r *config.Remote) { r.GlobalPadding = true },
		"authenticatedLength": func(r *config.Remote) { r.AuthenticatedLength = false },
		"ws.headers":          func(r *config.Remote) { r.WS.Headers = nil },
		"ws.earlyData":        func(r *config.Remote) { r.WS.EarlyData = 0 },
		"ws.earlyDataHeader":  func(r *config.Remote) { r.WS.EarlyDataHeader = config.EarlyDataProtocol },
		"ws.ping":             func(r *config.Remote) { r.WS.Ping = standard.WS.Ping },
		"tls.alpn":            func(r *config.Remote) { r.TLS.ALPN = standard.TLS.ALPN },
		"tls.pin":             func(r *config.Remote) { r.TLS.Pin, r.TLS.AllowInsecure = nil, false }, // nobody accepts more than before
		"tls.caFile":          func(r *config.Remote) { r.TLS.CAFile = "" },
	}
	for _, form := range []Form{FormV2rayN, FormURL} {
		rapid.Check(t, func(t *rapid.T) {
			r := drawAny(t)
			if err := r.Normalize(); err != nil {
				t.Skip(err)
			}
			link, err := Format(&r, form)
			if err != nil {
				t.Fatal(err)
			}
			found, err := Read([]byte(link))
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range Lost(&r, form) {
				before := r
				defaults[key](&r)
				if reflect.DeepEqual(before, r) {
					t.Fatalf("%s is not lost", key)
				}
			}
			if !reflect.DeepEqual(found.Servers[0], r) {
				t.Fatalf("%s\ngot  %#v\nwant %#v", link, found.Servers[0], r)
			}
		})
	}
}

// TestNoSecrets: whatever is wrong, no report shows an id or a password.
func TestNoSecrets(t *testing.T) {
	const secret = "5ec2e7aa-9b1c-4d53-ad4f-8cda48b30811"
	shapes := []string{
		vmessOutbound("", ""), singBox(""), clash("name: n", "ws-opts: {path: /p, headers: {Host: h}}"), urlLink + "#n",
		"- {name: n, type: trojan, password: " + testID + ", server: h}", `{"outbounds": [{"type": "ss", "tag": "n", "password": "` + testID + `"}]}`,
		`{"v": "2", "ps": "n", "add": "a.example", "port": "443", "id": "` + testID + `", "net": "ws", "path": "/p", "host": "h", "tls": "tls"}`,
		"vless://" + testID + "@h:1#n", "auto:" + testID + "@a.example:443", scheme + "ws+tls:" + testID + "-0@a.example:443/?path=%2Fp#n",
		`{"vmess": [{"address": "a.example", "port": 443, "id": "` + testID + `", "network": "ws", "remarks": "n"}]}`, `n = vmess, a.example, 443, none, "` + testID + `", obfs=ws`,
	}
	rapid.Check(t, func(t *rapid.T) {
		text := strings.ReplaceAll(rapid.SampledFrom(shapes).Draw(t, "shape"), testID, secret)
		for range rapid.IntRange(0, 3).Draw(t, "mistakes") {
			i := rapid.IntRange(0, len(text)).Draw(t, "at")
			k := min(len(text), i+rapid.IntRange(0, 12).Draw(t, "cut"))
			text = text[:i] + rapid.SampledFrom([]string{"", "{", "#", "\n", "%", `"`, ",", ":", "://", secret, " " + secret + " ", "/" + secret}).Draw(t, "put") + text[k:]
		}
		switch rapid.SampledFrom([]string{"", "link", "subscription"}).Draw(t, "in") {
		case "link":
			text = encode(text)
		case "subscription":
			text = base64Of(text)
		}
		found, err := Read([]byte(text))
		report := fmt.Sprint(found.Skipped, found.Notes, err)
		if strings.Contains(strings.ToLower(report), secret[:13]) {
			t.Fatalf("%s\nsays %s", text, report)
		}
	})
}

func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		urlLink + "#a\nss://x#y", base64Of(urlLink), clash("name: n", "ws-opts: {path: /ray}"), singBox(`, "multiplex": {}`), vmessOutbound(`, "wsSettings": {"header": [{}]}`, ""),
		"x: &a {b: c}\nproxies: [{<<: *a, type: vmess}]", "{type: vmess, a: [", scheme + base64Of(`n = vmess, h, 1, none, "x", obfs=wss`), "vmess://YTpiQGM6MQ?obfs=websocket&obfsParam={",
	} {
		f.Add([]byte(seed))
	}
	cases, err := filepath.Glob("testdata/cases/*")
	if err != nil || len(cases) == 0 {
		f.Fatal("no cases: ", err)
	}
	for _, file := range cases {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := Read(data)
		if err == nil != (len(found.Servers) > 0) {
			t.Fatalf("%d servers and %v", len(found.Servers), err)
		}
		for i := range found.Servers {
			again := found.Servers[i]
			if err := again.Normalize(); err != nil || !reflect.DeepEqual(again, found.Servers[i]) {
				t.Fatalf("%#v is not canonical: %v", found.Servers[i], err)
			}
		}
		if err == nil {
			if _, err := config.ParseClient("x", config.MarshalClient(found.Config())); err != nil {
				t.Fatalf("the configuration is refused: %v", err)
			}
		}
	})
}

func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"a": "//", /* x */ "b": [1,2,],} // y`))
	f.Fuzz(func(t *testing.T, data []byte) {
		plain := standardJSON(data)
		if len(plain) != len(data) {
			t.Fatalf("%d bytes became %d", len(data), len(plain))
		}
		if again := standardJSON(plain); string(again) != string(plain) && !strings.ContainsAny(string(data), "#/,") {
			t.Fatalf("%q became %q", plain, again)
		}
		_, _ = parseTree(data)
	})
}

func FuzzYAML(f *testing.F) {
	f.Add([]byte("x: &a {b: c}\nproxies: [{<<: *a, type: vmess}, *a]"))
	f.Add([]byte("proxies: &a [*a]"))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _, _ = parseYAML(data, maxNodes) })
}
