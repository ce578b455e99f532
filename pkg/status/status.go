// Package status serves the page that shows what a client or a server does, and the calls
// behind it: state and its changes, counters for monitoring, a proxy
// configuration for browsers. It is for this computer only: other Host and
// Origin headers are refused, so that no web page can reach it by a name of
// its own or from its own origin, and whatever changes something or shows
// destinations, links or servers needs the token of the printed address.
package status

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The page and its parts; nothing is loaded from elsewhere.
//
//go:embed page.html page.css page.js icon.svg
var files embed.FS

// A Source is the program that is shown. All are called concurrently.
type Source interface {
	// State returns what is shown; it is encoded as JSON.
	State() any
	// Metrics returns the counters by their names, without labels.
	Metrics() map[string]float64
	// Proxy is the address of the local proxy, "" for a server, and whether it
	// asks for a password.
	Proxy() (addr string, auth bool)
	// Act does what the page's buttons ask for: "cut" with a connection's id,
	// "prefer" with a server's id, "reload".
	Act(ctx context.Context, what, which string) error
	// Check walks the way to the server, telling each step as it ends; what is
	// told is encoded as JSON.
	Check(ctx context.Context, tell func(step any)) error
	// Link returns a server's share link and its QR code, by the server's id: rows
	// of 1 for dark and 0 for light, without a quiet zone.
	Link(id string) (link string, qr []string, err error)
}

// ErrUnknown is returned by a Source that does not know what it is asked for.
var ErrUnknown = errors.New("no such thing")

// MaxConns is how many connections a page has at most, unless it is told otherwise.
const MaxConns = 64

const (
	eventPause = time.Second
	maxEvents  = 16 // pages that watch at one time
	checkTime  = time.Minute
	// patience is how long a request with its body may take, and an answer then.
	patience = 10 * time.Second
	// endTime bounds how long answers under way hold up the end of the page.
	endTime = 250 * time.Millisecond
)

// A Page serves the status page on a listener.
type Page struct {
	// MaxConns is how many connections it has at most; it may be lowered before
	// Run.
	MaxConns int

	source   Source
	listener net.Listener
	token    string
	hosts    map[string]bool
	watching chan struct{}
}

// New makes the page of a source on a loopback listener, which it owns. An
// empty token stands for a fresh one.
func New(ln net.Listener, source Source, token string) *Page {
	if token == "" {
		var secret [16]byte
		_, _ = rand.Read(secret[:]) // never fails
		token = hex.EncodeToString(secret[:])
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	p := &Page{MaxConns: MaxConns, source: source, listener: ln, token: token, watching: make(chan struct{}, maxEvents), hosts: map[string]bool{}}
	for _, host := range []string{"127.0.0.1", "localhost", "::1"} {
		p.hosts[net.JoinHostPort(host, port)] = true
	}
	p.hosts[ln.Addr().String()] = true
	return p
}

// URL returns the page's address with its token: who has it may do everything.
func (p *Page) URL() string { return "http://" + p.listener.Addr().String() + "/?token=" + p.token }

// Close gives the port back. It may be called while Run runs: open connections go
// on until its context is done.
func (p *Page) Close() error { return p.listener.Close() }

// Addr returns the listener's address.
func (p *Page) Addr() net.Addr { return p.listener.Addr() }

// Reopen makes a page that was closed anew, with the same address and token.
func (p *Page) Reopen() (*Page, error) {
	ln, err := net.Listen("tcp", p.listener.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("status.listen: %w", err)
	}
	next := New(ln, p.source, p.token)
	next.MaxConns = p.MaxConns
	return next, nil
}

// Run serves until ctx is done. Of more than MaxConns connections, one that
// waits for a request makes room for the next.
func (p *Page) Run(ctx context.Context) error {
	ln := &bounded{Listener: p.listener, most: max(1, p.MaxConns)}
	server := &http.Server{
		ConnState: ln.changed,
		Handler:   p.Handler(), ReadTimeout: patience, WriteTimeout: 2 * patience, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, BaseContext: func(net.Listener) context.Context { return ctx },
	}
	defer server.Close()
	defer context.AfterFunc(ctx, func() { _ = p.listener.Close() })()
	if err := server.Serve(ln); ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("status page: %w", err)
	}
	<-ctx.Done()
	// The answer to what ended it may be on its way.
	soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	_ = server.Shutdown(soon)
	return nil
}

// Handler returns all that the page serves.
func (p *Page) Handler() http.Handler {
	mux := http.NewServeMux()
	for path, file := range map[string]string{"/{$}": "page.html", "/page.css": "page.css", "/page.js": "page.js", "/icon.svg": "icon.svg"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, file) })
	}
	mux.HandleFunc("GET /proxy.pac", p.pac)
	mux.HandleFunc("GET /metrics", p.metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /api/state", p.secret(p.state))
	mux.HandleFunc("GET /api/events", p.secret(p.events))
	mux.HandleFunc("GET /api/link", p.secret(p.link))
	mux.HandleFunc("POST /api/check", p.secret(p.check))
	mux.HandleFunc("POST /api/act", p.secret(p.act))
	return p.local(mux)
}

// local refuses what a web page could have sent: requests under another name
// (DNS rebinding) or from another origin.
func (p *Page) local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.hosts[r.Host] {
			http.Error(w, "this page is for this computer only: open it as http://"+p.listener.Addr().String()+"/", http.StatusMisdirectedRequest)
			return
		}
		if p.foreign(r) {
			http.Error(w, "not for other pages", http.StatusForbidden)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// foreign reports whether another page sent a request. A link to the page
// itself may be followed: it holds nothing, and cannot be framed.
func (p *Page) foreign(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		host, ok := strings.CutPrefix(origin, "http://")
		return !ok || !p.hosts[host]
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		return r.URL.Path != "/" || r.Header.Get("Sec-Fetch-Mode") != "navigate"
	}
	return false
}

// secret asks for the token.
func (p *Page) secret(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		got, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if got == "" {
			got = r.URL.Query().Get("token")
		}
		if subtle.ConstantTimeCompare([]byte(got), []byte(p.token)) != 1 {
			http.Error(w, "the token is missing or wrong: open the address that was printed at start", http.StatusUnauthorized)
			return
		}
		next(w, r)
	}
}

// pac is a proxy configuration without a way round the proxy, but for what is
// near: a failure must not send anybody out unprotected. Browsers give a
// password to an HTTP proxy only.
func (p *Page) pac(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ns-proxy-autoconfig")
	w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
	addr, auth := p.source.Proxy()
	if addr == "" {
		http.NotFound(w, r)
		return
	}
	way := "PROXY " + addr
	if !auth {
		way = "SOCKS5 " + addr + "; " + way
	}
	fmt.Fprintf(w, `function FindProxyForURL(url, host) {
  if (host === "localhost" || isPlainHostName(host) || shExpMatch(host, "*.local") ||
      /^(127|10)\.\d+\.\d+\.\d+$/.test(host) || /^192\.168\.\d+\.\d+$/.test(host) ||
      /^172\.(1[6-9]|2\d|3[01])\.\d+\.\d+$/.test(host) || /^169\.254\.\d+\.\d+$/.test(host) ||
      host === "::1" || host === "[::1]")
    return "DIRECT";
  return "%s";
}
`, way)
}

// metrics is in Prometheus' text format.
func (p *Page) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	all := p.source.Metrics()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		kind := "gauge"
		if strings.HasSuffix(name, "_total") {
			kind = "counter"
		}
		fmt.Fprintf(w, "# TYPE %s %s\n%s %s\n", name, kind, name, strconv.FormatFloat(all[name], 'f', -1, 64))
	}
}

func (p *Page) state(w http.ResponseWriter, _ *http.Request) { writeJSON(w, p.source.State()) }

// events sends the state once a second as server-sent events.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	select {
	case p.watching <- struct{}{}:
		defer func() { <-p.watching }()
	default:
		http.Error(w, "too many windows show this page", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	pieces := inPieces(w, r)
	tick := time.NewTicker(eventPause)
	defer tick.Stop()
	for {
		data, err := json.Marshal(p.source.State())
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(pieces, "data: %s\n\n", data); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// pieces is an answer whose every piece is sent at once and may take patience.
type pieces struct {
	http.ResponseWriter
	control *http.ResponseController
}

// inPieces begins an answer that may take longer than patience.
func inPieces(w http.ResponseWriter, r *http.Request) pieces {
	c := http.NewResponseController(w)
	if r.Body == http.NoBody {
		// net/http reads on, to notice that the client leaves: the deadline
		// would look like that. That of a body, which is not read, must stay.
		_ = c.SetReadDeadline(time.Time{})
	}
	return pieces{w, c}
}

// Write implements io.Writer.
func (p pieces) Write(piece []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(patience))
	n, err := p.ResponseWriter.Write(piece)
	if err == nil {
		err = p.control.Flush()
	}
	return n, err
}

func (p *Page) link(w http.ResponseWriter, r *http.Request) {
	link, qr, err := p.source.Link(r.URL.Query().Get("server"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	writeJSON(w, map[string]any{"link": link, "qr": qr})
}

// check sends one line of JSON for each step as it ends.
func (p *Page) check(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), checkTime)
	defer cancel()
	w.Header().Set("Content-Type", "application/x-ndjson")
	pieces := inPieces(w, r)
	tell := func(step any) { _ = json.NewEncoder(pieces).Encode(step) }
	if err := p.source.Check(ctx, tell); err != nil {
		tell(map[string]string{"error": err.Error()})
	}
}

func (p *Page) act(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	switch err := p.source.Act(r.Context(), q.Get("what"), q.Get("which")); {
	case errors.Is(err, ErrUnknown):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusConflict)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
