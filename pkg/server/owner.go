package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/config"
	"vmess-local/pkg/protocol/vmess"
)

// certificatePause is how often the certificate's files are looked at.
const certificatePause = 5 * time.Second

// A certificate is read again when its files change: renewals need no restart.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu     sync.Mutex
	loaded *tls.Certificate
	stamps [2]stamp
	looked time.Time
}

// A stamp tells one state of a file from another.
type stamp struct {
	at   time.Time
	size int64
}

func newCertificate(cfg config.ServerTLS, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: cfg.CertFile, keyFile: cfg.KeyFile, log: log}
	return c, c.load(c.look())
}

func (c *certificate) look() (s [2]stamp) {
	c.looked = time.Now()
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			s[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return s
}

func (c *certificate) load(s [2]stamp) error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	c.stamps = s
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	c.loaded = &pair
	return nil
}

// get is a tls.Config's GetCertificate. Files that cannot be used leave the old
// certificate in use.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < certificatePause {
		return c.loaded, nil
	}
	if s := c.look(); s != c.stamps {
		if err := c.load(s); err != nil {
			c.log.Error("certificate", logging.Text("reloading the certificate failed; keeping the current one: %v", err))
		} else {
			c.log.Info("certificate", logging.Text("certificate reloaded: valid until %s", c.loaded.Leaf.NotAfter.Format(time.DateOnly)))
		}
	}
	return c.loaded, nil
}

// newFallback serves the files of a directory to ordinary visitors, who cannot
// tell the server from a plain web server then. Directories without an
// index.html and files whose names begin with a dot are not there.
func newFallback(dir string) (http.Handler, error) {
	if dir == "" {
		return nil, nil
	}
	root, err := os.OpenRoot(dir) // no link leads out of it
	if err != nil {
		return nil, fmt.Errorf("fallback: %w", err)
	}
	files := root.FS()
	serve := http.FileServerFS(files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
		hidden := strings.HasPrefix(name, ".") || strings.Contains(name, "/.")
		if info, err := root.Stat(orDot(name)); err == nil && info.IsDir() {
			_, err = root.Stat(path.Join(orDot(name), "index.html"))
			hidden = hidden || err != nil
		}
		if hidden {
			http.NotFound(w, r)
			return
		}
		serve.ServeHTTP(patientWriter{w}, r)
	}), nil
}

// fallbackPatience is how long a visitor may take to make room for a piece of
// an answer. The system's buffers make that come in leaps, of some hundred KiB.
const fallbackPatience = time.Minute

// A patientWriter is for answers that may take long, as long as they move.
type patientWriter struct{ http.ResponseWriter }

// Write implements io.Writer.
func (w patientWriter) Write(p []byte) (int, error) {
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(fallbackPatience))
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func orDot(name string) string {
	if name == "" {
		return "."
	}
	return name
}

// trusted are the proxies whose word about a visitor's address is believed.
type trusted []netip.Prefix

func newTrusted(entries []string) (trusted, error) {
	var t trusted
	for i, e := range entries {
		p, err := netip.ParsePrefix(e)
		if err != nil {
			var a netip.Addr
			if a, err = netip.ParseAddr(e); err != nil {
				return nil, fmt.Errorf("trustedProxies[%d]: %w", i, err)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		t = append(t, p)
	}
	return t, nil
}

func (t trusted) has(a netip.Addr) bool {
	for _, p := range t {
		if p.Contains(a.Unmap().WithZone("")) {
			return true
		}
	}
	return false
}

// visitor returns who stands behind a connection from peer: the last address
// in X-Forwarded-For that no trusted proxy has, for what stands before it
// anybody may have written.
func (t trusted) visitor(peer netip.AddrPort, header http.Header) netip.AddrPort {
	if len(t) == 0 || !t.has(peer.Addr()) {
		return peer
	}
	hops := strings.Split(strings.Join(header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		a, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		peer = netip.AddrPortFrom(a, 0)
		if !t.has(a) {
			break
		}
	}
	return peer
}

// usersOf reads the users of a configuration.
func usersOf(cfg *config.Server) ([]vmess.User, error) {
	users := make([]vmess.User, 0, len(cfg.Users))
	for i, u := range cfg.Users {
		id, err := vmess.ParseID(string(u.ID))
		if err != nil {
			return nil, fmt.Errorf("users[%d].id: %w", i, err)
		}
		name := u.Name
		if name == "" {
			name = fmt.Sprintf("user %d", i+1)
		}
		users = append(users, vmess.User{ID: id, AlterID: u.AlterID, Name: name})
	}
	return users, nil
}

// Warnings returns what works in a configuration and should be mended all the
// same, each in a line with its fix.
func Warnings(cfg *config.Server) []string {
	users, err := usersOf(cfg)
	if err != nil {
		return nil // New tells it
	}
	var warnings []string
	for i, u := range cfg.Users {
		if text := config.IDWarning(u.ID); text != "" {
			warnings = append(warnings, fmt.Sprintf("users[%d]: %s", i, text))
		}
	}
	if vmess.MinDrain(users) >= vmess.SafeDrain {
		return warnings
	}
	at := ""
	if file, line, column, ok := cfg.Position("users"); ok {
		at = fmt.Sprintf(" at %s:%d:%d", file, line, column)
	}
	return append(warnings, "with the ids of \"users\""+at+" rejected requests are closed after so few bytes that a prober can tell a tampered request apart; generate a new id, as vmess-server init does")
}

// ErrRestart is returned by Reload for changes that need a restart.
var ErrRestart = errors.New("only \"users\" and \"log\" can be changed without a restart")

// Reload takes over the users of another configuration: those who are gone are
// refused from the next request on, what is under way goes on. Its log is the
// caller's to take over. Any other change is ErrRestart, and nothing is taken over then. It may be called at
// any time.
func (s *Server) Reload(cfg *config.Server) error {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	changed := slices.DeleteFunc(s.cfg.Differences(cfg), func(key string) bool { return key == "users" || key == "log" })
	if len(changed) > 0 {
		return fmt.Errorf("\"%s\" changed: %w", strings.Join(changed, `", "`), ErrRestart)
	}
	users, err := usersOf(cfg)
	if err == nil {
		err = s.account.SetUsers(users)
	}
	if err != nil {
		return fmt.Errorf("users: %w", err)
	}
	s.cfg = cfg
	s.log.Info("reloaded", logging.Text("reloaded: %s", howMany(len(users))), "users", len(users))
	return nil
}

func howMany(users int) string {
	if users == 1 {
		return "1 user"
	}
	return fmt.Sprintf("%d users", users)
}
