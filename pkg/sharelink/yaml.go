package sharelink

import (
	"errors"
	"fmt"
	"regexp"

	"go.yaml.in/yaml/v3"
)

// maxNodes bounds what the aliases of a YAML text may grow to.
const maxNodes = 1 << 18

var (
	errTooManyNodes = errors.New("its YAML grows too large when its anchors are followed")
	errYAMLKey      = errors.New("its YAML has a key that is no text")
)

var yamlLine = regexp.MustCompile(`line \d+`)

// parseYAML reads the proxies of a Clash configuration, or a text that is
// such a list or a single entry. Scalars stay the texts that they are, so that
// an id of digits is no number. The error shows nothing of the text.
func parseYAML(data []byte) (any, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		if line := yamlLine.FindString(err.Error()); line != "" {
			return nil, fmt.Errorf("its YAML breaks near %s", line)
		}
		return nil, errors.New("its YAML is broken")
	}
	if len(document.Content) == 0 {
		return nil, nil
	}
	tree := yamlTree{left: maxNodes}
	return tree.value(withoutRules(document.Content[0]), 0)
}

// withoutRules leaves of a whole configuration only what is read: its rules
// may be many thousands.
func withoutRules(root *yaml.Node) *yaml.Node {
	if root.Kind != yaml.MappingNode {
		return root
	}
	kept := *root
	kept.Content = nil
	for i := 0; i+1 < len(root.Content); i += 2 {
		switch root.Content[i].Value {
		case keyProxies, keyOldProxies, keyProviders:
			kept.Content = append(kept.Content, root.Content[i:i+2]...)
		}
	}
	if len(kept.Content) == 0 {
		return root
	}
	return &kept
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
