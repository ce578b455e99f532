package sharelink

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// maxNodes bounds what the aliases of a YAML text may grow to.
	maxNodes = 1 << 18
	// maxEntryNodes bounds those of one of its entries.
	maxEntryNodes = 1 << 9
)

var (
	errTooManyNodes = errors.New("its YAML grows too large when its anchors are expanded")
	errYAMLKey      = errors.New("its YAML has a key that is not text")
	errBrokenEntry  = errors.New("its YAML is invalid")

	errUnknownAnchor = errors.New("its YAML is invalid")
)

// clashText reads a Clash configuration. An entry that breaks the YAML is left
// out.
func (r *reader) clashText(data []byte) error {
	data = bytes.Map(func(c rune) rune {
		if c < ' ' && c != '\n' && c != '\r' && c != '\t' || c == 0x7f {
			return ' '
		}
		return c
	}, data)
	value, rules, whole := parseYAML(data, maxNodes)
	var broken []Skipped
	if whole != nil {
		var rest []byte
		if rest, broken = withoutBroken(data); len(broken) == 0 {
			return whole
		}
		var err error
		if value, rules, err = parseYAML(rest, maxNodes); err != nil {
			return whole
		}
	}
	if err := r.tree("", value, 0); err != nil {
		return err
	}
	for _, entry := range broken {
		var field *FieldError
		if r.foundAny() || errors.As(entry.Err, &field) {
			r.skip(entry.Entry, entry.Err)
		}
	}
	if !r.foundAny() {
		return whole
	}
	r.leaveRules(keyRules, rules)
	return nil
}

var (
	proxiesLine = regexp.MustCompile(`^\s*["']?(?:` + keyProxies + `|` + keyOldProxies + `|` + keyPayload + `)["']?\s*:\s*(?:#.*)?$`)
	dashLine    = regexp.MustCompile(`^(\s*)-(?:\s|$)`)
	entryName   = regexp.MustCompile(`\bname["']?\s*:\s*["']?([^"',}\r\n]+)`)
	bareColons  = regexp.MustCompile(`([\w-]+)["']?\s*:\s*[^\s"'{}\[\],]*:`)
)

// withoutBroken blanks the entries of lists of proxies that are no YAML, and
// returns what they are.
func withoutBroken(data []byte) (rest []byte, broken []Skipped) {
	lines := bytes.SplitAfter(bytes.Clone(data), []byte("\n"))
	for i := 0; i < len(lines); {
		switch {
		case i == 0 && dashLine.Match(lines[i]):
		case proxiesLine.Match(bytes.TrimRight(lines[i], "\r\n")):
			i++
		default:
			i++
			continue
		}
		broken = append(broken, blankBroken(lines, &i)...)
	}
	return bytes.Join(lines, nil), broken
}

// blankBroken does so in the list whose first line is the i-th, and moves i
// behind it.
func blankBroken(lines [][]byte, i *int) (broken []Skipped) {
	indent := -1
	for *i < len(lines) {
		dash := dashLine.FindSubmatch(lines[*i])
		if text := bytes.TrimSpace(lines[*i]); indent < 0 && (len(text) == 0 || text[0] == '#') {
			*i++
			continue
		}
		if dash == nil || indent >= 0 && len(dash[1]) != indent {
			return broken
		}
		indent = len(dash[1])
		start := *i
		for *i++; *i < len(lines) && belongs(lines[*i], indent); {
			*i++
		}
		entry := bytes.Join(lines[start:*i], nil)
		if _, _, err := parseYAML(entry, maxEntryNodes); err == nil || errors.Is(err, errUnknownAnchor) {
			continue
		}
		broken = append(broken, brokenEntry(start+1, string(entry)))
		for k := start; k < *i; k++ {
			lines[k] = lines[k][len(bytes.TrimRight(lines[k], "\r\n")):]
		}
	}
	return broken
}

// belongs reports whether a line goes on with an entry whose dash is indented
// so far.
func belongs(line []byte, indent int) bool {
	text := bytes.TrimLeft(line, " \t")
	trimmed := bytes.TrimSpace(text)
	return len(trimmed) == 0 || trimmed[0] == '#' || len(line)-len(text) > indent
}

func brokenEntry(line int, text string) Skipped {
	name := ""
	if found := entryName.FindStringSubmatch(text); found != nil {
		name = found[1]
	}
	var err error = errBrokenEntry
	if found := bareColons.FindStringSubmatch(text); found != nil {
		err = &FieldError{found[1], "text with a colon in it, like an IPv6 address, needs quotation marks"}
	}
	return Skipped{named(fmt.Sprintf("line %d", line), name, nil), err}
}

var yamlLine = regexp.MustCompile(`line \d+`)

// parseYAML reads the proxies of a Clash configuration, or a text that is
// such a list or a single entry. Scalars stay the texts that they are, so that
// an id of digits is no number. The error shows nothing of the text.
func parseYAML(data []byte, most int) (value any, rules []any, err error) {
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		if strings.Contains(err.Error(), "unknown anchor") {
			return nil, nil, errUnknownAnchor
		}
		if line := yamlLine.FindString(err.Error()); line != "" {
			return nil, nil, fmt.Errorf("its YAML is invalid near %s", line)
		}
		return nil, nil, errors.New("its YAML is invalid")
	}
	if len(document.Content) == 0 {
		return nil, nil, nil
	}
	tree := yamlTree{left: most}
	root, rules := withoutRules(document.Content[0])
	value, err = tree.value(root, 0)
	return value, rules, err
}

// withoutRules leaves of a whole configuration only what is read, and its rules
// as texts: they may be many thousands.
func withoutRules(root *yaml.Node) (rest *yaml.Node, rules []any) {
	if root.Kind != yaml.MappingNode {
		return root, nil
	}
	kept := *root
	kept.Content = nil
	for i := 0; i+1 < len(root.Content); i += 2 {
		switch root.Content[i].Value {
		case keyProxies, keyOldProxies, keyProviders:
			kept.Content = append(kept.Content, root.Content[i:i+2]...)
		case keyRules:
			for _, rule := range root.Content[i+1].Content {
				rules = append(rules, rule.Value)
			}
		}
	}
	if len(kept.Content) == 0 {
		return root, rules
	}
	return &kept, rules
}

// A yamlTree makes objects and lists of YAML's nodes.
type yamlTree struct{ left int }

func (t *yamlTree) value(n *yaml.Node, depth int) (any, error) {
	t.left--
	switch {
	case t.left < 0:
		return nil, errTooManyNodes
	case depth > maxDepth:
		return nil, errTooDeep
	}
	switch n.Kind {
	case yaml.AliasNode:
		return t.value(n.Alias, depth+1)
	case yaml.MappingNode:
		return t.object(n, depth)
	case yaml.SequenceNode:
		return t.list(n, depth)
	}
	if n.ShortTag() == "!!null" {
		return nil, nil
	}
	return n.Value, nil
}

func (t *yamlTree) list(n *yaml.Node, depth int) (any, error) {
	elements := make([]any, 0, len(n.Content))
	for _, inner := range n.Content {
		element, err := t.value(inner, depth+1)
		if err != nil {
			return nil, err
		}
		elements = append(elements, element)
	}
	return elements, nil
}

func (t *yamlTree) object(n *yaml.Node, depth int) (any, error) {
	o := make(object, len(n.Content)/2)
	var merged []any // what "<<" brings in, the first wins
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, err := t.value(n.Content[i], depth+1)
		if err != nil {
			return nil, err
		}
		name, isText := key.(string)
		if !isText && key != nil {
			return nil, errYAMLKey
		}
		value, err := t.value(n.Content[i+1], depth+1)
		if err != nil {
			return nil, err
		}
		if n.Content[i].ShortTag() == "!!merge" {
			merged = append(merged, value)
			continue
		}
		o[name] = value
	}
	t.merge(o, merged)
	return o, nil
}

// merge adds the keys that o lacks.
func (t *yamlTree) merge(o object, values []any) {
	for _, value := range values {
		switch value := value.(type) {
		case []any:
			t.merge(o, value)
		case object:
			t.left -= len(value)
			for key, inner := range value {
				if _, known := o[key]; !known {
					o[key] = inner
				}
			}
		}
	}
}
