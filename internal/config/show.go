package config

import (
	"bytes"
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
)

// Show returns the effective configuration as YAML that [Load] reads back to
// the same values. With origins, a comment behind each value says where it
// came from. Secrets are references and shown as such.
func (c *Config) Show(withOrigin bool) ([]byte, error) {
	s := shower{cfg: c, origins: withOrigin}
	s.structure(reflect.ValueOf(c).Elem(), "", 0)
	if s.err != nil {
		return nil, fmt.Errorf("show configuration: %w", s.err)
	}
	return s.out.Bytes(), nil
}

type shower struct {
	cfg     *Config
	origins bool
	out     bytes.Buffer
	err     error
}

// line writes one line; path is that of the value on it, empty for none.
func (s *shower) line(indent int, text, path string) {
	s.out.WriteString(strings.Repeat(" ", indent) + text)
	if s.origins && path != "" {
		s.out.WriteString(" # " + strings.Map(func(r rune) rune {
			if unprintable(r) {
				return '·'
			}
			return r
		}, s.cfg.Origin(path).String()))
	}
	s.out.WriteByte('\n')
}

// structure writes the fields of a struct.
func (s *shower) structure(v reflect.Value, path string, indent int) {
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("yaml")
		if name != "" {
			s.field(name, v.Field(i), join(path, name), indent)
		}
	}
}

// field writes one key and what belongs to it.
func (s *shower) field(name string, v reflect.Value, path string, indent int) {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return // left out in the file too
		}
		v = v.Elem()
	}
	_, isText := reflect.TypeAssert[encoding.TextMarshaler](v)
	switch {
	case isText, v.Kind() == reflect.String, v.Kind() == reflect.Int:
		s.line(indent, name+": "+s.scalar(v), path)
	case v.Kind() == reflect.Struct:
		before := s.out.Len()
		s.line(indent, name+":", "")
		after := s.out.Len()
		s.structure(v, path, indent+2)
		if s.out.Len() == after { // a quota in which everything is left out
			s.out.Truncate(before)
			s.line(indent, name+": {}", path)
		}
	case v.Len() == 0 && v.Kind() == reflect.Map:
		s.line(indent, name+": {}", path)
	case v.Len() == 0:
		s.line(indent, name+": []", path)
	case v.Kind() == reflect.Map:
		s.line(indent, name+":", "")
		keys := make([]string, 0, v.Len())
		for _, k := range v.MapKeys() {
			keys = append(keys, k.String())
		}
		slices.Sort(keys)
		for _, k := range keys {
			s.field(k, v.MapIndex(reflect.ValueOf(k)), join(path, k), indent+2)
		}
	default:
		s.line(indent, name+":", "")
		for i := range v.Len() {
			s.item(v.Index(i), fmt.Sprintf("%s[%d]", path, i), indent+2)
		}
	}
}

// item writes one entry of a list.
func (s *shower) item(v reflect.Value, path string, indent int) {
	if v.Kind() != reflect.Struct {
		s.line(indent, "- "+s.scalar(v), path)
		return
	}
	start := s.out.Len()
	s.structure(v, path, indent+2)
	s.out.Bytes()[start+indent] = '-' // the first field carries the dash
}

// scalar returns a value as YAML.
func (s *shower) scalar(v reflect.Value) string {
	text := scalarString(v)
	if v.Kind() != reflect.String && v.Type() != reflect.TypeFor[PortRange]() {
		return text // numbers and units need no quotes
	}
	out, err := yaml.Marshal(text)
	if err != nil {
		s.err = err
		return ""
	}
	if q := strings.TrimSpace(string(out)); q != "" && !strings.ContainsAny(q, "\n#") {
		return q
	}
	return strconv.Quote(text)
}

// scalarString returns a scalar as it would be written, without quotes.
func scalarString(v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return ""
		}
		v = v.Elem()
	}
	if m, ok := reflect.TypeAssert[encoding.TextMarshaler](v); ok {
		text, err := m.MarshalText()
		if err != nil {
			return "" // cannot be: ours never fail
		}
		return string(text)
	}
	if v.Kind() == reflect.Int {
		return strconv.FormatInt(v.Int(), 10)
	}
	return v.String()
}

// flat returns every value by path, for comparing configurations.
func (c *Config) flat() map[string]string {
	all := map[string]string{}
	var walk func(v reflect.Value, path string)
	walk = func(v reflect.Value, path string) {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return
			}
			v = v.Elem()
		}
		_, isText := reflect.TypeAssert[encoding.TextMarshaler](v)
		switch {
		case isText, v.Kind() == reflect.String, v.Kind() == reflect.Int:
			all[path] = scalarString(v)
		case v.Kind() == reflect.Struct:
			for i := range v.NumField() {
				if name := v.Type().Field(i).Tag.Get("yaml"); name != "" {
					walk(v.Field(i), join(path, name))
				}
			}
		case v.Kind() == reflect.Map:
			for _, k := range v.MapKeys() {
				walk(v.MapIndex(k), join(path, k.String()))
			}
		default:
			for i := range v.Len() {
				walk(v.Index(i), fmt.Sprintf("%s[%d]", path, i))
			}
		}
	}
	walk(reflect.ValueOf(c).Elem(), "")
	return all
}
