package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/baileyhq/bailey/internal/trust/root"
)

// Limits of a policy file.
const (
	maxBytes    = 256 << 10
	maxProblems = 50
	maxRules    = 500
	maxOf       = 32 // authorities and attestations of one rule
)

// Errors is everything that is wrong with one policy file.
type Errors struct { //nolint:errname // several problems are one error, and that is their plain name
	File     string
	Problems []Problem
}

// A Problem is one thing that is wrong, where, and how to mend it.
type Problem struct {
	Line int    `json:"line,omitempty"` // from 1; 0: no place in the file
	Path string `json:"path,omitempty"` // "rules[0].match"
	What string `json:"what"`
	Fix  string `json:"fix,omitempty"`
}

// Error lists the problems, one per line.
func (e *Errors) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the image policy has %d problem(s)", len(e.Problems))
	for i, p := range e.Problems {
		if i == maxProblems {
			fmt.Fprintf(&b, "\n… and %d more", len(e.Problems)-i)
			break
		}
		fmt.Fprintf(&b, "\n%s:%d: ", e.File, p.Line)
		if p.Path != "" {
			b.WriteString(p.Path + ": ")
		}
		b.WriteString(p.What)
		if p.Fix != "" {
			b.WriteString("; " + p.Fix)
		}
	}
	return b.String()
}

// Parse reads a policy. read returns the content of a file that the policy
// names (relative names are relative to the policy's directory); nil allows
// none. The error is an *[Errors].
func Parse(name string, data []byte, read func(path string) ([]byte, error)) (*Policy, error) {
	d := &decoder{file: name, read: read, hash: map[string]string{}, spoiled: map[string]bool{}}
	p := d.policy(data)
	if len(d.problems) > 0 {
		// A map has no order; a reader has one.
		slices.SortStableFunc(d.problems, func(a, b Problem) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Path, b.Path), cmp.Compare(a.What, b.What))
		})
		return nil, &Errors{File: name, Problems: d.problems}
	}
	// The order of the files is that of their names: the hash must not depend
	// on the order of a map.
	sum := sha256.New()
	fmt.Fprintf(sum, "bailey image policy 1\n%d\n%s", len(data), data)
	p.Files = []string{name}
	for _, f := range sortedKeys(d.hash) {
		fmt.Fprintf(sum, "\n%q %s", f, d.hash[f])
		p.Files = append(p.Files, f)
	}
	p.Hash = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return p, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

type decoder struct {
	file     string
	read     func(string) ([]byte, error)
	hash     map[string]string // of the files that the policy names
	problems []Problem
	roots    map[string]*root.Root
	by       map[string]*Authority
	spoiled  map[string]bool // authorities that are there, with problems of their own
}

func (d *decoder) fault(n ast.Node, path, fix, what string, args ...any) {
	p := Problem{Path: path, What: fmt.Sprintf(what, args...), Fix: fix}
	if n != nil && n.GetToken() != nil {
		p.Line = n.GetToken().Position.Line
	}
	d.problems = append(d.problems, p)
}

func (d *decoder) policy(data []byte) *Policy {
	p := &Policy{Name: d.file}
	n := d.document(data)
	top := d.fields(n, "", "version", "roots", "authorities", "rules")
	if top == nil {
		return p
	}
	if v, ok := top["version"]; !ok || d.text(v, "version") != "1" {
		d.fault(n, "version", `write "version: 1" at the top`, "the policy does not say that it is of version 1")
	}
	d.roots = d.allRoots(top["roots"])
	d.by = d.authorities(top["authorities"])
	p.Roots = d.roots
	names := map[string]bool{}
	for i, e := range d.list(top["rules"], "rules", maxRules) {
		r := d.rule(e, fmt.Sprintf("rules[%d]", i))
		if r == nil {
			continue
		}
		if names[r.Name] {
			d.fault(e, fmt.Sprintf("rules[%d].name", i), "give each rule a name of its own; messages and the journal use it", "a second rule is called %q", r.Name)
		}
		names[r.Name] = true
		for _, m := range r.Match {
			for _, before := range p.Rules {
				if slices.Contains(before.Match, m) || slices.Contains(before.Match, "**") {
					d.fault(e, fmt.Sprintf("rules[%d].match", i), "the first rule that matches decides: put the special rule before the general one", "%s never comes to this rule: rule %s has it already", m, before.Name)
				}
			}
		}
		p.Rules = append(p.Rules, r)
	}
	return p
}

// document parses the YAML. The parser is foreign: what makes it panic is an
// unreadable file.
func (d *decoder) document(data []byte) (n ast.Node) {
	defer func() {
		if r := recover(); r != nil {
			n = nil
			d.fault(nil, "", "", "the file cannot be read as YAML")
		}
	}()
	// The parser recurses per level and is quadratic in lines.
	if len(data) > maxBytes || strings.Count(string(data), "\n") > 10_000 || strings.Count(string(data), "[")+strings.Count(string(data), "{") > 2000 {
		d.fault(nil, "", "", "the file is too large or too deeply nested to be a policy")
		return nil
	}
	f, err := parser.ParseBytes(data, 0)
	if err != nil {
		d.fault(nil, "", "", "the file cannot be read as YAML: %s", firstLine(err))
		return nil
	}
	var docs []ast.Node
	for _, doc := range f.Docs {
		if doc.Body != nil {
			docs = append(docs, doc.Body)
		}
	}
	if len(docs) != 1 {
		d.fault(nil, "", "write one YAML document that begins with version: 1", "the file holds %d documents", len(docs))
		return nil
	}
	return docs[0]
}

func firstLine(err error) string { s, _, _ := strings.Cut(err.Error(), "\n"); return s }

// fields returns the entries of a map. Unknown and doubled names are faults.
func (d *decoder) fields(n ast.Node, path string, known ...string) map[string]ast.Node {
	var all []*ast.MappingValueNode
	switch m := n.(type) {
	case nil:
		return nil
	case *ast.MappingNode:
		all = m.Values
	case *ast.MappingValueNode:
		all = []*ast.MappingValueNode{m}
	default:
		d.fault(n, path, "write fields, one per line", "expected fields, found %s", kind(n))
		return nil
	}
	out := map[string]ast.Node{}
	for _, e := range all {
		key, ok := e.Key.(ast.Node)
		if !ok || e.Key.IsMergeKey() || e.Key.Type() != ast.StringType {
			d.fault(e, path, "", "a field's name must be a plain word")
			continue
		}
		name := key.GetToken().Value
		switch {
		case out[name] != nil:
			d.fault(e.Key, join(path, name), "keep one", "%q stands there twice", name)
		case known != nil && !slices.Contains(known, name):
			d.fault(e.Key, join(path, name), "known are "+strings.Join(known, ", "), "there is no field %q here", name)
		default:
			out[name] = e.Value
		}
	}
	return out
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func kind(n ast.Node) string {
	switch n.Type() { //nolint:exhaustive // the rest is a value
	case ast.MappingType, ast.MappingValueType:
		return "fields"
	case ast.SequenceType:
		return "a list"
	case ast.NullType:
		return "nothing"
	case ast.AnchorType, ast.AliasType, ast.MergeKeyType, ast.TagType:
		return "a YAML anchor, alias or tag, which a policy does not take"
	}
	return "a value"
}

func (d *decoder) list(n ast.Node, path string, limit int) []ast.Node {
	if n == nil {
		return nil
	}
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		d.fault(n, path, "write a list: one \"- …\" per line", "expected a list, found %s", kind(n))
		return nil
	}
	if len(s.Values) > limit {
		d.fault(n, path, "", "more than %d entries", limit)
		return nil
	}
	return s.Values
}

func (d *decoder) text(n ast.Node, path string) string {
	switch v := n.(type) {
	case nil:
		return ""
	case *ast.StringNode:
		return v.Value
	case *ast.LiteralNode:
		return v.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return v.GetToken().Value
	}
	d.fault(n, path, "", "expected text, found %s", kind(n))
	return ""
}

func (d *decoder) texts(n ast.Node, path string, limit int) []string {
	var all []string
	for i, e := range d.list(n, path, limit) {
		all = append(all, d.text(e, fmt.Sprintf("%s[%d]", path, i)))
	}
	return all
}

func (d *decoder) boolean(n ast.Node, path string, without bool) bool {
	if n == nil {
		return without
	}
	b, ok := n.(*ast.BoolNode)
	if !ok {
		d.fault(n, path, "write true or false", "expected true or false")
		return without
	}
	return b.Value
}

func (d *decoder) choice(n ast.Node, path string, of ...string) string {
	if n == nil {
		return of[0]
	}
	s := d.text(n, path)
	if !slices.Contains(of, s) {
		d.fault(n, path, "use one of "+strings.Join(of, ", "), "%q is not known here", s)
		return of[0]
	}
	return s
}

// age reads a duration in whole units: 90d, 36h, 15m.
func (d *decoder) age(n ast.Node, path string) time.Duration {
	if n == nil {
		return 0
	}
	s := d.text(n, path)
	unit := map[string]time.Duration{"m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
	if len(s) > 1 {
		if u, ok := unit[s[len(s)-1:]]; ok {
			if i, err := strconv.Atoi(s[:len(s)-1]); err == nil && i > 0 && i <= 100_000 && time.Duration(i)*u < 100*365*24*time.Hour {
				return time.Duration(i) * u
			}
		}
	}
	d.fault(n, path, "write a number and d, h or m, such as 90d", "%q is no length of time", s)
	return 0
}

func (d *decoder) day(n ast.Node, path string) time.Time {
	if n == nil {
		return time.Time{}
	}
	s := d.text(n, path)
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return t
		}
	}
	d.fault(n, path, "write a day, such as 2026-01-31, or a time in RFC 3339", "%q is no date", s)
	return time.Time{}
}

// content reads a file that the policy names.
func (d *decoder) content(n ast.Node, path string) []byte {
	name := d.text(n, path)
	if name == "" {
		return nil
	}
	if d.read == nil {
		d.fault(n, path, "put the text into the policy", "this policy may not name files")
		return nil
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(d.file), name)
	}
	data, err := d.read(name)
	if err != nil {
		d.fault(n, path, "check the name and who may read it", "%s cannot be read: %s", name, firstLine(err))
		return nil
	}
	sum := sha256.Sum256(data)
	d.hash[name] = hex.EncodeToString(sum[:])
	return data
}

var namePattern = regexp.MustCompile(`\A[a-z0-9](?:[a-z0-9._-]{0,62})\z`)

func (d *decoder) name(n ast.Node, path, name string) bool {
	if !namePattern.MatchString(name) {
		d.fault(n, path, "use lower-case letters, digits, dots and dashes", "%q is no name", name)
		return false
	}
	return true
}

func (d *decoder) allRoots(n ast.Node) map[string]*root.Root {
	roots := map[string]*root.Root{}
	if good, err := root.PublicGood(); err != nil {
		d.fault(nil, "roots", "", "the embedded root cannot be read: %v", err)
	} else {
		roots["public-good"] = good
	}
	for name, e := range d.fields(n, "roots") {
		path := join("roots", name)
		f := d.fields(e, path, "file", "taken")
		if f == nil || !d.name(e, path, name) {
			continue
		}
		data := d.content(f["file"], join(path, "file"))
		if data == nil {
			if f["file"] == nil {
				d.fault(e, path, "write file: NAME", "the root has no file")
			}
			continue
		}
		r, err := root.Parse(name, data, d.day(f["taken"], join(path, "taken")))
		if err != nil {
			d.fault(e, path, "bailey trust root show --file reads one", "%s", firstLine(err))
			continue
		}
		roots[name] = r
	}
	return roots
}

func (d *decoder) authorities(n ast.Node) map[string]*Authority {
	by := map[string]*Authority{}
	for name, e := range d.fields(n, "authorities") {
		path := join("authorities", name)
		before := len(d.problems)
		if d.name(e, path, name) {
			if a := d.authority(e, path, name); a != nil {
				by[name] = a
			}
		}
		d.spoiled[name] = len(d.problems) > before
	}
	return by
}

func (d *decoder) authority(n ast.Node, path, name string) *Authority {
	f := d.fields(n, path, "key", "keyless", "root", "transparency_log", "certificate_log")
	if f == nil {
		return nil
	}
	a := &Authority{Name: name}
	switch {
	case f["key"] != nil && f["keyless"] != nil, f["key"] == nil && f["keyless"] == nil:
		d.fault(n, path, "give it either key or keyless", "an authority is one key or one identity")
		return nil
	case f["key"] != nil:
		a.Key = d.key(f["key"], join(path, "key"))
		if f["certificate_log"] != nil {
			d.fault(n, join(path, "certificate_log"), "leave it out", "a key has no certificate")
		}
	default:
		a.Keyless = d.keyless(f["keyless"], join(path, "keyless"))
	}
	a.Log = d.boolean(f["transparency_log"], join(path, "transparency_log"), a.Keyless != nil)
	a.SCT = d.boolean(f["certificate_log"], join(path, "certificate_log"), a.Keyless != nil)
	rootName := "public-good"
	if f["root"] != nil {
		rootName = d.text(f["root"], join(path, "root"))
	}
	if a.Root = d.roots[rootName]; a.Root == nil {
		d.fault(n, join(path, "root"), "name one under roots, or public-good", "there is no root %q", rootName)
	}
	if a.Key == nil && a.Keyless == nil {
		return nil
	}
	return a
}

func (d *decoder) key(n ast.Node, path string) *Key {
	f := d.fields(n, path, "pem", "file", "not_before", "not_after")
	if f == nil {
		return nil
	}
	var text []byte
	switch {
	case (f["pem"] == nil) == (f["file"] == nil):
		d.fault(n, path, "give it pem (the text) or file (its name)", "a key has one source")
		return nil
	case f["pem"] != nil:
		text = []byte(d.text(f["pem"], join(path, "pem")))
	default:
		text = d.content(f["file"], join(path, "file"))
	}
	if text == nil {
		return nil
	}
	k, err := ParseKey(text)
	if err != nil {
		d.fault(n, path, "cosign public-key, or openssl pkey -pubout, writes what is needed", "the key cannot be read: %s", firstLine(err))
		return nil
	}
	k.NotBefore, k.NotAfter = d.day(f["not_before"], join(path, "not_before")), d.day(f["not_after"], join(path, "not_after"))
	if !k.NotAfter.IsZero() && !k.NotAfter.After(k.NotBefore) {
		d.fault(n, path, "", "the key ends before it begins")
	}
	return k
}

func (d *decoder) keyless(n ast.Node, path string) *Keyless {
	f := d.fields(n, path, "issuer", "identity", "identity_prefix", "identity_regex", "source_repository", "source_ref", "runner_environment", "workflow", "allow_loose_match")
	if f == nil {
		return nil
	}
	k := &Keyless{
		Issuer:            d.text(f["issuer"], join(path, "issuer")),
		SourceRepository:  d.text(f["source_repository"], join(path, "source_repository")),
		SourceRef:         d.text(f["source_ref"], join(path, "source_ref")),
		RunnerEnvironment: d.text(f["runner_environment"], join(path, "runner_environment")),
		Workflow:          d.text(f["workflow"], join(path, "workflow")),
	}
	if !strings.HasPrefix(k.Issuer, "https://") && !strings.HasPrefix(k.Issuer, "http://") {
		d.fault(n, join(path, "issuer"), "such as https://token.actions.githubusercontent.com", "an identity means nothing without the address of its issuer")
	}
	given := 0
	for field, build := range map[string]func(string) (Matcher, error){
		"identity":        func(s string) (Matcher, error) { return Exact(s), nil },
		"identity_prefix": func(s string) (Matcher, error) { return Prefix(s), nil },
		"identity_regex":  Regex,
	} {
		v := f[field]
		if v == nil {
			continue
		}
		given++
		text := d.text(v, join(path, field))
		m, err := build(text)
		if text == "" {
			err = errors.New("it is empty")
		}
		if err != nil {
			d.fault(v, join(path, field), "", "%s", firstLine(err))
			continue
		}
		if what, fix := m.Lint(); what != "" && !d.boolean(f["allow_loose_match"], join(path, "allow_loose_match"), false) {
			d.fault(v, join(path, field), fix+", or allow_loose_match: true if that is meant", "%s", what)
		}
		k.Identity = m
	}
	if given != 1 {
		d.fault(n, path, "give it identity, identity_prefix or identity_regex", "who may sign must be said in exactly one way")
		return nil
	}
	return k
}

func (d *decoder) named(n ast.Node, path string) []*Authority {
	var all []*Authority
	for i, name := range d.texts(n, path, maxOf) {
		a := d.by[name]
		if a == nil && d.spoiled[name] {
			a = &Authority{Name: name} // the problem was reported where it is
		}
		if a == nil {
			d.fault(n, fmt.Sprintf("%s[%d]", path, i), "describe it under authorities", "there is no authority %q", name)
			continue
		}
		if slices.Contains(all, a) {
			d.fault(n, fmt.Sprintf("%s[%d]", path, i), "name each once; a threshold counts distinct signers", "%q stands there twice", name)
			continue
		}
		all = append(all, a)
	}
	return all
}

func (d *decoder) rule(n ast.Node, path string) *Rule {
	f := d.fields(n, path, "name", "match", "require", "attestations", "deny", "max_age", "not_before", "platforms",
		"bind_repository", "mode", "max_evidence_age", "when_unavailable", "approved_max_age")
	if f == nil {
		return nil
	}
	r := &Rule{
		Name:           d.text(f["name"], join(path, "name")),
		MaxAge:         d.age(f["max_age"], join(path, "max_age")),
		NotBefore:      d.day(f["not_before"], join(path, "not_before")),
		MaxEvidenceAge: d.age(f["max_evidence_age"], join(path, "max_evidence_age")),
		Platforms:      Platforms(d.choice(f["platforms"], join(path, "platforms"), string(Index), string(All), string(Runtime))),
		Mode:           Mode(d.choice(f["mode"], join(path, "mode"), string(Enforce), string(Warn), string(Audit))),
		Bind:           d.boolean(f["bind_repository"], join(path, "bind_repository"), false),
		Deny:           d.texts(f["deny"], join(path, "deny"), 10_000),
	}
	d.name(n, join(path, "name"), r.Name)
	for _, digest := range r.Deny {
		if !regexp.MustCompile(`\Asha256:[0-9a-f]{64}\z`).MatchString(digest) {
			d.fault(f["deny"], join(path, "deny"), "write sha256: and 64 hex digits in lower case", "%q is no digest", digest)
		}
	}
	switch d.choice(f["when_unavailable"], join(path, "when_unavailable"), "deny", "approved") {
	case "approved":
		if r.Approved = d.age(f["approved_max_age"], join(path, "approved_max_age")); f["approved_max_age"] == nil {
			r.Approved = 30 * 24 * time.Hour
		}
	default:
		if f["approved_max_age"] != nil {
			d.fault(f["approved_max_age"], join(path, "approved_max_age"), "add when_unavailable: approved", "it has no meaning while an outage denies")
		}
	}
	d.match(r, f["match"], n, join(path, "match"))
	d.require(r, f["require"], n, join(path, "require"))
	for i, e := range d.list(f["attestations"], join(path, "attestations"), maxOf) {
		if a := d.attestation(e, fmt.Sprintf("%s.attestations[%d]", path, i), r); a != nil {
			r.Attestations = append(r.Attestations, a)
		}
	}
	return r
}

var patternPattern = regexp.MustCompile(`\A[a-z0-9.:\[\]_-]+(?:/[a-z0-9*._-]+)+\z`)

func (d *decoder) match(r *Rule, n, rule ast.Node, path string) {
	all := d.texts(n, path, 1000)
	if len(all) == 0 {
		d.fault(rule, path, "such as - quay.io/jupyter/*", "the rule says for no repository")
	}
	for i, m := range all {
		if !strings.ContainsAny(m, "/*") {
			d.fault(n, fmt.Sprintf("%s[%d]", path, i), "images of Docker Hub are docker.io/OWNER/NAME, its official ones docker.io/library/NAME", "%q does not begin with a registry", m)
			continue
		}
		if m != "**" && (!patternPattern.MatchString(m) || strings.Contains(strings.TrimSuffix(m, "/**"), "**")) {
			d.fault(n, fmt.Sprintf("%s[%d]", path, i), "write registry/path with * for one element or /** at the end, without a tag", "%q is no pattern of repositories", m)
			continue
		}
		if host, _, _ := strings.Cut(m, "/"); m != "**" && !strings.ContainsAny(host, ".:") && host != "localhost" {
			d.fault(n, fmt.Sprintf("%s[%d]", path, i), "images of Docker Hub are docker.io/OWNER/NAME, its official ones docker.io/library/NAME", "%q does not begin with a registry", m)
			continue
		}
		r.Match = append(r.Match, Pattern(m))
	}
}

func (d *decoder) require(r *Rule, n, rule ast.Node, path string) {
	f := d.fields(n, path, "threshold", "of")
	r.Of = d.named(f["of"], join(path, "of"))
	if len(r.Of) == 0 {
		d.fault(rule, path, "add require: {of: [AUTHORITY]}", "the rule names nobody whose signature counts")
	}
	r.Threshold = 1
	if t := f["threshold"]; t != nil {
		i, err := strconv.Atoi(d.text(t, join(path, "threshold")))
		if err != nil || i < 1 || i > max(1, len(r.Of)) {
			d.fault(t, join(path, "threshold"), "", "the threshold must be between 1 and the %d authorities it is of", len(r.Of))
			return
		}
		r.Threshold = i
	}
}

// Predicate types by the names that people use.
var predicates = map[string][]string{
	"slsa-provenance": {"https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2"},
	"spdx":            {"https://spdx.dev/Document", "https://spdx.dev/Document/v2.2", "https://spdx.dev/Document/v2.3", "https://spdx.dev/Document/v3.0"},
	"cyclonedx":       {"https://cyclonedx.org/bom", "https://cyclonedx.org/bom/v1.4", "https://cyclonedx.org/bom/v1.5", "https://cyclonedx.org/bom/v1.6"},
	"vuln":            {"https://cosign.sigstore.dev/attestation/vuln/v1", "https://in-toto.io/attestation/vulns/v0.1", "https://in-toto.io/attestation/vulns/v0.2"},
}

func (d *decoder) attestation(n ast.Node, path string, r *Rule) *Attestation {
	f := d.fields(n, path, "type", "from", "condition", "max_age")
	if f == nil {
		return nil
	}
	a := &Attestation{
		Type:   d.text(f["type"], join(path, "type")),
		From:   r.Of,
		MaxAge: d.age(f["max_age"], join(path, "max_age")),
	}
	if f["from"] != nil {
		a.From = d.named(f["from"], join(path, "from"))
	}
	if a.Types = predicates[a.Type]; a.Types == nil {
		a.Types = []string{a.Type}
		if !strings.HasPrefix(a.Type, "https://") && !strings.HasPrefix(a.Type, "http://") {
			d.fault(n, join(path, "type"), "use "+strings.Join(sortedKeys(predicates), ", ")+", or the predicate type's full address", "%q is no type of attestation", a.Type)
		}
	}
	if f["condition"] != nil {
		c, err := ParseCondition(d.text(f["condition"], join(path, "condition")))
		if err != nil {
			d.fault(f["condition"], join(path, "condition"), "conditions are CEL over predicate, statement, image, signer and now", "%s", strings.ReplaceAll(err.Error(), "\n", " "))
		}
		a.Condition = c
	}
	return a
}
