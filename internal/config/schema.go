package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/invopop/jsonschema"
)

// Schema returns a JSON Schema (draft 2020-12) of the file: for editors, which
// complete and check while one types. It knows the form of each value; what
// values mean to each other only [Load] checks.
func Schema() ([]byte, error) {
	r := &jsonschema.Reflector{
		FieldNameTag:               "yaml",
		Anonymous:                  true,
		ExpandedStruct:             true,
		RequiredFromJSONSchemaTags: true,
	}
	s := r.Reflect(&Config{})
	s.Title = "bailey.yaml"
	describe(s, reflect.TypeFor[Config](), s.Definitions, map[string]bool{})
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("make schema: %w", err)
	}
	return append(out, '\n'), nil
}

// describe carries our tags into the schema of a struct and of what is below.
// seen holds the definitions that have them already: they are shared.
func describe(s *jsonschema.Schema, t reflect.Type, defs jsonschema.Definitions, seen map[string]bool) {
	for f := range t.Fields() {
		name := f.Tag.Get("yaml")
		p, ok := s.Properties.Get(name)
		if name == "" || !ok {
			continue
		}
		p.Description = f.Tag.Get("doc")
		if enum := f.Tag.Get("enum"); enum != "" {
			for word := range strings.SplitSeq(enum, ",") {
				p.Enum = append(p.Enum, word)
			}
		}
		if f.Tag.Get("required") == "true" {
			s.Required = append(s.Required, name)
		}
		below := f.Type
		for below.Kind() == reflect.Slice || below.Kind() == reflect.Map || below.Kind() == reflect.Pointer {
			below = below.Elem()
		}
		if def := defs[below.Name()]; below.Kind() == reflect.Struct && def != nil && def.Properties != nil && !seen[below.Name()] {
			seen[below.Name()] = true
			describe(def, below, defs, seen)
		}
	}
}

// JSONSchema describes how a duration is written.
func (Duration) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{
		OneOf: []*jsonschema.Schema{
			text(`^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`),
			{Const: 0},
		},
		Examples: []any{"90s", "30m", "8h"},
	}
}

// JSONSchema describes how a size is written.
func (Bytes) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{
		OneOf: []*jsonschema.Schema{
			text(`^(0|[0-9]{1,9}(\.[0-9]{1,3})?(KiB|MiB|GiB|TiB))$`),
			{Const: 0},
		},
		Examples: []any{"512MiB", "16GiB"},
	}
}

// JSONSchema describes how cores are written.
func (CPUs) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{
		OneOf: []*jsonschema.Schema{
			{Type: "number", Minimum: "0"},
			{Type: "string", Pattern: `^[0-9]{1,7}(\.[0-9]{1,3})?$`},
		},
		Examples: []any{4, 0.5},
	}
}

// JSONSchema describes how a range of ports is written.
func (PortRange) JSONSchema() *jsonschema.Schema {
	return text(`^[0-9]{1,5} ?- ?[0-9]{1,5}$`, "8500-8599")
}

// JSONSchema describes a switch.
func (Flag) JSONSchema() *jsonschema.Schema { return &jsonschema.Schema{Type: "boolean"} }

// JSONSchema describes how a digest is written.
func (Image) JSONSchema() *jsonschema.Schema { return text(`^sha256:[0-9a-f]{64}$`) }

func text(pattern string, examples ...any) *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: pattern, Examples: examples}
}
