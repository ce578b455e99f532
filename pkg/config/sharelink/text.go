package sharelink

import (
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// A mark is where a link begins.
type mark struct {
	at       int
	protocol string // in small letters
}

// marks returns where links begin, ours and those of other proxies.
func marks(text string) []mark {
	var all []mark
	for from := 0; ; {
		i := strings.Index(text[from:], "://")
		if i < 0 {
			return all
		}
		end := from + i
		at := end
		for at > from && isScheme(text[at-1]) {
			at--
		}
		if protocol := strings.ToLower(text[at:end]); slices.Contains(protocols(), protocol) {
			all = append(all, mark{at, protocol})
		}
		from = end + len("://")
	}
}

// isScheme reports whether a byte may be one of a URL's scheme.
func isScheme(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '+' || c == '-' || c == '.'
}

const ourProtocol = "vmess"

// protocols are the schemes of links to proxies. Those of ordinary pages are
// not among them.
func protocols() []string {
	return []string{
		ourProtocol, "vless", "ss", "ssr", "trojan", "trojan-go", "hysteria", "hysteria2", "hy2", "tuic", "anytls", "snell", "juicity", "mieru",
		"wireguard", "wg", "socks", "socks4", "socks5", "naive+https", "naive+quic",
	}
}

var errDamaged = fmt.Errorf("%w: a part of it is lost", ErrNotVMess)

// links reads the links in a text.
func (r *reader) links(text string) {
	text = unescapedText(text)
	starts := marks(text)
	last := 0
	for i, start := range starts {
		end := len(text)
		if i+1 < len(starts) {
			end = starts[i+1].at
		}
		between := text[last:start.at] // since the link before
		newline := strings.LastIndexByte(between, '\n')
		opensLine := (i == 0 || newline >= 0) && strings.TrimSpace(between[newline+1:]) == ""
		last = start.at
		place := "the link"
		if len(starts) > 1 {
			place = fmt.Sprintf("link %d", i+1)
		}
		if start.protocol != ourProtocol {
			r.skip(place, fmt.Errorf("%w but %q", ErrProtocol, start.protocol))
			continue
		}
		link := text[start.at:end]
		if line, _, _ := strings.Cut(link, "\n"); r.damaged && strings.Contains(line, damage) {
			r.skip(place, errDamaged) // without its end it may mean something else
			continue
		}
		f, err := readLink(link, opensLine && (end == len(text) || strings.Contains(link, "\n")))
		r.take(place, f, err)
	}
}

// readLink reads the link that a text begins with. What follows may belong to
// it or not; the first reading that makes sense counts, else the error of the
// narrowest.
func readLink(text string, ownLine bool) (f *fields, err error) {
	for i, candidate := range readings(text, ownLine) {
		read, readErr := parseLink(candidate)
		if readErr == nil {
			probe := *read
			_, readErr = probe.remote()
		}
		if readErr == nil {
			return read, nil
		}
		if i == 0 {
			f, err = read, readErr
		}
	}
	return f, err
}

// readings returns what the link may be: a word, with a name of several words,
// without the sentence that it stands in, and base64 that is broken over lines.
func readings(text string, ownLine bool) []string {
	if object, isObject := leadingObject(text[len(scheme):]); isObject {
		return []string{text[:len(scheme)] + object}
	}
	line, _, _ := strings.Cut(text, "\n")
	line = strings.TrimSpace(line)
	word := line
	if i := strings.IndexFunc(line, ends); i >= 0 {
		word = line[:i]
	}
	bare := strings.TrimRight(word, ".,;:!?)]}'*")
	switch {
	case ownLine && strings.Contains(word, "#"):
		return []string{line, word, bare}
	case ownLine && word == line:
		return []string{word, bare, broken(text), text}
	default:
		return []string{bare, word, broken(text), text}
	}
}

// leadingObject returns the JSON object that a text begins with.
func leadingObject(text string) (object string, ok bool) {
	if !strings.HasPrefix(text, "{") {
		return "", false
	}
	decoder := json.NewDecoder(strings.NewReader(text[:min(len(text), maxLink)]))
	var raw json.RawMessage
	if decoder.Decode(&raw) != nil {
		return "", false
	}
	return string(raw), true
}

// htmlEscapes are undone in texts that came out of web pages. Names without a
// semicolon are not: "&para" begins "&param=1", too.
var htmlEscapes = strings.NewReplacer("&amp;", "&", "&#38;", "&", "&#x26;", "&", "&quot;", `"`, "&#34;", `"`, "&#39;", "'", "&lt;", "<", "&gt;", ">",
	"&#61;", "=", "&#x3D;", "=", "&#x3d;", "=", "&#43;", "+", "&#x2B;", "+", "&#x2b;", "+", "&#47;", "/", "&#x2F;", "/", "&#x2f;", "/")

// jsonEscape is an escaped printable ASCII character.
var jsonEscape = regexp.MustCompile(`\\u00[2-7][0-9a-fA-F]`)

// unwrap undoes one escaping of a whole text; ok reports whether there was one.
func unwrap(text string) (plain string, ok bool) {
	switch {
	case strings.HasPrefix(text, `"`):
		if json.Unmarshal([]byte(text), &plain) == nil {
			return plain, true
		}
	case strings.Contains(text, "&quot;"), strings.Contains(text, "&#34;"):
		return html.UnescapeString(text), true
	case percentEscape.MatchString(text) && !strings.ContainsAny(text, "{}\"\n"):
		if plain, err := url.PathUnescape(text); err == nil {
			return plain, true
		}
	}
	return "", false
}

// percentEscape is one of the characters that every configuration has and that URLs
// escape: a brace, a quote, a line break, a colon, a slash; %25 is what escaping once more makes of %.
var percentEscape = regexp.MustCompile(`%(?:25)*(?i:7b|22|0a|3a|2f)`)

// unescapedText undoes what JSON, HTML and URLs do to links that are copied out
// of them, where a text shows signs of it.
func unescapedText(text string) string {
	if strings.Contains(text, `\/\/`) || jsonEscape.MatchString(text) {
		text = strings.ReplaceAll(text, `\/`, "/")
		text = jsonEscape.ReplaceAllStringFunc(text, func(escaped string) string {
			code, _ := strconv.ParseUint(escaped[len(`\u`):], 16, 8) // it is two digits
			return string(rune(code))
		})
	}
	if strings.Contains(text, `\n`) {
		text = strings.NewReplacer(`\r\n`, "\n", `\n`, "\n").Replace(text)
	}
	for range 2 { // "&amp;amp;"
		if strings.Contains(text, "&") {
			text = htmlEscapes.Replace(text)
		}
	}
	lower := strings.ToLower(text)
	if (strings.Contains(lower, "%3a%2f%2f") || strings.Contains(lower, "%3a//")) && len(marks(text)) == 0 {
		text = unescapedLoosely(text)
	}
	return text
}

// unescapedLoosely undoes percent-encoding where it is one.
func unescapedLoosely(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		if len(text) >= 3 && text[0] == '%' {
			if plain, err := url.PathUnescape(text[:3]); err == nil {
				b.WriteString(plain)
				text = text[3:]
				continue
			}
		}
		b.WriteByte(text[0])
		text = text[1:]
	}
	return b.String()
}

// ends reports whether a character cannot belong to a link.
func ends(r rune) bool {
	return unicode.IsSpace(r) || strings.ContainsRune("\"<>`|，。；！？、）」』】”", r)
}

// broken joins the lines that can be one base64.
func broken(text string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if b.Len() > 0 && strings.ContainsFunc(line, func(r rune) bool { return !isBase64(r) }) || b.Len() > maxLink {
			break
		}
		b.WriteString(line)
	}
	return b.String()
}

func isBase64(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("+/-_=", r)
}
