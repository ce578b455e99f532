package e2e

import (
	"context"
	"io"
	"iter"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestStatusPageInBrowser opens the printed address in a narrow window: it
// tells in words how things are, and all of it can be done by keyboard.
func TestStatusPageInBrowser(t *testing.T) {
	path := need(t, "chromium")
	origin := echoOrigin(t)
	far := inProcessServer(t, serverConfig(), inProcess{})
	l, base, token := pageOf(t, remoteAt(t, far.addr))
	// No proxy: loopback can be reached, and nothing else has an address.
	tab, stop := openBrowser(t, path, "direct://", "")
	defer stop()
	w := &watchedPage{TB: t, tab: tab, console: chromedp.Console(tab)}
	w.do(chromedp.EmulateViewport(400, 800), chromedp.Navigate(base+"/?token="+token))
	w.until(`$("words").textContent.startsWith("ready; nothing has been asked of 127.0.0.1")`)
	w.until(`location.href === "` + base + `/" && history.length <= 2`)

	c := mustDialVia(t, l.addr, origin)
	defer c.Close()
	mustEcho(t, c, "hello\n")
	_, port, _ := net.SplitHostPort(origin)
	w.until(`$("words").textContent === "127.0.0.1 is well" && $("words").classList.contains("good")`)
	w.until(`$("servers").innerText.includes("127.0.0.1 in use") && $("servers").innerText.includes("VMessAEAD, ")`)
	w.until(`$("open").rows.length === 1`)
	w.until(`((r) => r.cells[0].innerText.includes(":` + port + `") && r.cells[2].innerText === "6 B" && r.cells[3].innerText === "6 B")($("open").rows[0])`)
	w.fits("with an open connection")

	w.press(`$("check")`)
	w.until(`$("steps").innerText.includes("account: pass") && $("steps").lastChild.innerText.trim() === "all is well"`)
	w.until(`document.activeElement.id === "check" && $("check").ariaDisabled === "false"`)
	w.press(`document.querySelector("#servers button")`)
	w.until(`$("servers").innerText.includes("vmess://") && document.querySelector("#servers svg[role=img] path").getAttribute("d").length > 1000`)
	w.fits("with the steps and the QR code")

	w.press(`document.querySelector("#open button")`)
	w.until(`$("open").rows.length === 0`)
	w.until(`document.activeElement.id === "open-region"`)
	_ = c.SetReadDeadline(time.Now().Add(ioPatience))
	if _, err := io.ReadAll(c); err == nil {
		t.Error("a connection that was ended on the page ended in order")
	}
	for _, said := range w.complaints() {
		t.Errorf("the console says: %s", said)
	}
	if t.Failed() {
		keepScreenshot(t, tab)
	}
}

// A watchedPage is a page whose console is kept.
type watchedPage struct {
	testing.TB
	tab     context.Context
	console iter.Seq2[chromedp.ConsoleMessage, error]
}

// complaints returns what the console has said.
func (w *watchedPage) complaints() (all []string) {
	w.Helper()
	if _, err := chromedp.Run(w.tab, chromedp.Evaluate[bool](`console.info("end of the test") === undefined`)); err != nil {
		return []string{err.Error()}
	}
	for said, err := range w.console {
		if err != nil || said.Text == "end of the test" {
			break
		}
		all = append(all, said.String())
	}
	return all
}

func (w *watchedPage) do(actions ...chromedp.Action[chromedp.Void]) {
	w.Helper()
	if err := chromedp.Do(w.tab, actions...); err != nil {
		w.Fatal(err)
	}
}

// until waits until an expression holds on the page.
func (w *watchedPage) until(expression string) {
	w.Helper()
	if _, err := chromedp.Run(w.tab, chromedp.Poll[bool](expression, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(8*time.Second))); err != nil {
		text, _ := chromedp.Run(w.tab, chromedp.Evaluate[string]("document.activeElement.outerHTML.slice(0, 200) + document.body.innerText"))
		keepScreenshot(w, w.tab)
		w.Fatalf("%s: %v; the page shows\n%s\nand its console\n%s", expression, err, text, strings.Join(w.complaints(), "\n"))
	}
}

// press gives an element the keyboard, and presses Enter.
func (w *watchedPage) press(element string) {
	w.Helper()
	if ok, err := chromedp.Run(w.tab, chromedp.Evaluate[bool]("((e) => { e.focus(); return document.activeElement === e; })("+element+")")); err != nil || !ok {
		w.Fatalf("%s cannot be reached by keyboard: %v", element, err)
	}
	w.do(chromedp.KeyEvent(kb.Enter))
}

// fits fails the test when the page is wider than the window.
func (w *watchedPage) fits(when string) {
	w.Helper()
	width, err := chromedp.Run(w.tab, chromedp.Evaluate[int]("document.scrollingElement.scrollWidth"))
	if err != nil || width > 400 {
		w.Errorf("the page is %d wide %s, %v", width, when, err)
	}
}
