package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// A decoder fills a Config and collects what is wrong on the way. It walks the
// syntax tree itself, because the library's strict decoder stops at the first
// problem and we report all of them.
type decoder struct {
	doc      *document
	cfg      *Config
	bad      map[string]bool // paths that have a problem already: what depends on them is not judged
	problems []Problem
}

// given reports whether somebody set the path.
func (d *decoder) given(path string) bool { _, ok := d.cfg.origins[path]; return ok }

// file decodes the file.
func (d *decoder) file() {
	root, problems := d.doc.parse()
	d.problems = append(d.problems, problems...)
	if len(problems) > 0 {
		d.bad[""] = true
	}
	if root == nil {
		return
	}
	d.value(root, reflect.ValueOf(d.cfg).Elem(), "", "")
}

// fault reports what is wrong with the node at path.
func (d *decoder) fault(n ast.Node, path, what, why, fix string) {
	d.bad[path] = true
	d.report(n, path, what, why, fix)
}

// report is fault without spoiling the path: its value can still be judged.
func (d *decoder) report(n ast.Node, path, what, why, fix string) {
	at := place(n)
	p := d.doc.problem(at.Line, at.Column, width(n), what, why, fix)
	p.Path = path
	d.problems = append(d.problems, p)
}

// place is where a node begins.
func place(n ast.Node) *token.Position {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		return m.Values[0].Key.GetToken().Position // the token of a block map is its first ":"
	}
	return n.GetToken().Position
}

// width is how many characters of the line a node takes, as far as is known.
func width(n ast.Node) int {
	t := n.GetToken()
	switch t.Type { //nolint:exhaustive // the others are one character or unknown
	case token.SingleQuoteType, token.DoubleQuoteType, token.LiteralType, token.FoldedType:
		return len([]rune(strings.TrimSpace(t.Origin)))
	case token.StringType, token.IntegerType, token.FloatType, token.BoolType, token.NullType:
		return len([]rune(t.Value))
	default:
		return 1
	}
}

// value decodes n into v; field is the name of the field for messages.
func (d *decoder) value(n ast.Node, v reflect.Value, path, field string) {
	if at := place(n); path != "" {
		d.cfg.origins[path] = Origin{Kind: FromFile, Name: d.doc.name, Line: at.Line, Column: at.Column, width: width(n)}
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	_, isText := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr())
	switch {
	case isText, v.Kind() == reflect.String, v.Kind() == reflect.Int:
		d.scalar(n, v, path, field)
	case n.Type() == ast.NullType:
		// "classes:" with everything below it commented out means "not given".
		delete(d.cfg.origins, path)
	case v.Kind() == reflect.Struct:
		if entries, ok := d.entries(n, path, field); ok {
			d.structure(entries, v, path)
		}
	case v.Kind() == reflect.Map:
		if entries, ok := d.entries(n, path, field); ok {
			d.mapping(entries, v, path)
		}
	case v.Kind() == reflect.Slice:
		d.list(n, v, path, field)
	}
}

// entries returns the entries of a map node and reports doubled keys.
func (d *decoder) entries(n ast.Node, path, field string) ([]*ast.MappingValueNode, bool) {
	var all []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		all = m.Values
	case *ast.MappingValueNode:
		all = []*ast.MappingValueNode{m}
	default:
		what, fix := "expected fields, found "+kindOf(n), "key: value, one per line, two spaces further in"
		if path == "" {
			field = "the file"
		}
		d.fault(n, path, what, field+" is made of named fields", fix)
		return nil, false
	}
	first := map[string]int{}
	var unique []*ast.MappingValueNode
	for _, e := range all {
		key := keyText(e)
		if line, twice := first[key]; twice {
			d.report(e.Key, join(path, key), fmt.Sprintf("%s stands here for the second time", quote(key)),
				fmt.Sprintf("it is already on line %d, and only one of them can hold", line), "one of the two lines")
			continue
		}
		first[key] = e.Key.GetToken().Position.Line
		unique = append(unique, e)
	}
	return unique, true
}

// keyText returns a key as it was written, without quotes.
func keyText(e *ast.MappingValueNode) string { return e.Key.GetToken().Value }

// join appends a key to a path.
func join(path, key string) string {
	if !plainKey.MatchString(key) {
		key = quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,60}$`)

// structure decodes entries into the fields of a struct.
func (d *decoder) structure(entries []*ast.MappingValueNode, v reflect.Value, path string) {
	names := fieldNames(v.Type())
	for _, e := range entries {
		key := keyText(e)
		i := slices.Index(names, key)
		if i < 0 {
			d.unknown(e, key, names, path)
			continue
		}
		d.value(e.Value, v.Field(i), join(path, key), key)
	}
}

// unknown reports a key that no field has.
func (d *decoder) unknown(e *ast.MappingValueNode, key string, names []string, path string) {
	fix := "one of: " + strings.Join(names, ", ")
	if near := nearest(key, names); near != "" {
		fix = fmt.Sprintf("did you mean %q?", near)
	} else if elsewhere := findField(key); elsewhere != "" && elsewhere != join(path, key) {
		fix = fmt.Sprintf("did you mean %s? Indentation decides to what a field belongs", elsewhere)
	}
	where := "the top level"
	if path != "" {
		where = path
	}
	d.fault(e.Key, "", "unknown field "+quote(key), where+" has no such field", fix)
}

// findField returns the path of the only scalar field called name, if there is one.
func findField(name string) string {
	found := ""
	for _, l := range leaves(reflect.ValueOf(Default()).Elem()) {
		if l.path == name || strings.HasSuffix(l.path, "."+name) {
			if found != "" {
				return ""
			}
			found = l.path
		}
	}
	return found
}

// mapping decodes entries into a map whose keys are names.
func (d *decoder) mapping(entries []*ast.MappingValueNode, v reflect.Value, path string) {
	v.Set(reflect.MakeMapWithSize(v.Type(), len(entries)))
	for _, e := range entries {
		key := keyText(e)
		at := join(path, key)
		d.checkKey(at, key, e.Key)
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(e.Value, item, at, key)
		v.SetMapIndex(reflect.ValueOf(key), item)
	}
}

// list decodes a sequence into a slice.
func (d *decoder) list(n ast.Node, v reflect.Value, path, field string) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.fault(n, path, "expected a list, found "+kindOf(n), field+" is a list", "entries that begin with \"- \", or [a, b]")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values)))
	for i, item := range seq.Values {
		if class, ok := reflect.TypeAssert[*Class](v.Index(i).Addr()); ok {
			*class = defaultClass()
		}
		at := fmt.Sprintf("%s[%d]", path, i)
		if item.Type() == ast.NullType {
			d.fault(item, at, "this entry is empty", "every \"-\" begins an entry", "the entry, or no \"-\"")
			continue
		}
		d.value(item, v.Index(i), at, field)
	}
}

// scalar decodes a single value.
func (d *decoder) scalar(n ast.Node, v reflect.Value, path, field string) {
	text, quoted, ok := scalarText(n)
	_, isText := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr())
	switch {
	case n.Type() == ast.NullType:
		d.fault(n, path, "there is no value", "a field that is named has a value", "a value, or no line at all for the default ("+field+": …)")
		return
	case !ok:
		d.fault(n, path, "expected "+wanted(v)+", found "+kindOf(n), wantedWhy(v), fixFor(v, field, n))
		return
	case isText && n.Type() == ast.BoolType && v.Type() != reflect.TypeFor[Flag](),
		v.Kind() == reflect.Int && (quoted || n.Type() != ast.IntegerType),
		v.Kind() == reflect.String && n.Type() != ast.StringType && n.Type() != ast.LiteralType:
		fix := fixFor(v, field, n)
		if strings.HasPrefix(path, "listen.") {
			fix = field + ": " + listenFix(path, text)
		}
		d.fault(n, path, "expected "+wanted(v)+", found "+kindOf(n), wantedWhy(v), fix)
		return
	}
	if f := setText(v, text); f != nil {
		d.fault(n, path, f.what, f.why, field+": "+f.fix)
	}
}

// setText sets a scalar from its text, wherever it came from.
func setText(v reflect.Value, text string) *fault {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if u, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok {
		err := u.UnmarshalText([]byte(text))
		if err == nil {
			return nil
		}
		if f, ok := errors.AsType[*fault](err); ok {
			return f
		}
		return &fault{what: quote(text) + " is not a value for this field", why: err.Error(), fix: "another value"}
	}
	if v.Kind() == reflect.String {
		v.SetString(text)
		return nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || strconv.Itoa(n) != text {
		return &fault{what: quote(text) + " is not a whole number", why: "it counts something", fix: "digits only, such as 4"}
	}
	v.SetInt(int64(n))
	return nil
}

// scalarText returns the text of a scalar node, and whether it was quoted.
func scalarText(n ast.Node) (text string, quoted, ok bool) {
	switch s := n.(type) {
	case *ast.StringNode:
		return s.Value, s.Token.Type == token.SingleQuoteType || s.Token.Type == token.DoubleQuoteType, true
	case *ast.LiteralNode:
		return s.Value.Value, true, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, false, true
	default:
		return "", false, false
	}
}

// kindOf says what a node is, in a reader's words.
func kindOf(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "fields"
	case *ast.SequenceNode:
		return "a list"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.NullNode:
		return "nothing"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	}
	return "something else"
}

// wanted says what a field takes.
func wanted(v reflect.Value) string {
	switch v.Interface().(type) {
	case Duration:
		return "a duration"
	case Bytes:
		return "a size"
	case CPUs:
		return "a number of cores"
	case PortRange:
		return "a range of ports"
	case Flag:
		return "true or false"
	}
	if v.Kind() == reflect.Int {
		return "a whole number"
	}
	return "text"
}

// wantedWhy is the rule behind wanted.
func wantedWhy(v reflect.Value) string {
	if v.Kind() == reflect.String {
		return "YAML takes what looks like a number, a list or a yes for one; quotes make it text"
	}
	return "the field is " + wanted(v)
}

// fixFor suggests what to write for a value of the wrong kind.
func fixFor(v reflect.Value, field string, n ast.Node) string {
	text, _, ok := scalarText(n)
	switch v.Interface().(type) {
	case Duration:
		return field + ": 30m"
	case Bytes:
		return field + ": 16GiB"
	case CPUs:
		return field + ": 4"
	case PortRange:
		return field + `: "8500-8599"`
	case Flag:
		return field + ": true"
	}
	if v.Kind() == reflect.Int {
		if _, err := strconv.Atoi(text); ok && err == nil {
			return field + ": " + text
		}
		return field + ": 4"
	}
	if ok {
		return field + ": " + quote(text)
	}
	return field + `: "text"`
}

// fieldNames returns the YAML names of a struct's fields, in order; fields of
// our own are "".
func fieldNames(t reflect.Type) []string {
	names := make([]string, 0, t.NumField())
	for f := range t.Fields() {
		if name := f.Tag.Get("yaml"); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// A leaf is one scalar field that exists without the file: not inside a list
// or a map.
type leaf struct {
	path  string
	field reflect.StructField
	value reflect.Value
}

// leaves returns the scalar fields below the struct v. The order is the
// struct's.
func leaves(v reflect.Value) []leaf { return appendLeaves(nil, v, "") }

func appendLeaves(all []leaf, v reflect.Value, path string) []leaf {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := f.Tag.Get("yaml")
		if name == "" {
			continue
		}
		at, fv := join(path, name), v.Field(i)
		_, isText := reflect.TypeAssert[encoding.TextUnmarshaler](reflect.New(f.Type))
		switch {
		case f.Type.Kind() == reflect.Struct && !isText:
			all = appendLeaves(all, fv, at)
		case f.Type.Kind() == reflect.Map, f.Type.Kind() == reflect.Slice:
		default:
			all = append(all, leaf{path: at, field: f, value: fv})
		}
	}
	return all
}
