package config

import (
	"errors"
	"strings"
	"testing"
)

// A mistake is a file and every line that is said about it. "@" stands for
// the file's name.
type mistake struct{ text, want string }

var longText = strings.Repeat("x", 256)

var clientMistakes = []mistake{
	// Syntax: one problem, with its place.
	{``, `@:1:1: the configuration is empty; want an object in braces { }`},
	{`[]`, `@:1:1: the configuration is a list; want an object in braces { }`},
	{"// only a comment", `@:1:18: the file ends too early`},
	{`vmess://abc`, `@:1:1: this is a share link, not a configuration; want the configuration that "vmess-local link import" prints for it`},
	{"\xff\xfe{\x00}\x00", `@:1:1: the text is UTF-16; want UTF-8: save the file again with that encoding`},
	{"{\n  \"listen\": \":1\"\n  \"auth\": {}}", `@:3:3: a comma is missing before this`},
	{"{\n  \"ö\": {\n", `@:3:1: the file ends, but the '{' of 2:8 is still open`},
	{"{\"ö\": tru}", `@:1:7: a word without quotes; want text in double quotes`},
	{`{"a": True}`, `@:1:7: want true in lower-case letters`},
	{`{"a": 010}`, `@:1:7: this is not a valid JSON number; want digits without leading zeros, or text in double quotes`},
	{`{listen: 1}`, `@:1:2: a key without quotes; want keys in double quotes`},
	{`{'listen': 1}`, `@:1:2: saw the quotation mark '; want plain double quotes`},
	{`{“listen”: 1}`, `@:1:2: saw the quotation mark “; want plain double quotes`},
	{`{1: 2}`, `@:1:2: want a key in double quotes`},
	{`{"a" = 1}`, `@:1:6: a colon is missing before this`},
	{`{"a": [1}`, `@:1:9: saw '}'; want a comma or ']'`},
	{`{"a": 1]`, `@:1:8: saw ']'; want a comma or '}'`},
	{`{"a":,}`, `@:1:6: a value is missing before ','`},
	{`{"a": 1} 2`, `@:1:10: the configuration ends before this; want nothing after its last brace`},
	{"# a\n{}", `@:1:1: want // before a comment, not #`},
	{"{} /* a", `@:1:4: the comment that begins here is not closed by */`},
	{"{\"id\": \"secret\n}", `@:1:8: the text that begins here has no closing quote`},
	{"{\"id\": \"secret,\n\"a\": \"b\"}", `@:1:8: the text that begins here has no closing quote on its line`},
	{"{\"id\": \"se\tcret\"}", `@:1:8: the text contains a tab or another control character; want \t and the like instead`},
	{`{"id": "\secret"}`, `@:1:8: the text contains an invalid JSON escape sequence; want \\ for a backslash`},
	{withClient("\"listen\": \"\xff\""), `@:2:11: listen: the text is not valid UTF-8 or holds half of a \u pair`},
	{strings.Repeat("[", 33), `@:1:33: nested more than 32 levels deep`},

	// Keys.
	{`{}`, `@:1:1: server: missing; want an object with address, port and id`},
	{`{"server": {}}`, `@:1:12: server.address: missing; want text in double quotes
@:1:12: server.id: missing; want text in double quotes
@:1:12: server.port: missing; want a whole number, without quotes`},
	{withServer(`"ws": {"pth": "/"}`), `@:2:8: server.ws.pth: unknown key; did you mean "path"?`},
	{withServer(`"alterid": 0`), `@:2:1: server.alterid: unknown key; did you mean "alterId"?`},
	{withClient(`"serverName": ""`), `@:2:1: serverName: unknown key; did you mean "server.tls.serverName"?`},
	{withClient(`"enabled": true`), `@:2:1: enabled: unknown key; want one of listen, auth, server, servers, warm, mux, udp, upstream, heal, status, limits, log`},
	{withClient(`"": 1, "a b": {"c": 1}`), `@:2:1: "": unknown key; want one of listen, auth, server, servers, warm, mux, udp, upstream, heal, status, limits, log
@:2:8: "a b": unknown key; want one of listen, auth, server, servers, warm, mux, udp, upstream, heal, status, limits, log`},
	{`{"sever": {"address": "a"}}`, `@:1:2: sever: unknown key; did you mean "server"?`},
	{`{"server": {"adress": "a", "port": 1, "id": "x"}}`, `@:1:13: server.adress: unknown key; did you mean "address"?`},
	{withClient("\"warm\": {\"max\": 1,\n\"max\": 2}"), `@:3:1: warm.max: given twice, first at 2:10`},
	{withClient(`"server": 1`), `@:2:1: server: given twice, first at 1:2`},

	// Types.
	{withClient(`"listen": 1080, "auth": "a:b", "warm": [], "mux": null, "heal": {"clock": "true"}`), `@:2:11: listen: saw 1080; want text in double quotes
@:2:25: auth: saw text; want an object in braces { }
@:2:40: warm: saw a list; want an object in braces { }
@:2:51: mux: saw null; want an object in braces { }
@:2:75: heal.clock: saw "true"; want true or false, without quotes`},
	{withClient(`"udp": {"idle": 30}, "limits": {"connections": 1.5, "dial": "-1s", "idle": "soon"}`), `@:2:17: udp.idle: saw 30; want a duration like "30s", "2m" or "1h30m"
@:2:48: limits.connections: saw 1.5; want a whole number, without quotes
@:2:61: limits.dial: saw "-1s"; want a duration like "30s", "2m" or "1h30m"
@:2:76: limits.idle: saw "soon"; want a duration like "30s", "2m" or "1h30m"`},
	{withServer(`"ws": {"headers": {"X-Key": 5}}, "tls": {"pin": "ab", "alpn": [1]}`), `@:2:29: server.ws.headers.X-Key: saw a number; want text in double quotes
@:2:49: server.tls.pin: saw text; want a list in brackets [ ]
@:2:64: server.tls.alpn[0]: saw 1; want text in double quotes`},
	{`{"server": "vmess://abc"}`, `@:1:12: server: saw text; want an object in braces { }`},
	{`{"server": {"address": "a", "port": "443", "id": 12345678}}`, `@:1:37: server.port: saw "443"; want a whole number, without quotes
@:1:50: server.id: saw a number; want text in double quotes`},

	// The server's values.
	{`{"server": {"address": "", "port": 0, "id": ""}}`, `@:1:24: server.address: the host is empty; want a host name or IP address
@:1:36: server.port: saw 0; want a whole number from 1 to 65535
@:1:45: server.id: the id is empty; want a UUID, or other text of 1 to 30 bytes`},
	{`{"server": {"address": "a.example:443", "port": 65536, "id": "` + testID[1:] + `"}}`, `@:1:24: server.address: the address contains a port; saw "a.example:443"; want the port in server.port
@:1:49: server.port: saw 65536; want a whole number from 1 to 65535
@:1:62: server.id: UUID has 35 of 36 characters; want a UUID, or other text of 1 to 30 bytes`},
	{`{"server": {"address": "https://a.example", "port": 1, "id": "` + testID + `0"}}`, `@:1:24: server.address: this is a URL; want a host name or IP address alone
@:1:62: server.id: UUID has 37 of 36 characters; want a UUID, or other text of 1 to 30 bytes`},
	{`{"server": {"address": "höhe.example", "port": 1, "id": "deadbeef"}}`, `@:1:24: server.address: the name must be written in punycode, "xn--…"; saw "höhe.example"; want a host name or IP address
@:1:57: server.id: UUID has 8 of 32 characters; want a UUID, or other text of 1 to 30 bytes`},
	{`{"server": {"address": "192.0.2.256", "port": 1, "id": "b831381-d6324-4d53-ad4f-8cda48b30811"}}`, `@:1:24: server.address: this is neither a name nor an IP address; saw "192.0.2.256"
@:1:56: server.id: the dashes of the UUID are in the wrong places; want a UUID, or other text of 1 to 30 bytes`},
	{`{"server": {"address": "a b", "port": 1, "id": "b831381g-6324-4d53-ad4f-8cda48b30811"}}`, `@:1:24: server.address: the host name may hold only letters, digits, '-', '_' and '.': byte 2 is ' '; saw "a b"; want a host name or IP address
@:1:48: server.id: this is not a UUID: byte 8 of 36 is not a hexadecimal digit; want a UUID, or other text of 1 to 30 bytes`},
	{withServer(`"name": "a\nb", "alterId": 65536, "security": "aes-128-cfb"`), `@:2:9: server.name: the text contains a control character; want a single line of text
@:2:28: server.alterId: saw 65536; want a whole number from 0 to 65535
@:2:47: server.security: saw "aes-128-cfb"; want one of auto, aes-128-gcm, chacha20-poly1305, none, zero`},
	{withServer(`"security": "none", "authenticatedLength": true`), `@:2:44: server.authenticatedLength: true is impossible with security "none": there is no key to encrypt the length with; want false, or another security`},
	{withServer(`"ws": {"path": "/a b", "host": "a/b", "earlyData": 4001, "earlyDataHeader": "a b", "ping": "10ms"}`), `@:2:16: server.ws.path: saw "/a b"; want a path without spaces and #, like /ray (in a path %20 is a space, %23 is #)
@:2:32: server.ws.host: the host name may hold only letters, digits, '-', '_' and '.': byte 2 is '/'; saw "a/b"
@:2:52: server.ws.earlyData: saw 4001; want a whole number from 0 to 4000
@:2:77: server.ws.earlyDataHeader: saw "a b"; want the name of an HTTP header, or "" for the path
@:2:92: server.ws.ping: saw "10ms"; want 0s for none, or a duration from 1s to 1h`},
	{withServer(`"ws": {"path": "/%zz", "earlyDataHeader": "Upgrade"}`), `@:2:16: server.ws.path: saw "/%zz"; want a path like /ray, with two hexadecimal digits after each %
@:2:43: server.ws.earlyDataHeader: the WebSocket upgrade needs this header itself; saw "Upgrade"; want Sec-WebSocket-Protocol or a header of your own`},
	{withServer(`"ws": {"path": "/?ed=2048", "earlyData": 0}`), `@:2:16: server.ws.path: ed=2048 in the path contradicts earlyData 0; want one of them`},
	{withServer(`"ws": {"path": "/?ed=1&ed=2"}`), `@:2:16: server.ws.path: the path's ed parameter is wrong; saw "1,2"; want a whole number from 0 to 4000`},
	{withServer(`"ws": {"headers": {"Connection": "x", "sec-websocket-key": "x", "a b": "x", "X": "\u0000secret", "A": "1", "a": "2"}}`), `@:2:34: server.ws.headers.Connection: the WebSocket upgrade sets this header itself; want the list without it
@:2:60: server.ws.headers.sec-websocket-key: the WebSocket upgrade sets this header itself; want the list without it
@:2:72: server.ws.headers."a b": this is not the name of an HTTP header; want letters, digits and dashes
@:2:82: server.ws.headers.X: the header's value contains a control character; want a single line of text
@:2:113: server.ws.headers.a: the header appears twice, in different spelling; want it once`},
	{withServer(`"ws": {"host": "a", "headers": {"Host": "b"}}`), `@:2:41: server.ws.headers.Host: the header contradicts server.ws.host; want one of them`},
	{withServer(`"ws": {"headers": {"Host": "b/c"}}`), `@:2:28: server.ws.headers.Host: the host name may hold only letters, digits, '-', '_' and '.': byte 2 is '/'; saw "b/c"`},
	{withServer(`"ws": {"headers": {"X": "` + strings.Repeat("x", 8192) + `"}}`), `@:2:19: server.ws.headers: 1 header of 8193 bytes; want at most 64 headers of 8192 bytes`},
	{withServer(`"tls": {"serverName": "a:1", "alpn": ["h2"], "pin": ["abc", "` + strings.Repeat("g", 64) + `"]}`), `@:2:23: server.tls.serverName: the host name may hold only letters, digits, '-', '_' and '.': byte 2 is ':'; saw "a:1"
@:2:38: server.tls.alpn: a WebSocket upgrade is HTTP/1.1, and a server that selects another protocol cannot answer it; saw "h2"; want "http/1.1" in the list, or an empty list
@:2:54: server.tls.pin[0]: this is not the SHA-256 of a certificate; saw text of 3 characters; want 64 hexadecimal digits, colons optional
@:2:61: server.tls.pin[1]: this is not the SHA-256 of a certificate; saw text of 64 characters; want 64 hexadecimal digits, colons optional`},

	// The client's other values.
	{withClient(`"listen": "0.0.0.0:1080"`), `@:2:11: listen: others can reach this address; saw "0.0.0.0:1080"; want auth.username and auth.password set, or a loopback address like 127.0.0.1:1080`},
	{withClient(`"listen": ":1080", "auth": {"username": "u"}`), `@:2:28: auth.password: missing or empty; want both auth.username and auth.password, or none`},
	{withClient(`"listen": "1080"`), `@:2:11: listen: saw "1080"; want HOST:PORT, with an IP address, localhost or nothing as the host`},
	{withClient(`"listen": "a.example:1"`), `@:2:11: listen: saw "a.example:1"; want HOST:PORT, with an IP address, localhost or nothing as the host`},
	{withClient(`"listen": "127.0.0.1:70000"`), `@:2:11: listen: the port must be a number from 0 to 65535; saw "127.0.0.1:70000"; want HOST:PORT with a port from 0 (any free one) to 65535`},
	{withClient(`"listen": "user:pass@h:1"`), `@:2:11: listen: saw text of 13 characters; want HOST:PORT, with an IP address, localhost or nothing as the host`},
	{withClient(`"auth": {"username": "a:b", "password": "` + longText + `"}`), `@:2:22: auth.username: the name contains a colon; want a name without one: HTTP puts a colon between name and password
@:2:41: auth.password: saw 256 bytes; want 1 to 255 bytes`},
	{withClient(`"warm": {"max": 65, "idle": "6m"}, "mux": {"concurrency": 0}, "udp": {"mode": "plane", "idle": "0s"}`), `@:2:17: warm.max: saw 65; want a whole number from 0 to 64
@:2:29: warm.idle: saw "6m"; want a duration from 1s to 5m
@:2:59: mux.concurrency: saw 0; want a whole number from 1 to 1024
@:2:79: udp.mode: saw "plane"; want one of auto, xudp, packetaddr, plain, off; did you mean "plain"?
@:2:96: udp.idle: saw "0s"; want a duration from 1s to 1h`},
	{withClient(`"status": {"listen": ":1081"}, "limits": {"connections": -1, "handshake": "0s", "drain": "1h"}, "log": {"level": "verbose", "format": "xml"}`), `@:2:22: status.listen: saw ":1081"; want a loopback address, like 127.0.0.1:1081: the page is for this machine only
@:2:58: limits.connections: saw -1; want a whole number from 0 to 1000000
@:2:75: limits.handshake: saw "0s"; want a duration from 100ms to 5m
@:2:90: limits.drain: saw "1h"; want 0s for none, or a duration from 100ms to 5m
@:2:114: log.level: saw "verbose"; want one of debug, info, warn, error
@:2:135: log.format: saw "xml"; want one of text, json`},
	{withClient(`"upstream": "hunter2"`), `@:2:13: upstream: this is not the URL of a proxy; saw text of 7 characters; want "http://HOST:PORT", "socks5://HOST:PORT", either with USER:PASSWORD@ before the host, "env" or nothing`},
	{withClient(`"upstream": "https://u:hunter2@h:1"`), `@:2:13: upstream: the URL has an unknown scheme; want "http://HOST:PORT", "socks5://HOST:PORT", either with USER:PASSWORD@ before the host, "env" or nothing`},
	{withClient(`"upstream": "http://u:hunter2@h"`), `@:2:13: upstream: the URL has no port; want "http://HOST:PORT", "socks5://HOST:PORT", either with USER:PASSWORD@ before the host, "env" or nothing`},
	{withClient(`"upstream": "http://u:hunter2@h:0"`), `@:2:13: upstream: the URL's host or port is wrong; want "http://HOST:PORT", "socks5://HOST:PORT", either with USER:PASSWORD@ before the host, "env" or nothing`},
	{withClient(`"upstream": "http://u:hunter2@h:1/x?y"`), `@:2:13: upstream: the URL goes on after the port; want "http://HOST:PORT", "socks5://HOST:PORT", either with USER:PASSWORD@ before the host, "env" or nothing`},
	{withClient(`"upstream": "socks5://hunter2@h:1"`), `@:2:13: upstream: the URL has a username but no password, and SOCKS5 needs both; want "http://HOST:PORT", "socks5://HOST:PORT", either with USER:PASSWORD@ before the host, "env" or nothing`},

	// server and servers.
	{withClient(`"servers": []`), `@:2:12: servers: server and servers exclude each other; want one of them`},
	{`{"servers": []}`, `@:1:13: servers: the list is empty; want at least one server`},
	{`{"servers": [{"port": 1, "id": "x"}]}`, `@:1:14: servers[0].address: missing; want text in double quotes`},
	{`{"servers": [` + strings.Repeat("{},", 1001) + `]}`, `@:1:13: servers: the list is too long; saw 1001 elements; want at most 1000`},
	{`{"servers": {}}`, `@:1:13: servers: saw an object; want a list in brackets [ ]`},

	{withServer(`"tls": {"fingerprint": "Chrome"}`), `@:2:24: server.tls.fingerprint: saw "Chrome"; want one of chrome, firefox, safari, ios, android, edge, random, randomized; did you mean "chrome"?`},
}

var serverMistakes = []mistake{
	{`{}`, `@:1:1: listen: missing; want text in double quotes
@:1:1: users: missing; want a list in brackets [ ]`},
	{`{"listen": "", "users": []}`, `@:1:12: listen: saw ""; want HOST:PORT, with an IP address, localhost or nothing as the host
@:1:25: users: the list is empty; want at least one user`},
	{`{"listen": ":1", "user": []}`, `@:1:18: user: unknown key; did you mean "users"?`},
	{`{"listen": ":1", "users": ["` + testID + `", {"name": "n"}, {"id": "example", "alterId": -1}, {"id": "feb54431-301b-52bb-a6dd-e1e93e81bb9e"}]}`, `@:1:28: users[0]: saw text; want an object in braces { }
@:1:68: users[1].id: missing; want text in double quotes
@:1:112: users[2].alterId: saw -1; want a whole number from 0 to 65535
@:1:124: users[3].id: the id is the same as users[2].id; want another id for each user`},
	{withServerFile(`"ws": {"path": "/a?b=c", "host": "a b"}, "tls": {"certFile": "c"}`), `@:2:16: ws.path: a server's path has no query; saw "/a?b=c"; want a path like /ray
@:2:34: ws.host: the host name may hold only letters, digits, '-', '_' and '.': byte 2 is ' '; saw "a b"
@:2:49: tls.keyFile: missing or empty; want both certFile and keyFile, or none`},
	{withServerFile(`"trustedProxies": ["10.0.0.1/8", "a"], "limits": {"idle": "30d"}`), `@:2:20: trustedProxies[0]: the address goes beyond the range; saw "10.0.0.1/8"; want "10.0.0.0/8"
@:2:34: trustedProxies[1]: saw "a"; want an IP address or a range like 10.0.0.0/8
@:2:59: limits.idle: saw "30d"; want a duration like "30s", "2m" or "1h30m"`},
	{withServerFile(`"egress": {"dial": "socks5://u:p@h"}`), `@:2:20: egress.dial: the URL has no port; want "http://HOST:PORT", "socks5://HOST:PORT", either with USER:PASSWORD@ before the host, or nothing`},
	{withServerFile(`"egress": {"dial": "env"}`), `@:2:20: egress.dial: this is not the URL of a proxy; saw text of 3 characters; want "http://HOST:PORT", "socks5://HOST:PORT", either with USER:PASSWORD@ before the host, or nothing`},
}

func TestClientMistakes(t *testing.T) {
	for _, m := range clientMistakes {
		c, err := ParseClient("c.json", []byte(m.text))
		m.check(t, "c.json", c == nil, err)
	}
}

func TestServerMistakes(t *testing.T) {
	for _, m := range serverMistakes {
		s, err := ParseServer("s.json", []byte(m.text))
		m.check(t, "s.json", s == nil, err)
	}
}

func (m mistake) check(t *testing.T, file string, refused bool, err error) {
	t.Helper()
	want := strings.ReplaceAll(m.want, "@", file)
	want = strings.ReplaceAll(want, "USER:PASSWORD"+file, "USER:PASSWORD@")
	if !refused || err == nil {
		t.Errorf("%.300s\nis accepted", m.text)
		return
	}
	if err.Error() != want {
		t.Errorf("%.300s\ngot\n%v\nwant\n%s", m.text, err, want)
	}
	requireProblems(t, err)
	for _, secret := range []string{"hunter2", "secret", testID[9:30]} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%q is in\n%v", secret, err)
		}
	}
}

func TestCauses(t *testing.T) {
	for text, want := range map[string]string{
		`{`:                          CauseSyntax,
		withClient(`"x": 1`):         CauseUnknownKey,
		withClient(`"listen": ":1"`): CauseNeedsAuth,
		withClient(`"listen": "x"`):  CauseValue,
		withClient(`"listen": 1`):    CauseValue,
		`{"servers": [{"address": "a", "port": 1}]}`: CauseMissing,
	} {
		_, err := ParseClient("c.json", []byte(text))
		var problems *Problems
		if !errors.As(err, &problems) || len(problems.All) != 1 || problems.All[0].Cause != want {
			t.Errorf("%s: %v; want %s", text, err, want)
		}
	}
}
