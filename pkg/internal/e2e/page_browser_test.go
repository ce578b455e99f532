package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"vmess-local/pkg/config"
)

// TestStatusPageInBrowser has all of the page done by keyboard in a narrow
// window; it tells in words how things are.
func TestStatusPageInBrowser(t *testing.T) {
	origin := echoOrigin(t)
	far := inProcessServer(t, serverConfig(), inProcess{})
	l, base, token := pageOf(t, remoteAt(t, far.addr))
	w := openPage(t, base+"/?token="+token)
	w.until(`$("words").textContent.startsWith("ready; nothing has been asked of 127.0.0.1")`)
	w.until(`location.href === "` + base + `/" && history.length <= 2`)

	c := mustDialVia(t, l.addr, origin)
	mustEcho(t, c, "hello\n")
	_, port, _ := net.SplitHostPort(origin)
	w.until(`$("words").textContent === "127.0.0.1 is well" && $("words").classList.contains("good")`)
	w.until(`$("servers").innerText.includes("127.0.0.1 in use") && $("servers").innerText.includes("VMessAEAD, ")`)
	w.until(`$("facts").innerText.includes("no TLS") && / ms\n/.test($("facts").innerText)`)
	w.until(`$("open").rows.length === 1`)
	w.until(`((r) => r.cells[0].innerText.includes(":` + port + `") && r.cells[2].innerText === "6 B" && r.cells[3].innerText === "6 B")($("open").rows[0])`)

	w.press(`$("check")`)
	w.until(`$("steps").innerText.includes("account: pass") && $("steps").lastChild.innerText.trim() === "all checks passed"`)
	w.until(`document.activeElement.id === "check" && $("check").ariaDisabled === "false"`)
	w.press(`document.querySelector("#servers button")`)
	w.until(`$("servers").innerText.includes("vmess://") && document.querySelector(".qr svg path")?.getAttribute("d").length > 1000`)
	w.press(`document.querySelector("#servers button")`)
	w.until(`!$("servers").innerText.includes("vmess://")`)

	w.press(`document.querySelector("#open button")`)
	w.until(`$("open").rows.length === 0`)
	w.until(`document.activeElement.id === "open-region"`)
	_ = c.SetReadDeadline(time.Now().Add(ioPatience))
	if _, err := io.ReadAll(c); err == nil {
		t.Error("a connection that was ended on the page ended in order")
	}
	w.quiet()

	w.press(`$("reload")`)
	w.until(`$("reloaded").textContent.startsWith("the configuration cannot be read again") && $("reloaded").className === "bad"`)
}

// TestStatusPageDownload: the plot follows a running download, and the download
// ends when the page ends it.
func TestStatusPageDownload(t *testing.T) {
	flood := floodOrigin(t)
	far := inProcessServer(t, serverConfig(), inProcess{})
	l, base, token := pageOf(t, remoteAt(t, far.addr))
	w := openPage(t, base+"/?token="+token)
	w.until(`$("down-now").textContent === "0 B/s" && $("open-none").checkVisibility()`)
	ended := download(t, mustDialVia(t, l.addr, flood))

	// highest is the highest point of the line, from the plot's foot.
	const highest = `((p) => p.getTotalLength && p.ownerSVGElement.clientHeight - 22 - p.getBBox().y)($("plot").querySelector("path.down"))`
	w.until(highest + ` > 50 && / [KM]iB\/s$/.test($("down-now").textContent)`)
	w.until(`[...$("plot").querySelectorAll("text")].map((e) => e.textContent).join().match(/^0 B\/s,.* [KM]iB\/s,2 min ago,1 min ago,now$/)`)
	w.until(`$("plot").ariaLabel.match(/down [\d.]+ [KM]iB\/s now/)`)
	before := evaluate[string](w, `$("plot").querySelector("path.down").getAttribute("d")`)
	w.until(`$("plot").querySelector("path.down").getAttribute("d").split("L").length >= ` + "`" + before + "`" + `.split("L").length + 2`)

	w.press(`document.querySelector("#open button")`)
	w.until(`$("open").rows.length === 0 && $("down-now").textContent === "0 B/s"`)
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a download that was ended on the page ended in order")
		}
	case <-time.After(labPatience):
		t.Error("a download that was ended on the page goes on")
	}
	w.quiet()
}

// TestStatusPageFailure: cause and fix appear, in the state's words too, and
// what markup a text may have stays text.
func TestStatusPageFailure(t *testing.T) {
	remote := remoteAt(t, deadAddress(t))
	remote.Name = "<b>home</b>"
	l, base, token := pageOf(t, remote)
	w := openPage(t, base+"/?token="+token)
	w.until(`$("failures").innerText === "None since the start."`)
	l.ask(echoOrigin(t), "hello\n", 6)
	w.until(`$("failures").querySelector("code")?.innerText === "tcp.refused" && $("failures").querySelector(".fix")?.innerText.startsWith("Fix: ")`)
	w.until(`$("words").className === "words bad" && $("words").textContent.includes("refuse") && $("advice").textContent.startsWith("Fix: ") && document.title === "✗ vmess-local"`)
	w.until(`$("servers").innerText.includes("<b>home</b> in use")`)
	w.quiet()
}

// TestStatusPageSwitch: the page chooses the server, and connections follow.
func TestStatusPageSwitch(t *testing.T) {
	origin := echoOrigin(t)
	a, b := inProcessServer(t, serverConfig(), inProcess{}), inProcessServer(t, serverConfig(), inProcess{})
	first, second := remoteAt(t, a.addr), remoteAt(t, b.addr)
	first.Name, second.Name = "first", "second"
	l := newLab(t, labSetup{remote: first, change: func(c *config.Client) {
		c.Server, c.Servers = config.DefaultClient().Server, []config.Remote{first, second}
	}})
	w := openPage(t, l.pageAddress(t))
	w.until(`$("servers").children[0]?.innerText.startsWith("first in use") && $("servers").children[1]?.innerText.startsWith("second ready")`)
	l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
	w.until(`$("words").textContent === "first is well"`)
	w.press(`document.querySelector("[aria-label='Use this one: second']")`)
	w.until(`$("servers").children[0]?.innerText.startsWith("second in use") && $("servers").children[1]?.innerText.startsWith("first ready")`)
	w.until(`document.activeElement.ariaLabel === "QR code for a phone: second"`)
	l.ask(origin, "hello\n", 6).wantData(t, "hello\n")
	w.until(`$("words").textContent === "second is well"`)
	b.log.waitFor(t, "debug: connection")
	w.press(`document.querySelector("[aria-label='Use this one: first']")`)
	w.until(`$("servers").children[0]?.innerText.startsWith("first in use")`)
	w.quiet()
}

// TestStatusPageAway: the page says that the program has ended and what to do,
// and comes back by itself when it runs again.
func TestStatusPageAway(t *testing.T) {
	cfg := clientConfig(remoteAt(t, deadAddress(t)))
	cfg.Listen, cfg.Status.Enabled, cfg.Status.Listen = freePort(t), true, freePort(t)
	near := ourClient(t, cfg, "XDG_RUNTIME_DIR="+t.TempDir())
	w := openPage(t, pageAddress(t, near.log))
	w.until(`$("words").textContent.startsWith("ready")`)
	near.proc.kill()
	w.until(`$("words").textContent === "vmess-local is not running" && $("advice").textContent.includes("Start it with “vmess-local run”")`)
	w.press(`$("reload")`)
	w.until(`$("reloaded").textContent.startsWith("vmess-local does not answer")`)
	if err := near.proc.run(); err != nil {
		t.Fatal(err)
	}
	w.until(`$("words").textContent.startsWith("ready") && document.title === "vmess-local"`)
	w.press(`$("reload")`)
	w.until(`$("reloaded").className === "good" && $("reloaded").textContent.startsWith("The configuration was read again")`)
}

// TestStatusPageRefused: a page that may not or cannot be shown says why, and
// what to do, and comes back when it can.
func TestStatusPageRefused(t *testing.T) {
	l, base, token := pageOf(t, remoteAt(t, deadAddress(t)))
	w := openPage(t, base+"/?token="+strings.Repeat("0", 32))
	w.until(`$("words").textContent === "this page has no key to vmess-local" && $("advice").textContent.startsWith("Open the address that was printed at start")`)
	w.until(`!document.body.innerText.includes("` + l.addr + `")`)

	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	watchers := &http.Client{Transport: &http.Transport{}}
	for code := http.StatusOK; code == http.StatusOK; {
		r, err := http.NewRequestWithContext(ctx, "GET", base+"/api/events?token="+token, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := watchers.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		code = resp.StatusCode
	}
	w.do(chromedp.Navigate(base + "/?token=" + token))
	w.until(`$("words").textContent === "too many windows show this page" && $("advice").textContent.startsWith("Close other windows")`)
	leave()
	w.until(`$("words").textContent.startsWith("ready") && $("advice").textContent === ""`)
}

// TestServerPageInBrowser: a server's page shows its users, and nothing that
// only a client has.
func TestServerPageInBrowser(t *testing.T) {
	cfg := serverConfig()
	cfg.Status = config.Status{Enabled: true, Listen: "127.0.0.1:0"}
	far := inProcessServer(t, cfg, inProcess{})
	near := inProcessClient(t, clientConfig(remoteAt(t, far.addr)))
	w := openPage(t, pageAddress(t, far.log))
	w.until(`$("words").textContent === "serving" && document.title === "vmess-server" && $("listens").textContent === "listens on ` + far.addr + `"`)
	download(t, mustDialVia(t, near.addr, floodOrigin(t)))
	w.until(`$("users").rows.length === 1 && /^tester\s+1\s+1\s+0 B\s+[\d.]+ [KM]iB$/.test($("users").rows[0].innerText)`)
	w.until(`![...document.querySelectorAll(".client")].some((e) => e.checkVisibility()) && !$("facts").innerText.includes("Ready tunnels")`)
	w.fits(400)
	w.contrast("light")
	w.keep("status-server-400-light.png")
	w.press(`document.querySelector("#open button")`)
	w.until(`$("open").rows.length === 0`)
	w.quiet()
}
