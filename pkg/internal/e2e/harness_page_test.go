package e2e

import (
	"context"
	"io"
	"iter"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"golang.org/x/net/dns/dnsmessage"
)

// A watchedPage is a status page in a browser, whose console and requests are
// kept.
type watchedPage struct {
	testing.TB
	tab     context.Context
	base    string
	console iter.Seq2[chromedp.ConsoleMessage, error]

	mu    sync.Mutex
	asked []string // addresses
}

// openPage opens the address of a status page in a narrow window of a browser
// without proxy: loopback can be reached, and nothing else has an address.
func openPage(t testing.TB, address string) *watchedPage {
	t.Helper()
	tab, stop := openBrowser(t, need(t, "chromium"), byProxy("direct://", ""))
	w := &watchedPage{TB: t, tab: tab, console: chromedp.Console(tab)}
	w.base, _, _ = strings.Cut(address, "?")
	sent := chromedp.Events(tab, network.RequestWillBeSent)
	if err := call(tab, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for e, err := range sent {
			if err != nil {
				return
			}
			w.mu.Lock()
			w.asked = append(w.asked, e.Request.URL)
			w.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		stop()
		<-watched
	})
	w.do(chromedp.EmulateViewport(400, 800), chromedp.Navigate(address))
	return w
}

// quiet wants that nothing was complained about on the console, and that the
// page asked for nothing but what is its own.
func (w *watchedPage) quiet() {
	w.Helper()
	for _, said := range w.complaints() {
		w.Errorf("the console says: %s", said)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.asked) < 4 {
		w.Errorf("requests: %q", w.asked)
	}
	for _, address := range w.asked {
		if !strings.HasPrefix(address, w.base) {
			w.Errorf("the page asked for %s", address)
		}
	}
	if w.Failed() {
		keepScreenshot(w, w.tab)
	}
}

// complaints returns what the console has said.
func (w *watchedPage) complaints() (all []string) {
	w.Helper()
	evaluate[bool](w, `console.info("end of the test") === undefined`)
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

// evaluate returns an expression's value on the page.
func evaluate[T any](w *watchedPage, expression string) T {
	w.Helper()
	v, err := chromedp.Run(w.tab, chromedp.Evaluate[T](expression))
	if err != nil {
		w.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits until an expression holds on the page.
func (w *watchedPage) until(expression string) {
	w.Helper()
	w.patiently(labPatience, expression)
}

func (w *watchedPage) patiently(patience time.Duration, expression string) {
	w.Helper()
	if _, err := chromedp.Run(w.tab, chromedp.Poll[bool]("!!("+expression+")", chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(patience))); err != nil {
		text, _ := chromedp.Run(w.tab, chromedp.Evaluate[string]("document.activeElement.outerHTML.slice(0, 200) + document.body.innerText"))
		keepScreenshot(w, w.tab)
		w.Fatalf("%s: %v; the page shows\n%s\nand its console\n%s", expression, err, text, strings.Join(w.complaints(), "\n"))
	}
}

// press gives an element the keyboard, and presses Enter.
func (w *watchedPage) press(element string) {
	w.Helper()
	if !evaluate[bool](w, "((e) => { e.focus(); return document.activeElement === e; })("+element+")") {
		w.Fatalf("%s cannot be reached by keyboard", element)
	}
	w.do(chromedp.KeyEvent(kb.Enter))
}

// fits fails the test when the page is wider than the window.
func (w *watchedPage) fits(width int64) {
	w.Helper()
	if got := evaluate[int64](w, "document.scrollingElement.scrollWidth"); got > width {
		w.Errorf("the page is %d wide in a window of %d", got, width)
	}
}

var pageLine = regexp.MustCompile(`status: (http://127\.0\.0\.1:\d+/\?token=[0-9a-f]{32})\n`)

// pageAddress waits until a client has said where its status page is.
func pageAddress(t testing.TB, log *tail) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startPatience)
	defer cancel()
	m, err := log.wait(ctx, pageLine)
	if err != nil {
		t.Fatalf("no address of the status page is told:\n%s", log)
	}
	return m[1]
}

func (l *lab) pageAddress(t testing.TB) string {
	t.Helper()
	return pageAddress(t, l.text)
}

// floodOrigin sends without end, between 0.5 and 2 MiB/s.
func floodOrigin(t testing.TB) string {
	t.Helper()
	return serveOrigin(t, func(c *net.TCPConn) {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			<-tick.C
			if _, err := c.Write(make([]byte, 10<<10+max(750-i%1500, i%1500-750)*40)); err != nil {
				return
			}
		}
	})
}

// download reads until a connection's end, whose error it passes on, nil for an
// orderly one.
func download(t testing.TB, c *net.TCPConn) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := io.Copy(io.Discard, c)
		ended <- err
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	return ended
}

// at is an origin under another name.
func at(t testing.TB, origin, name string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(origin)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(name, port)
}

// allIsHere is a resolver to which every name is 127.0.0.1. It asks nobody.
func allIsHere() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			_ = far.SetDeadline(time.Now().Add(ioPatience))
			_ = answerHere(far)
		}()
		return near, nil
	}}
}

// answerHere answers one question, in the form of TCP (RFC 1035 section 4.2.2).
func answerHere(c net.Conn) error {
	size := make([]byte, 2)
	if _, err := io.ReadFull(c, size); err != nil {
		return err
	}
	data := make([]byte, int(size[0])<<8|int(size[1]))
	if _, err := io.ReadFull(c, data); err != nil {
		return err
	}
	var m dnsmessage.Message
	if err := m.Unpack(data); err != nil {
		return err
	}
	m.Response, m.Additionals = true, nil
	for _, q := range m.Questions {
		if q.Type == dnsmessage.TypeA {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type, TTL: 60},
				Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
			})
		}
	}
	answer, err := m.Pack()
	if err != nil {
		return err
	}
	_, err = c.Write(append([]byte{byte(len(answer) >> 8), byte(len(answer))}, answer...))
	return err
}
