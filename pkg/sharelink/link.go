// Package sharelink turns "vmess://" links into servers of a configuration
// and back. It reads the two forms that nearly all programs write, v2rayN's
// base64 of a JSON object and the URL of the VMessAEAD proposal, with the
// liberties that panels and people take (docs/protocol.md 18). A link holds
// an id, which is a password: errors name a field and what is wrong with it,
// never the link nor the id.
package sharelink

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"

	"vmess-local/pkg/config"
)

var (
	// ErrNotVMess is wrapped by errors of text that is no link of a form that
	// this package reads.
	ErrNotVMess = errors.New("not a VMess share link")
	// ErrTransport is wrapped by errors of links to servers that are not
	// reached by WebSocket; the error names what they use.
	ErrTransport = errors.New("the server does not use WebSocket")
)

// A FieldError says what is wrong with one field of a link.
type FieldError struct {
	Field  string // as the link's form calls it, like "add" or "port"
	Reason string
}

func (e *FieldError) Error() string { return "field " + e.Field + ": " + e.Reason }

// A Form is a way to write a link.
type Form int

// The forms.
const (
	FormV2rayN Form = iota // base64 of JSON, "version 2"
	FormURL                // vmess://id@host:port?…#name
)

// ParseForm reads a form's name, "v2rayn" or "url".
func ParseForm(name string) (Form, error) {
	switch name {
	case "v2rayn":
		return FormV2rayN, nil
	case "url":
		return FormURL, nil
	default:
		return 0, errors.New(`the form of a link is "v2rayn" or "url"`)
	}
}

const (
	scheme  = "vmess://"
	maxLink = 64 << 10
)

// Parse reads a link of either form. The server is in canonical form and
// valid, with defaults for what links do not say; early data beyond
// [config.MaxEarlyData] is cut to it, and ALPN is always the default, because
// a link's list is meant for other transports too. The error wraps
// [ErrNotVMess] or [ErrTransport], or is a [*FieldError].
func Parse(link string) (*config.Remote, error) {
	text := strings.TrimSpace(strings.TrimPrefix(link, "\ufeff"))
	switch {
	case len(text) > maxLink:
		return nil, fmt.Errorf("%w: it is longer than 64 KiB", ErrNotVMess)
	case len(text) < len(scheme) || !strings.EqualFold(text[:len(scheme)], scheme):
		return nil, fmt.Errorf("%w: it does not begin with %s", ErrNotVMess, scheme)
	}
	body, fragment, _ := strings.Cut(text[len(scheme):], "#")
	name, err := url.PathUnescape(fragment)
	if err != nil {
		name = fragment
	}
	data, err := decode(body)
	var f *fields
	switch {
	case err == nil && strings.HasPrefix(data, "{"):
		f, err = parseJSON(data)
	case err == nil:
		return nil, fmt.Errorf("%w: its base64 holds no JSON object, as in links of Shadowrocket or Quantumult", ErrNotVMess)
	case strings.Contains(body, "@"):
		f, err = parseURL(body)
	}
	if err != nil {
		return nil, err
	}
	if f.name == "" {
		f.name = name
	}
	return f.remote()
}

// decode reads base64 with either alphabet, with and without padding, white
// space and a query behind it.
func decode(body string) (string, error) {
	body, _, _ = strings.Cut(body, "?")
	if plain, err := url.PathUnescape(body); err == nil {
		body = plain
	}
	clean := strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return -1
		case r == '-':
			return '+'
		case r == '_':
			return '/'
		}
		return r
	}, body)
	data, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(clean, "="))
	var corrupt base64.CorruptInputError
	switch {
	case errors.As(err, &corrupt):
		return "", fmt.Errorf("%w: its base64 breaks at character %d", ErrNotVMess, int64(corrupt)+1)
	case len(data) == 0:
		return "", fmt.Errorf("%w: there is nothing behind %s", ErrNotVMess, scheme)
	}
	return strings.TrimSpace(strings.TrimPrefix(string(data), "\ufeff")), nil
}
