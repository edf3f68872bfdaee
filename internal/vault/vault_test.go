package vault_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/store"
	"github.com/baileyhq/bailey/internal/vault"
)

// A journal remembers, or refuses to.
type journal struct {
	events []audit.Event
	err    error
}

func (j *journal) Append(_ context.Context, e audit.Event) error {
	if j.err == nil {
		j.events = append(j.events, e)
	}
	return j.err
}

func open(t *testing.T) (*vault.Vault, *journal) {
	t.Helper()
	st, err := store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "bailey.db"), Key: make([]byte, 32), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	j := &journal{}
	v, err := vault.New(vault.Config{Store: st, Audit: j, Class: func(name string) bool { return name == "pytorch" }})
	if err != nil {
		t.Fatal(err)
	}
	return v, j
}

var (
	root    = bailey.Actor{UserID: "01admin", Name: "root", Role: bailey.RoleAdmin, Method: "password"}
	auditor = bailey.Actor{UserID: "01audit", Name: "eve", Role: bailey.RoleAuditor, Method: "password"}
	alice   = bailey.Actor{UserID: "01alice", Name: "alice", Role: bailey.RoleUser, Method: "password"}
)

const token = "correct-horse-9431"

func TestAnAdministratorRegistersASecret(t *testing.T) {
	v, j := open(t)
	changed := v.Changed()
	if _, err := v.Set(t.Context(), root, bailey.KnownSecret{Name: "HF_TOKEN"}, secret.New(token)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	if _, err := v.Set(t.Context(), root, bailey.KnownSecret{Name: "WANDB", Class: "pytorch"}, secret.New(token+"-2")); err != nil {
		t.Fatal(err)
	}
	for class, want := range map[string]int{"pytorch": 2, "notebook": 1} {
		got, err := v.ForClass(t.Context(), class)
		if err != nil || len(got) != want || got["HF_TOKEN"].Reveal() != token {
			t.Errorf("class %s has %d secrets, %v; want %d", class, len(got), err, want)
		}
	}
	all, err := v.Values(t.Context())
	if err != nil || len(all) != 2 || all[1].Name != "WANDB" || all[1].Class != "pytorch" {
		t.Errorf("Values = %v, %v", all, err)
	}
	if err := v.Remove(t.Context(), root, "HF_TOKEN"); err != nil {
		t.Fatal(err)
	}
	if err := v.Remove(t.Context(), root, "HF_TOKEN"); bailey.KindOf(err) != bailey.NotFound {
		t.Errorf("a second removal = %v, want NotFound", err)
	}
	if got, _ := v.List(t.Context(), auditor); len(got) != 1 || got[0].Name != "WANDB" {
		t.Errorf("an auditor sees %v", got)
	}
	var told []string
	for _, e := range j.events {
		told = append(told, string(e.Action)+" "+e.Target.Name)
	}
	if want := "secret.set HF_TOKEN|secret.set WANDB|secret.remove HF_TOKEN"; strings.Join(told, "|") != want {
		t.Errorf("the journal has %q, want %q", told, want)
	}
}

func TestOthersManageNoSecrets(t *testing.T) {
	v, j := open(t)
	for _, actor := range []bailey.Actor{alice, auditor, {}} {
		if _, err := v.Set(t.Context(), actor, bailey.KnownSecret{Name: "HF_TOKEN"}, secret.New(token)); bailey.KindOf(err) != bailey.Denied {
			t.Errorf("%s sets one: %v, want Denied", actor.Name, err)
		}
		if err := v.Remove(t.Context(), actor, "HF_TOKEN"); bailey.KindOf(err) != bailey.Denied {
			t.Errorf("%s removes one: %v, want Denied", actor.Name, err)
		}
	}
	if _, err := v.List(t.Context(), alice); bailey.KindOf(err) != bailey.Denied {
		t.Errorf("alice lists them: %v, want Denied", err)
	}
	if len(j.events) != 7 || j.events[0].Action != audit.AccessDenied {
		t.Errorf("the journal has %d refusals, want 7", len(j.events))
	}
}

// What the filter does about a secret is said with it, and stays when its value
// is exchanged.
func TestASecretKeepsItsMode(t *testing.T) {
	v, j := open(t)
	for _, step := range []struct{ give, want string }{{"", ""}, {"block", "block"}, {"", "block"}, {"alert", "alert"}} {
		k, err := v.Set(t.Context(), root, bailey.KnownSecret{Name: "HF_TOKEN", Mode: step.give}, secret.New(token))
		if err != nil || k.Mode != step.want {
			t.Errorf("given mode %q: %+v, %v; want %q", step.give, k, err, step.want)
		}
		if all, err := v.Values(t.Context()); err != nil || len(all) != 1 || all[0].Mode != step.want {
			t.Errorf("given mode %q, the filter is told %v, %v", step.give, all, err)
		}
		if e := j.events[len(j.events)-1]; e.Attrs.Mode != step.give {
			t.Errorf("the journal says mode %q, want %q", e.Attrs.Mode, step.give)
		}
	}
	for _, mode := range []string{"off", "MASK", "none"} {
		if _, err := v.Set(t.Context(), root, bailey.KnownSecret{Name: "HF_TOKEN", Mode: mode}, secret.New(token)); bailey.KindOf(err) != bailey.Invalid {
			t.Errorf("mode %q: %v, want Invalid", mode, err)
		}
	}
}

func TestWhatCannotBeASecret(t *testing.T) {
	v, j := open(t)
	for name, tt := range map[string]struct{ name, class, value, words string }{
		"path":                 {"../../etc/passwd", "", token, "name of a secret"},
		"unknown class":        {"A", "pytorhc", token, "no class"},
		"short":                {"A", "", "true", "too short"},
		"short but for spaces": {"A", "", "  dev      ", "too short"},
		"monotonous":           {"A", "", strings.Repeat("=-", 30), "different characters"},
		"large":                {"A", "", strings.Repeat(token, 4000), "at most"},
	} {
		_, err := v.Set(t.Context(), root, bailey.KnownSecret{Name: tt.name, Class: tt.class}, secret.New(tt.value))
		if bailey.KindOf(err) != bailey.Invalid || !strings.Contains(err.Error(), tt.words) {
			t.Errorf("%s: %v, want Invalid with %q", name, err, tt.words)
		}
		if err != nil && len(tt.value) < 100 && strings.Contains(err.Error(), tt.value) {
			t.Errorf("%s: the error repeats the value", name)
		}
	}
	if len(j.events) != 0 {
		t.Errorf("the journal has %d events about what did not happen", len(j.events))
	}
}

func TestAJournalThatCannotBeWrittenChangesNothing(t *testing.T) {
	v, j := open(t)
	j.err = errors.New("disk full")
	if _, err := v.Set(t.Context(), root, bailey.KnownSecret{Name: "HF_TOKEN"}, secret.New(token)); bailey.KindOf(err) != bailey.Unavailable {
		t.Errorf("Set = %v, want Unavailable", err)
	}
	if all, err := v.Values(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("there are %d secrets, %v; want none", len(all), err)
	}
}
