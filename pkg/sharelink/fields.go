package sharelink

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"vmess-local/pkg/config"
)

// fields are a link's fields as text, whatever its form.
type fields struct {
	name, address, port, id, alterID string
	security, transport              string
	host, path                       string
	earlyData                        string // beside the path's
	earlyDataHeader                  string // "" for the default
	tls, serverName, fingerprint     string
	insecure                         bool

	names map[string]string // what the form calls the keys of a Remote
}

// remote checks the fields and makes a server of them.
func (f *fields) remote() (*config.Remote, error) {
	r, err := f.build()
	if err != nil {
		return nil, f.hideID(err)
	}
	return r, nil
}

// hideID keeps the id out of an error about another field: a path often is
// the id, and a link put together wrongly has it anywhere.
func (f *fields) hideID(err error) error {
	id := strings.ToLower(strings.TrimSpace(f.id))
	if len(id) < minHidden || !strings.Contains(strings.ToLower(err.Error()), id) {
		return err
	}
	var field *FieldError
	if errors.As(err, &field) {
		return &FieldError{field.Field, "it is wrong, and holds the id"}
	}
	return ErrTransport
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
	r.TLS.AllowInsecure = f.insecure
	r.TLS.Fingerprint = strings.TrimSpace(f.fingerprint)
	if f.earlyDataHeader != "" {
		r.WS.EarlyDataHeader = f.earlyDataHeader
	}
	if f.security != "" {
		r.Security = cipher(f.security)
	}
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
	path, early := config.SplitEarlyData(strings.TrimSpace(f.path))
	if early == "" {
		early = f.earlyData
	}
	if r.WS.EarlyData, err = f.number("ws.path", early); err != nil {
		return &FieldError{f.names["ws.path"], "its ed is no number"}
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

// number reads a number; an absent one is 0.
func (f *fields) number(key, text string) (int, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0, nil
	}
	if n, err := strconv.ParseFloat(text, 64); err == nil && n == math.Trunc(n) && math.Abs(n) <= math.MaxInt32 {
		return int(n), nil
	}
	return 0, &FieldError{f.names[key], "saw " + show(text) + "; want a whole number"}
}

// tlsWord reads the many ways to say that TLS is on.
func (f *fields) tlsWord(r *config.Remote) error {
	switch word := strings.ToLower(strings.TrimSpace(f.tls)); {
	case slices.Contains([]string{"", "none", "0", "false"}, word):
		r.TLS.Enabled = false
	case slices.Contains([]string{"1", "true"}, word), strings.HasSuffix(word, "tls"):
		r.TLS.Enabled = true
	default:
		return &FieldError{f.names["tls.enabled"], "saw " + show(word) + "; want tls or none"}
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
	// minHidden is from how many bytes on an id in a message is recognisable.
	minHidden = 4
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
