// Package rulebook keeps the filter's rules: the built-in ones, files in
// folders that administrators name, and sets that they try out through the API.
// It reads again what changed, puts a set in force only when it is whole, and
// writes to the journal which set that is. A set with an error in it never
// replaces one without.
package rulebook

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/secret"
)

// The bounds of what is read.
const (
	maxFiles = 256
	maxFile  = 4 << 20
	lookEach = time.Second
)

// Config is what a Book needs. Filter, Dir and Audit are required.
type Config struct {
	Filter *filter.Filter
	// Dir is the server's own folder, for sets that came through the API.
	Dir string
	// Key keys the sums of findings; the same after a restart.
	Key secret.Value
	// Settings returns the folders with rule files, and how often they are
	// read even if they look unchanged.
	Settings func() (dirs []string, every time.Duration)
	Audit    Journal
	Log      *slog.Logger // nil means silence
}

// A Book keeps rules. Its methods may be called concurrently.
type Book struct {
	cfg Config

	mu      sync.Mutex // held while rules change; guards the rest
	seen    string     // fingerprint of the files in force
	looked  string     // fingerprint of the last look
	problem error      // why the newest files are not in force; nil: they are
	trial   *Trial

	counting sync.Mutex // guards counts; held for moments
	counts   map[string]*count
}

// A Trial is a set that runs beside the one in force.
type Trial struct {
	Hash  string
	Since time.Time
}

type count struct{ active, trial int64 }

// A Status says which rules are in force.
type Status struct {
	Hash     string
	Rules    int
	Previous bool   // there is a set to go back to
	Problem  string // why the newest files are not in force; empty: they are
	Trial    *Trial
	// Differences are, by rule, the findings since the trial began.
	Differences []Difference
}

// A Difference is how often a rule matched in the set in force and in the one
// on trial.
type Difference struct {
	Rule          string
	Active, Trial int64
}

// own, trial and before are the folders below Config.Dir.
const (
	own    = "active"
	trial  = "trial"
	before = "previous"
)

// Load reads and compiles the rules from folders and from the server's own
// folder.
func Load(dir string, dirs []string, key secret.Value) (*inspect.Set, error) {
	set, _, err := load(append(slices.Clone(dirs), filepath.Join(dir, own)), key)
	return set, err
}

func load(dirs []string, key secret.Value) (*inspect.Set, string, error) {
	files, print, err := read(dirs)
	if err != nil {
		return nil, print, err
	}
	set, err := inspect.Compile(inspect.Config{Files: files, Key: key})
	if err != nil {
		return nil, print, &bailey.Error{Kind: bailey.Invalid, Msg: "the filter's rules: " + err.Error(), Hint: "mend the files; the rules in force stay in force"}
	}
	return set, print, nil
}

// read returns the rule files of folders, in order, and a fingerprint. A folder
// that is not there has none, if it is the server's own.
func read(dirs []string) ([]inspect.File, string, error) {
	var files []inspect.File
	sum := sha256.New()
	for i, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) && i == len(dirs)-1 {
			continue
		}
		if err != nil {
			return nil, fmt.Sprintf("%x", sum.Sum(nil)) + err.Error(), fmt.Errorf("read rules: %w", err)
		}
		for _, e := range entries { // sorted by name
			if !strings.HasSuffix(e.Name(), ".toml") || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			name := filepath.Join(dir, e.Name())
			info, err := os.Stat(name) // configuration tools link files
			if err == nil && (!info.Mode().IsRegular() || info.Size() > maxFile || len(files) >= maxFiles) {
				err = fmt.Errorf("%s is no file of at most 4 MiB, or there are more than %d", name, maxFiles)
			}
			var data []byte
			if err == nil {
				data, err = os.ReadFile(name)
			}
			if err != nil {
				return nil, fmt.Sprintf("%x", sum.Sum(nil)) + err.Error(), fmt.Errorf("read rules: %w", err)
			}
			fmt.Fprintf(sum, "%s %d\n", name, len(data))
			sum.Write(data)
			files = append(files, inspect.File{Name: name, Data: data})
		}
	}
	return files, fmt.Sprintf("%x", sum.Sum(nil)), nil
}

// New returns a Book for rules that Load has read and the filter has in force.
func New(cfg Config) (*Book, error) {
	if cfg.Filter == nil || cfg.Dir == "" || cfg.Audit == nil {
		return nil, errors.New("rulebook: Filter, Dir and Audit are required")
	}
	if cfg.Settings == nil {
		cfg.Settings = func() ([]string, time.Duration) { return nil, time.Hour }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &Book{cfg: cfg, counts: map[string]*count{}}
	_, b.seen, _ = read(b.dirs())
	b.looked = b.seen
	return b, nil
}

// dirs are the folders whose rules are in force.
func (b *Book) dirs() []string {
	dirs, _ := b.cfg.Settings()
	return append(slices.Clone(dirs), filepath.Join(b.cfg.Dir, own))
}

// Run reads rule files again when they change, once they have been the same for
// two looks, and in any case now and then. It takes up a trial that a restart
// interrupted.
func (b *Book) Run(ctx context.Context) error {
	b.resume(ctx)
	tick := time.NewTicker(lookEach)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		_, every := b.cfg.Settings()
		due := every > 0 && time.Since(last) >= every
		if b.look(ctx, due) {
			last = time.Now()
		}
	}
}

// look reads the files once and puts them in force when they changed and
// settled, or are due. It reports whether it tried.
func (b *Book) look(ctx context.Context, due bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, print, _ := read(b.dirs())
	settled := print == b.looked
	b.looked = print
	if !due && (print == b.seen || !settled) {
		return false
	}
	_ = b.reload(ctx, bailey.System())
	return true
}

// Reload reads the files now. The rules in force stay when it fails.
func (b *Book) Reload(ctx context.Context, actor bailey.Actor) error {
	if !policy.Decide(actor, policy.FilterManage, policy.Thing{}) {
		return errDenied
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reload(ctx, actor)
}

// reload puts what the files say in force. The caller holds mu.
func (b *Book) reload(ctx context.Context, actor bailey.Actor) error {
	set, print, err := load(b.dirs(), b.cfg.Key)
	b.seen, b.problem = print, err
	if err != nil {
		b.cfg.Log.ErrorContext(ctx, "rules not reloaded; the old ones stay in force", slog.String("error", err.Error()))
		if fault := b.journal(ctx, actor, audit.RulesReload, "", audit.Failure); fault != nil {
			return fault
		}
		return err
	}
	if active, _ := b.cfg.Filter.Sets(); active.Hash() == set.Hash() {
		return nil
	}
	return b.recorded(ctx, actor, audit.RulesReload, set.Hash(), func() error {
		_, shadow := b.cfg.Filter.Sets()
		b.cfg.Filter.Activate(set)
		b.cfg.Filter.Shadow(shadow)
		return nil
	})
}

var errDenied = &bailey.Error{Kind: bailey.Denied, Msg: "only administrators change the filter's rules"}

// recorded makes a change durable in the journal, and then makes it.
func (b *Book) recorded(ctx context.Context, actor bailey.Actor, action audit.Action, hash string, do func() error) error {
	if err := b.journal(ctx, actor, action, hash, audit.Success); err != nil {
		return err
	}
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	b.cfg.Log.InfoContext(ctx, "rules changed", slog.String("action", string(action)), slog.String("hash", hash))
	return nil
}

func (b *Book) journal(ctx context.Context, actor bailey.Actor, action audit.Action, hash string, outcome audit.Outcome) error {
	e := audit.Event{
		Actor: audit.By(actor), Action: action, Outcome: outcome,
		Target: audit.Target{Kind: "rules"}, Attrs: audit.Attrs{Digest: hash},
	}
	if outcome == audit.Failure {
		e.Reason = audit.InvalidRules
	}
	if err := b.cfg.Audit.Append(ctx, e); err != nil {
		return &bailey.Error{Kind: bailey.Unavailable, Msg: "the audit journal cannot be written, so the rules stay as they are", Cause: err}
	}
	return nil
}

var fileName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,60}\.toml$`)

// Shadow compiles files on top of the built-in and configured rules and puts
// the result on trial. It replaces a trial that runs, and survives a restart.
// Invalid, with every problem, when the files do not compile.
func (b *Book) Shadow(ctx context.Context, actor bailey.Actor, files map[string]string) (Status, error) {
	if !policy.Decide(actor, policy.FilterManage, policy.Thing{}) {
		return Status{}, errDenied
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(files) == 0 || len(files) > maxFiles {
		return Status{}, bailey.Errorf(bailey.Invalid, "a trial takes 1 to %d rule files", maxFiles)
	}
	for name := range files {
		if !fileName.MatchString(name) {
			return Status{}, bailey.Errorf(bailey.Invalid, "%q is not a rule file's name, such as team.toml", name)
		}
	}
	dir := filepath.Join(b.cfg.Dir, trial)
	fresh := dir + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.MkdirAll(fresh, 0o700)); err != nil {
		return Status{}, fmt.Errorf("shadow rules: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(fresh, name), []byte(files[name]), 0o600); err != nil {
			return Status{}, fmt.Errorf("shadow rules: %w", err)
		}
	}
	dirs, _ := b.cfg.Settings()
	set, _, err := load(append(slices.Clone(dirs), fresh), b.cfg.Key)
	if err != nil {
		return Status{}, errors.Join(err, os.RemoveAll(fresh))
	}
	err = b.recorded(ctx, actor, audit.RulesShadow, set.Hash(), func() error {
		if err := errors.Join(os.RemoveAll(dir), os.Rename(fresh, dir)); err != nil {
			return err
		}
		b.begin(set)
		return nil
	})
	return b.status(), err
}

// begin puts a set on trial. The caller holds mu.
func (b *Book) begin(set *inspect.Set) {
	b.counting.Lock()
	b.counts = map[string]*count{}
	b.counting.Unlock()
	b.trial = &Trial{Hash: set.Hash(), Since: time.Now()}
	b.cfg.Filter.Shadow(set)
}

// resume takes up a trial from before a restart.
func (b *Book) resume(ctx context.Context) {
	b.mu.Lock()
	defer b.mu.Unlock()
	dir := filepath.Join(b.cfg.Dir, trial)
	if _, err := os.Stat(dir); err != nil {
		return
	}
	dirs, _ := b.cfg.Settings()
	set, _, err := load(append(slices.Clone(dirs), dir), b.cfg.Key)
	if err != nil {
		b.cfg.Log.WarnContext(ctx, "rules on trial not taken up again", slog.String("error", err.Error()))
		return
	}
	b.begin(set)
}

// Unshadow ends a trial without a change.
func (b *Book) Unshadow(ctx context.Context, actor bailey.Actor) error {
	if !policy.Decide(actor, policy.FilterManage, policy.Thing{}) {
		return errDenied
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.trial == nil {
		return errNoTrial
	}
	return b.recorded(ctx, actor, audit.RulesShadow, "", func() error {
		b.trial = nil
		b.cfg.Filter.Shadow(nil)
		return os.RemoveAll(filepath.Join(b.cfg.Dir, trial))
	})
}

var errNoTrial = &bailey.Error{Kind: bailey.Conflict, Msg: "no rules are on trial", Hint: "begin with bailey rules shadow FILE…"}

// Activate puts the set on trial in force. What was in force can be brought
// back by Rollback.
func (b *Book) Activate(ctx context.Context, actor bailey.Actor) (Status, error) {
	if !policy.Decide(actor, policy.FilterManage, policy.Thing{}) {
		return Status{}, errDenied
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.trial == nil {
		return Status{}, errNoTrial
	}
	_, set := b.cfg.Filter.Sets()
	err := b.recorded(ctx, actor, audit.RulesActivate, set.Hash(), func() error {
		if err := b.rotate(trial); err != nil {
			return err
		}
		b.trial = nil
		b.cfg.Filter.Activate(set)
		return nil
	})
	return b.status(), err
}

// Rollback puts the set in force that was in force before; asked twice, it
// changes back. Conflict when there was none since the server started.
func (b *Book) Rollback(ctx context.Context, actor bailey.Actor) (Status, error) {
	if !policy.Decide(actor, policy.FilterManage, policy.Thing{}) {
		return Status{}, errDenied
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := os.Stat(filepath.Join(b.cfg.Dir, before)); err != nil {
		return Status{}, &bailey.Error{Kind: bailey.Conflict, Msg: "there are no rules to go back to", Hint: "files in the folders of filter.rule_dirs are changed there"}
	}
	dirs, _ := b.cfg.Settings()
	set, _, err := load(append(slices.Clone(dirs), filepath.Join(b.cfg.Dir, before)), b.cfg.Key)
	if err != nil {
		return Status{}, err
	}
	err = b.recorded(ctx, actor, audit.RulesRollback, set.Hash(), func() error {
		if err := b.rotate(before); err != nil {
			return err
		}
		b.cfg.Filter.Activate(set)
		return nil
	})
	return b.status(), err
}

// rotate makes a folder the one in force, and the one in force the one before.
func (b *Book) rotate(next string) error {
	path := func(name string) string { return filepath.Join(b.cfg.Dir, name) }
	if err := os.MkdirAll(path(own), 0o700); err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(path("next")), os.Rename(path(next), path("next")), os.RemoveAll(path(before)),
		os.Rename(path(own), path(before)), os.Rename(path("next"), path(own))); err != nil {
		return err
	}
	_, b.seen, _ = read(b.dirs())
	b.looked = b.seen
	return nil
}

// Note counts a finding while a trial runs. It is told of every finding.
func (b *Book) Note(f filter.Finding) {
	if f.Rule == "" {
		return
	}
	if _, shadow := b.cfg.Filter.Sets(); shadow == nil {
		return
	}
	b.counting.Lock()
	defer b.counting.Unlock()
	c := b.counts[f.Rule]
	if c == nil {
		c = &count{}
		b.counts[f.Rule] = c
	}
	if f.Shadow {
		c.trial++
	} else {
		c.active++
	}
}

// Status returns what is in force. Denied for whoever may not read the
// configuration.
func (b *Book) Status(actor bailey.Actor) (Status, error) {
	if !policy.Decide(actor, policy.ConfigRead, policy.Thing{}) {
		return Status{}, &bailey.Error{Kind: bailey.Denied, Msg: "only administrators and auditors see the filter's rules"}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status(), nil
}

func (b *Book) status() Status {
	active, _ := b.cfg.Filter.Sets()
	s := Status{Hash: active.Hash(), Rules: len(active.Rules())}
	if _, err := os.Stat(filepath.Join(b.cfg.Dir, before)); err == nil {
		s.Previous = true
	}
	if b.problem != nil {
		s.Problem = b.problem.Error()
	}
	if b.trial == nil {
		return s
	}
	t := *b.trial
	s.Trial = &t
	b.counting.Lock()
	defer b.counting.Unlock()
	for _, rule := range slices.Sorted(maps.Keys(b.counts)) {
		c := b.counts[rule]
		s.Differences = append(s.Differences, Difference{rule, c.active, c.trial})
	}
	return s
}

// Rules returns the rules in force.
func (b *Book) Rules(actor bailey.Actor) ([]inspect.Rule, error) {
	if !policy.Decide(actor, policy.ConfigRead, policy.Thing{}) {
		return nil, &bailey.Error{Kind: bailey.Denied, Msg: "only administrators and auditors see the filter's rules"}
	}
	active, _ := b.cfg.Filter.Sets()
	return active.Rules(), nil
}
