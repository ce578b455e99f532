package wsconn

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// shortestSecret is how long a text is whose repetition is no chance.
const shortestSecret = 6

// secrets are texts of the further headers, the longest first. These may hold
// tokens, and a server may repeat what it was sent in what people are shown.
type secrets []string

// secrets returns the values of the Dialer's headers and the words in them, as
// they are and as they are in a URL. Headers that every browser sends are none.
func (d *Dialer) secrets() secrets {
	var all secrets
	for name, values := range d.Header {
		switch name = http.CanonicalHeaderKey(name); {
		case name == "Host", name == "Origin", name == "Referer", name == "User-Agent", strings.HasPrefix(name, "Accept"):
			continue
		}
		for _, value := range values {
			words := strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(" \t,;=\"", r) })
			for _, text := range append(words, value) {
				all = append(all, text, url.QueryEscape(text), url.PathEscape(text))
			}
		}
	}
	all = slices.DeleteFunc(all, func(text string) bool { return len(text) < shortestSecret })
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	return slices.Compact(all)
}

// redact returns a server's text without the secrets in it, in whatever case.
func (s secrets) redact(text string) string {
	for _, secret := range s {
		for i := 0; i+len(secret) <= len(text); i++ {
			if strings.EqualFold(text[i:i+len(secret)], secret) {
				text = text[:i] + "…" + text[i+len(secret):]
			}
		}
	}
	return text
}

// redactError cuts them out of what an answer that is no upgrade brought.
func (s secrets) redactError(err error) error {
	if e, ok := errors.AsType[*HandshakeError](err); ok {
		for _, values := range e.Header {
			for i := range values {
				values[i] = s.redact(values[i])
			}
		}
	}
	if e, ok := errors.AsType[*ProtocolError](err); ok {
		e.Seen = []byte(s.redact(string(e.Seen)))
	}
	return err
}
