package notebook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// maxDepth is how deep values may nest.
const maxDepth = 512

// A node is a JSON value with its place in the file. Values inside strings and
// numbers stay as they are written.
type node struct {
	kind       byte // '{', '[', '"', or 'v' for numbers, true, false, null
	start, end int
	members    []member
	items      []*node
}

// A member is a key of an object with its value. start is where the quote of
// the key stands.
type member struct {
	key   string
	start int
	value *node
}

// get returns the value of a key, or nil.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	for _, m := range n.members {
		if m.key == key {
			return m.value
		}
	}
	return nil
}

// parse returns the tree of a JSON text. It refuses what readers may see
// differently: keys that stand twice in one object, anything behind the value.
func parse(data []byte) (*node, error) {
	if !json.Valid(data) {
		var v json.RawMessage
		err := json.Unmarshal(data, &v)
		if at, ok := errors.AsType[*json.SyntaxError](err); ok {
			line := 1 + bytes.Count(data[:min(int(at.Offset), len(data))], []byte("\n"))
			return nil, fmt.Errorf("line %d is no JSON: %w", line, at)
		}
		return nil, errors.New("no JSON")
	}
	p := parser{data: data}
	p.space()
	return p.value(0)
}

// A parser walks over text that is known to be valid JSON.
type parser struct {
	data []byte
	at   int
}

func (p *parser) space() {
	for p.at < len(p.data) && (p.data[p.at] == ' ' || p.data[p.at] == '\n' || p.data[p.at] == '\t' || p.data[p.at] == '\r') {
		p.at++
	}
}

func (p *parser) value(depth int) (*node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("values nest deeper than %d", maxDepth)
	}
	n := &node{kind: p.data[p.at], start: p.at}
	var err error
	switch n.kind {
	case '{':
		err = p.object(n, depth)
	case '[':
		err = p.array(n, depth)
	case '"':
		p.text()
	default:
		n.kind = 'v'
		for p.at < len(p.data) && bytes.IndexByte([]byte(" \n\t\r,]}"), p.data[p.at]) < 0 {
			p.at++
		}
	}
	n.end = p.at
	return n, err
}

func (p *parser) object(n *node, depth int) error {
	seen := map[string]bool{}
	p.at++
	for p.space(); p.data[p.at] != '}'; p.space() {
		if p.data[p.at] == ',' {
			p.at++
			p.space()
		}
		m := member{start: p.at}
		p.text()
		m.key = string(unquote(p.data[m.start:p.at]))
		if seen[m.key] {
			return fmt.Errorf("line %d: the key %.40q stands twice", 1+bytes.Count(p.data[:p.at], []byte("\n")), m.key)
		}
		seen[m.key] = true
		p.space()
		p.at++ // the colon
		p.space()
		var err error
		if m.value, err = p.value(depth + 1); err != nil {
			return err
		}
		n.members = append(n.members, m)
	}
	p.at++
	return nil
}

func (p *parser) array(n *node, depth int) error {
	p.at++
	for p.space(); p.data[p.at] != ']'; p.space() {
		if p.data[p.at] == ',' {
			p.at++
			p.space()
		}
		item, err := p.value(depth + 1)
		if err != nil {
			return err
		}
		n.items = append(n.items, item)
	}
	p.at++
	return nil
}

// text moves behind a string.
func (p *parser) text() {
	for p.at++; p.data[p.at] != '"'; p.at++ {
		if p.data[p.at] == '\\' {
			p.at++
		}
	}
	p.at++
}

// unquote decodes a string of valid JSON.
func unquote(quoted []byte) []byte {
	if inner := quoted[1 : len(quoted)-1]; bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return quoted // cannot be: it was valid
	}
	return []byte(s)
}
