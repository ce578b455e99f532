package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/config"
)

type pageUDP struct {
	Open, Opened, Up, Down, UpBytes, DownBytes int64
	Form, NAT                                  string
	Dropped                                    map[string]int64
}

func udpOf(t testing.TB, base, token string) pageUDP {
	t.Helper()
	var s struct{ UDP *pageUDP }
	code, body := pageCall(t, "GET", base+"/api/state", token)
	if err := json.Unmarshal(body, &s); code != 200 || err != nil || s.UDP == nil {
		t.Fatalf("%d, %v: %s", code, err, body)
	}
	return *s.UDP
}

// metric returns the value of a counter.
func metric(t testing.TB, base, name string) int {
	t.Helper()
	_, body := pageCall(t, "GET", base+"/metrics", "")
	m := regexp.MustCompile(`(?m)^` + name + ` (\d+)$`).FindSubmatch(body)
	if m == nil {
		t.Errorf("no %s in\n%s", name, body)
		return -1
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

// TestStatusPageDatagrams: associations stand among what is open and can be
// ended; how datagrams travel, how many there were and why some were dropped is
// there, and outlasts a new configuration.
func TestStatusPageDatagrams(t *testing.T) {
	t.Parallel()
	far := inProcessServer(t, serverConfig(), inProcess{})
	l, base, token := pageOf(t, remoteAt(t, far.addr))
	if u := udpOf(t, base, token); u.Opened != 0 || !strings.Contains(u.NAT, "found out") {
		t.Errorf("before any use: %+v", u)
	}
	a, first, second := associate(t, l.addr), echoDatagrams(t), echoDatagrams(t)
	a.echoBurst(t, 10, first, second)
	if _, err := a.WriteToUDPAddrPort([]byte("no SOCKS datagram"), a.relay); err != nil {
		t.Fatal(err)
	}
	a.echoBurst(t, 1, first)
	l.wantSaid(t, "UDP by XUDP"+nextSaid+fullConeSaid)
	want := pageUDP{Open: 1, Opened: 1, Up: 21, Down: 21, UpBytes: 84, DownBytes: 84, Form: "XUDP"}
	u := udpOf(t, base, token)
	if u.Dropped["fragment"]+u.Dropped["malformed"] != 1 || len(u.Dropped) != 1 {
		t.Errorf("dropped %v, want the one that was none", u.Dropped)
	}
	if !strings.HasPrefix(u.NAT, "full cone") {
		t.Errorf("the NAT is %q", u.NAT)
	}
	u.Dropped, u.NAT = nil, ""
	if fmt.Sprint(u) != fmt.Sprint(want) {
		t.Errorf("%+v, want %+v", u, want)
	}
	s := stateOf(t, base, token)
	if len(s.Open) != 1 || s.Open[0].To != "2 destinations, 21 datagrams up and 21 down" || s.Open[0].Up != 84 || s.Open[0].Down != 84 || s.Totals.Up != 84 {
		t.Fatalf("%+v", s)
	}

	if code, body := pageCall(t, "POST", base+"/api/act?what=cut&which="+strconv.FormatUint(s.Open[0].ID, 10), token); code != 204 {
		t.Fatalf("%d %s", code, body)
	}
	a.wantOver(t)
	wantCount(t, "associations ended", 1, func() int { return 1 - int(udpOf(t, base, token).Open) })
	if s := stateOf(t, base, token); len(s.Open) != 0 || s.Totals.Up != 84 {
		t.Errorf("after the end: %+v", s)
	}

	if err := l.client.Reload(pageConfig(t, far.addr)); err != nil {
		t.Fatal(err)
	}
	associate(t, l.addr).echoBurst(t, 1, first)
	for name, want := range map[string]int{
		"associations_open": 1, "associations_total": 2, "up_datagrams_total": 22, "down_bytes_total": 88, "dropped_no_tunnel_total": 0,
	} {
		if got := metric(t, base, "vmess_local_udp_"+name); got != want {
			t.Errorf("%s is %d after a reload, want %d", name, got, want)
		}
	}
}

// pageConfig is the configuration of pageOf once more.
func pageConfig(t testing.TB, server string) *config.Client {
	t.Helper()
	cfg := clientConfig(remoteAt(t, server))
	cfg.Warm.Max, cfg.Status.Enabled, cfg.Status.Listen = 0, true, "127.0.0.1:0"
	parsed, err := config.ParseClient("config.json", config.MarshalClient(cfg))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// wantOver wants the association to have ended: its TCP connection is closed.
func (a *associated) wantOver(t testing.TB) {
	t.Helper()
	_ = a.control.SetReadDeadline(time.Now().Add(labPatience))
	if _, err := a.control.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the association goes on: %v", err)
	}
}

// TestDatagramsInBrowser: the page tells of UDP once there is some.
func TestDatagramsInBrowser(t *testing.T) {
	far := inProcessServer(t, serverConfig(), inProcess{})
	l, base, token := pageOf(t, remoteAt(t, far.addr))
	w := openPage(t, base+"/?token="+token)
	w.until(`$("facts").innerText.includes("Connections") && !$("facts").innerText.includes("Datagrams")`)
	a := associate(t, l.addr)
	a.echoBurst(t, 10, echoDatagrams(t))
	w.until(`$("facts").innerText.includes("1 open, by XUDP: full cone") && $("facts").innerText.includes("10 up (40 B), 10 down (40 B)")`)
	w.until(`$("open").rows.length === 1 && $("open").rows[0].cells[0].firstChild.textContent === "1 destination, 10 datagrams up and 10 down"`)
	a.echoBurst(t, 1, echoDatagrams(t))
	w.until(`$("open").rows[0].cells[0].firstChild.textContent === "2 destinations, 11 datagrams up and 11 down"`)
	w.fits(400)
	w.press(`document.querySelector("#open button")`)
	w.until(`$("open").rows.length === 0 && $("facts").innerText.includes("0 open, by XUDP")`)
	a.wantOver(t)
	w.quiet()
}
