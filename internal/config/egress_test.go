package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const egressFile = `
classes:
  - {name: plain, image: x}
  - {name: ml, image: x, egress: ml}
  - {name: asking, image: x, network: proxied}
  - {name: mirrors, image: x, egress: mirror-only}
  - {name: vision, image: x, egress: vision}
  - {name: open, image: x, network: bridge}
egress:
  policies:
    vision: {preset: mirror-only, rules: [{host: data.example.org, hours: "22:00-06:30"}]}
  mirrors:
    pip: https://Mirror.example.org/pypi/simple/
    conda: http://mirror.example.org:8080/conda
    hub: https://mirror.example.org
  upstream: {url: "http://proxy.example.org:3128", credentials: "env:PROXY"}
`

// TestEgressOfClasses: what a class says about its network arrives with the
// class, in words for people and as environment for tools; a class that says
// nothing has none.
func TestEgressOfClasses(t *testing.T) {
	cfg, err := Load(t.Context(), Source{Path: write(t, egressFile), Env: []string{"PROXY=bailey:hunter2"}})
	if err != nil {
		t.Fatal(err)
	}
	mirrors := map[string]string{
		"PIP_INDEX_URL": "https://Mirror.example.org/pypi/simple", "UV_DEFAULT_INDEX": "https://Mirror.example.org/pypi/simple",
		"CONDA_CHANNEL_ALIAS":    "http://mirror.example.org:8080/conda",
		"CONDA_DEFAULT_CHANNELS": "http://mirror.example.org:8080/conda/main,http://mirror.example.org:8080/conda/r",
		"HF_ENDPOINT":            "https://mirror.example.org",
	}
	want := map[string]struct {
		network, egress, words string
		env                    map[string]string
	}{
		"plain":   {"none", "", "No network.", nil},
		"ml":      {"proxied", "ml", "Package indexes", nil},
		"asking":  {"proxied", "none", "No site by itself", nil},
		"mirrors": {"proxied", "mirror-only", "own mirrors", mirrors},
		"vision":  {"proxied", "vision", "data.example.org", mirrors},
		"open":    {"bridge", "", "nobody is asked", nil},
	}
	for _, c := range cfg.Data().Classes {
		w := want[c.Name]
		if c.Network != w.network || c.Egress != w.egress || !strings.Contains(c.Reach, w.words) {
			t.Errorf("class %s: network %q, egress %q, %q; want %q, %q and %q", c.Name, c.Network, c.Egress, c.Reach, w.network, w.egress, w.words)
		}
		if diff := cmp.Diff(w.env, c.Env); diff != "" {
			t.Errorf("class %s: environment (-want +got):\n%s", c.Name, diff)
		}
	}
	if got, want := cfg.Egress.Mirrors.Hosts(), []string{"mirror.example.org:443", "mirror.example.org:8080"}; !cmp.Equal(got, want) {
		t.Errorf("Hosts = %q, want %q", got, want)
	}
	rule := cfg.Egress.Policies["vision"].Rules[0]
	if got, want := rule.Window(), (Window{22 * time.Hour, 6*time.Hour + 30*time.Minute}); got != want {
		t.Errorf("Window = %v, want %v", got, want)
	}
	user, password, err := cfg.UpstreamCredentials()
	if err != nil || user != "bailey" || password.Reveal() != "hunter2" {
		t.Errorf("UpstreamCredentials = %q, %v", user, err)
	}
	for _, bad := range []string{"", ":x", "nocolon"} {
		cfg.lookup = func(string) (string, bool) { return bad, true }
		if _, _, err := cfg.UpstreamCredentials(); err == nil || strings.Contains(err.Error(), "nocolon") {
			t.Errorf("credentials %q: error %v; want one that does not repeat them", bad, err)
		}
	}
}
