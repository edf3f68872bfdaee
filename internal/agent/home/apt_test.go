package home

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestApt: a workspace that reaches out can use apt without being root, at the
// mirror if there is one; a later start takes over what has changed.
func TestApt(t *testing.T) {
	home, run := t.TempDir(), t.TempDir()
	file := filepath.Join(run, "apt.conf")
	if err := Apt(home, "", ""); err != nil {
		t.Errorf("without APT_CONFIG: %v", err)
	}
	for _, mirror := range []string{"", "https://mirror.example.org/debian", "https://x [trusted=yes]"} {
		if err := Apt(home, file, mirror); err != nil {
			t.Skipf("mirror %q: %v", mirror, err) // a machine that does not say its suite
		}
		conf, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(conf), `Dir::Cache "`+home+`/.cache/apt/";`) {
			t.Errorf("mirror %q: %s", mirror, conf)
		}
		wants := mirror != "" && !strings.Contains(mirror, " ")
		if strings.Contains(string(conf), "sourcelist") != wants {
			t.Errorf("mirror %q: %s; want a list of its own: %t", mirror, conf, wants)
		}
		if list, _ := os.ReadFile(filepath.Join(run, "apt-sources.list")); wants && !strings.HasPrefix(string(list), "deb "+mirror+" ") {
			t.Errorf("mirror %q: list %q", mirror, list)
		}
	}
	for text, want := range map[string]string{
		"NAME=x\nVERSION_CODENAME=trixie\n": "trixie", "VERSION_CODENAME=\"noble\"\n": "noble", "VERSION_CODENAME=a b\n": "", "": "",
	} {
		if got := codename(text); got != want {
			t.Errorf("codename(%q) = %q, want %q", text, got, want)
		}
	}
}
