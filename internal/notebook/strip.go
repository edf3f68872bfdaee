package notebook

import (
	"cmp"
	"fmt"
	"slices"
)

// Keep says what [Strip] leaves in place.
type Keep struct {
	Outputs  bool // outputs
	Counts   bool // execution counts
	Metadata bool // transient metadata: see transientCell, transientNotebook
}

// transientCell are the keys of a cell's metadata that record how it was last
// run or shown, not what it is.
var transientCell = []string{"ExecuteTime", "collapsed", "execution", "papermill", "scrolled", "outputId", "colab", "executionInfo", "heading_collapsed", "hidden"}

// transientNotebook are such keys of the notebook's metadata. The state of
// widgets is output.
var transientNotebook = []string{"papermill", "signature", "widgets"}

// keepTag is the tag, or the key of a cell's metadata, by which an author says
// that a cell's outputs belong to the file.
const keepTag = "keep_output"

// Strip returns the notebook without outputs, execution counts and transient
// metadata. All other bytes are those of data: the order of keys, the
// indentation, the end of the file. Strip of what Strip returned changes
// nothing. The error is [ErrFormat].
func Strip(data []byte, keep Keep) ([]byte, error) {
	root, cells, err := open(data)
	if err != nil {
		return nil, err
	}
	e := editor{data: data}
	for i, c := range cells {
		if c.kind != '{' {
			return nil, fmt.Errorf("%w: cell %d is no object", ErrFormat, i+1)
		}
		kept := e.keepsOutput(c)
		for _, m := range c.members {
			switch {
			case m.key == "outputs" && m.value.kind == '[':
				if !keep.Outputs && !kept {
					e.replace(m.value, "[]")
				} else if !keep.Counts {
					e.counts(m.value)
				}
			case (m.key == "execution_count" || m.key == "prompt_number") && !keep.Counts:
				e.replace(m.value, "null")
			case m.key == "metadata" && !keep.Metadata:
				e.without(m.value, transientCell)
			}
		}
	}
	if m := root.get("metadata"); m != nil {
		drop := slices.Clone(transientNotebook)
		if keep.Outputs {
			drop = slices.DeleteFunc(drop, func(k string) bool { return k == "widgets" })
		}
		if !keep.Metadata {
			e.without(m, drop)
		} else if !keep.Outputs {
			e.without(m, []string{"widgets"})
		}
	}
	return e.apply(), nil
}

// An editor collects replacements.
type editor struct {
	data  []byte
	edits []edit
}

type edit struct {
	start, end int
	text       string
}

func (e *editor) replace(n *node, text string) {
	if string(e.data[n.start:n.end]) != text {
		e.edits = append(e.edits, edit{n.start, n.end, text})
	}
}

// counts sets the execution counts inside kept outputs to null.
func (e *editor) counts(outputs *node) {
	for _, o := range outputs.items {
		for _, key := range []string{"execution_count", "prompt_number"} {
			if n := o.get(key); n != nil {
				e.replace(n, "null")
			}
		}
	}
}

// keepsOutput reports whether the author marked the cell.
func (e *editor) keepsOutput(cell *node) bool {
	meta := cell.get("metadata")
	if v := meta.get(keepTag); v != nil && string(e.data[v.start:v.end]) == "true" {
		return true
	}
	tags := meta.get("tags")
	return tags != nil && slices.ContainsFunc(tags.items, func(t *node) bool {
		return t.kind == '"' && string(unquote(e.data[t.start:t.end])) == keepTag
	})
}

// without removes keys from an object, each with the comma and the space that
// part it from its neighbour; an object that has nothing left becomes {}.
func (e *editor) without(obj *node, keys []string) {
	var left []member
	for _, m := range obj.members {
		if !slices.Contains(keys, m.key) {
			left = append(left, m)
		}
	}
	if len(left) == len(obj.members) {
		return
	}
	if len(left) == 0 {
		e.replace(obj, "{}")
		return
	}
	first := true // no member before this one stays
	for i, m := range obj.members {
		if !slices.Contains(keys, m.key) {
			first = false
			continue
		}
		if first {
			e.edits = append(e.edits, edit{m.start, obj.members[i+1].start, ""})
		} else {
			e.edits = append(e.edits, edit{obj.members[i-1].value.end, m.value.end, ""})
		}
	}
}

// apply returns the text with the replacements made.
func (e *editor) apply() []byte {
	slices.SortFunc(e.edits, func(a, b edit) int { return cmp.Compare(a.start, b.start) })
	out := make([]byte, 0, len(e.data))
	at := 0
	for _, ed := range e.edits {
		out = append(append(out, e.data[at:ed.start]...), ed.text...)
		at = ed.end
	}
	return append(out, e.data[at:]...)
}
