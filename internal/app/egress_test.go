package app

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/config"
	"github.com/baileyhq/bailey/internal/egress/rules"
)

func loaded(t *testing.T, text string, env ...string) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bailey.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := config.Load(t.Context(), config.Source{Path: path, Env: env})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// What the file says about egress is what the rules are: a class without it
// reaches nothing, and every field of a rule arrives.
func TestEgressRulesAreTheFiles(t *testing.T) {
	f := loaded(t, `
classes:
  - {name: plain, image: x}
  - {name: open, image: x, network: bridge}
  - {name: ml, image: x, egress: ml}
  - {name: asking, image: x, network: proxied}
  - {name: vision, image: x, egress: vision}
egress:
  policies:
    vision:
      title: Our portal
      preset: ml
      rules: [{host: "*.example.org", ports: [8443], methods: [GET], users: [alice], hours: "22:00-06:00", bytes: 1GiB, rate: 1MiB}]
  mirrors: {pip: "https://mirror.example.org/simple", conda: "http://mirror.example.org:8080/"}
  private: [10.20.0.0/16]
  upstream: {url: "http://proxy.example.org:3128", credentials: "env:PROXY"}
  limits: {connections: 7, rate: 2MiB}
  tls: relaxed
`, "PROXY=bailey:hunter2")
	p, err := egressPolicy(f, f.Data().Classes)
	if err != nil {
		t.Fatal(err)
	}
	for class, set := range map[string]string{"ml": "ml", "asking": "none", "vision": "vision"} {
		if p.Classes[class] != set {
			t.Errorf("class %s has set %q, want %q", class, p.Classes[class], set)
		}
	}
	if len(p.Classes) != 3 {
		t.Errorf("classes %v: those that are not proxied are among them", p.Classes)
	}
	ml, _ := rules.Preset("ml")
	vision := p.Sets["vision"]
	if len(vision.Rules) != len(ml.Rules)+1 || vision.Title != "Our portal" {
		t.Fatalf("vision has %d rules and title %q, want those of ml and one", len(vision.Rules), vision.Title)
	}
	got := vision.Rules[len(ml.Rules)]
	if err := rules.CheckRule(got); err != nil {
		t.Error(err)
	}
	if got.Host != "*.example.org" || !slices.Equal(got.Ports, []int{8443}) || !slices.Equal(got.Methods, []string{"GET"}) || !slices.Equal(got.Users, []string{"alice"}) ||
		got.Window != (rules.Window{From: 22 * time.Hour, To: 6 * time.Hour}) || got.Limits != (rules.Limits{Bytes: 1 << 30, Rate: 1 << 20}) {
		t.Errorf("the rule became %+v", got)
	}
	ids := map[string]bool{}
	for _, r := range vision.Rules {
		if ids[r.ID] {
			t.Errorf("two rules have the id %q, by which the journal names them", r.ID)
		}
		ids[r.ID] = true
	}
	if len(p.Mirrors) != 2 || p.Mirrors[0].Host != "mirror.example.org" || !slices.Equal(p.Mirrors[0].Ports, []int{443}) || !slices.Equal(p.Mirrors[1].Ports, []int{8080}) {
		t.Errorf("mirrors %+v", p.Mirrors)
	}
	if !slices.Equal(p.Private, []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}) || p.Limits.Connections != 7 || p.Limits.Rate != 2<<20 || !p.Lenient {
		t.Errorf("private %v, limits %+v, lenient %t", p.Private, p.Limits, p.Lenient)
	}
	if p.Upstream.URL.Host != "proxy.example.org:3128" || p.Upstream.User != "bailey" || p.Upstream.Password.Reveal() != "hunter2" {
		t.Errorf("upstream %v of %q", p.Upstream.URL, p.Upstream.User)
	}
	for _, set := range p.Sets {
		for _, r := range set.Rules {
			if err := rules.CheckRule(r); err != nil {
				t.Errorf("set %s: %v", set.Name, err)
			}
		}
	}
}

// In doubt it stays shut: credentials that cannot be read are an error that
// does not repeat them, and no policy.
func TestEgressWithoutItsCredentialsIsNone(t *testing.T) {
	f := loaded(t, "egress: {upstream: {url: \"http://proxy.example.org:3128\", credentials: \"env:PROXY\"}}\n", "PROXY=hunter2")
	p, err := egressPolicy(f, nil)
	if err == nil || strings.Contains(err.Error(), "hunter2") || p.Classes != nil {
		t.Errorf("policy %+v, %v; want an error without the secret", p, err)
	}
}
