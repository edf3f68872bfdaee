package rules

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/zricethezav/gitleaks/v8/config"

	"github.com/baileyhq/bailey/internal/inspect/pack"
)

// file is a rule file as TOML has it: gitleaks' keys and ours.
type file struct {
	Title       string `toml:"title"`
	Description string `toml:"description"`
	MinVersion  string `toml:"minVersion"`
	Extend      struct {
		Path          string   `toml:"path"`
		URL           string   `toml:"url"`
		UseDefault    bool     `toml:"useDefault"`
		DisabledRules []string `toml:"disabledRules"`
	} `toml:"extend"`
	Allowlist  *fileAllowlist  `toml:"allowlist"`
	Allowlists []fileAllowlist `toml:"allowlists"`
	Rules      []fileRule      `toml:"rules"`
}

type fileRule struct {
	ID          string          `toml:"id"`
	Description string          `toml:"description"`
	Path        string          `toml:"path"`
	Regex       string          `toml:"regex"`
	SecretGroup int             `toml:"secretGroup"`
	Entropy     float64         `toml:"entropy"`
	Keywords    []string        `toml:"keywords"`
	Tags        []string        `toml:"tags"`
	SkipReport  bool            `toml:"skipReport"`
	Allowlist   *fileAllowlist  `toml:"allowlist"`
	Allowlists  []fileAllowlist `toml:"allowlists"`
	Required    []struct {
		ID            string `toml:"id"`
		WithinLines   *int   `toml:"withinLines"`
		WithinColumns *int   `toml:"withinColumns"`
	} `toml:"required"`

	Mode      Mode     `toml:"mode"`
	Context   []string `toml:"context"`
	Validator string   `toml:"validator"`
	Boundary  string   `toml:"boundary"`
	Anchor    string   `toml:"anchor"` // accepted and not needed: the pattern says it
	Priority  *int     `toml:"priority"`
	Examples  []string `toml:"examples"`
	Negatives []string `toml:"negatives"`
	MaxLength int      `toml:"max_length"`
	MinUnique int      `toml:"min_unique"`
}

type fileAllowlist struct {
	Description string   `toml:"description"`
	Condition   string   `toml:"condition"`
	Commits     []string `toml:"commits"`
	Paths       []string `toml:"paths"`
	RegexTarget string   `toml:"regexTarget"`
	Regexes     []string `toml:"regexes"`
	StopWords   []string `toml:"stopwords"`
	TargetRules []string `toml:"targetRules"`
}

// general are gitleaks' rules that match by what stands around a value: where
// another rule knows the value itself, they give way.
var general = map[string]int{"generic-api-key": -10, "curl-auth-header": -10, "curl-auth-user": -10, "hashicorp-tf-password": -10}

// Defaults returns the rule files that come with bailey.
func Defaults() []File {
	files := []File{{Name: "gitleaks.toml", Data: []byte(config.DefaultConfig)}}
	for _, f := range pack.Files() {
		files = append(files, File(f))
	}
	return files
}

// problems collects what is wrong with rule files, so that all of it is told
// at once.
type problems []error

func (p *problems) add(name string, line int, rule, format string, args ...any) {
	where := name
	if line > 0 {
		where = fmt.Sprintf("%s:%d", name, line)
	}
	if rule != "" {
		where += ": rule " + rule
	}
	*p = append(*p, fmt.Errorf("%s: "+format, append([]any{where}, args...)...))
}

// loader gathers the rules of several files.
type loader struct {
	problems problems
	rules    []*Compiled
	allow    []*allowlist // for all rules
	vetted   bool         // the file is part of this program
}

// load reads one file. Its rules replace those of the same id.
func (l *loader) load(f File) {
	var parsed file
	dec := toml.NewDecoder(strings.NewReader(string(f.Data)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&parsed); err != nil {
		l.parseError(f.Name, err)
		return
	}
	if parsed.Extend.Path != "" || parsed.Extend.URL != "" {
		l.problems.add(f.Name, 0, "", "extend.path and extend.url are not followed: put the other file beside this one")
	}
	lines := ruleLines(f.Data)
	seen := map[string]int{}
	for i := range parsed.Rules {
		line := 0
		if i < len(lines) {
			line = lines[i]
		}
		r := l.rule(f.Name, line, &parsed.Rules[i])
		if r == nil {
			continue
		}
		r.vetted = l.vetted
		if before, twice := seen[r.ID]; twice {
			l.problems.add(f.Name, line, r.ID, "is there twice, first on line %d: give one of them another id", before)
			continue
		}
		seen[r.ID] = line
		l.rules = slices.DeleteFunc(l.rules, func(old *Compiled) bool { return old.ID == r.ID })
		l.rules = append(l.rules, r)
	}
	for _, id := range parsed.Extend.DisabledRules {
		l.rules = slices.DeleteFunc(l.rules, func(old *Compiled) bool { return old.ID == id })
	}
	lists := parsed.Allowlists
	if parsed.Allowlist != nil {
		lists = append(lists, *parsed.Allowlist)
	}
	for i := range lists {
		a := l.allowlist(f.Name, 0, "", &lists[i])
		if a == nil {
			continue
		}
		if len(lists[i].TargetRules) == 0 {
			l.allow = append(l.allow, a)
			for _, r := range l.rules {
				r.vetted = r.vetted && l.vetted
			}
		}
		for _, id := range lists[i].TargetRules {
			n := slices.IndexFunc(l.rules, func(r *Compiled) bool { return r.ID == id })
			if n < 0 {
				l.problems.add(f.Name, 0, "", "an allow-list names the rule %q, which no file so far has", id)
				continue
			}
			l.rules[n].allow = append(l.rules[n].allow, a)
			l.rules[n].vetted = l.rules[n].vetted && l.vetted
		}
	}
}

// parseError tells a TOML error with its line, and unknown keys one by one.
func (l *loader) parseError(name string, err error) {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		for _, e := range strict.Errors {
			line, _ := e.Position()
			l.problems.add(name, line, "", "the key %q is not known: remove it, or see docs/filter.md for the keys there are", strings.Join(e.Key(), "."))
		}
		return
	}
	if e, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, column := e.Position()
		l.problems.add(name, line, "", "column %d: %w", column, e)
		return
	}
	l.problems.add(name, 0, "", "%w", err)
}

// ruleLines returns the lines on which [[rules]] stand.
func ruleLines(data []byte) []int {
	var lines []int
	n := 0
	quoted := ""
	for line := range strings.Lines(string(data)) {
		n++
		text := strings.TrimSpace(line)
		if quoted == "" && strings.HasPrefix(text, "[[rules]]") {
			lines = append(lines, n)
			continue
		}
		for _, q := range []string{"'''", `"""`} {
			if (quoted == "" || quoted == q) && strings.Count(text, q)%2 == 1 {
				if quoted == "" {
					quoted = q
				} else {
					quoted = ""
				}
				break
			}
		}
	}
	return lines
}

// rule checks one rule and returns it, or nil when something is wrong or the
// rule is not about text.
func (l *loader) rule(name string, line int, fr *fileRule) *Compiled {
	bad := len(l.problems)
	problem := func(format string, args ...any) { l.problems.add(name, line, fr.ID, format, args...) }
	if fr.ID == "" {
		problem("a rule has no id: write id = \"a-short-name\"")
		return nil
	}
	if strings.ContainsAny(fr.ID, " []\n\r\t\x1b") {
		problem("the id stands in masks: write letters, digits and hyphens")
	}
	r := &Compiled{Rule: Rule{
		ID: fr.ID, Description: fr.Description, Mode: fr.Mode, Pattern: fr.Regex, Context: fr.Context, Tags: fr.Tags,
		Entropy: fr.Entropy, Validator: fr.Validator, Boundary: fr.Boundary, MaxLength: fr.MaxLength, MinUnique: fr.MinUnique,
		Path: fr.Path, Examples: fr.Examples, Negatives: fr.Negatives, File: name, Line: line,
	}, group: fr.SecretGroup}
	r.Priority = general[fr.ID]
	if fr.Priority != nil {
		r.Priority = *fr.Priority
	}
	for _, k := range fr.Keywords {
		r.Keywords = append(r.Keywords, strings.ToLower(k))
	}
	for _, w := range fr.Context {
		r.context = append(r.context, []byte(strings.ToLower(w)))
	}
	if fr.Regex == "" || fr.SkipReport {
		if fr.Regex == "" && fr.Path == "" {
			problem("has neither regex nor path: write regex = '''…'''")
		}
		if fr.Regex == "" || len(l.problems) > bad {
			return nil // gitleaks' rules about file names: there is no text to mask
		}
	}
	var err error
	if r.syntax, err = syntax.Parse(fr.Regex, syntax.Perl); err != nil {
		problem("regex: %w (RE2 syntax: no look-around, no back-references)", err)
	} else if fr.SecretGroup < 0 || fr.SecretGroup > r.syntax.MaxCap() {
		problem("secretGroup = %d, but the regex has %d groups", fr.SecretGroup, r.syntax.MaxCap())
	}
	if fr.Path != "" {
		if r.path, err = regexp.Compile(fr.Path); err != nil {
			problem("path: %w", err)
		}
	}
	if fr.Validator != "" {
		var ok bool
		if r.validate, ok = pack.Validator(fr.Validator); !ok {
			problem("there is no validator %q: there are %s", fr.Validator, strings.Join(pack.Validators(), ", "))
		}
	}
	if fr.Boundary != "" {
		var ok bool
		if r.boundary, ok = pack.Boundary(fr.Boundary); !ok {
			problem("there is no boundary %q", fr.Boundary)
		}
	}
	if fr.Entropy < 0 || fr.Entropy > 8 {
		problem("entropy = %g is not between 0 and 8 bits", fr.Entropy)
	}
	if fr.MaxLength < 0 || fr.MinUnique < 0 || fr.MinUnique > 256 {
		problem("max_length and min_unique are counts of bytes, and min_unique at most 256")
	}
	if fr.Allowlist != nil {
		fr.Allowlists = append(fr.Allowlists, *fr.Allowlist)
	}
	for i := range fr.Allowlists {
		if a := l.allowlist(name, line, fr.ID, &fr.Allowlists[i]); a != nil {
			r.allow = append(r.allow, a)
		}
	}
	if len(l.problems) > bad {
		return nil
	}
	return r
}

// allowlist checks one allow-list, of a rule or of a file.
func (l *loader) allowlist(name string, line int, rule string, fa *fileAllowlist) *allowlist {
	bad := len(l.problems)
	a := &allowlist{target: fa.RegexTarget}
	switch strings.ToUpper(fa.Condition) {
	case "", "OR", "||":
	case "AND", "&&":
		a.all = true
	default:
		l.problems.add(name, line, rule, "allow-list: condition %q is neither \"AND\" nor \"OR\"", fa.Condition)
	}
	switch fa.RegexTarget {
	case "", "secret", "match", "line":
	default:
		l.problems.add(name, line, rule, "allow-list: regexTarget %q is none of secret, match, line", fa.RegexTarget)
	}
	for _, re := range fa.Regexes {
		if _, err := syntax.Parse(re, syntax.Perl); err != nil {
			l.problems.add(name, line, rule, "allow-list: %w", err)
		}
	}
	for _, re := range fa.Paths {
		if _, err := syntax.Parse(re, syntax.Perl); err != nil {
			l.problems.add(name, line, rule, "allow-list: %w", err)
		}
	}
	if len(fa.Commits)+len(fa.Paths)+len(fa.Regexes)+len(fa.StopWords) == 0 {
		l.problems.add(name, line, rule, "allow-list: has none of commits, paths, regexes, stopwords")
	}
	if len(l.problems) > bad {
		return nil
	}
	a.commits = len(fa.Commits) > 0
	a.regexes = fa.Regexes
	a.paths = fa.Paths
	for _, w := range fa.StopWords {
		a.stopwords = append(a.stopwords, strings.ToLower(w))
	}
	return a
}
