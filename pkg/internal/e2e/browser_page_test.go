package e2e

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"image"
	"image/png"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// The page that browsers load: 60 resources besides itself, each of which
// leaves its mark in the page's own report.
const (
	pageScripts    = 28
	pageImages     = 28
	pageUpload     = 5 << 20
	pageEvents     = 5
	pageUploadDone = "upload accepted"
)

//go:embed testdata/page.html
var pageText string

// A page serves the browser's page on a loopback port.
type page struct {
	addr string
	want string // SHA-256 of the upload, in hex

	mu        sync.Mutex
	requests  map[string]int // by path
	confirmed chan string    // events that the browser has seen
}

// servePage serves the page until its test ends.
func servePage(t testing.TB) *page {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &page{
		addr: ln.Addr().String(), want: uploadSum(),
		requests: make(map[string]int), confirmed: make(chan string, pageEvents),
	}
	s := &http.Server{Handler: p.handler(t), ReadHeaderTimeout: ioPatience}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return p
}

// uploadSum is the SHA-256 of what the page uploads.
func uploadSum() string {
	data := make([]byte, pageUpload)
	for i := range data {
		data[i] = byte(i*7 + i>>8)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func (p *page) handler(t testing.TB) http.Handler {
	text := template.Must(template.New("page").Parse(pageText))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = text.Execute(w, map[string]any{
			"Scripts": make([]struct{}, pageScripts), "Images": make([]struct{}, pageImages), "UploadSize": pageUpload,
		})
	})
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css")
		_, _ = io.WriteString(w, "body { margin-left: 77px }")
	})
	mux.HandleFunc("GET /script/{file}", serveScript)
	mux.HandleFunc("GET /image/{file}", serveImage)
	mux.HandleFunc("POST /upload", p.upload)
	mux.HandleFunc("GET /events", p.events)
	mux.HandleFunc("POST /confirm", p.confirm)
	mux.HandleFunc("GET /socket", func(w http.ResponseWriter, r *http.Request) { serveSocket(t, w, r) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.requests[r.URL.Path]++
		p.mu.Unlock()
		w.Header().Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
}

// loaded returns how many different resources the browser asked for, the page
// itself and confirmations left out.
func (p *page) loaded() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.requests)
	for _, path := range []string{"/", "/confirm"} {
		if p.requests[path] > 0 {
			n--
		}
	}
	return n
}

// served returns how many requests came.
func (p *page) served() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, times := range p.requests {
		n += times
	}
	return n
}

// serveScript answers with a script that notes its number, of 100 to 15,000
// bytes.
func serveScript(w http.ResponseWriter, r *http.Request) {
	var n int
	if _, err := fmt.Sscanf(r.PathValue("file"), "%d.js", &n); err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/javascript")
	_, _ = fmt.Fprintf(w, "report.scripts.push(%d); //%s\n", n, strings.Repeat("x", 100+n*500))
}

// serveImage answers with an image one pixel wider than its number.
func serveImage(w http.ResponseWriter, r *http.Request) {
	var n int
	if _, err := fmt.Sscanf(r.PathValue("file"), "%d.png", &n); err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "image/png")
	_ = png.Encode(w, image.NewGray(image.Rect(0, 0, n+1, 200)))
}

func (p *page) upload(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if got := hex.EncodeToString(sum.Sum(nil)); err != nil || n != pageUpload || got != p.want {
		_, _ = fmt.Fprintf(w, "%d bytes with SHA-256 %s: %v", n, got, err)
		return
	}
	_, _ = io.WriteString(w, pageUploadDone)
}

// events sends server-sent events, each only after the browser has confirmed
// the one before.
func (p *page) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w)
	for i := range pageEvents {
		_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
		if flush.Flush() != nil {
			return
		}
		select {
		case got := <-p.confirmed:
			if got != fmt.Sprint(i) {
				return // the page sees a broken stream
			}
		case <-r.Context().Done():
			return
		case <-time.After(ioPatience):
			return
		}
	}
	_, _ = io.WriteString(w, "data: last\n\n")
}

func (p *page) confirm(w http.ResponseWriter, r *http.Request) {
	select {
	case p.confirmed <- r.FormValue("event"):
	default:
		http.Error(w, "too many", http.StatusConflict)
	}
}

// serveSocket echoes messages until the browser closes.
func serveSocket(t testing.TB, w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		t.Errorf("the page's WebSocket: %v", err)
		return
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(1 << 20)
	for {
		kind, data, err := c.Read(r.Context())
		if err != nil {
			if code := websocket.CloseStatus(err); code != websocket.StatusNormalClosure {
				t.Errorf("the page's WebSocket ended with %v", err)
			}
			return
		}
		if err := c.Write(r.Context(), kind, data); err != nil {
			t.Errorf("the page's WebSocket: %v", err)
			return
		}
	}
}
