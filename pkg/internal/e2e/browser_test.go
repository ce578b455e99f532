package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/chromedp"

	"vmess-local/pkg/config"
)

// TestBrowser loads a page in a real browser through our client and real
// V2Ray. The page's name is resolved by V2Ray alone: the browser's resolver
// finds nothing, and our client is asked for the name.
func TestBrowser(t *testing.T) {
	t.Run("socks5", func(t *testing.T) {
		browse(t, "socks5://", config.Auth{})
	})
	t.Run("http with password", func(t *testing.T) {
		browse(t, "http://", config.Auth{Username: "browser", Password: "pass:word"})
	})
}

// TestBrowserDemo points a browser at the demo, as the demo's last words say.
func TestBrowserDemo(t *testing.T) {
	path := need(t, "chromium")
	p := start(t, command{path: program(t, "vmess-local"), args: []string{"demo", "--listen", "127.0.0.1:0"}})
	m := p.waitLine(t, regexp.MustCompile(`Now enter (\S+) as SOCKS5 or HTTP proxy in a browser and open\n(http://\S+)`))
	for _, scheme := range []string{"socks5://", "http://"} {
		// The browser's own calls home go to names of these.
		tab, stop := openBrowser(t, path, byProxy(scheme+m[1], "*.com;*.net;*.org;*.goog;*.dev"))
		if err := chromedp.Do(tab, chromedp.Navigate(m[2])); err != nil {
			t.Errorf("open %s: %v", m[2], err)
		}
		if title, err := chromedp.Run(tab, chromedp.Title()); err != nil || title != "vmess-local works" {
			t.Errorf("the title is %q, %v", title, err)
			keepScreenshot(t, tab)
		}
		stop()
	}
}

func browse(t *testing.T, scheme string, auth config.Auth) {
	path := need(t, "chromium")
	origin := servePage(t)
	far := startFencedV2ray(t)
	cfg := clientConfig(remoteAt(t, far.addr))
	cfg.Auth = auth
	near := ourClient(t, cfg)

	// All but loopback goes past the proxy, to where no name and no address is
	// found: that keeps the browser's own calls home from reaching V2Ray.
	tab, stop := openBrowser(t, path, byProxy(scheme+near.addr, "*"))
	defer stop()
	if auth != (config.Auth{}) {
		answerProxyAuth(t, tab, auth)
	}
	checkReport(t, loadPage(t, tab, "http://"+byName(origin.addr)+"/"), origin)
	if t.Failed() {
		keepScreenshot(t, tab)
	}
	stop()
	checkDestinations(t, near, byName(origin.addr))
}

// startFencedV2ray is real V2Ray that reaches localhost only, so that nothing
// a browser does of its own accord can leave this machine.
func startFencedV2ray(t testing.TB) *end {
	t.Helper()
	path := need(t, "v2ray")
	addr := freePort(t)
	host, port := splitAddr(t, addr)
	data, err := json.Marshal(object{
		"log": object{"loglevel": "info"},
		"inbounds": []object{{
			"listen": host, "port": port, "protocol": "vmess",
			"settings":       object{"clients": []object{{"id": userID, "alterId": 0}}},
			"streamSettings": wsStream(),
		}},
		"outbounds": []object{
			{"protocol": "blackhole", "tag": "nowhere"}, // the first one is the default
			{"protocol": "freedom", "tag": "out"},
		},
		"routing": object{"rules": []object{{"type": "field", "domain": []string{"full:localhost"}, "outboundTag": "out"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "v2ray.json")
	writeFile(t, file, data)
	p := start(t, command{path: path, args: []string{"-config", file}})
	p.waitPort(t, addr)
	return &end{addr: addr, log: p.log, proc: p}
}

// A browserWay is how a browser reaches anything.
type browserWay = []chromedp.ExecAllocatorOption

// knownNames is a browser's resolver: it knows no name and no address.
const knownNames = "MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"

// byProxy leads through a proxy. What goes past it, a list of patterns, cannot
// be reached at all.
func byProxy(proxyURL, past string) browserWay {
	return browserWay{
		chromedp.ProxyServer(proxyURL),
		// Loopback goes through the proxy, against the browser's habit.
		chromedp.Flag("proxy-bypass-list", past+";<-loopback>"),
		chromedp.Flag("host-resolver-rules", knownNames),
	}
}

// openBrowser starts a browser, which ends with stop.
func openBrowser(t testing.TB, path string, by browserWay) (tab context.Context, stop func()) {
	t.Helper()
	said := newTail()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.CombinedOutput(said),
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-domain-reliability", true),
		chromedp.Flag("no-pings", true),
	)
	options = append(options, by...)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := context.WithTimeout(t.Context(), ioPatience)
	ctx, cancelAll := chromedp.NewExecAllocator(ctx, options...)
	tab, cancelTab := chromedp.NewContext(ctx)
	stop = func() {
		cancelTab()
		cancelAll()
		cancel()
	}
	if err := chromedp.Do(tab); err != nil {
		stop()
		t.Fatalf("start the browser: %v\n%s", err, said)
	}
	t.Cleanup(func() { showLog(t, "the browser", said) })
	return tab, stop
}

// answerProxyAuth logs in at the proxy, as a user does in the browser's
// dialogue.
func answerProxyAuth(t testing.TB, tab context.Context, auth config.Auth) {
	t.Helper()
	on := true
	paused, asked := chromedp.Events(tab, fetch.RequestPaused), chromedp.Events(tab, fetch.AuthRequired)
	if err := call(tab, fetch.Enable, fetch.EnableParams{HandleAuthRequests: &on}); err != nil {
		t.Fatal(err)
	}
	go func() {
		for e, err := range paused {
			if err != nil || call(tab, fetch.ContinueRequest, fetch.ContinueRequestParams{RequestID: e.RequestID}) != nil {
				return // the test is over, or sees a page that does not load
			}
		}
	}()
	go func() {
		for e, err := range asked {
			if err != nil {
				return
			}
			answer := &fetch.AuthChallengeResponse{Response: fetch.AuthChallengeResponseResponseCancelAuth}
			if e.AuthChallenge.Source == fetch.AuthChallengeSourceProxy {
				answer = &fetch.AuthChallengeResponse{
					Response: fetch.AuthChallengeResponseResponseProvideCredentials,
					Username: string(auth.Username), Password: string(auth.Password),
				}
			}
			if call(tab, fetch.ContinueWithAuth, fetch.ContinueWithAuthParams{RequestID: e.RequestID, AuthChallengeResponse: answer}) != nil {
				return
			}
		}
	}()
}

// call sends one command to the browser.
func call[P any](tab context.Context, command cdp.Command[P, cdp.Empty], params P) error {
	return chromedp.Do(tab, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, command, params)
		return err
	}))
}

// A pageReport is what the page says of itself.
type pageReport struct {
	Scripts []int    `json:"scripts"`
	Images  []int    `json:"images"` // their widths
	Style   bool     `json:"style"`
	Upload  string   `json:"upload"`
	Events  []string `json:"events"`
	Socket  []any    `json:"socket"`
	Errors  []string `json:"errors"`
}

// loadPage opens the page and returns its report, an empty one when there is
// none.
func loadPage(t testing.TB, tab context.Context, url string) pageReport {
	t.Helper()
	if err := chromedp.Do(tab, chromedp.Navigate(url)); err != nil {
		t.Errorf("open %s: %v", url, err)
		return pageReport{}
	}
	if _, err := chromedp.Run(tab, chromedp.Poll[bool]("report.done", chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(45*time.Second))); err != nil {
		t.Errorf("the page does not get done: %v", err)
	}
	r, err := chromedp.Run(tab, chromedp.Evaluate[pageReport]("report"))
	if err != nil {
		t.Errorf("the page's report: %v", err)
	}
	if len(r.Errors) > 0 {
		t.Errorf("the page says: %s", strings.Join(r.Errors, "; "))
	}
	return r
}

func checkReport(t testing.TB, got pageReport, origin *page) {
	t.Helper()
	scripts, widths, events := make([]int, pageScripts), make([]int, pageImages), make([]string, 0, pageEvents)
	for i := range scripts {
		scripts[i] = i
	}
	for i := range widths {
		widths[i] = i + 1
	}
	for i := range pageEvents {
		events = append(events, string(rune('0'+i)))
	}
	events = append(events, "last")
	switch {
	case !slices.Equal(got.Scripts, scripts):
		t.Errorf("scripts that ran: %v", got.Scripts)
	case !slices.Equal(got.Images, widths):
		t.Errorf("widths of images: %v", got.Images)
	case !got.Style:
		t.Error("the style sheet has no effect")
	case got.Upload != pageUploadDone:
		t.Errorf("upload: %s", got.Upload)
	case !slices.Equal(got.Events, events):
		t.Errorf("events: %q", got.Events)
	case !slices.Equal(got.Socket, []any{"text", 100000.0, 1000.0}):
		t.Errorf("WebSocket: %v", got.Socket)
	}
	// The upload, the events, the WebSocket and the style sheet are the rest.
	if n := origin.loaded(); n != pageScripts+pageImages+4 {
		t.Errorf("%d resources were asked for, want 60", n)
	}
}

var destination = regexp.MustCompile(`(?m)^debug: connection .*\bto=(\S+)`)

// checkDestinations ends the client in an orderly way, so that it has said
// everything, and fails the test when it was asked for anything but want.
func checkDestinations(t testing.TB, client *end, want string) {
	t.Helper()
	if err := client.proc.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := client.proc.exitCode(t); code != 0 {
		t.Errorf("the client ended with %d", code)
	}
	n := 0
	for _, m := range destination.FindAllStringSubmatch(client.log.String(), -1) {
		if n++; m[1] != want {
			t.Errorf("the browser asked for %s, want nothing but %s", m[1], want)
		}
	}
	if n == 0 {
		t.Error("no connection came through the client")
	}
}

// keepScreenshot keeps what the browser shows: with the other artefacts when
// they are kept (go test -artifacts), else in a directory that stays.
func keepScreenshot(t testing.TB, tab context.Context) {
	ctx, cancel := context.WithTimeout(tab, 10*time.Second)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Logf("no screenshot: %v", err)
		return
	}
	dir := t.ArtifactDir()
	if f := flag.Lookup("test.artifacts"); f == nil || f.Value.String() != "true" {
		if dir, err = os.MkdirTemp("", "vmess-browser-"); err != nil {
			t.Logf("no screenshot: %v", err)
			return
		}
	}
	file := filepath.Join(dir, "browser.png")
	writeFile(t, file, picture)
	t.Logf("what the browser shows is in %s", file)
}
