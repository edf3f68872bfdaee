package policy_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/trust/policy"
)

// pub is a public key, as deep as it stands in the policies below.
var pub = func() string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		panic(err)
	}
	return strings.ReplaceAll(strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))), "\n", "\n        ")
}()

var good = `version: 1
authorities:
  team:
    key:
      pem: |
        ` + pub + `
  jupyter:
    keyless:
      issuer: https://token.actions.githubusercontent.com
      identity_prefix: https://github.com/jupyter/docker-stacks/
rules:
  - name: stacks
    match: [quay.io/jupyter/*]
    require: {of: [jupyter]}
    attestations:
      - {type: slsa-provenance, condition: "predicate.runDetails.builder.id.startsWith('https://')"}
    max_age: 365d
    not_before: 2026-01-01
    platforms: runtime
    bind_repository: true
    when_unavailable: approved
    approved_max_age: 30d
  - name: both
    match: [registry.example.org/team/**]
    require: {threshold: 2, of: [team, jupyter]}
    mode: warn
`

func TestParse(t *testing.T) {
	p, err := policy.Parse("images.yaml", []byte(good), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := p.RuleFor("quay.io/jupyter/scipy-notebook")
	if r == nil || r.Name != "stacks" || r.MaxAge != 365*24*time.Hour || !r.Bind || r.Platforms != policy.Runtime || r.Approved != 30*24*time.Hour {
		t.Errorf("rule of docker-stacks is %+v", r)
	}
	if r := p.RuleFor("registry.example.org/team/a/b"); r == nil || r.Threshold != 2 || r.Mode != policy.Warn {
		t.Errorf("rule of the team is %+v", r)
	}
	for _, other := range []string{"quay.io/jupyter/a/b", "quay.io/jupyter-evil/a", "quay.io/jupyter", "xquay.io/jupyter/a", "docker.io/library/debian", ""} {
		if r := p.RuleFor(other); r != nil {
			t.Errorf("%q falls under rule %s", other, r.Name)
		}
	}
	again, err := policy.Parse("images.yaml", []byte(good+"\n# a word\n"), nil)
	if err != nil || again.Hash == p.Hash {
		t.Errorf("another text has the same hash %s, %v", p.Hash, err)
	}
}

// TestEveryProblemAtOnce: an administrator mends a file in one go.
func TestEveryProblemAtOnce(t *testing.T) {
	_, err := policy.Parse("images.yaml", []byte(`version: 2
authorities:
  Team: {key: {pem: x}}
  nobody: {}
  wide: {keyless: {issuer: github, identity_regex: "https://github.com/.*"}}
  loose: {keyless: {issuer: "https://x", identity_prefix: "https://github.com/jupyter/docker-stacks"}}
  private: {key: {pem: "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----"}}
rules:
  - name: a
    match: [debian, "quay.io/**/x", "quay.io/x:latest"]
    require: {threshold: 3, of: [ghost]}
    modee: warn
    mode: sometimes
    max_age: soon
    deny: [sha256:ABC]
    attestations: [{type: sbom}, {type: spdx, condition: "1 +"}]
  - name: a
    match: ["**"]
    require: {of: [nobody]}
  - name: late
    match: [quay.io/never/*]
    require: {of: [loose]}
`), nil)
	list, ok := errors.AsType[*policy.Errors](err)
	if !ok {
		t.Fatalf("Parse: %v, want a list of problems", err)
	}
	text := list.Error()
	for _, want := range []string{
		"version: 1", `"Team" is no name`, "one key or one identity", "without the address of its issuer", "leaves the owner open",
		"ends in the middle of a name", "it is a private key", `"debian" does not begin with a registry`, `"quay.io/**/x" is no pattern`,
		`"quay.io/x:latest" is no pattern`, `no authority "ghost"`, `no field "modee"`, `"sometimes" is not known`, `"soon" is no length of time`,
		`"sha256:ABC" is no digest`, `"sbom" is no type of attestation`, "attestations[1].condition", `a second rule is called "a"`, "never comes to this rule",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("nothing says %q", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	for _, p := range list.Problems {
		if p.Line == 0 && p.Path != "" && p.Path != "version" {
			t.Errorf("the problem at %s has no line", p.Path)
		}
	}
}

func TestStrangeFiles(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "list": "- a", "two documents": "version: 1\n---\nversion: 1\n", "doubled": "version: 1\nversion: 1\n",
		"anchor": "version: &a 1\nrules: *a\n", "merge": "<<: {version: 1}\n", "deep": strings.Repeat("[", 3000), "text": "hello", "null rules": "version: 1\nrules: {}\n",
	} {
		if _, err := policy.Parse(name, []byte(text), nil); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestLint(t *testing.T) {
	regex := func(s string) policy.Matcher {
		m, err := policy.Regex(s)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, tt := range []struct {
		m     policy.Matcher
		loose bool
	}{
		{policy.Exact("https://github.com/a/b"), false},
		{policy.Prefix("https://github.com/a/b/"), false},
		{policy.Prefix("https://github.com/a/b"), true},
		{policy.Prefix("https://github.com/"), true},
		{regex(`https://github\.com/a/b/\.github/workflows/[a-z]+\.yml@.*`), false},
		{regex(`https://github.com/a/b/.*`), true},
		{regex(`https://github\.com/.*/b`), true},
		{regex(`https://github\.com/[^/]+/b`), true},
		{regex(`.*`), true},
		{regex(`[a-z]+@example\.org`), false},
	} {
		if what, _ := tt.m.Lint(); (what != "") != tt.loose {
			t.Errorf("Lint(%s) = %q, want a warning: %t", tt.m, what, tt.loose)
		}
	}
}

func TestCondition(t *testing.T) {
	facts := policy.Facts{
		Predicate: map[string]any{"builder": "ours", "critical": 0.0}, Statement: map[string]any{"predicateType": "x"},
		Image: map[string]any{"repository": "r"}, Signer: map[string]any{"id": "me"}, Now: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC),
	}
	for text, want := range map[string]bool{
		`predicate.builder == "ours" && predicate.critical == 0.0`: true,
		`predicate.builder == "theirs"`:                            false,
		`predicate.missing == 1`:                                   false, // an error is no yes
		`predicate`:                                                false,
		`now > timestamp("2026-01-01T00:00:00Z")`:                  true,
		`image.repository == "r" && signer.id == "me"`:             true,
	} {
		c, err := policy.ParseCondition(text)
		if err != nil {
			t.Errorf("ParseCondition(%s): %v", text, err)
			continue
		}
		if got, _ := c.Holds(context.Background(), facts); got != want {
			t.Errorf("%s is %t, want %t", text, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(good)
	f.Add("version: 1\nrules:\n  - name: a\n    match: ['**']\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := policy.Parse("fuzz.yaml", []byte(text), nil)
		if err != nil {
			return
		}
		for _, r := range p.Rules {
			if len(r.Of) == 0 || r.Threshold < 1 || r.Threshold > len(r.Of) {
				t.Errorf("rule %s is met by nobody: %+v", r.Name, r)
			}
		}
	})
}
