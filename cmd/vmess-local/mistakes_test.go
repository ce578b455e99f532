package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"vmess-local/pkg/program"
)

// secretID and secretWord must never be shown.
const (
	secretID   = "5ec2e700-0000-4000-8000-000000000001"
	secretWord = "5ec2e7word"
)

// TestMistakes runs the command with configurations that hold mistakes: each
// is named, all at once, and the command ends with 2. In what it says "@" is
// the file's name.
func TestMistakes(t *testing.T) {
	const server = `"server": {"address": "a.example", "port": 1, "id": "` + secretID + `"}`
	for _, c := range []struct{ name, text, want string }{
		{"empty", ``, `error: @:1:1: the configuration is empty; want an object in braces { }`},
		{"a link in a file", `vmess://NWVjMmU3`, `error: @:1:1: this is a share link, not a configuration; want what "link import" makes of it`},
		{"a comma is missing", "{\n  \"listen\": \":1\"\n  \"auth\": {}}", `error: @:3:3: a comma is missing before this`},
		{"cut off", "{" + server, `error: @:1:93: the file ends, but the '{' of 1:1 is still open`},
		{"nothing in it", `{}`, `error: @:1:1: server: missing; want an object with address, port and id`},
		{"what is required", `{"server": {}}`, `error: @:1:12: server.address: missing; want text in double quotes
error: @:1:12: server.id: missing; want text in double quotes
error: @:1:12: server.port: missing; want a whole number, without quotes`},
		{"all at once", "{\n \"listen\": \"0.0.0.0:1080\",\n \"serber\": {},\n \"limits\": {\"idle\": \"soon\"},\n " + server + ",\n \"log\": {\"level\": \"loud\"}\n}", `error: @:2:12: listen: others can reach this address; saw "0.0.0.0:1080"; want auth.username and auth.password set, or a loopback address like 127.0.0.1:1080
error: @:3:2: serber: unknown key; did you mean "server"?
error: @:4:21: limits.idle: saw "soon"; want a duration like "30s", "2m" or "1h30m"
error: @:6:19: log.level: saw "loud"; want one of debug, info, warn, error`},
		{"wildcard without password", `{"listen": ":1080", ` + server + `}`, `error: @:1:12: listen: others can reach this address; saw ":1080"; want auth.username and auth.password set, or a loopback address like 127.0.0.1:1080`},
		{"LAN without password", `{"listen": "192.168.1.2:1080", ` + server + `}`, `error: @:1:12: listen: others can reach this address; saw "192.168.1.2:1080"; want auth.username and auth.password set, or a loopback address like 127.0.0.1:1080`},
		{"half a password", `{"auth": {"username": "me"}, ` + server + `}`, `error: @:1:10: auth.password: missing or empty; want both auth.username and auth.password, or none`},
		{"a misspelt key", `{"server": {"address": "a.example", "port": 1, "id": "` + secretID + `", "ws": {"pth": "/"}}}`, `error: @:1:101: server.ws.pth: unknown key; did you mean "path"?`},
		{"a key in the wrong place", `{"serverName": "a", ` + server + `}`, `error: @:1:2: serverName: unknown key; did you mean "server.tls.serverName"?`},
		{"a duplicate", "{" + server + ",\n \"listen\": \"127.0.0.1:1\",\n \"listen\": \"127.0.0.1:2\"}", `error: @:3:2: listen: given twice, first at 2:2`},
		{"a wrong type", `{"server": {"address": "a.example", "port": "443", "id": "` + secretID + `"}}`, `error: @:1:45: server.port: saw "443"; want a whole number, without quotes`},
		{"an impossible value", `{"server": {"address": "a.example", "port": 70000, "id": "` + secretID + `"}}`, `error: @:1:45: server.port: saw 70000; want a whole number from 1 to 65535`},
		{"an id cut short", `{"server": {"address": "a.example", "port": 1, "id": "` + secretID[1:] + `"}}`, `error: @:1:54: server.id: UUID has 35 of 36 characters; want a UUID, or other text of 1 to 30 bytes`},
		{"an id that is a number", `{"server": {"address": "a.example", "port": 1, "id": 5}}`, `error: @:1:54: server.id: saw a number; want text in double quotes`},
		{"a port in the address", `{"server": {"address": "a.example:443", "port": 1, "id": "` + secretID + `"}}`, `error: @:1:24: server.address: the address holds a port; saw "a.example:443"; want the port in server.port`},
		{"a proxy of another kind", `{"upstream": "https://` + secretWord + `:` + secretWord + `@h:1", ` + server + `}`, `error: @:1:14: upstream: the URL has an unknown scheme; want "http://HOST:PORT", "socks5://HOST:PORT", either with USER:PASSWORD@ before the host, "env" or nothing`},
		{"a password that is too long", `{"auth": {"username": "me", "password": "` + strings.Repeat(secretWord, 26) + `"}, ` + server + `}`, `error: @:1:41: auth.password: saw 260 bytes; want 1 to 255 bytes`},
		{"an unknown cipher", `{"server": {"address": "a.example", "port": 1, "id": "` + secretID + `", "security": "aes-128-cfb"}}`, `error: @:1:106: server.security: saw "aes-128-cfb"; want one of auto, aes-128-gcm, chacha20-poly1305, none, zero`},
		{"a part that is not built", `{"mux": {"enabled": true}, ` + server + `}`, `error: @:1:21: mux.enabled: not part of this version yet; saw true; want false`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.WriteFile("my.json", []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			expect(t, []string{"run", "-c", "my.json"}, "", strings.ReplaceAll(c.want, "error: @", "error: my.json"))
			expect(t, []string{"run", "-c", "-"}, c.text, fromInput(c.text, c.want))
		})
	}
}

// fromInput is what is said when a text comes from standard input, where a
// link is fine.
func fromInput(text, want string) string {
	if isLink(text) {
		return "error: the link: not a VMess share link: its base64 holds no JSON object, as in links of Shadowrocket or Quantumult"
	}
	return strings.ReplaceAll(want, "error: @", "error: standard input")
}

func expect(t *testing.T, args []string, stdin, want string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(args, strings.NewReader(stdin), &stdout, &stderr); code != program.ExitUsage {
		t.Errorf("exit code %d, want %d", code, program.ExitUsage)
	}
	if got := strings.TrimSuffix(stderr.String(), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if stdout.Len() > 0 {
		t.Errorf("on stdout: %s", stdout.String())
	}
	if strings.Contains(stderr.String(), "5ec2e7") {
		t.Error("a secret is shown")
	}
}
