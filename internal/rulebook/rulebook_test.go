package rulebook_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/rulebook"
	"github.com/baileyhq/bailey/internal/secret"
)

const acme = `[[rules]]
id = "acme"
description = "a key of ours"
regex = '''\b(acme_[a-z0-9]{16})\b'''
keywords = ["acme_"]
examples = ["acme_0123456789abcdef"]
`

// broken says of itself that it finds what it does not find.
var broken = strings.Replace(acme, `["acme_0123456789abcdef"]`, `["something else"]`, 1)

type journal struct {
	mu     sync.Mutex
	events []audit.Event
	full   bool
}

func (j *journal) Append(_ context.Context, e audit.Event) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.full {
		return audit.ErrUnwritable
	}
	j.events = append(j.events, e)
	return nil
}

func (j *journal) Search(context.Context, audit.Filter) ([]audit.Event, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.events), nil
}

var (
	root  = bailey.Actor{UserID: "u-root", Name: "root", Role: bailey.RoleAdmin, Method: "password"}
	alice = bailey.Actor{UserID: "u-alice", Name: "alice", Role: bailey.RoleUser, Method: "password"}
)

type desk struct {
	*rulebook.Book
	filter  *filter.Filter
	journal *journal
	state   string
	dir     string
}

// open is a server's start on the same folders.
func open(t *testing.T, d *desk) *desk {
	t.Helper()
	key := secret.New("sums")
	set, err := rulebook.Load(d.state, []string{d.dir}, key)
	if err != nil {
		t.Fatal(err)
	}
	if d.filter, err = filter.New(filter.Config{Rules: set, Report: func(f filter.Finding) { d.Note(f) }}); err != nil {
		t.Fatal(err)
	}
	d.Book, err = rulebook.New(rulebook.Config{
		Filter: d.filter, Dir: d.state, Key: key, Audit: d.journal,
		Settings: func() ([]string, time.Duration) { return []string{d.dir}, time.Hour },
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *desk) has(rule string) bool {
	set, _ := d.filter.Sets()
	return slices.ContainsFunc(set.Rules(), func(r inspect.Rule) bool { return r.ID == rule })
}

// A set goes on trial, into force, and back; it survives a restart of the
// server; each step is in the journal; and only administrators take one.
func TestRulesOnTrialInForceAndBack(t *testing.T) {
	d := open(t, &desk{journal: &journal{}, state: t.TempDir(), dir: t.TempDir()})
	ctx := t.Context()
	files := map[string]string{"team.toml": acme}
	for name, refused := range map[string]func() error{
		"shadow":   func() error { _, err := d.Shadow(ctx, alice, files); return err },
		"activate": func() error { _, err := d.Activate(ctx, alice); return err },
		"rollback": func() error { _, err := d.Rollback(ctx, alice); return err },
		"reload":   func() error { return d.Reload(ctx, alice) },
		"status":   func() error { _, err := d.Status(alice); return err },
		"findings": func() error { _, err := d.Findings(ctx, alice, time.Time{}); return err },
	} {
		if err := refused(); bailey.KindOf(err) != bailey.Denied {
			t.Errorf("alice may %s: %v", name, err)
		}
	}
	if _, err := d.Shadow(ctx, root, map[string]string{"../x.toml": acme}); bailey.KindOf(err) != bailey.Invalid {
		t.Errorf("a name that leaves the folder: %v", err)
	}
	if _, err := d.Shadow(ctx, root, map[string]string{"team.toml": broken}); bailey.KindOf(err) != bailey.Invalid || !strings.Contains(err.Error(), "acme") {
		t.Errorf("a rule that does not find its own example: %v", err)
	}
	if _, err := d.Shadow(ctx, root, files); err != nil {
		t.Fatal(err)
	}
	d.Note(filter.Finding{Rule: "acme", Shadow: true})
	if s, err := d.Status(root); err != nil || s.Trial == nil || len(s.Differences) != 1 || s.Differences[0].Trial != 1 || d.has("acme") {
		t.Errorf("on trial: %+v, %v, in force %v", s, err, d.has("acme"))
	}
	if _, err := d.Activate(ctx, root); err != nil || !d.has("acme") {
		t.Errorf("activated: %v, in force %v", err, d.has("acme"))
	}
	if open(t, d); !d.has("acme") {
		t.Error("a restart forgets what was activated")
	}
	if _, err := d.Rollback(ctx, root); err != nil || d.has("acme") {
		t.Errorf("rolled back: %v, in force %v", err, d.has("acme"))
	}
	var actions []audit.Action
	for _, e := range d.journal.events {
		actions = append(actions, e.Action)
	}
	if want := []audit.Action{audit.RulesShadow, audit.RulesActivate, audit.RulesRollback}; !slices.Equal(actions, want) {
		t.Errorf("journal %v, want %v", actions, want)
	}
}

// A file with an error in it changes nothing, and says so; mended, it is in
// force. A journal that cannot be written keeps the rules as they are.
func TestABrokenFileLeavesTheOldRules(t *testing.T) {
	d := open(t, &desk{journal: &journal{}, state: t.TempDir(), dir: t.TempDir()})
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(d.dir, "a.toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	was, _ := d.filter.Sets()
	write(broken)
	if err := d.Reload(t.Context(), root); err == nil {
		t.Error("a broken file is taken")
	}
	if is, _ := d.filter.Sets(); is != was {
		t.Error("a broken file replaced the rules")
	}
	if s, _ := d.Status(root); !strings.Contains(s.Problem, "a.toml") {
		t.Errorf("status %+v does not say what is wrong", s)
	}
	write(acme)
	d.journal.full = true
	if err := d.Reload(t.Context(), root); err == nil || d.has("acme") {
		t.Errorf("rules change without a trace: %v", err)
	}
	d.journal.full = false
	if err := d.Reload(t.Context(), root); err != nil || !d.has("acme") {
		t.Errorf("mended: %v, in force %v", err, d.has("acme"))
	}
}

// Findings are added up by who, which rule and where.
func TestFindings(t *testing.T) {
	d := open(t, &desk{journal: &journal{}, state: t.TempDir(), dir: t.TempDir()})
	for i, sum := range []string{"a", "b", "b"} {
		_ = d.journal.Append(t.Context(), audit.Event{
			TS: time.Unix(int64(i), 0), Action: audit.DLPFinding, Actor: audit.Actor{Name: "ada"}, Target: audit.Target{ID: "w", Name: "lab"},
			Attrs: audit.Attrs{Rule: "jwt", Mode: "mask", Route: "kernel", Count: 2, Sum: sum},
		})
	}
	got, err := d.Findings(t.Context(), root, time.Time{})
	if err != nil || len(got) != 1 || got[0].Count != 6 || got[0].Values != 2 || got[0].User != "ada" || !got[0].Last.Equal(time.Unix(2, 0)) {
		t.Errorf("findings %+v, %v", got, err)
	}
}
