package config

import (
	"net/url"
	"strings"
	"time"

	"vmess-local/pkg/transport/netaddr"
)

// Normalize brings a configuration that was made in memory into the canonical
// form of a parsed one, and checks it. The error is *Problems, without places.
func (c *Client) Normalize() error {
	var found findings
	c.check(validator{&found, nil})
	return found.err("", nil)
}

func (c *Client) check(by validator) {
	by.client(c)
}

func (c validator) client(cfg *Client) {
	c.localProxy(cfg)
	c.remotes(cfg)
	c.number("warm.max", cfg.Warm.Max, 0, 64)
	c.duration("warm.idle", cfg.Warm.Idle, time.Second, 5*time.Minute)
	c.number("mux.concurrency", cfg.Mux.Concurrency, 1, 1024)
	c.choice("udp.mode", cfg.UDP.Mode, "auto", "xudp", "packetaddr", "plain", "off")
	c.duration("udp.idle", cfg.UDP.Idle, time.Second, time.Hour)
	if cfg.Upstream != "env" {
		c.upstream("upstream", string(cfg.Upstream), `, "env" or nothing`)
	}
	c.status("status", cfg.Status)
	c.limits("limits", cfg.Limits)
	c.log("log", cfg.Log)
}

// localProxy checks that nobody but this machine gets in without a password.
func (c validator) localProxy(cfg *Client) {
	c.credentials(cfg.Auth)
	loopback := c.listen("listen", cfg.Listen)
	if !loopback && cfg.Auth == (Auth{}) && !c.isSettled("auth") {
		c.report(Problem{
			Cause: CauseNeedsAuth, Path: "listen", Message: "others can reach this address", Seen: quote(cfg.Listen),
			Want: "auth.username and auth.password set, or a loopback address like 127.0.0.1:1080",
		})
	}
}

// maxCredential is the longest user name or password (RFC 1929).
const maxCredential = 255

func (c validator) credentials(auth Auth) {
	const both = "both auth.username and auth.password, or none"
	for _, part := range []struct {
		path, value, other string
	}{
		{"auth.username", string(auth.Username), string(auth.Password)},
		{"auth.password", string(auth.Password), string(auth.Username)},
	} {
		switch {
		case part.value == "" && part.other != "":
			c.mistake(part.path, "missing or empty", both)
		case len(part.value) > maxCredential:
			c.refuse(part.path, count(len(part.value), "byte"), "1 to 255 bytes")
		}
	}
	if strings.Contains(string(auth.Username), ":") {
		c.mistake("auth.username", "the name contains a colon", "a name without one: HTTP puts a colon between name and password")
	}
}

// remotes checks the server or the list of servers.
func (c validator) remotes(cfg *Client) {
	one, list := c.present("server"), c.present("servers")
	switch {
	case one && list:
		c.mistake("servers", "server and servers exclude each other", "one of them")
		return
	case !one && !list && c.offsets != nil:
		if !c.isSettled("server") && !c.isSettled("servers") {
			c.report(Problem{Cause: CauseMissing, Path: "server", Message: "missing", Want: "an object with address, port and id"})
		}
		return
	case list && len(cfg.Servers) == 0:
		c.mistake("servers", "the list is empty", "at least one server")
		return
	}
	if len(cfg.Servers) == 0 {
		c.remote("server", &cfg.Server)
		return
	}
	for i := range cfg.Servers {
		c.remote(indexPath("servers", i), &cfg.Servers[i])
	}
	cfg.Server = cfg.Servers[0]
}

// upstream checks a proxy's URL; others says what else may stand there. No
// part of it is ever shown.
func (c validator) upstream(path, text, others string) {
	if text == "" {
		return
	}
	want := `"http://HOST:PORT", "socks5://HOST:PORT", either with USER:PASSWORD@ before the host` + others
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme == "" || u.Opaque != "" || u.Host == "":
		c.report(Problem{Path: path, Message: "this is not the URL of a proxy", Seen: measure(text), Want: want})
	case u.Scheme != "http" && u.Scheme != "socks5":
		c.mistake(path, "the URL has an unknown scheme", want)
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		c.mistake(path, "the URL goes on after the port", want)
	default:
		c.proxyAuthority(path, want, u)
	}
}

func (c validator) proxyAuthority(path, want string, u *url.URL) {
	if u.Port() == "" {
		c.mistake(path, "the URL has no port", want)
		return
	}
	addr, err := netaddr.Parse(u.Host)
	if err != nil || addr.Port() == 0 {
		c.mistake(path, "the URL's host or port is wrong", want)
		return
	}
	if u.User == nil {
		return
	}
	user := u.User.Username()
	password, _ := u.User.Password()
	if user == "" || len(user) > maxCredential || len(password) > maxCredential {
		c.mistake(path, "the URL's username or password is empty or longer than 255 bytes", want)
	}
	if u.Scheme == "socks5" && password == "" {
		c.mistake(path, "the URL has a username but no password, and SOCKS5 needs both", want)
	}
}
