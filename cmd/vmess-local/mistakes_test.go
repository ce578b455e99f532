package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"vmess-local/pkg/cli"
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
		{"empty", ``, `error: config.syntax: @:1:1: the configuration is empty
fix: write an object in braces { } at @:1:1`},
		{"a link in a file", `vmess://NWVjMmU3`, `error: config.syntax: @:1:1: this is a share link, not a configuration
fix: write the configuration that "vmess-local link import" prints for it at @:1:1`},
		{"a comma is missing", "{\n  \"listen\": \":1\"\n  \"auth\": {}}", `error: config.syntax: @:3:3: a comma is missing before this
fix: correct the text at @:3:3`},
		{"cut off", "{" + server, `error: config.syntax: @:1:93: the file ends, but the '{' of 1:1 is still open
fix: correct the text at @:1:93`},
		{"nothing in it", `{}`, `error: config.missing: @:1:1: server: missing
fix: add "server" (an object with address, port and id) at @:1:1`},
		{"what is required", `{"server": {}}`, `error: config.missing: @:1:12: server.address: missing
fix: add "address" (text in double quotes) at @:1:12
error: config.missing: @:1:12: server.id: missing
fix: add "id" (text in double quotes) at @:1:12
error: config.missing: @:1:12: server.port: missing
fix: add "port" (a whole number, without quotes) at @:1:12`},
		{"all at once", "{\n \"listen\": \"0.0.0.0:1080\",\n \"serber\": {},\n \"limits\": {\"idle\": \"soon\"},\n " + server + ",\n \"log\": {\"level\": \"loud\"}\n}", `error: listen.needs-auth: @:2:12: listen: others can reach this address; saw "0.0.0.0:1080"
fix: set auth.username and auth.password, or use a loopback address like 127.0.0.1:1080 at @:2:12
error: config.unknown-key: @:3:2: serber: unknown key
fix: did you mean "server"? write that at @:3:2
error: config.value: @:4:21: limits.idle: saw "soon"
fix: write a duration like "30s", "2m" or "1h30m" at @:4:21
error: config.value: @:6:19: log.level: saw "loud"
fix: write one of debug, info, warn, error at @:6:19`},
		{"wildcard without password", `{"listen": ":1080", ` + server + `}`, `error: listen.needs-auth: @:1:12: listen: others can reach this address; saw ":1080"
fix: set auth.username and auth.password, or use a loopback address like 127.0.0.1:1080 at @:1:12`},
		{"LAN without password", `{"listen": "192.168.1.2:1080", ` + server + `}`, `error: listen.needs-auth: @:1:12: listen: others can reach this address; saw "192.168.1.2:1080"
fix: set auth.username and auth.password, or use a loopback address like 127.0.0.1:1080 at @:1:12`},
		{"half a password", `{"auth": {"username": "me"}, ` + server + `}`, `error: config.value: @:1:10: auth.password: missing or empty
fix: write both auth.username and auth.password, or none at @:1:10`},
		{"a misspelt key", `{"server": {"address": "a.example", "port": 1, "id": "` + secretID + `", "ws": {"pth": "/"}}}`, `error: config.unknown-key: @:1:101: server.ws.pth: unknown key
fix: did you mean "path"? write that at @:1:101`},
		{"a key in the wrong place", `{"serverName": "a", ` + server + `}`, `error: config.unknown-key: @:1:2: serverName: unknown key
fix: did you mean "server.tls.serverName"? write that at @:1:2`},
		{"a duplicate", "{" + server + ",\n \"listen\": \"127.0.0.1:1\",\n \"listen\": \"127.0.0.1:2\"}", `error: config.value: @:3:2: listen: given twice, first at 2:2
fix: remove one of the two`},
		{"a wrong type", `{"server": {"address": "a.example", "port": "443", "id": "` + secretID + `"}}`, `error: config.value: @:1:45: server.port: saw "443"
fix: write a whole number, without quotes at @:1:45`},
		{"an impossible value", `{"server": {"address": "a.example", "port": 70000, "id": "` + secretID + `"}}`, `error: config.value: @:1:45: server.port: saw 70000
fix: write a whole number from 1 to 65535 at @:1:45`},
		{"an id cut short", `{"server": {"address": "a.example", "port": 1, "id": "` + secretID[1:] + `"}}`, `error: config.value: @:1:54: server.id: UUID has 35 of 36 characters
fix: write a UUID, or other text of 1 to 30 bytes at @:1:54`},
		{"an id that is a number", `{"server": {"address": "a.example", "port": 1, "id": 5}}`, `error: config.value: @:1:54: server.id: saw a number
fix: write text in double quotes at @:1:54`},
		{"a port in the address", `{"server": {"address": "a.example:443", "port": 1, "id": "` + secretID + `"}}`, `error: config.value: @:1:24: server.address: the address contains a port; saw "a.example:443"
fix: write the port in server.port at @:1:24`},
		{"a proxy of another kind", `{"upstream": "https://` + secretWord + `:` + secretWord + `@h:1", ` + server + `}`, `error: config.value: @:1:14: upstream: the URL has an unknown scheme
fix: write "http://HOST:PORT", "socks5://HOST:PORT", either with USER:PASSWORD@ before the host, "env" or nothing at @:1:14`},
		{"a password that is too long", `{"auth": {"username": "me", "password": "` + strings.Repeat(secretWord, 26) + `"}, ` + server + `}`, `error: config.value: @:1:41: auth.password: saw 260 bytes
fix: write 1 to 255 bytes at @:1:41`},
		{"an unknown cipher", `{"server": {"address": "a.example", "port": 1, "id": "` + secretID + `", "security": "aes-128-cfb"}}`, `error: config.value: @:1:106: server.security: saw "aes-128-cfb"
fix: write one of auto, aes-128-gcm, chacha20-poly1305, none, zero at @:1:106`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.WriteFile("my.json", []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			expect(t, []string{"run", "-c", "my.json"}, "", strings.ReplaceAll(c.want, "@:", "my.json:"))
			expect(t, []string{"run", "-c", "-"}, c.text, fromInput(c.text, c.want))
		})
	}
}

// fromInput is what is said when a text comes from standard input, where a
// link is fine.
func fromInput(text, want string) string {
	if isLink(text) {
		return "error: config.syntax: the link: not a VMess share link: its base64 contains neither a JSON object nor what Shadowrocket or Quantumult write\n" +
			"fix: copy the whole link again, or pass a configuration file with -c"
	}
	return strings.ReplaceAll(want, "@:", "standard input:")
}

func expect(t *testing.T, args []string, stdin, want string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(args, strings.NewReader(stdin), &stdout, &stderr); code != cli.ExitUsage {
		t.Errorf("exit code %d, want %d", code, cli.ExitUsage)
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
