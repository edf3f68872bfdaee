package config

import (
	"fmt"
	"reflect"
	"sort"
	"strings"
)

// The kinds of [Origin].
const (
	FromDefault = "default"
	FromFile    = "file"
	FromEnv     = "env"
	FromFlag    = "flag"
)

// An Origin says where a value came from.
type Origin struct {
	Kind   string // FromDefault, FromFile, FromEnv or FromFlag
	Name   string // path of the file, name of the variable, name of the flag with its dashes
	Line   int    // in the file
	Column int

	width int // of the value, for carets
}

// String returns the origin in one word or two: "default", "bailey.yaml:12",
// "env BAILEY_STATE", "flag --state".
func (o Origin) String() string {
	switch o.Kind {
	case FromFile:
		return fmt.Sprintf("%s:%d", o.Name, o.Line)
	case FromEnv, FromFlag:
		return o.Kind + " " + o.Name
	default:
		return FromDefault
	}
}

// Origin returns where the value at path came from: "listen.https",
// "classes[0].memory", "quotas.users.alice.gpus". What nobody set, and what
// does not exist, is a default.
func (c *Config) Origin(path string) Origin {
	if o, ok := c.origins[path]; ok {
		return o
	}
	return Origin{Kind: FromDefault}
}

// variable returns the environment variable of a path.
func variable(path string) string {
	return "BAILEY_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(path))
}

// flagName returns the command line flag of a field, with its dashes.
func flagName(l leaf) string {
	if name := l.field.Tag.Get("flag"); name != "" {
		return "--" + name
	}
	return "--" + strings.NewReplacer(".", "-", "_", "-").Replace(l.path)
}

// A variableRule says which variables beginning with BAILEY_ mean something
// although no field of the file has them.
type variableRule struct {
	name string // a final * stands for anything
	what string
}

// otherVariables is the list of them. Everything else that begins with BAILEY_
// is taken for a mistyped setting.
func otherVariables() []variableRule {
	return []variableRule{
		{"BAILEY_CONFIG", "path of the configuration file, like --config"},
		{"BAILEY_SERVER", "the server that commands talk to"},
		{"BAILEY_TOKEN", "API token that commands use"},
		{"BAILEY_CA", "PEM file with the CA that commands trust"},
		{"BAILEY_PROFILE", "where commands keep what bailey login stored"},
		{"BAILEY_ARGS", "flags that make run adds"},
		{"BAILEY_BIN", "the binary that tests drive"},
		{"BAILEY_CLASS", "the class that tests launch"},
		{"BAILEY_CHROMIUM", "the browser that tests drive"},
		{"BAILEY_SCREENSHOTS", "where browser tests keep pictures"},
		{"BAILEY_CACHE", "where scripts keep downloads and builds"},
		{"BAILEY_DEBS", "a folder of Debian packages for scripts"},
		{"BAILEY_DEBIAN_*", "mirrors that scripts use"},
		{"BAILEY_SUBSTITUTES", "package substitutes that scripts use"},
		{"BAILEY_DOCKERD_*", "how scripts start Docker"},
		{"BAILEY_POSTGRES_*", "how scripts start PostgreSQL"},
		{"BAILEY_SLAPD_*", "how scripts start OpenLDAP"},
		{"BAILEY_IMAGE_*", "how scripts build images"},
		{"BAILEY_TEST_*", "what tests may use"},
		{"BAILEY_BENCH_*", "what benchmarks may use"},
		{"BAILEY_SMOKE_*", "what the smoke test may use"},
	}
}

// environment overlays every field whose variable is set and reports variables
// that mean nothing.
func (d *decoder) environment(env map[string]string) {
	fields := map[string]leaf{}
	for _, l := range leaves(reflect.ValueOf(d.cfg).Elem()) {
		fields[variable(l.path)] = l
	}
	names := make([]string, 0, len(env))
	for name := range env {
		if strings.HasPrefix(name, "BAILEY_") {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		if l, ok := fields[name]; ok {
			d.overlay(l, Origin{Kind: FromEnv, Name: name}, env[name])
		}
	}
	// The database's own variable is known only now.
	for _, name := range names {
		if _, ok := fields[name]; !ok && !d.known(name) && meantAsSetting(name, fields) {
			d.strange(name, fields)
		}
	}
}

// known reports whether a variable means something besides the file's fields.
func (d *decoder) known(name string) bool {
	if ref, ok := strings.CutPrefix(d.cfg.Database, "env:"); ok && ref == name {
		return true
	}
	for _, rule := range otherVariables() {
		prefix, family := strings.CutSuffix(rule.name, "*")
		if name == rule.name || family && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// meantAsSetting reports whether a variable that means nothing is a mistyped
// setting: it begins like one, or is a slip away from one. Others are left
// alone; scripts around bailey have variables of their own.
func meantAsSetting(name string, fields map[string]leaf) bool {
	section, _, _ := strings.Cut(strings.TrimPrefix(name, "BAILEY_"), "_")
	for v := range fields {
		own, _, _ := strings.Cut(strings.TrimPrefix(v, "BAILEY_"), "_")
		if section == own || distance(name, v, 3) < 3 {
			return true
		}
	}
	return false
}

// strange reports a variable that means nothing. Its value is not shown: it may
// be a secret that just has the wrong name.
func (d *decoder) strange(name string, fields map[string]leaf) {
	var candidates []string
	for v := range fields {
		candidates = append(candidates, v)
	}
	for _, rule := range otherVariables() {
		if !strings.HasSuffix(rule.name, "*") {
			candidates = append(candidates, rule.name)
		}
	}
	sort.Strings(candidates)
	fix := "unset " + shellSafe(name)
	if near := nearest(name, candidates); near != "" {
		fix = fmt.Sprintf("did you mean %s? Else unset it", near)
	}
	d.problems = append(d.problems, Problem{
		Where: "environment", What: "unknown variable " + shellSafe(name),
		Why: "variables that begin with BAILEY_ are settings, and this one sets nothing", Fix: fix,
	})
}

// shellSafe returns a name as it is, or quoted if it is no name.
func shellSafe(name string) string {
	if plainKey.MatchString(name) {
		return name
	}
	return quote(name)
}

// flags overlays the command line.
func (d *decoder) flags(flags map[string]string) {
	left := map[string]bool{}
	for path := range flags {
		left[path] = true
	}
	for _, l := range leaves(reflect.ValueOf(d.cfg).Elem()) {
		if text, ok := flags[l.path]; ok {
			delete(left, l.path)
			d.overlay(l, Origin{Kind: FromFlag, Name: flagName(l)}, text)
		}
	}
	unknown := make([]string, 0, len(left))
	for path := range left {
		unknown = append(unknown, path)
	}
	sort.Strings(unknown)
	for _, path := range unknown {
		d.problems = append(d.problems, Problem{
			Where: "command line", What: "no setting is called " + quote(path),
			Why: "a flag can only set what the file can set", Fix: "one of the fields that `bailey config show` lists",
		})
	}
}

// overlay sets one field from text outside the file.
func (d *decoder) overlay(l leaf, from Origin, text string) {
	delete(d.bad, l.path)
	// A problem of the value in the file stays reported: it is wrong even if it
	// is hidden today.
	d.cfg.origins[l.path] = from
	if f := setText(l.value, text); f != nil {
		d.outside(l.path, from, text, f.what, f.why, d.write(l.path, f.fix))
	}
}

// outside reports a problem of a value that is not in the file.
func (d *decoder) outside(path string, from Origin, text, what, why, fix string) {
	d.bad[path] = true
	p := Problem{Where: "environment", Path: from.Name, What: what, Why: why, Fix: fix}
	if from.Kind == FromFlag {
		p.Where = "command line"
	}
	if path != "database" {
		p.Excerpt = excerpt("    ", from.Name+"="+text, len([]rune(from.Name))+2, len([]rune(text)))
	}
	d.problems = append(d.problems, p)
}

// parseEnv cuts an environment into names and values; the last of a doubled
// name holds.
func parseEnv(env []string) map[string]string {
	out := make(map[string]string, len(env))
	for _, kv := range env {
		if name, value, ok := strings.Cut(kv, "="); ok {
			out[name] = value
		}
	}
	return out
}
