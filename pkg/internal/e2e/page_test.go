package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

// pageOf runs a lab whose client has a status page, and returns its address
// and token.
func pageOf(t testing.TB, remote config.Remote) (l *lab, base, token string) {
	t.Helper()
	l = newLab(t, labSetup{remote: remote})
	base, token, _ = strings.Cut(l.pageAddress(t), "/?token=")
	return l, base, token
}

func pageCall(t testing.TB, method, address, token string) (int, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

type pageState struct {
	State, Words string
	Totals       struct{ Open, Opened, Up, Down int64 }
	Servers      []struct {
		Name, Mode string
		Using      bool
		RTT        float64 `json:"rttMs"`
	}
	Failures []struct {
		Cause, Fix, Site, Sentence string
		Count                      int
	}
	Open []struct {
		ID       uint64
		To       string
		Up, Down int64
	}
}

func stateOf(t testing.TB, base, token string) (s pageState) {
	t.Helper()
	code, body := pageCall(t, "GET", base+"/api/state", token)
	if err := json.Unmarshal(body, &s); code != 200 || err != nil {
		t.Fatalf("%d, %v: %s", code, err, body)
	}
	return s
}

// awaitState waits until the page's state is as wanted, and returns it.
func awaitState(t testing.TB, base, token, what string, is func(pageState) bool) (s pageState) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for s = stateOf(t, base, token); !is(s); s = stateOf(t, base, token) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s: %+v", what, s)
		}
	}
	return s
}

// TestStatusPage: what is open is shown with its bytes and can be ended; the
// check tells its steps; nothing secret is shown without the token.
func TestStatusPage(t *testing.T) {
	origin := echoOrigin(t)
	far := inProcessServer(t, serverConfig(), inProcess{})
	l, base, token := pageOf(t, remoteAt(t, far.addr))
	c := mustDialVia(t, l.addr, origin)
	defer c.Close()
	mustEcho(t, c, "hello\n")
	s := awaitState(t, base, token, "the answer is counted", func(s pageState) bool { return s.Totals.Down == 6 })
	if s.State != "well" || len(s.Open) != 1 || s.Open[0].To != origin || s.Open[0].Up != 6 || s.Open[0].Down != 6 || s.Totals.Open != 1 {
		t.Errorf("%+v", s)
	}
	if len(s.Servers) != 1 || !s.Servers[0].Using || s.Servers[0].Mode != "VMessAEAD" || s.Servers[0].RTT <= 0 {
		t.Errorf("servers %+v", s.Servers)
	}
	if code, body := pageCall(t, "POST", base+"/api/act?what=cut&which=1", token); code != 204 {
		t.Fatalf("%d %s", code, body)
	}
	if _, err := io.ReadAll(c); err == nil {
		t.Error("a connection that was cut ended in order")
	}
	s = awaitState(t, base, token, "nothing is open", func(s pageState) bool { return len(s.Open) == 0 })
	if s.Totals.Up != 6 || s.Totals.Opened != 1 {
		t.Errorf("totals %+v", s.Totals)
	}

	if err := l.client.Reload(pageConfig(t, far.addr)); err != nil {
		t.Fatal(err)
	}
	if s = stateOf(t, base, token); s.State != "idle" || s.Words != "ready; nothing has been asked of 127.0.0.1 since the configuration was read again" {
		t.Errorf("after a reload: %s, %s", s.State, s.Words)
	}

	_, steps := pageCall(t, "POST", base+"/api/check", token)
	if !bytes.Contains(steps, []byte(`"name":"account","status":"pass"`)) || !bytes.HasSuffix(steps, []byte(`"ok":true}`+"\n")) {
		t.Errorf("the check says\n%s", steps)
	}
	if code, body := pageCall(t, "GET", base+"/api/link?server=127.0.0.1", token); code != 200 || !bytes.Contains(body, []byte("vmess://")) {
		t.Errorf("the link: %d", code)
	}
	for _, open := range openPages {
		_, body := pageCall(t, "GET", base+open, "")
		for _, secret := range []string{origin, userID, token} {
			if bytes.Contains(body, []byte(secret)) {
				t.Errorf("%s shows %s", open, secret)
			}
		}
	}
	if _, metrics := pageCall(t, "GET", base+"/metrics", ""); !bytes.Contains(metrics, []byte("\nvmess_local_up_bytes_total 6\n")) {
		t.Errorf("metrics:\n%s", metrics)
	}
}

// TestStatusPageTellsFailures: what failed is there with its fix.
func TestStatusPageTellsFailures(t *testing.T) {
	l, base, token := pageOf(t, remoteAt(t, deadAddress(t)))
	l.ask(echoOrigin(t), "hello\n", 6)
	s := stateOf(t, base, token)
	if s.State != "failing" || len(s.Failures) != 1 || s.Failures[0].Cause != "tcp.refused" || s.Failures[0].Fix == "" || !strings.Contains(s.Words, "refuse") {
		t.Errorf("%+v", s)
	}
}

// TestDeadSiteIsNotTheServer: sites that fail are listed by name, each counted, and
// say nothing of the server, whose state they leave alone. The log names them at
// debug level.
func TestDeadSiteIsNotTheServer(t *testing.T) {
	t.Parallel()
	l, base, token := pageOf(t, remoteAt(t, inProcessServer(t, serverConfig(), inProcess{}).addr))
	l.ask(echoOrigin(t), "hello\n", 6).wantData(t, "hello\n")
	sites := []string{freePort(t), freePort(t)}
	for _, site := range append(sites, sites[1]) {
		l.ask(site, "hello\n", 6)
	}
	l.awaitCause(t, "destination.refused")
	s := awaitState(t, base, token, "both sites are listed", func(s pageState) bool {
		return s.State != "failing" && len(s.Failures) == 2
	})
	for i, f := range s.Failures { // the newest first
		if want := sites[1-i]; f.Cause != "destination.refused" || f.Site != want || !strings.Contains(f.Sentence, want) || f.Count != 2-i {
			t.Errorf("%+v", f)
		}
		if !strings.Contains(l.json.String(), f.Site) || strings.Contains(l.text.String(), f.Site) {
			t.Error("the log names the site otherwise than at debug level")
		}
	}
	if s.State != "well" {
		t.Errorf("the state is %s: %s", s.State, s.Words)
	}
}
