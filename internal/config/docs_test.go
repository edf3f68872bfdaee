package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

// TestDocumentation compares the tables in docs/configuration.md with the
// structs, and writes them with -update.
func TestDocumentation(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "configuration.md")
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := between(t, string(old), "fields", fieldTables(t))
	text = between(t, text, "variables", variableTable())
	if text == string(old) {
		return
	}
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("docs/configuration.md differs from the structs (-file +structs):\n%s\ngo test ./internal/config -run TestDocumentation -update writes it", cmp.Diff(string(old), text))
}

// between replaces what stands between two marks.
func between(t *testing.T, text, mark, content string) string {
	t.Helper()
	begin, end := "<!-- "+mark+":begin -->\n", "<!-- "+mark+":end -->"
	i, j := strings.Index(text, begin), strings.Index(text, end)
	if i < 0 || j < i {
		t.Fatalf("docs/configuration.md has lost its marks %q and %q", begin, end)
	}
	return text[:i+len(begin)] + content + text[j:]
}

func fieldTables(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	root := reflect.ValueOf(Default()).Elem()
	table := func(heading, intro string, v reflect.Value) {
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n| Field | Value | Default | Meaning |\n|---|---|---|---|\n", heading, intro)
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name := f.Tag.Get("yaml")
			if name == "" || heading == "Top level" && f.Type.Kind() != reflect.String {
				continue
			}
			if f.Tag.Get("doc") == "" {
				t.Errorf("%s.%s has no doc tag", v.Type(), f.Name)
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, valueText(f), defaultText(f, v.Field(i)), strings.ReplaceAll(f.Tag.Get("doc"), "|", `\|`))
		}
	}
	table("Top level", "*Reload:* no.", root)
	for i := range root.NumField() {
		f := root.Type().Field(i)
		name, intro := f.Tag.Get("yaml"), f.Tag.Get("doc")+" *Reload:* no."
		if name == "" {
			continue // not of the file
		}
		if f.Tag.Get("reload") == "live" {
			intro = f.Tag.Get("doc") + " *Reload:* yes."
		}
		switch f.Type.Kind() { //nolint:exhaustive // no others have tables
		case reflect.Struct:
			table("`"+name+"`", intro, root.Field(i))
		case reflect.Slice:
			table("`"+name+"[]`", intro, reflect.ValueOf(defaultClass()))
		case reflect.Map:
			fmt.Fprintf(&b, "\n### `%s.NAME`\n\n%s Each value is a digest: `sha256:` and 64 digits `0-9a-f`.\n", name, intro)
		}
		switch name {
		case "tls":
			table("`tls.acme`", "docs/edge.md has recipes. *Reload:* no.", reflect.ValueOf(ACME{}))
		case "quotas":
			table("Limits: `quotas.default`, `quotas.users.NAME`, `quotas.groups.NAME`", "The defaults are those of `quotas.default`.", reflect.ValueOf(Default().Quotas.Default))
		case "classes":
			table("`classes[].filter`", "What is left out is the filter's. *Reload:* yes.", reflect.ValueOf(ClassFilter{}))
		case "filter":
			table("`filter.modes[]`, `classes[].filter.modes[]`", "One entry per rule. *Reload:* yes.", reflect.ValueOf(RuleMode{}))
			table("`filter.allow[]`", "*Reload:* yes.", reflect.ValueOf(FilterAllow{}))
		case "sign_in":
			table("`sign_in.oidc[]`", "One entry per identity provider. *Reload:* no.", reflect.ValueOf(OIDC{}))
			table("`sign_in.ldap[]`", "One entry per directory. *Reload:* no.", reflect.ValueOf(LDAP{}))
			table("`sign_in.oidc[].groups[]`, `sign_in.ldap[].groups[]`", "*Reload:* no.", reflect.ValueOf(GroupMapping{}))
			table("`sign_in.oidc[].roles[]`, `sign_in.ldap[].roles[]`", "*Reload:* no.", reflect.ValueOf(RoleMapping{}))
		case "gpus":
			table("`gpus.devices[]`", "One entry per card. *Reload:* no.", reflect.ValueOf(Device{}))
		}
	}
	return b.String() + "\n"
}

func valueText(f reflect.StructField) string {
	if enum := f.Tag.Get("enum"); enum != "" {
		return "`" + strings.ReplaceAll(enum, ",", "`, `") + "`"
	}
	below := f.Type
	if below.Kind() == reflect.Pointer {
		below = below.Elem()
	}
	kind := wanted(reflect.New(below).Elem())
	switch {
	case below == reflect.TypeFor[Quota]():
		kind = "limits"
	case below == reflect.TypeFor[map[string]Quota]():
		kind = "limits by name"
	case below == reflect.TypeFor[[]OIDC](), below == reflect.TypeFor[[]LDAP](), below == reflect.TypeFor[[]GroupMapping](), below == reflect.TypeFor[[]RoleMapping](),
		below == reflect.TypeFor[[]Device](), below == reflect.TypeFor[[]RuleMode](), below == reflect.TypeFor[[]FilterAllow]():
		kind = "a list"
	case below == reflect.TypeFor[ClassFilter]():
		kind = "fields"
	case below == reflect.TypeFor[[]string]():
		kind = "a list of names"
	}
	if example := f.Tag.Get("example"); example != "" {
		kind += ", such as `" + example + "`"
	}
	return kind
}

func defaultText(f reflect.StructField, v reflect.Value) string {
	if f.Tag.Get("required") == "true" {
		return "required"
	}
	if text := f.Tag.Get("default"); text != "" {
		return text
	}
	switch v.Kind() { //nolint:exhaustive // the others have a default
	case reflect.Slice, reflect.Map, reflect.Struct:
		if _, isText := reflect.TypeAssert[PortRange](v); !isText {
			return ""
		}
	}
	if text := scalarString(v); text != "" {
		return "`" + text + "`"
	}
	return "empty"
}

func variableTable() string {
	var b strings.Builder
	b.WriteString("\n| Variable | Meaning |\n|---|---|\n")
	for _, rule := range otherVariables() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", rule.name, rule.what)
	}
	return b.String() + "\n"
}

// TestDefaultTags keeps what the tags of Class say next to what the code does.
func TestDefaultTags(t *testing.T) {
	v := reflect.ValueOf(defaultClass())
	for i := range v.NumField() {
		f := v.Type().Field(i)
		said := f.Tag.Get("default")
		if said == "" || strings.Contains(said, " ") {
			continue // a rule, tested by TestClassDefaults
		}
		if got := scalarString(v.Field(i)); got != said && (f.Name != "StartLimit" || got != "1m" || said != "60s") {
			t.Errorf("the default of %s is %s, its tag says %s", f.Name, got, said)
		}
	}
}

// TestRecipes proves that every YAML block of the documentation loads.
func TestRecipes(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 4 {
		t.Errorf("found %d YAML blocks in docs/configuration.md, want at least 4", len(blocks))
	}
	more, err := os.ReadFile(filepath.Join("..", "..", "docs", "sign-in.md"))
	if err != nil {
		t.Fatal(err)
	}
	recipes := regexp.MustCompile("(?ms)^ *```yaml\n(.*?)^ *```").FindAllStringSubmatch(string(more), -1)
	for _, m := range recipes {
		if strings.HasPrefix(m[1], "   sign_in:") { // in a numbered list
			m[1] = regexp.MustCompile(`(?m)^   `).ReplaceAllString(m[1], "")
		}
	}
	if len(recipes) < 4 {
		t.Errorf("found %d YAML blocks in docs/sign-in.md, want at least 4", len(recipes))
	}
	blocks = append(blocks, recipes...)
	for _, m := range blocks {
		if _, err := Load(t.Context(), Source{Path: write(t, m[1])}); err != nil {
			t.Errorf("a recipe does not load: %v\n%s", err, m[1])
		}
	}
}

// TestSchema proves that the schema takes what Load takes, and refuses what is
// wrong in form.
func TestSchema(t *testing.T) {
	raw, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("testdata", "schema.json"), string(raw))
	var schema map[string]any
	if err := json.Unmarshal(raw, &schema); err != nil {
		t.Fatal(err)
	}
	valid := func(text string) []string {
		t.Helper()
		var doc any
		if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		plain, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(plain, &v); err != nil {
			t.Fatal(err)
		}
		return conform(schema, schema, v, "")
	}
	example, err := os.ReadFile(filepath.Join("..", "..", "config", "bailey.example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	shown, err := Default().Show(false)
	if err != nil {
		t.Fatal(err)
	}
	for _, good := range []string{string(example), string(shown), "{}", "classes: [{name: a, image: b, idle_stop: 0, cpus: 0.5, memory: 1.5GiB}]", "quotas: {default: {memory: 0, cpus: \"4\"}}"} {
		if wrong := valid(good); len(wrong) > 0 {
			t.Errorf("the schema refuses %q: %v", good, wrong)
		}
	}
	for name, bad := range map[string]string{
		"unknown field":    "sesions: {}",
		"unknown below":    "listen: {htps: x}",
		"unknown in list":  "classes: [{name: a, image: b, idle_stopp: 1h}]",
		"unknown in map":   "quotas: {users: {a: {gpu: 1}}}",
		"not a word":       "log: {level: loud}",
		"word in a class":  "classes: [{name: a, image: b, self_check: maybe}]",
		"not a size":       "classes: [{name: a, image: b, memory: 16G}]",
		"not a duration":   "sessions: {idle: 1 day}",
		"not a digest":     "images: {a: latest}",
		"not a range":      "origin: {ports: all}",
		"number for text":  "state: 1",
		"text for number":  "classes: [{name: a, image: b, pids: \"1\"}]",
		"without an image": "classes: [{name: a}]",
		"list for fields":  "listen: []",
	} {
		if wrong := valid(bad); len(wrong) == 0 {
			t.Errorf("%s: the schema accepts %q", name, bad)
		}
		if _, err := Load(t.Context(), Source{Path: write(t, bad+"\n")}); err == nil {
			t.Errorf("%s: Load accepts %q", name, bad)
		}
	}
}

// conform checks v against the parts of JSON Schema that ours uses, and says
// where it does not.
func conform(root, s map[string]any, v any, at string) []string {
	known := map[string]bool{
		"$schema": true, "$defs": true, "$ref": true, "title": true, "description": true, "examples": true, "type": true, "enum": true,
		"const": true, "pattern": true, "minimum": true, "oneOf": true, "items": true, "required": true, "properties": true, "additionalProperties": true,
	}
	for key := range s {
		if !known[key] {
			return []string{at + ": the test does not know the keyword " + key}
		}
	}
	if ref, ok := s["$ref"].(string); ok {
		return conform(root, root["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any), v, at)
	}
	var wrong []string
	if want, ok := s["type"].(string); ok && typeOf(v) != want && (want != "number" || typeOf(v) != "integer") {
		return []string{fmt.Sprintf("%s: %v is not of type %s", at, v, want)}
	}
	if want, ok := s["const"]; ok && want != v {
		wrong = append(wrong, fmt.Sprintf("%s: %v is not %v", at, v, want))
	}
	if words, ok := s["enum"].([]any); ok {
		found := false
		for _, w := range words {
			found = found || w == v
		}
		if !found {
			wrong = append(wrong, fmt.Sprintf("%s: %v is none of %v", at, v, words))
		}
	}
	if text, ok := v.(string); ok && s["pattern"] != nil && !regexp.MustCompile(s["pattern"].(string)).MatchString(text) {
		wrong = append(wrong, fmt.Sprintf("%s: %q does not match %s", at, text, s["pattern"]))
	}
	if choices, ok := s["oneOf"].([]any); ok {
		matches := 0
		for _, c := range choices {
			if len(conform(root, c.(map[string]any), v, at)) == 0 {
				matches++
			}
		}
		if matches != 1 {
			wrong = append(wrong, fmt.Sprintf("%s: %v matches %d of the choices", at, v, matches))
		}
	}
	switch v := v.(type) {
	case []any:
		if items, ok := s["items"].(map[string]any); ok {
			for i, item := range v {
				wrong = append(wrong, conform(root, items, item, fmt.Sprintf("%s[%d]", at, i))...)
			}
		}
	case map[string]any:
		properties, _ := s["properties"].(map[string]any)
		for key, value := range v {
			if p, ok := properties[key].(map[string]any); ok {
				wrong = append(wrong, conform(root, p, value, at+"."+key)...)
			} else if more, ok := s["additionalProperties"].(map[string]any); ok {
				wrong = append(wrong, conform(root, more, value, at+"."+key)...)
			} else if s["additionalProperties"] == false {
				wrong = append(wrong, at+"."+key+": no such property")
			}
		}
		required, _ := s["required"].([]any)
		for _, key := range required {
			if _, ok := v[key.(string)]; !ok {
				wrong = append(wrong, at+": no "+key.(string))
			}
		}
	}
	return wrong
}

func typeOf(v any) string {
	switch v := v.(type) {
	case string:
		return "string"
	case bool:
		return "boolean"
	case nil:
		return "null"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	case float64:
		if v == float64(int64(v)) {
			return "integer"
		}
	}
	return "number"
}
