package e2e

import (
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/config"
	"vmess-local/pkg/protocol/vmess"
)

// Every client and server of these tests, so every fault of the laboratory, is
// searched for secrets: the audit reads all that it wrote, and of the
// laboratory's clients all that their status pages show without the token.

// A secrecy is what must not be shown, by what it is.
type secrecy map[string]string

// shortestSecret is a text long enough not to be found by chance.
const shortestSecret = 6

func (s secrecy) add(what, text string) {
	if len(text) >= shortestSecret {
		s[text] = what
		s[url.QueryEscape(text)] = what
		s[base64.RawStdEncoding.EncodeToString([]byte(text))] = what
	}
}

// addID adds an id in the forms that it has in configurations and links.
func (s secrecy) addID(text config.Secret) {
	s.add("an id", string(text))
	s.add("an id", strings.ReplaceAll(string(text), "-", ""))
	if id, err := vmess.ParseID(string(text)); err == nil {
		s.add("an id", id.Text())
	}
}

// addURL adds what a proxy's address holds.
func (s secrecy) addURL(text config.Secret) {
	if u, err := url.Parse(string(text)); err == nil && u.User != nil {
		s.add("a proxy's user", u.User.Username())
		password, _ := u.User.Password()
		s.add("a proxy's password", password)
		s.add("a proxy's credentials", u.User.Username()+":"+password)
	}
}

// ofClient are a client's secrets.
func ofClient(c *config.Client) secrecy {
	s := secrecy{}
	s.add("the proxy's password", string(c.Auth.Password))
	s.addURL(c.Upstream)
	for _, r := range append(c.Servers, c.Server) {
		s.addID(r.ID)
		for _, value := range r.WS.Headers {
			s.add("a header's value", value)
		}
	}
	return s
}

// ofServer are a server's secrets.
func ofServer(c *config.Server) secrecy {
	s := secrecy{}
	s.addURL(c.Egress.Dial)
	for _, u := range c.Users {
		s.addID(u.ID)
	}
	return s
}

// aLink is a share link, with more than its beginning.
var aLink = regexp.MustCompile(`vmess://[0-9A-Za-z]`)

// find tells which secrets are in a text.
func (s secrecy) find(text string) (found []string) {
	folded := strings.ToLower(text)
	for secret, what := range s {
		if strings.Contains(folded, strings.ToLower(secret)) {
			found = append(found, what)
		}
	}
	if aLink.MatchString(text) {
		found = append(found, "a link")
	}
	return found
}

// search fails the test for each secret in a text.
func (s secrecy) search(t testing.TB, where, text string) {
	t.Helper()
	for _, what := range s.find(text) {
		t.Errorf("%s shows %s", where, what)
	}
}

// searchLog searches what a program has written, in the end.
func (s secrecy) searchLog(t testing.TB, name string, log *tail) {
	t.Helper()
	t.Cleanup(func() { s.search(t, name+"'s log", log.String()) })
}

// openPages are what a status page shows to everybody, closedPages what it
// must not show without its token.
var (
	openPages   = []string{"/", "/metrics", "/proxy.pac", "/healthz"}
	closedPages = []string{"/api/state", "/api/events", "/api/link", "/api/link?server=127.0.0.1"}
)

// pagePattern finds where a status page is, and its token.
var pagePattern = regexp.MustCompile(`(http://127\.0\.0\.1:\d+)/\?token=([0-9a-f]{32})`)

// searchPages searches what a running program shows without its token.
func (s secrecy) searchPages(t testing.TB, log *tail) {
	t.Helper()
	m := pagePattern.FindStringSubmatch(log.String())
	if m == nil {
		return // it is off, or never came so far
	}
	shown := secrecy{m[2]: "the token"}
	for text, what := range s {
		shown[text] = what
	}
	for _, path := range openPages {
		code, text := lookAtPage(t, m[1]+path)
		shown.search(t, "the page "+path, text)
		if code != http.StatusOK && code != http.StatusNotFound {
			t.Errorf("the page %s: %d", path, code)
		}
	}
	for _, path := range closedPages {
		code, text := lookAtPage(t, m[1]+path)
		shown.search(t, "the page "+path, text)
		if code != http.StatusUnauthorized && code != http.StatusForbidden {
			t.Errorf("the page %s without the token: %d", path, code)
		}
	}
}

// lookAtPage gets a page with all that its head says. It is empty when the
// program has ended.
func lookAtPage(t testing.TB, address string) (code int, text string) {
	t.Helper()
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := web.Get(address)
	if err != nil {
		t.Errorf("%s: %v", address, err)
		return 0, ""
	}
	defer resp.Body.Close()
	var all strings.Builder
	_ = resp.Header.Write(&all)
	if _, err := io.Copy(&all, io.LimitReader(resp.Body, 1<<20)); err != nil {
		t.Errorf("%s: %v", address, err)
	}
	return resp.StatusCode, all.String()
}

// addDestination adds where an application went: private at the default level,
// and for the pages. Bare addresses of this computer are everywhere.
func (s secrecy) addDestination(target string) {
	s.add("a destination", target)
	if host, _, err := net.SplitHostPort(target); err == nil && net.ParseIP(host) == nil && host != "localhost" {
		s.add("a destination", host)
	}
}
