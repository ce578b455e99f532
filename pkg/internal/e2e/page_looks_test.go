package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"vmess-local/pkg/config"
)

var (
	screens = flag.String("screens", "", "keep pictures of the status page in this directory")
	update  = flag.Bool("update", false, "make the picture of the status page in docs anew")
)

// The README's picture of the page, and its size at most.
const (
	manualPicture = "../../../docs/status-page.png"
	mostPicture   = 150 << 10
)

// TestStatusPageLooks fills the page with all that it can show, and looks at it
// narrow and wide, light and dark.
func TestStatusPageLooks(t *testing.T) {
	w := openPage(t, fullPage(t))
	w.until(`$("healed").innerText.includes("vmess.clock-skew") && $("heal").innerText.includes("Turned off in “heal”: lost early data")`)
	w.until(`$("failures").innerText.includes("tcp.refused") && $("open").rows.length === 3 && $("servers").innerText.includes(" ms")`)
	w.press(`$("check")`)
	// The account takes two seconds; what came before it is there meanwhile.
	w.until(`$("steps").innerText.includes("upgrade: pass") && !$("steps").innerText.includes("account") && $("check").ariaDisabled === "true"`)
	w.until(`$("steps").innerText.includes("account: heal") && $("steps").innerText.includes("signs with the server's time") && $("steps").ariaBusy === "false"`)
	w.size(1280, "light")
	w.manual()
	w.press(`document.querySelector("[aria-label='QR code for a phone: Amsterdam']")`)
	w.until(`document.querySelector(".qr svg")`)
	for _, width := range []int64{400, 1280} {
		for _, scheme := range []string{"light", "dark"} {
			w.size(width, scheme)
			w.fits(width)
			w.contrast(scheme)
			w.keep(fmt.Sprintf("status-%d-%s.png", width, scheme))
		}
		w.named()
		w.byKeyboard()
	}
	w.quiet()
}

// fullPage is the page of a client that has one server that refused it, has
// healed its clock for the other, and downloads through that. It returns the
// page's address.
func fullPage(t *testing.T) string {
	t.Helper()
	far := inProcessServer(t, serverConfig(), inProcess{Resolver: allIsHere()})
	way := newRoad(t, far.addr, 30*time.Millisecond, 0)
	home, spare := remoteAt(t, way.addr), remoteAt(t, deadAddress(t))
	home.Name, spare.Name = "Amsterdam", "Frankfurt"
	l := newLab(t, labSetup{now: clockOff(312 * time.Second), remote: home, change: func(c *config.Client) {
		c.Server, c.Servers = config.DefaultClient().Server, []config.Remote{spare, home}
		c.Heal.EarlyData = false
	}})
	echo, flood := at(t, echoOrigin(t), "mail.example"), floodOrigin(t)
	l.ask(echo, "hello\n", 6).wantData(t, "hello\n")
	l.expectHealed(t, "vmess.clock-skew", "signing with the server's time")
	mustEcho(t, mustDialVia(t, l.addr, echo), "hello\n")
	for _, host := range []string{"downloads.example", "pictures.example"} {
		download(t, mustDialVia(t, l.addr, at(t, flood, host)))
	}
	return l.pageAddress(t)
}

// size gives the window a width, and the page a colour scheme.
func (w *watchedPage) size(width int64, scheme string) {
	w.Helper()
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
	if err := call(w.tab, emulation.SetEmulatedMedia, media); err != nil {
		w.Fatal(err)
	}
	w.do(chromedp.EmulateViewport(width, 860))
	w.until(fmt.Sprintf(`innerWidth === %d && matchMedia("(prefers-color-scheme: %s)").matches`, width, scheme))
	w.until(`$("plot").viewBox.baseVal.width === $("plot").clientWidth`)
}

// contrastFaults returns the texts of the page whose contrast is below what
// WCAG 2.2 asks for at level AA (1.4.3), and controls whose edge is (1.4.11).
const contrastFaults = `(() => {
  const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const rgba = (text) => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return [r, g, b, a]; };
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((m, n) => n - m); return (x + 0.05) / (y + 0.05); };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; } return [255, 255, 255, 1]; };
  const faults = []; let looked = 0;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n; n = texts.nextNode();) {
    const e = n.parentElement, s = getComputedStyle(e);
    if (!n.data.trim() || !e.getClientRects().length || e.closest(".unseen, noscript")) continue;
    looked++;
    const size = parseFloat(s.fontSize), large = size >= 24 || size >= 18.66 && s.fontWeight >= 700;
    const got = ratio(rgba(e instanceof SVGElement ? s.fill : s.color), behind(e));
    if (got < (large ? 3 : 4.5) || s.opacity !== "1") faults.push(n.data.trim() + ": " + got.toFixed(2));
  }
  for (const e of document.querySelectorAll("button")) {
    const got = ratio(rgba(getComputedStyle(e).borderTopColor), behind(e.parentElement));
    if (got < 3) faults.push("the edge of " + e.innerText + ": " + got.toFixed(2));
  }
  return looked < 30 ? ["only " + looked + " texts were looked at"] : faults;
})()`

func (w *watchedPage) contrast(scheme string) {
	w.Helper()
	if faults := evaluate[[]string](w, contrastFaults); len(faults) > 0 {
		w.Errorf("too little contrast in %s: %q", scheme, faults)
	}
}

// named wants that everything that can be used or jumped to has a name for a
// screen reader.
func (w *watchedPage) named() {
	w.Helper()
	tree, err := chromedp.Run(w.tab, func(ctx context.Context, target *chromedp.Target) (accessibility.GetFullAXTreeResult, error) {
		return cdp.Call(ctx, target, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	})
	if err != nil {
		w.Fatal(err)
	}
	count := map[string]int{}
	names := map[string]bool{}
	for _, n := range tree.Nodes {
		if n.Ignored || n.Role == nil {
			continue
		}
		role, name := strings.Trim(string(n.Role.Value), `"`), ""
		if n.Name != nil {
			name = strings.Trim(string(n.Name.Value), `" `)
		}
		count[role]++
		switch role {
		case "button", "link", "heading", "region", "image", "img", "columnheader", "svg-root", "RootWebArea":
			if name == "" {
				w.Errorf("a %s has no name", role)
			}
		}
		if role == "button" {
			if names[name] {
				w.Errorf("two buttons are called %q", name)
			}
			names[name] = true
		}
	}
	for role, least := range map[string]int{"button": 9, "heading": 9, "region": 8, "status": 2, "columnheader": 4, "list": 3, "banner": 1, "main": 1} {
		if count[role] < least {
			w.Errorf("a screen reader finds %d of role %s, want %d or more", count[role], role, least)
		}
	}
	if !evaluate[bool](w, `["state", "reloaded"].every((id) => $(id).role === "status") && $("told").role === "alert" && $("steps").ariaLive === "polite"`) {
		w.Error("what changes is not told")
	}
}

// byKeyboard goes through the page by the tabulator: every control is reached,
// in the order of the document, and shows that it is.
func (w *watchedPage) byKeyboard() {
	w.Helper()
	n := evaluate[int](w, `(() => {
		controls = [...document.querySelectorAll("button, a[href], [tabindex='0']")].filter((e) => e.getClientRects().length);
		document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute("tabindex");
		return controls.length;
	})()`)
	if n < 9 {
		w.Errorf("the page has %d controls", n)
	}
	for i := range n {
		w.do(chromedp.KeyEvent(kb.Tab))
		if said := evaluate[string](w, fmt.Sprintf(`(() => {
			const e = document.activeElement, s = getComputedStyle(e), box = e.getBoundingClientRect();
			if (e !== controls[%d]) return "is at " + e.outerHTML.slice(0, 100);
			if (s.outlineStyle === "none" || parseFloat(s.outlineWidth) < 2) return "does not show at " + e.outerHTML.slice(0, 100);
			return box.top < innerHeight && box.bottom > 0 ? "" : "is out of sight at " + e.outerHTML.slice(0, 100);
		})()`, i)); said != "" {
			w.Errorf("after %d tabulators the keyboard %s", i+1, said)
			return
		}
	}
}

// picture returns what the window shows of the page, and more than the window
// when all of it is wanted.
func (w *watchedPage) picture(all bool) []byte {
	w.Helper()
	action := chromedp.CaptureScreenshot()
	if all {
		action = chromedp.FullScreenshot(100)
	}
	w.until(`document.activeElement.blur(), scrollTo(0, 0), scrollY === 0`)
	data, err := chromedp.Run(w.tab, action)
	if err != nil {
		w.Fatal(err)
	}
	return data
}

// keep keeps a picture of the whole page: where the flag says, else with the
// other artefacts.
func (w *watchedPage) keep(name string) {
	w.Helper()
	dir := *screens
	if dir == "" {
		dir = w.ArtifactDir()
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		w.Fatal(err)
	}
	writeFile(w, filepath.Join(dir, name), w.picture(true))
}

// recompress takes more time over a picture than a browser does.
func recompress(data []byte) ([]byte, error) {
	picture, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, picture)
	return out.Bytes(), err
}

// manual makes the README's picture anew when asked to, and wants that there is
// one of moderate size.
func (w *watchedPage) manual() {
	w.Helper()
	if *update {
		w.patiently(2*time.Minute, `$("plot").querySelector("path.down").getAttribute("d").split("L").length > 70`)
		w.do(chromedp.EmulateViewport(1280, 790))
		small, err := recompress(w.picture(false))
		if err != nil {
			w.Fatal(err)
		}
		writeFile(w, manualPicture, small)
	}
	if info, err := os.Stat(manualPicture); err != nil || info.Size() > mostPicture {
		w.Errorf("the picture of the documentation: %v, %v; make it with -update", info, err)
	}
}
