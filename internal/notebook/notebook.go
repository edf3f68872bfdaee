// Package notebook reads Jupyter's notebook files as the text files they are:
// it says which part of the file is which cell's source or output, and cuts
// outputs away without touching a byte of the rest.
//
// It decides what is transient in a notebook. What its parts contain is for its
// callers to judge.
package notebook

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// ErrFormat is what every error about the contents of a notebook is.
var ErrFormat = errors.New("not a notebook")

// A Part is a piece of text in a notebook, decoded.
type Part struct {
	Cell int    // counted from 1; 0 is the notebook's own metadata
	Name string // source, output, metadata or attachment
	Type string // of an output: stdout, stderr, error, or its MIME type
	Text []byte
	at   []segment
}

// segment says where in the file a stretch of a part's text begins.
type segment struct{ text, file int }

// Offset returns where in the file the string begins that holds the part's
// byte at i. It is exact to the string: Jupyter writes one per line of text.
func (p *Part) Offset(i int) int {
	at := 0
	for _, s := range p.at {
		if s.text > i {
			break
		}
		at = s.file
	}
	return at
}

// Parts returns every piece of text of a notebook: sources, outputs, metadata
// and attachments, in the order of the file. Pictures and other binary data
// are left out, when they are what their type says. The error is [ErrFormat].
func Parts(data []byte) ([]Part, error) {
	root, cells, err := open(data)
	if err != nil {
		return nil, err
	}
	r := reader{data: data}
	for i, c := range cells {
		r.cell = i + 1
		for _, m := range c.members {
			switch m.key {
			case "source", "input":
				r.text("source", "", m.value)
			case "outputs":
				for _, o := range m.value.items {
					r.output(o)
				}
			case "attachments":
				for _, file := range m.value.members {
					r.bundle("attachment", file.value)
				}
			case "metadata":
				r.raw("metadata", "", m.value)
			}
		}
	}
	r.cell = 0
	r.raw("metadata", "", root.get("metadata"))
	return r.parts, nil
}

// open parses a notebook of format 3 or 4 and returns its root and its cells.
func open(data []byte) (*node, []*node, error) {
	root, err := parse(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if root.kind != '{' || root.get("nbformat") == nil {
		return nil, nil, fmt.Errorf("%w: no object with nbformat", ErrFormat)
	}
	var cells []*node
	if c := root.get("cells"); c != nil {
		cells = c.items
	}
	if sheets := root.get("worksheets"); sheets != nil { // format 3
		for _, s := range sheets.items {
			if c := s.get("cells"); c != nil {
				cells = append(cells, c.items...)
			}
		}
	}
	return root, cells, nil
}

// A reader collects parts.
type reader struct {
	data  []byte
	cell  int
	parts []Part
}

// text adds a string, or a list of strings that are one text.
func (r *reader) text(name, kind string, n *node) {
	if n == nil {
		return
	}
	p := Part{Cell: r.cell, Name: name, Type: kind}
	add := func(s *node) {
		p.at = append(p.at, segment{len(p.Text), s.start})
		p.Text = append(p.Text, unquote(r.data[s.start:s.end])...)
	}
	switch n.kind {
	case '"':
		add(n)
	case '[':
		for _, s := range n.items {
			if s.kind != '"' {
				r.raw(name, kind, n)
				return
			}
			add(s)
		}
	default:
		r.raw(name, kind, n)
		return
	}
	if len(p.Text) > 0 {
		r.parts = append(r.parts, p)
	}
}

// raw adds a value as it stands in the file.
func (r *reader) raw(name, kind string, n *node) {
	if n == nil || n.end-n.start <= 2 {
		return
	}
	r.parts = append(r.parts, Part{Cell: r.cell, Name: name, Type: kind, Text: r.data[n.start:n.end], at: []segment{{0, n.start}}})
}

// output adds the texts of one output.
func (r *reader) output(o *node) {
	kind := ""
	if n := o.get("name"); n != nil && n.kind == '"' {
		kind = string(unquote(r.data[n.start:n.end]))
	}
	for _, m := range o.members {
		switch m.key {
		case "output_type", "name", "execution_count", "prompt_number":
		case "data":
			r.bundle("output", m.value)
		case "text":
			r.text("output", kind, m.value)
		case "ename", "evalue", "traceback":
			r.text("output", "error", m.value)
		case "metadata":
			r.raw("output", "metadata", m.value)
		case "png", "jpeg", "pdf": // format 3 has its types as keys
			r.media("output", "image/"+m.key, m.value)
		default:
			r.text("output", m.key, m.value)
		}
	}
}

// bundle adds the texts of a MIME bundle.
func (r *reader) bundle(name string, n *node) {
	for _, m := range n.members {
		r.media(name, m.key, m.value)
	}
}

// media adds a value of a MIME type, unless it is binary data of that type.
func (r *reader) media(name, mime string, n *node) {
	before := len(r.parts)
	r.text(name, mime, n)
	if len(r.parts) > before && binaryType(mime) && isBinary(r.parts[before].Text) {
		r.parts = r.parts[:before]
	}
}

// binaryType reports whether Jupyter writes that type in base64.
func binaryType(mime string) bool {
	if strings.HasPrefix(mime, "image/svg") {
		return false
	}
	for _, p := range []string{"image/", "audio/", "video/", "font/", "application/pdf", "application/octet-stream"} {
		if strings.HasPrefix(mime, p) {
			return true
		}
	}
	return false
}

// magics begin the files of the usual binary types. Text must not pass by
// calling itself a picture.
var magics = []string{
	"\x89PNG\r\n\x1a\n", "\xff\xd8\xff", "GIF87a", "GIF89a", "BM", "%PDF-", "RIFF", "OggS", "ID3", "\xff\xfb", "\x1aE\xdf\xa3", "fLaC",
	"\x00\x00\x01\x00", "II*\x00", "MM\x00*", "wOFF", "wOF2",
}

// isBinary reports whether text is base64 of a picture, a sound, a film or a
// page.
func isBinary(text []byte) bool {
	head := bytes.TrimLeft(text, " \r\n")
	head = head[:min(len(head), 24)/4*4]
	raw := make([]byte, base64.StdEncoding.DecodedLen(len(head)))
	n, err := base64.StdEncoding.Decode(raw, head)
	if err != nil {
		return false
	}
	for _, m := range magics {
		if bytes.HasPrefix(raw[:n], []byte(m)) {
			return true
		}
	}
	return n > 8 && string(raw[4:8]) == "ftyp"
}
