package sharelink

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"vmess-local/pkg/config"
)

const (
	// MaxSize is the most bytes of a text that is read.
	MaxSize = 4 << 20
	// maxServers is how many servers a configuration may have.
	maxServers = 1000
	// maxRemarks is how many entries are told about; the others are counted.
	maxRemarks = 1000
	// maxNesting is how deep configurations may stand in lists of such.
	maxNesting = 3
)

// Found is what [Read] found. The servers are in canonical form and valid, in
// the order of the text, none twice.
type Found struct {
	Servers []config.Remote
	Skipped []Skipped
	// Notes are about servers that are used though not all is as it was
	// written, each in one line.
	Notes []string
	// Omitted is how many more were skipped.
	Omitted int
	// Mux is how the first server is used.
	Mux config.Mux
}

// A Skipped is a server that cannot be used.
type Skipped struct {
	// Entry tells where it stands, and its name if that shows no secret.
	Entry string
	// Err is why, as of a link.
	Err error
}

// String returns it in one line.
func (s Skipped) String() string { return s.Entry + ": " + s.Err.Error() }

// Config returns the defaults with the servers, one as "server", more as
// "servers". It is for a Found that has some.
func (f *Found) Config() *config.Client {
	c := config.DefaultClient()
	c.Mux = f.Mux
	c.Server = f.Servers[0]
	if len(f.Servers) > 1 {
		c.Servers = f.Servers
	}
	return c
}

// Read finds the servers in a text: links, one or many, with other text round
// them, base64 of such (a subscription), JSON of V2Ray, Xray or sing-box, or
// YAML of Clash. Early data beyond [config.MaxEarlyData] is cut to it, and ALPN
// is always the default, because others' lists are meant for other transports
// too. Found is never nil. There is an error when no server can be used: it
// wraps [ErrNothing] or [ErrUnusable], or is that of the only server that there
// is, which wraps [ErrNotVMess], [ErrTransport] or [ErrProtocol] or is a
// [*FieldError].
func Read(data []byte) (*Found, error) {
	r := &reader{}
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\ufeff")))
	switch {
	case len(data) > MaxSize:
		return &r.Found, fmt.Errorf("%w: it is larger than 4 MiB", ErrNothing)
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return &r.Found, fmt.Errorf("%w: the text is UTF-16; expected UTF-8: save the file again with that encoding", ErrNothing)
	}
	reason := r.text(data)
	if reason == nil && !r.foundAny() {
		reason = r.subscription(string(data))
	}
	if !r.foundAny() {
		if err := r.wrapped(string(data)); err != nil {
			reason = err
		}
	}
	if reason == nil && isPage(data) {
		reason = ErrPage
	}
	r.settleMux()
	if len(r.providers) > 0 && len(r.Servers) > 0 {
		r.note(keyProviders, "", nil, "lists at other addresses are not fetched; import them separately")
	}
	return &r.Found, r.result(reason)
}

// ErrPage is wrapped by errors of web pages without a server: what panels show
// to people.
var ErrPage = errors.New("it is a web page, such as panels show to browsers or without a login; expected the content of the subscription's address")

// isPage reports whether a text is HTML.
func isPage(data []byte) bool {
	start := bytes.ToLower(data[:min(len(data), 1<<10)])
	return bytes.Contains(start, []byte("<!doctype html")) || bytes.Contains(start, []byte("<html"))
}

// A reader collects what is found.
type reader struct {
	Found
	muxes     []config.Mux // of the servers
	providers []string     // where other lists are
	damaged   bool         // parts of the text may be missing
}

// settleMux takes over the Mux of the first server: here all have one.
func (r *reader) settleMux() {
	r.Mux = config.DefaultClient().Mux
	if len(r.muxes) == 0 {
		return
	}
	r.Mux = r.muxes[0]
	if slices.ContainsFunc(r.muxes, func(m config.Mux) bool { return m.Enabled != r.Mux.Enabled }) {
		state := "off"
		if r.Mux.Enabled {
			state = "on"
		}
		r.note("mux", "", nil, "it is on for some servers and off for others; here it is "+state+" for all, as for the first")
	}
}

func (r *reader) foundAny() bool { return len(r.Servers) > 0 || len(r.Skipped) > 0 }

// result is the error of all that was read. reason is why nothing was found,
// if that is known.
func (r *reader) result(reason error) error {
	switch {
	case len(r.Servers) > 0:
		return nil
	case len(r.Skipped) == 1:
		return r.Skipped[0].Err
	case len(r.Skipped) > 1:
		return fmt.Errorf("%w: %d are skipped", ErrUnusable, len(r.Skipped)+r.Omitted)
	case len(r.providers) > 0:
		return &ProvidersError{r.providers}
	case reason != nil:
		return fmt.Errorf("%w: %w", ErrNothing, reason)
	default:
		return fmt.Errorf("%w: expected vmess:// links, a subscription, or a configuration of V2Ray, Xray, sing-box or Clash", ErrNothing)
	}
}

// clashEntry is a key of a proxy on a line.
var clashEntry = regexp.MustCompile(`(?:^|[\s{,-])["']?type["']?\s*:\s*["']?vmess\b`)

// isClash reports whether a line looks like one of a list of proxies.
func isClash(data []byte) bool {
	for line := range bytes.Lines(data) {
		key, _, found := bytes.Cut(line, []byte(":"))
		switch string(bytes.Trim(key, " \t\"'")) {
		case keyProxies, keyOldProxies, keyProviders:
			if found {
				return true
			}
		}
		if bytes.Contains(line, []byte("type")) && clashEntry.Match(line) {
			return true
		}
	}
	return false
}

// text reads anything but a subscription. The error is why the text could not
// be read, if it is clear what it is meant to be.
func (r *reader) text(data []byte) error {
	start := standardJSON(data[:min(len(data), 64<<10)]) // for comments before the first bracket
	isJSON := bytes.HasPrefix(bytes.TrimSpace(start), []byte("{")) || bytes.HasPrefix(bytes.TrimSpace(start), []byte("["))
	var broken error
	if isJSON {
		value, err := parseTree(data)
		if err == nil {
			err = r.tree("", value, 0)
		}
		if r.foundAny() {
			return nil
		}
		broken = err
		if err != nil {
			r.pieces(data)
		}
		if r.foundAny() {
			r.note("the text", "", nil, err.Error()+"; what could be read of it is used")
			return nil
		}
	}
	if isClash(data) {
		err := r.clashText(data)
		if broken == nil {
			broken = err
		}
		if r.foundAny() {
			return nil
		}
	}
	r.links(string(data))
	if r.foundAny() {
		return nil
	}
	return broken
}

// subscription reads base64 of a text, which many servers' addresses answer
// with.
func (r *reader) subscription(data string) error {
	for range maxNesting {
		plain, whole := decodeDamaged(data)
		r.damaged = r.damaged || !whole
		if plain == "" {
			return nil
		}
		if err := r.text([]byte(plain)); err != nil || r.foundAny() {
			if !whole && r.foundAny() {
				r.note("the subscription", "", nil, "its base64 is damaged: there may have been more")
			}
			return err
		}
		data = plain
	}
	return nil
}

// wrapped reads a text that was escaped as a whole, once or more: as a JSON string,
// for HTML, or for a URL.
func (r *reader) wrapped(data string) (reason error) {
	for range maxNesting {
		plain, ok := unwrap(data)
		if !ok {
			break
		}
		data = strings.TrimSpace(plain)
		if reason = r.text([]byte(data)); r.foundAny() {
			return nil
		}
		if reason == nil {
			reason = r.subscription(data)
		}
		if r.foundAny() {
			return nil
		}
	}
	return reason
}

// decodeDamaged decodes base64 in which characters were lost or added, as far
// as there are links in it; whole tells that there was no damage.
func decodeDamaged(data string) (plain string, whole bool) {
	plain, err := decode(data)
	if err == nil && utf8.ValidString(plain) {
		return plain, true
	}
	clean := strings.Map(func(r rune) rune {
		switch {
		case r == '-':
			return '+'
		case r == '_':
			return '/'
		case r != '=' && isBase64(r):
			return r
		}
		return -1
	}, data)
	if len(clean) < len(data)*3/4 || len(clean) < 16 {
		return "", false // it is something else
	}
	// Behind a lost character the others are decoded from another one on.
	var parts []string
	for from := range 4 {
		rest, cut := clean[from:], ""
		if len(rest)%4 == 1 {
			rest, cut = rest[:len(rest)-1], damage
		}
		text, _ := base64.RawStdEncoding.DecodeString(rest)
		part := strings.ToValidUTF8(string(text), damage)
		if len(marks(part)) > 0 {
			parts = append(parts, part+cut)
		}
		if cut == "" && !strings.Contains(part, damage) {
			break
		}
	}
	return strings.Join(parts, "\n"), false
}

// damage stands for what was lost.
const damage = "\ufffd"

// errOurs is why a configuration of this program is none to import.
var errOurs = errors.New("this is already a configuration of vmess-local: pass it with -c")

// tree reads a whole configuration, a list of such, or a single entry.
func (r *reader) tree(place string, value any, depth int) error {
	switch value := value.(type) {
	case []any:
		for i, element := range value {
			if depth >= maxNesting {
				break
			}
			if err := r.tree(fmt.Sprintf("%s[%d]", place, i), element, depth+1); err != nil {
				return err
			}
		}
	case object:
		return r.object(place, value)
	}
	return nil
}

func (r *reader) object(place string, o object) error {
	prefix := place
	if prefix != "" {
		prefix += "."
	}
	switch {
	case o.child("server").has("address"), o.has("servers") && o.has("listen"):
		return errOurs
	case o.has("add"):
		f, err := linkFields(o)
		r.take(entry(place), f, err)
	case len(o.list("vmess")) > 0:
		r.guiConfig(prefix, o)
	case o.has("outbounds"), o.has("outbound"), o.has("outboundDetour"):
		r.outbounds(prefix, o)
		r.leaveRules(prefix+"routing.rules", o.child("routing").list("rules"))
		r.leaveRules(prefix+"route.rules", o.child("route").list("rules"))
	case o.has(keyProxies), o.has(keyOldProxies), o.has(keyProviders):
		r.clashConfig(prefix, o)
	case o.has("protocol"), o.has("server_port"):
		r.outbound(entry(place), o)
	case o.has("type"):
		r.clashProxy(entry(place), o)
	}
	return nil
}

// entry names the place of what is the whole text.
func entry(place string) string {
	if place == "" {
		return "the server"
	}
	return place
}

func (r *reader) outbounds(prefix string, o object) {
	for _, key := range []string{"outbounds", "outboundDetour"} {
		for i, element := range o.list(key) {
			outbound, _ := element.(object)
			r.outbound(fmt.Sprintf("%s%s[%d]", prefix, key, i), outbound)
		}
	}
	if main := o.child("outbound"); main != nil {
		r.outbound(prefix+"outbound", main)
	}
}

func (r *reader) outbound(place string, o object) {
	if o.has("type") {
		r.singBoxOutbound(place, o)
		return
	}
	r.v2rayOutbound(place, o)
}

// take adds the server that the fields describe, or skips it for err or for
// what is wrong with them.
func (r *reader) take(place string, f *fields, err error) {
	var server *config.Remote
	if err == nil {
		server, err = f.remote()
	}
	label := place
	if f != nil {
		label = named(place, f.name, []string{f.id})
		if err != nil {
			err = f.hideID(err)
		}
	}
	switch {
	case err != nil:
		r.skip(label, err)
	case slices.ContainsFunc(r.Servers, func(other config.Remote) bool {
		return other.ID == server.ID && other.Name == server.Name && reflect.DeepEqual(other, *server)
	}):
	case len(r.Servers) >= maxServers:
		r.skip(label, fmt.Errorf("a configuration has at most %d servers", maxServers))
	default:
		r.Servers = append(r.Servers, *server)
		r.muxes = append(r.muxes, f.muxSetting())
		for _, text := range f.notes {
			if shows(text, []string{f.id}) {
				text = "not all of it is as it was written"
			}
			r.note(place, f.name, []string{f.id}, text)
		}
	}
}

func (r *reader) skip(label string, err error) {
	if len(r.Skipped) >= maxRemarks {
		r.Omitted++
		return
	}
	r.Skipped = append(r.Skipped, Skipped{label, err})
}

func (r *reader) note(place, name string, secrets []string, text string) {
	if len(r.Notes) < maxRemarks {
		r.Notes = append(r.Notes, named(place, name, secrets)+": "+text)
	}
}

// shownRules is how many rules a note shows.
const shownRules = 3

// leaveRules notes routing rules, which are not followed here.
func (r *reader) leaveRules(place string, rules []any) {
	var shown []string
	count := 0
	for _, rule := range rules {
		text := ruleText(rule)
		if text == "" {
			continue
		}
		if count++; count <= shownRules {
			shown = append(shown, text)
		}
	}
	if count == 0 {
		return
	}
	text := fmt.Sprintf("routing rules are left out, everything goes through the server: %s", strings.Join(shown, ", "))
	if count > len(shown) {
		text += fmt.Sprintf(" and %d more", count-len(shown))
	}
	r.note(place, "", nil, text)
}

// ruleText returns a rule in a few words; nothing for one that sends all to a
// proxy or that is about a program's own inbounds.
func ruleText(rule any) string {
	if text, isText := rule.(string); isText {
		parts := strings.Split(text, ",")
		if len(parts) == 2 && slices.Contains([]string{"MATCH", "FINAL"}, strings.TrimSpace(parts[0])) && !toNobody(parts[1]) {
			return ""
		}
		return show(oneLine(text))
	}
	o, _ := rule.(object)
	var t texts
	to := t.of(o, "outboundTag", "balancerTag", "outbound", "action")
	for _, key := range []string{
		"domain", "domains", "ip", "port", "network", "source", "sourcePort", "geosite", "geoip", "rule_set",
		"domain_suffix", "domain_keyword", "domain_regex", "ip_cidr", "ip_is_private", "process_name",
	} {
		what := t.of(o, key)
		if list := o.list(key); len(list) > 0 {
			what, _ = list[0].(string)
		}
		if o.has(key) && to != "" && t.err == nil || len(o.list(key)) > 0 && to != "" {
			return show(oneLine(what + " to " + to))
		}
	}
	return ""
}

// toNobody reports whether a target of Clash's is no proxy.
func toNobody(target string) bool {
	return slices.Contains([]string{"DIRECT", "REJECT", "REJECT-DROP", "PASS"}, strings.ToUpper(strings.TrimSpace(target)))
}

// foreign skips a server of another protocol.
func (r *reader) foreign(place, name, protocol string, o object) {
	secrets := secretsOf(o, nil)
	err := ErrProtocol
	if protocol != "" && !shows(protocol, secrets) {
		err = fmt.Errorf("%w but %s", ErrProtocol, show(protocol))
	}
	r.skip(named(place, name, secrets), err)
}

// secretKeys are the keys of what programs keep secret, in small letters and
// without dashes.
var secretKeys = regexp.MustCompile(`^(?:u?u?id|user(?:name)?|pass(?:word|wd)?|psk|auth(?:str)?|token|(?:private|secret|preshared)?key|obfspassword|.*password)$`)

// secretsOf returns the texts below o that are secrets.
func secretsOf(value any, secrets []string) []string {
	switch value := value.(type) {
	case object:
		for key, inner := range value {
			text, isText := inner.(string)
			if isText && secretKeys.MatchString(strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(key))) {
				secrets = append(secrets, text)
			}
			secrets = secretsOf(inner, secrets)
		}
	case []any:
		for _, inner := range value {
			secrets = secretsOf(inner, secrets)
		}
	}
	return secrets
}

// longestName is how many characters of a name a report shows.
const longestName = 40

// named returns a place with the name of what stands there.
func named(place, name string, secrets []string) string {
	name = strings.TrimSpace(oneLine(name))
	if name == "" || shows(name, secrets) || strings.Contains(name, "://") {
		return place
	}
	if letters := []rune(name); len(letters) > longestName {
		name = string(letters[:longestName]) + "…"
	}
	return fmt.Sprintf("%s %q", place, name)
}
