// Package sharelink turns what other programs write into servers of our
// configuration, and servers into links. [Read] takes "vmess://" links of all
// forms in whatever text they stand in, subscriptions, and configurations of
// V2Ray, Xray, sing-box and Clash (docs/protocol.md 18), with the liberties
// that panels and people take; [Format] writes the two forms that nearly all
// programs read, v2rayN's base64 of a JSON object and the URL of the VMessAEAD
// proposal. All of it holds ids, which are passwords: errors and reports name
// an entry, a field and what is wrong with it, never a link nor an id.
package sharelink

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	// ErrNotVMess is wrapped by errors of text that is no link of a form that
	// this package reads.
	ErrNotVMess = errors.New("not a VMess share link")
	// ErrTransport is wrapped by errors of links to servers that are not
	// reached by WebSocket; the error names what they use.
	ErrTransport = errors.New("the server does not use WebSocket")
	// ErrProtocol is wrapped by errors of servers that speak something else;
	// the error names what.
	ErrProtocol = errors.New("the server does not speak VMess")
	// ErrNothing is wrapped by errors of text in which there is no server.
	ErrNothing = errors.New("it contains no server")
	// ErrUnusable is wrapped by errors of text whose servers are all skipped.
	ErrUnusable = errors.New("none of its servers can be used")
)

// A FieldError says what is wrong with one field of a server.
type FieldError struct {
	Field  string // as the form that it stands in calls it, like "add" or "port"
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

// parseLink reads a link of any form. The fields may be there on errors, too.
func parseLink(link string) (*fields, error) {
	text := strings.TrimSpace(strings.TrimPrefix(link, "\ufeff"))
	switch {
	case len(text) > maxLink:
		return nil, fmt.Errorf("%w: it is longer than 64 KiB", ErrNotVMess)
	case len(text) < len(scheme) || !strings.EqualFold(text[:len(scheme)], scheme):
		return nil, fmt.Errorf("%w: it does not begin with %s", ErrNotVMess, scheme)
	}
	if strings.HasPrefix(text[len(scheme):], "{") { // not encoded at all
		return parseObject(text[len(scheme):])
	}
	body, fragment, _ := strings.Cut(text[len(scheme):], "#")
	f, err := parseBody(body)
	if f != nil && f.name == "" {
		if f.name, _ = url.PathUnescape(fragment); f.name == "" {
			f.name = fragment
		}
	}
	return f, err
}

// parseBody tells the forms apart: what is base64 is none of the URL form.
func parseBody(body string) (*fields, error) {
	coded, query, _ := strings.Cut(body, "?")
	if plain, err := url.PathUnescape(body); err == nil && strings.HasPrefix(plain, "{") {
		return parseObject(plain)
	}
	data, err := decode(coded)
	if err == nil {
		data = peeled(data)
	}
	switch {
	case err == nil && strings.HasPrefix(data, "{"):
		return parseObject(data)
	case err == nil && len(data) > len(scheme) && strings.EqualFold(data[:len(scheme)], scheme):
		return parseLink(data) // which is shorter each time
	case err == nil && strings.Contains(data, "="):
		return parseQuantumult(data)
	case err == nil:
		return parseShadowrocket(data, query)
	case strings.Contains(body, "@"):
		return parseURL(body)
	default:
		return nil, err
	}
}

// peeled decodes what is still base64, as of panels that encode twice.
func peeled(data string) string {
	for range maxNesting {
		plain, err := decode(data)
		if err != nil || !utf8.ValidString(plain) {
			break
		}
		data = plain
	}
	return data
}

// decode reads base64 with either alphabet, with and without padding and
// white space.
func decode(body string) (string, error) {
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
		return "", fmt.Errorf("%w: its base64 is invalid at character %d", ErrNotVMess, int64(corrupt)+1)
	case len(data) == 0:
		return "", fmt.Errorf("%w: there is nothing after %s", ErrNotVMess, scheme)
	}
	return strings.TrimSpace(strings.TrimPrefix(string(data), "\ufeff")), nil
}
