package rules

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// filterEntropy is the condition that most of betterleaks' rules consist of.
var filterEntropy = regexp.MustCompile(`(?:filter\.)?entropy\(finding\["secret"\]\)\s*<=?\s*(\d+(?:\.\d+)?)`)

// Import translates a rule file of gitleaks or of one of its kin. Keys that
// this format does not have are left out, and each is told once, with the rules
// that had it; so is a rule that cannot stand alone. What it returns compiles.
func Import(name string, data []byte) (out []byte, notes []string, err error) {
	var tree map[string]any
	if err := toml.Unmarshal(data, &tree); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	lost := map[string][]string{} // key → rules
	keep := func(where string, from map[string]any, like any) {
		known := keysOf(like)
		for _, key := range slices.Sorted(maps.Keys(from)) {
			if !slices.Contains(known, key) {
				delete(from, key)
				lost[key] = append(lost[key], where)
			}
		}
	}
	keep("the file", tree, file{})
	rules, _ := tree["rules"].([]any)
	for i, r := range rules {
		rule, ok := r.(map[string]any)
		if !ok {
			return nil, nil, fmt.Errorf("%s: rules[%d] is no table", name, i)
		}
		id, _ := rule["id"].(string)
		if filter, ok := rule["filter"].(string); ok {
			if m := filterEntropy.FindStringSubmatch(filter); m != nil && rule["entropy"] == nil {
				if rule["entropy"], err = strconv.ParseFloat(m[1], 64); err != nil {
					return nil, nil, fmt.Errorf("%s: rule %s: entropy: %w", name, id, err)
				}
				if strings.TrimSpace(filter) == m[0] {
					delete(rule, "filter")
				}
			}
		}
		keep(id, rule, fileRule{})
	}
	for _, key := range slices.Sorted(maps.Keys(lost)) {
		notes = append(notes, fmt.Sprintf("%s: the key %q is left out, of %s", name, key, some(lost[key])))
	}
	if out, err = toml.Marshal(tree); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	out = append([]byte("# Imported by bailey rules import.\n"), out...)
	book, err := Load([]File{{Name: name, Data: out}}, false)
	if err != nil {
		return nil, nil, err
	}
	if len(book.All) == 0 && !bytes.Contains(data, []byte("useDefault")) {
		return nil, nil, errors.New(name + ": there are no rules about text in it")
	}
	return out, notes, nil
}

// some writes a list that may be long.
func some(ids []string) string {
	if len(ids) <= 3 {
		return strings.Join(ids, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(ids[:3], ", "), len(ids)-3)
}

// keysOf returns the TOML keys of a struct.
func keysOf(v any) []string {
	var keys []string
	for f := range reflect.TypeOf(v).Fields() {
		if f.IsExported() {
			keys = append(keys, f.Tag.Get("toml"))
		}
	}
	return keys
}
