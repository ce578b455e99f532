package sharelink

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"vmess-local/pkg/config"
)

// fields are a server's fields as text, whatever form they stood in. "" is
// what the form does not say.
type fields struct {
	name, address, port, id, alterID   string
	security, transport                string
	globalPadding, authenticatedLength string
	host, path                         string
	headers                            map[string]string
	earlyData                          string // beside the path's
	earlyDataHeader                    string // "" for the default
	earlyDataInPath                    bool   // earlyData goes without a header
	ping                               string // seconds
	tls, serverName, fingerprint       string
	caFile                             string
	pins                               []string // in place of insecure
	insecure                           bool

	mux      bool   // Mux.Cool is on
	sessions string // and so many share a tunnel; "" is the default

	names map[string]string // what the form calls the keys of a Remote
	notes []string          // what was changed or left out, for people
}

// remote checks the fields and makes a server of them.
func (f *fields) remote() (*config.Remote, error) {
	f.tidy()
	r, err := f.build()
	var field *FieldError
	if f.fingerprint != "" && errors.As(err, &field) && field.Field == f.names["tls.fingerprint"] {
		// A wish about looks is no reason to do without the server.
		f.fingerprint = ""
		f.notes = append(f.notes, "the TLS fingerprint it asks for ("+field.Field+") is unknown")
		r, err = f.build()
	}
	if err != nil {
		return nil, f.hideID(err)
	}
	return r, nil
}

// hideID keeps the id out of an error about another field: a path often is
// the id, and a link put together wrongly has it anywhere.
func (f *fields) hideID(err error) error {
	if !shows(err.Error(), []string{f.id}) {
		return err
	}
	var field *FieldError
	switch {
	case !errors.As(err, &field):
	case shows(field.Field, []string{f.id}): // a header's name
		return &FieldError{f.field("ws.headers"), "a name in it is invalid, and contains an id"}
	default:
		return &FieldError{field.Field, "it is invalid, and contains an id"}
	}
	return ErrTransport
}

// idLike is text that is an id or how one begins, wherever it was written.
var idLike = regexp.MustCompile(`[0-9a-f]{8}(?:-|…|[0-9a-f]{16})`)

// shows reports whether a text shows one of the secrets, another id, or how
// one begins: a message may have been cut.
func shows(text string, secrets []string) bool {
	text = strings.ToLower(text)
	return idLike.MatchString(text) || slices.ContainsFunc(secrets, func(secret string) bool {
		secret = strings.ToLower(strings.TrimSpace(secret))
		return len(secret) >= minHidden && strings.Contains(text, secret[:min(len(secret), maxHidden)])
	})
}

func (f *fields) build() (*config.Remote, error) {
	if err := f.webSocket(); err != nil {
		return nil, err
	}
	r := config.DefaultRemote()
	r.Name = oneLine(f.name)
	r.Address = strings.TrimSpace(f.address)
	r.ID = config.Secret(strings.TrimSpace(f.id))
	r.WS.Host = strings.TrimSpace(f.host)
	r.TLS.ServerName = strings.TrimSpace(f.serverName)
	r.TLS.AllowInsecure = f.insecure && len(f.pins) == 0
	r.TLS.Fingerprint = fingerprint(f.fingerprint)
	r.TLS.CAFile = f.caFile
	r.TLS.Pin = slices.Clone(f.pins)
	r.WS.Headers = maps.Clone(f.headers)
	if f.earlyDataHeader != "" {
		r.WS.EarlyDataHeader = f.earlyDataHeader
	}
	if f.security != "" {
		r.Security = cipher(f.security)
	}
	if f.globalPadding != "" {
		r.GlobalPadding = isTrue(f.globalPadding)
	}
	r.AuthenticatedLength = isTrue(f.authenticatedLength) && r.Security != "none" && r.Security != "zero"
	if err := f.numbers(&r); err != nil {
		return nil, err
	}
	if err := f.tlsWord(&r); err != nil {
		return nil, err
	}
	if err := r.Normalize(); err != nil {
		return nil, fieldError(err, f.names)
	}
	return &r, nil
}

// fingerprint reads the name of a TLS handshake as other programs spell it.
func fingerprint(name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "none" {
		return ""
	}
	return name
}

func (f *fields) webSocket() error {
	switch transport := strings.ToLower(strings.TrimSpace(f.transport)); transport {
	case "ws", "websocket":
		return nil
	case "":
		return fmt.Errorf(`%w but "tcp", which is what links without a transport mean`, ErrTransport)
	default:
		return fmt.Errorf("%w but %s", ErrTransport, show(transport))
	}
}

// numbers reads the fields that hold numbers, among them early data, which
// stands in the path.
func (f *fields) numbers(r *config.Remote) (err error) {
	if r.Port, err = f.number("port", f.port); err != nil {
		return err
	}
	if r.AlterID, err = f.number("alterId", f.alterID); err != nil {
		return err
	}
	if ping, err := f.number("ws.ping", f.ping); err != nil {
		return err
	} else if ping != 0 {
		r.WS.Ping = config.Duration(time.Duration(ping) * time.Second)
	}
	path, early := config.SplitEarlyData(strings.TrimSpace(f.path))
	if early == "" {
		early = f.earlyData
		if f.earlyDataInPath {
			r.WS.EarlyDataHeader = ""
		}
	}
	if r.WS.EarlyData, err = f.number("ws.path", early); err != nil {
		return &FieldError{f.field("ws.path"), "its ed is not a number"}
	}
	if r.WS.EarlyData > config.MaxEarlyData {
		r.WS.EarlyData = config.MaxEarlyData
	}
	r.WS.Path = path
	if path == "" {
		r.WS.Path = "/"
	}
	return nil
}

// field is what the form calls a key of a Remote.
func (f *fields) field(key string) string {
	if name := f.names[key]; name != "" {
		return name
	}
	return key
}

// number reads a number; an absent one is 0.
func (f *fields) number(key, text string) (int, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0, nil
	}
	if n, err := strconv.ParseFloat(text, 64); err == nil && n == math.Trunc(n) && math.Abs(n) <= math.MaxInt32 {
		return int(n), nil
	}
	return 0, &FieldError{f.field(key), "saw " + show(text) + "; expected a whole number"}
}

// tlsWord reads the many ways to say that TLS is on.
func (f *fields) tlsWord(r *config.Remote) error {
	switch word := strings.ToLower(strings.TrimSpace(f.tls)); {
	case slices.Contains([]string{"", "none", "0", "false", "no", "off"}, word):
		r.TLS.Enabled = false
	case slices.Contains([]string{"1", "true", "yes", "on", "ssl", "wss"}, word), strings.HasSuffix(word, "tls"):
		r.TLS.Enabled = true
	default:
		return &FieldError{f.names["tls.enabled"], "saw " + show(word) + "; expected tls or none"}
	}
	return nil
}

// cipher knows the other names of ciphers.
func cipher(name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "chacha20-ietf-poly1305" {
		return "chacha20-poly1305"
	}
	return name
}

// muxSetting is how the connections to the server share tunnels.
func (f *fields) muxSetting() config.Mux {
	mux := config.DefaultClient().Mux
	mux.Enabled = f.mux
	if n, err := strconv.Atoi(f.sessions); f.mux && err == nil && n > 0 {
		mux.Concurrency = min(n, maxSessions)
	}
	return mux
}

// maxSessions is the most that a configuration may have in a tunnel.
const maxSessions = 1024

// fieldError names the first problem by the link's field.
func fieldError(err error, names map[string]string) error {
	var problems *config.Problems
	if !errors.As(err, &problems) {
		return err
	}
	problem := problems.All[0]
	field := names[problem.Path]
	if field == "" {
		field = problem.Path
	}
	return &FieldError{field, problem.Text()}
}

const (
	// minHidden is from how many bytes on a secret in a message is
	// recognisable, maxHidden how many are enough to recognise it by.
	minHidden = 4
	maxHidden = 8
	// maxShown is how many characters a message shows of a value; less than
	// what an id has.
	maxShown = 20
)

// show returns a value for a message.
func show(text string) string {
	if n := utf8.RuneCountInString(text); n > maxShown {
		return fmt.Sprintf("text of %d characters", n)
	}
	return strconv.Quote(text)
}

// oneLine makes a name fit for a log and a list.
func oneLine(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(name, "\ufffd"))
}
